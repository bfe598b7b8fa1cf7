"""Does setting a named latent to zero remove what it means, and nothing else? Compared with projections.

    python benchmarks/editing.py --msae outputs/quickstart outputs/clipart-42

Latents are named from some pictures, and other pictures judge, as in benchmarks/worlds.py. Words with a validated
name are removed, one at a time, from the embeddings of the pictures that judge:

- latent: the best latent of that name is set to zero (`edit_embeddings`, as `VisionTextMSAE.edit` does).
- latents: all latents with that validated name are set to zero.
- text: the component along the word's text embedding, minus the mean of all words', is removed.
- difference: the component along the difference between the mean of the pictures that have the word and that of the
  others is removed. It needs labels, those of the pictures that names are made from.
- random: the component along a random direction is removed.

The columns are the AUROC with which the word is still recognized by the cosine with its text embedding, by a probe of
the unedited pictures, and by a probe that is trained again on edited ones (0.5: it is gone); the mean absolute change
of the AUROC of probes of all other words; and the length of the edit, relative to the embedding's distance from the
mean. The tags of drawings, by which AUROCs are judged, are incomplete.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import normalize
from worlds import MIN_PICTURES, World, means_of, print_means, uses_of

from hf_msae import MSAEModel
from hf_msae.concepts import ConceptTable
from hf_msae.concepts.editing import LatentEdit, edit_embeddings
from hf_msae.metrics import LinearClassifier

REGULARIZATION = 100.0
"""Of the probes; the one that cross-validation chooses most often on both worlds."""


def probe(pictures: torch.Tensor, truth: np.ndarray) -> torch.Tensor:
    """Direction `(width,)` of a linear probe, to be used with unit embeddings."""
    return (
        LinearClassifier.fit(pictures, truth.astype(int), ["no", "yes"], REGULARIZATION).weight.diff(dim=0)[0].float()
    )


def auroc(pictures: torch.Tensor, direction: torch.Tensor, truth: np.ndarray) -> float:
    return float(roc_auc_score(truth, (normalize(pictures, dim=-1) @ direction).numpy()))


def removals(
    world: World, msae: MSAEModel, table: ConceptTable, word: str
) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The ways to remove a word from embeddings."""
    (pictures, truth), _ = world.parts()
    has, mean = truth[:, world.words.index(word)], pictures.mean(dim=0)
    named = table.validated()

    def zero(latents: list[int]) -> Callable[[torch.Tensor], torch.Tensor]:
        edit = LatentEdit.of(dict.fromkeys(latents, 0.0), msae.config.num_latents)

        def apply(x: torch.Tensor) -> torch.Tensor:
            edited = edit_embeddings(msae, x, [edit])
            return x if edited is None else edited

        return apply

    def project(direction: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        unit = normalize(direction, dim=0)
        return lambda x: x - ((x - mean) @ unit)[:, None] * unit

    random = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    return {
        "nothing": lambda x: x,
        "latent": zero([table.latent_of(word)]),
        "latents": zero(named.loc[named["name"] == word, "latent"].tolist()),
        "text": project(world.embeds[world.words.index(word)] - world.embeds.mean(dim=0)),
        "difference": project(pictures[has].mean(dim=0) - pictures[~has].mean(dim=0)),
        "random": project(random),
    }


def records(world: World, msae: MSAEModel, most: int) -> Iterator[dict]:
    """One record for each word and way to remove it."""
    (first, truth_of_first), (last, truth) = world.parts()
    table = world.names(msae)
    enough = np.flatnonzero(np.minimum(truth_of_first.sum(axis=0), truth.sum(axis=0)) >= MIN_PICTURES)
    probes = {place: probe(first, truth_of_first[:, place]) for place in enough}
    before = {place: auroc(last, direction, truth[:, place]) for place, direction in probes.items()}
    for word in np.random.default_rng(0).permutation(world.usable(table))[:most].tolist():
        own = world.words.index(word)
        for way, remove in removals(world, msae, table, word).items():
            edited = remove(last)
            again = probe(remove(first), truth_of_first[:, own])
            changes = [abs(auroc(edited, probes[i], truth[:, i]) - before[i]) for i in enough if i != own]
            yield {
                "world": world.name,
                "removed": way,
                "by text": auroc(edited, normalize(world.embeds[own], dim=0), truth[:, own]),
                "by the probe": auroc(edited, probes[own], truth[:, own]),
                "by a new probe": auroc(edited, again, truth[:, own]),
                "change for other words": float(np.mean(changes)),
                "length of the edit": float(
                    ((edited - last).norm(dim=1) / (last - first.mean(dim=0)).norm(dim=1)).mean()
                ),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--msae", nargs="+", default=["outputs/quickstart"], help="Folders of models, with their embeddings."
    )
    parser.add_argument("--words", type=int, default=20, help="Largest number of words to remove, drawn at random.")
    arguments = parser.parse_args()
    means = []
    for folder in arguments.msae:
        msae = MSAEModel.from_pretrained(folder).eval()
        for world in uses_of(folder):
            means += means_of(records(world, msae, arguments.words), ["world", "removed"])
    print_means(means, ["world", "removed"])


if __name__ == "__main__":
    main()
