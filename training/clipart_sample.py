"""Choose the drawings that come with the package, so that the explorer can be tried before the collection is built.

    python training/clipart_sample.py --output hf_msae/clipart/sample.parquet

Half of them are by authors that the clip art's models were trained on, half by others. At most 12 are by one author.
"""

from __future__ import annotations

import argparse
import io
from collections import Counter
from pathlib import Path

import PIL.Image
from datasets import Dataset, Image, concatenate_datasets

from hf_msae.clipart import load_clipart

MOST_OF_ONE_AUTHOR = 12


def choose(split: str, number: int, seed: int) -> Dataset:
    """Choose drawings with at least one tag at random, so many of each author at most."""
    drawings = load_clipart(split).shuffle(seed=seed)
    drawn, chosen = Counter(), []
    for row, (author, tags) in enumerate(zip(drawings["author"], drawings["tags"], strict=True)):
        if tags and drawn[author] < MOST_OF_ONE_AUTHOR and len(chosen) < number:
            drawn[author] += 1
            chosen.append(row)
    drawings = drawings.select(chosen)
    images = [{"bytes": as_webp(image), "path": None} for image in drawings["image"]]
    drawings = drawings.remove_columns("image").add_column("image", images, feature=Image())
    return drawings.add_column("split", [split] * len(chosen))


def as_webp(image: PIL.Image.Image) -> bytes:
    """Compress an image without loss, to half of what PNG takes."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="Parquet file to write.")
    parser.add_argument("--number", type=int, default=300, help="How many drawings.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    halves = [choose(split, arguments.number // 2, arguments.seed) for split in ("train", "test")]
    sample = concatenate_datasets(halves)
    sample.to_parquet(arguments.output)
    print(f"{len(sample)} drawings by {len(set(sample['author']))} authors, {arguments.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
