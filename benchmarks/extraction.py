"""How much time extraction adds to decoding the pictures and running the backbone.

    python benchmarks/extraction.py                 # a full-size CLIP ViT-B/16 with random weights, 256 JPEG pictures
    python benchmarks/extraction.py --device cuda --rows 8192 --batch_size 256 --num_workers 8

`extract_activations` takes turns with the bare work in the same process: decoding and preprocessing the same pictures
and running the same model on the same batches. The target is at most 5% more time. Workers decode while the backbone
runs, so with them extraction can be faster than the bare work.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as PillowImage
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hf_msae._utils.images import to_rgb
from hf_msae.backbones import Backbone, prepare_images
from hf_msae.backbones.extraction import extract_activations


def make_backbone(device: str) -> Backbone:
    """CLIP ViT-B/16 as in openai/clip-vit-base-patch16, without its weights."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(patch_size=16, projection_dim=512)  # 768 wide, 12 blocks, 224 pixels
    # With a commit, as for models from the Hub. Without one, extraction would hash the weights once per run.
    return Backbone(CLIPVisionModelWithProjection(config).to(device), CLIPImageProcessorPil(), "clip", "0" * 40)


def make_pictures(rows: int) -> Dataset:
    """JPEG files about as large and as smooth as photographs, with a label."""
    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(rows):
        small = PillowImage.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((640, 480), PillowImage.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        encoded.append({"bytes": file.getvalue(), "path": None})
    features = Features({"image": Image(), "label": Value("int64")})
    return Dataset.from_dict({"image": encoded, "label": list(range(rows))}, features=features)


def bare(backbone: Backbone, pictures: Dataset, batch_size: int) -> tuple[float, float]:
    """Seconds spent on decoding and preprocessing, and seconds spent on forward passes."""
    stored = pictures.cast_column("image", Image(decode=False))
    decoding = forward = 0.0
    for start in range(0, len(pictures), batch_size):
        begun = time.perf_counter()
        files = stored[start : start + batch_size]["image"]
        inputs = prepare_images(
            backbone.image_processor, [to_rgb(PillowImage.open(io.BytesIO(file["bytes"]))) for file in files]
        )
        decoded = time.perf_counter()
        backbone.embed_pixels(inputs).cpu()
        decoding, forward = decoding + decoded - begun, forward + time.perf_counter() - decoded
    return decoding, forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="Device of the backbone.")
    parser.add_argument("--rows", type=int, default=256, help="Number of pictures.")
    parser.add_argument("--batch_size", type=int, default=32, help="Number of pictures per batch.")
    parser.add_argument(
        "--num_workers", type=int, nargs="+", default=[0, 1], help="Numbers of worker processes to measure."
    )
    parser.add_argument("--rounds", type=int, default=3, help="Number of times that each is measured.")
    arguments = parser.parse_args()
    backbone, pictures = make_backbone(arguments.device), make_pictures(arguments.rows)
    bare(backbone, pictures.select(range(arguments.batch_size)), arguments.batch_size)  # warm-up
    ratios: dict[int, list[float]] = {workers: [] for workers in dict.fromkeys(arguments.num_workers)}
    for _ in range(arguments.rounds):
        decoding, forward = bare(backbone, pictures, arguments.batch_size)
        print(
            f"bare work: decoding {decoding:.1f} s, forward {forward:.1f} s, "
            f"{arguments.rows / (decoding + forward):.1f} rows/s"
        )
        for workers, found in ratios.items():
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                extract_activations(
                    backbone, pictures, Path(folder) / "out", batch_size=arguments.batch_size, num_workers=workers,
                    rows_per_shard=max(arguments.batch_size, arguments.rows // 4), progress=False,
                )  # fmt: skip
                seconds = time.perf_counter() - begun
            found.append(seconds / (decoding + forward))
    for workers, found in ratios.items():
        spread = f"({min(found):.3f} to {max(found):.3f})"
        print(f"extraction with {workers} workers / bare work: {statistics.median(found):.3f} {spread}")


if __name__ == "__main__":
    main()
