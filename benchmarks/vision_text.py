"""What edits by name do to zero-shot colors, and how well latents of patch tokens detect what is in a picture.

    make quickstart
    python benchmarks/vision_text.py --msae outputs/quickstart --figure docs/images/patch_map.png

Edits: for each color, held-out scenes with a single object of that color are classified zero-shot among all eleven
colors. The table shows the mean probability of the color before and after its latent is set to zero, and the likeliest
other color after the edit with its probability.

Patch maps: an MSAE with 512 latents is trained on the patch tokens after a block. For each concept, the latent whose
largest activation in a picture detects the concept best is chosen on the training scenes, and its AUROC is measured on
held-out scenes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments, VisionTextMSAE
from hf_msae.backbones import Backbone
from hf_msae.backbones.extraction import extract_activations
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import progressive_ks
from hf_msae.plotting import save_figure
from hf_msae.scenes import load_scenes
from hf_msae.scenes.world import COLOURS, GROUPS


def edits(msae: str, num_scenes: int) -> pd.DataFrame:
    """One row per color, with probabilities if a latent is named after it."""
    model = VisionTextMSAE.from_pretrained(msae)
    texts = torch.nn.functional.normalize(model.text_embeds([f"a {color} shape" for color in COLOURS]), dim=-1)
    scale = model.backbone.model.logit_scale.detach().exp()
    scenes = load_scenes("test", num_scenes)
    columns = scenes.select_columns(["one", *COLOURS]).to_pandas()

    def probabilities(rows: np.ndarray) -> np.ndarray:
        images = torch.nn.functional.normalize(model.image_embeds(scenes[rows]["image"]), dim=-1)
        return (scale * images @ texts.T).softmax(dim=-1).mean(dim=0).cpu().numpy()

    records = []
    for place, color in enumerate(COLOURS):
        rows = np.flatnonzero(columns["one"] & columns[color])
        if color not in set(model.concepts.frame["name"]):
            records.append({"color": color, "scenes": len(rows)})
            continue
        before = probabilities(rows)
        with model.edit({color: 0.0}):
            after = probabilities(rows)
        others = np.delete(np.arange(len(COLOURS)), place)
        likeliest = others[after[others].argmax()]
        records.append(
            {
                "color": color,
                "scenes": len(rows),
                "probability before": before[place],
                "probability after": after[place],
                "likeliest other color": COLOURS[likeliest],
                "its probability after": after[likeliest],
            }
        )
    return pd.DataFrame(records)


def patch_maps(hook_point: str, num_train: int, num_test: int, figure: str | None) -> pd.DataFrame:
    """One row per concept, best first."""
    backbone, train, test = (
        Backbone.from_pretrained("scenes"),
        load_scenes("train", num_train),
        load_scenes("test", num_test),
    )
    with tempfile.TemporaryDirectory() as scratch:
        tokens = {}
        for name, data in (("train", train), ("test", test)):
            folder = extract_activations(
                backbone, data, Path(scratch) / name, hook_points=hook_point, tokens="patches"
            )
            tokens[name] = load_embeddings(folder, hook_point=hook_point)
        width = tokens["train"].width
        config = MSAEConfig(  # the quickstart's recipe
            d_in=width,
            num_latents=512,
            nesting_ks=progressive_ks(512, smallest=width // 8),
            nesting_weights="reverse",
            hook_point=hook_point,
            base_model_name_or_path=backbone.name_or_path,
        )
        arguments = MSAETrainingArguments(
            output_dir=str(Path(scratch) / "msae"),
            max_steps=500,
            per_device_train_batch_size=1024,
            learning_rate=1e-2,
            save_strategy="no",
            use_cpu=True,
        )
        msae = MSAEModel(config)
        MSAETrainer(msae, arguments, tokens["train"], tokens["test"]).train()
        msae.eval()
        strongest = {name: largest_activations(msae, data) for name, data in tokens.items()}
    concepts = [*COLOURS, *GROUPS["shape"], *GROUPS["background"]]
    truth = {name: data.select_columns(concepts).to_pandas() for name, data in (("train", train), ("test", test))}
    records = []
    for concept in concepts:
        of_latents = [auroc(truth["train"][concept], strongest["train"][:, latent]) for latent in range(512)]
        latent = int(np.argmax(of_latents))
        held_out = auroc(truth["test"][concept], strongest["test"][:, latent])
        records.append({"concept": concept, "latent": latent, "AUROC": held_out})
    table = pd.DataFrame(records).sort_values("AUROC", ascending=False, ignore_index=True)
    if figure is not None:
        latent = int(table.set_index("concept").loc["red", "latent"])
        rows = np.flatnonzero(truth["test"]["red"] & test.select_columns(["three"]).to_pandas()["three"])
        picture = test[int(rows[0])]["image"]
        model = VisionTextMSAE(backbone, msae)
        save_figure(model.plot_patch_map(picture, latent, f"latent {latent}: red"), figure)
    return table


def auroc(truth: pd.Series, score: np.ndarray) -> float:
    return float(roc_auc_score(truth, score))


@torch.no_grad()
def largest_activations(msae: MSAEModel, tokens) -> np.ndarray:
    """Largest activation of each latent over the patches of each picture, `(pictures, latents)`."""
    found = np.zeros((len(tokens.dataset), msae.config.num_latents), dtype=np.float32)
    rows, first = tokens.dataset_rows(), 0
    for batch in tokens.batches(8192):
        np.maximum.at(found, rows[first : first + len(batch)], msae.encode(batch).numpy())
        first += len(batch)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--msae", help="Folder of an MSAE of the scenes' SigLIP with names. Without it, no edits are measured."
    )
    parser.add_argument(
        "--num_scenes", type=int, default=2000, help="Number of held-out scenes to search for single objects."
    )
    parser.add_argument("--hook_point", default="vision.layers.2", help="Hook point of the patch tokens.")
    parser.add_argument("--num_train", type=int, default=2000, help="Number of scenes to train the MSAE of tokens on.")
    parser.add_argument("--num_test", type=int, default=1000, help="Number of scenes to test the MSAE of tokens on.")
    parser.add_argument("--figure", help="Image file to write a patch map of the latent for red to.")
    arguments = parser.parse_args()
    if arguments.msae:
        print(edits(arguments.msae, arguments.num_scenes).to_string(index=False, float_format="{:.3f}".format))
    table = patch_maps(arguments.hook_point, arguments.num_train, arguments.num_test, arguments.figure)
    print(f"\n{table.to_string(index=False, float_format='{:.3f}'.format)}")
    print(f"\nmean AUROC {table['AUROC'].mean():.3f} over {len(table)} concepts")


if __name__ == "__main__":
    main()
