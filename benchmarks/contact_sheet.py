"""Draw the strongest and the weakest validated names of the clip art's MSAE, with the drawings that activate them.

    python benchmarks/contact_sheet.py --msae outputs/clipart-42 --output docs/images/clipart_names.png

Names come from one half of the training drawings, as in benchmarks/naming.py, and the drawings are those of the other
half that activate the latents most. Each word is shown once, for its strongest latent. Drawings that do not have the
word among their tags are marked; tags are incomplete.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from worlds import clipart

from hf_msae import MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.clipart import load_clipart
from hf_msae.concepts import name_latents
from hf_msae.plotting import plot_contact_sheet, save_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msae", required=True, help="Folder that train_clipart_msae.py wrote.")
    parser.add_argument("--output", default="clipart_names.png", help="PNG or PDF file of the figure.")
    parser.add_argument("--rows", type=int, default=8, help="Number of the strongest names, and of the weakest.")
    parser.add_argument("--columns", type=int, default=8, help="Number of drawings for each name.")
    arguments = parser.parse_args()
    world = clipart(arguments.msae, ("train",), "clipart")
    msae = MSAEModel.from_pretrained(arguments.msae).eval()
    vocabulary = world.vocabulary([])
    table = name_latents(
        msae, vocabulary, vocabulary.embed(Backbone.from_pretrained("clipart")), world.pictures[: world.half]
    )
    names = table.validated().sort_values("zero_shot_auroc_low", ascending=False).drop_duplicates("name")
    shown = names.iloc[sorted({*range(arguments.rows), *range(-arguments.rows, 0)}, key=lambda i: i % len(names))]
    shown = shown.drop_duplicates("latent")
    drawings = load_clipart("train")
    order = np.random.default_rng(0).permutation(len(drawings))  # of worlds.py
    judging = order[world.half :]
    with torch.no_grad():
        codes = msae.encode(world.pictures[world.half :])[:, shown["latent"].to_numpy()].numpy()
    rows = []
    for name, low, activations in zip(shown["name"], shown["zero_shot_auroc_low"], codes.T, strict=True):
        chosen = judging[np.argsort(-activations)[: arguments.columns]]
        found = drawings.select(chosen)
        rows.append((f"{name}\nAUROC >= {low:.2f}", found["image"], [name in tags for tags in found["tags"]]))
    save_figure(plot_contact_sheet(rows), arguments.output)
    print(f"{len(names)} different validated names; {len(rows)} of them in {arguments.output}")


if __name__ == "__main__":
    main()
