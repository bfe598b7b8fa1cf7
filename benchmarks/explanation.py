"""Are the names that an explanation of a picture shows true of it? Compared with the nearest texts.

    python benchmarks/explanation.py --msae outputs/quickstart outputs/quickstart-43 outputs/clipart-42

Latents are named from some pictures, and other pictures judge, as in benchmarks/worlds.py. An explanation shows the
ten strongest concepts of a picture (`explain_embedding`); those with a validated name, whose truth is known, count.
The table shows how many different names a picture gets, the share of shown names that are true (precision) and the
share of true words that are shown, among the words with a validated name (recall). "texts" shows as many words for
each picture, with no MSAE: those whose cosine with the picture is most standard deviations above its mean over the
pictures that names are made from. "chance" is the share of true words among all. Tags of drawings are incomplete, so
some names that count as wrong are right.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch.nn.functional import normalize
from worlds import World, print_means, uses_of

from hf_msae import MSAEModel

SHOWN = 10
"""Concepts of an explanation, its default."""


@torch.no_grad()
def record(world: World, msae: MSAEModel) -> dict:
    """The figures of a model on a world."""
    table = world.names(msae)
    words = world.usable(table)
    columns = [world.words.index(word) for word in words]
    (first, _), (last, truth) = world.parts()
    truth = truth[:, columns]
    named = table.validated()
    values, strongest = msae.encode_topk(last, SHOWN)
    active = torch.zeros(len(last), msae.config.num_latents, dtype=torch.bool).scatter(1, strongest, values > 0)
    shown = np.stack(
        [active[:, named.loc[named["name"] == word, "latent"].tolist()].any(1).numpy() for word in words], 1
    )
    texts = normalize(world.embeds[columns], dim=-1)
    before, now = (normalize(x, dim=-1) @ texts.T for x in (first, last))
    rank = (-((now - before.mean(0)) / before.std(0))).argsort(1).argsort(1).numpy()
    nearest = rank < shown.sum(axis=1, keepdims=True)
    return {
        "world": world.name,
        "words": len(words),
        "names per picture": shown.sum(axis=1).mean(),
        "pictures without": (~shown.any(axis=1)).mean(),
        "precision": truth[shown].mean(),
        "precision of texts": truth[nearest].mean(),
        "chance": truth.mean(),
        "recall": shown[truth].mean(),
        "recall of texts": nearest[truth].mean(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--msae", nargs="+", default=["outputs/quickstart"], help="Folders of models, with their embeddings."
    )
    records = []
    for folder in parser.parse_args().msae:
        msae = MSAEModel.from_pretrained(folder).eval()
        records += [record(world, msae) for world in uses_of(folder)]
    print_means(records, ["world"])


if __name__ == "__main__":
    main()
