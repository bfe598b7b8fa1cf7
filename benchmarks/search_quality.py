"""What searches by named concepts find, compared with the cosine of embeddings, and what approximate queries miss.

    python benchmarks/search_quality.py --msae outputs/quickstart outputs/clipart-42

Latents are named from some pictures, and other pictures are searched, as in benchmarks/worlds.py. Only words with a
validated name are asked for. What is found is right if the words are true of a picture: the content of a scene, or the
tags of a drawing, which are incomplete. Every query is asked with the concepts' activations
(`ConceptIndex.by_concepts`), with the cosine of the words' text embeddings, and with the sum of both scores after each
is divided by its standard deviation. A query with several words adds their unit embeddings, and subtracts them for a
word to be excluded. The table has the mean average precision, the precision among the first ten, and the share of
pictures that are right.

"Like this, but without a" starts from pictures of which both a and b are true. What is found is right if b is true and
a is not. The concept's latent is set to zero (`ConceptIndex.by_edit`); with texts, the component along a's embedding,
minus the mean embedding of all words, is removed from the picture's.

Last, the recall of approximate queries among the embeddings that an MSAE was trained on, by held-out pictures and by
their captions or titles. It needs faiss: pip install 'hf_msae[ann]'.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score
from torch.nn.functional import normalize
from worlds import MIN_PICTURES, World, means_of, print_means, uses_of

from hf_msae import MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.embeddings import load_embeddings
from hf_msae.search import ConceptIndex


def queries(
    world: World, words: list[str], most: int, rng: np.random.Generator
) -> Iterator[tuple[str, dict, np.ndarray]]:
    """Kind of query, weights by word, and which of the searched pictures are right."""
    truth = world.parts()[1][1]
    true = {word: truth[:, world.words.index(word)] for word in words}
    for word in words:
        yield "a", {word: 1.0}, true[word]
    pairs = [(a, b) for a, b in permutations(words, 2) if (true[a] & true[b]).sum() >= MIN_PICTURES]
    for place in rng.permutation(len(pairs))[:most]:
        a, b = pairs[place]
        yield "a and b", {a: 1.0, b: 1.0}, true[a] & true[b]
        if (true[a] & ~true[b]).sum() >= MIN_PICTURES:
            yield "a, not b", {a: 1.0, b: -1.0}, true[a] & ~true[b]


def precision(right: np.ndarray, scores: np.ndarray, top: int = 10) -> float:
    """Share of right pictures among the best."""
    return float(right[np.argsort(-scores, kind="stable")[:top]].mean())


def scores_of(index: ConceptIndex, weights: dict) -> np.ndarray:
    """Scores of all pictures."""
    return index.by_concepts(weights, top=len(index)).sort_values("row")["score"].to_numpy()


def by_words(index: ConceptIndex, world: World, words: list[str], most: int) -> Iterator[dict]:
    """A record for each query and way to ask it."""
    text = dict(zip(world.words, normalize(world.embeds, dim=-1), strict=False))
    for kind, weights, right in queries(world, words, most, np.random.default_rng(0)):
        found = scores_of(index, weights)
        named = index.concepts.validated().groupby("name")["latent"]
        every = {latent: weight for word, weight in weights.items() for latent in named.get_group(word)}
        query = sum(weight * text[word] for word, weight in weights.items())
        cosine = index.by_embedding(query, top=len(index)).sort_values("row")["similarity"].to_numpy()
        both = found / max(found.std(), 1e-9) + cosine / cosine.std()
        ways = {"concepts": found, "all latents": scores_of(index, every), "texts": cosine, "both": both}
        for way, scores in ways.items():
            yield {
                "world": world.name,
                "query": kind,
                "by": way,
                "average precision": average_precision_score(right, scores),
                "precision of ten": precision(right, scores),
                "share of right pictures": right.mean(),
            }


def by_edits(index: ConceptIndex, world: World, words: list[str], most: int) -> Iterator[dict]:
    """A record for each picture to start from and way to change it."""
    pictures, truth = world.parts()[1]
    mean = world.embeds.mean(dim=0)
    rng = np.random.default_rng(0)
    starts = [
        (row, a, b)
        for a, b in permutations(words, 2)
        for row in np.flatnonzero(truth[:, world.words.index(a)] & truth[:, world.words.index(b)])
    ]
    for place in rng.permutation(len(starts))[:most]:
        row, a, b = starts[place]
        x = pictures[row]
        right = truth[:, world.words.index(b)] & ~truth[:, world.words.index(a)]
        direction = normalize(world.embeds[world.words.index(a)] - mean, dim=0)
        edited = index.by_edit(x, {a: 0.0}, top=10)
        ways = {
            "nothing": index.by_embedding(x)["row"],
            "concepts": edited.sort_values("rank")["row"][:10],
            "texts": index.by_embedding(x - (x @ direction) * direction)["row"],
        }
        for way, rows in ways.items():
            yield {
                "world": world.name,
                "query": "like this, but without a",
                "by": way,
                "precision of ten": right[rows].mean(),
                "share of right pictures": right.mean(),
            }


def recall(folder: str, backbone: Backbone, number: int) -> Iterator[dict]:
    """Recall of approximate queries by pictures and by their captions or titles."""
    test = load_embeddings(Path(folder) / "embeddings" / "test")
    texts = test.dataset["caption" if "caption" in test.dataset.column_names else "title"][:number]
    asked = {"pictures": test[:number], "texts": backbone.text_embeds(texts)}
    msae = MSAEModel.from_pretrained(folder)
    trained_on = load_embeddings(Path(folder) / "embeddings" / "train")
    with tempfile.TemporaryDirectory() as scratch:
        index = ConceptIndex.build(scratch, msae, trained_on, progress=False, approximate=True)
        first = index.approximate.probes
        for probes in (first, 2 * first):
            index.approximate.probes = probes
            for what, embeddings in asked.items():
                rows = [(index.by_embedding(x), index.by_embedding(x, approximate=True)) for x in embeddings]
                shares = [len(set(exact["row"]) & set(some["row"])) / len(exact) for exact, some in rows]
                yield {
                    "world": backbone.name_or_path,
                    "rows": len(index),
                    "lists": index.approximate.metadata.lists,
                    "probes": probes,
                    "asked by": what,
                    "recall@10": float(np.mean(shares)),
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--msae", nargs="+", default=["outputs/quickstart"], help="Folders of models, with their embeddings."
    )
    parser.add_argument("--queries", type=int, default=200, help="Largest number of queries of a kind.")
    arguments = parser.parse_args()
    records, recalls = [], []
    for folder in arguments.msae:
        msae = MSAEModel.from_pretrained(folder).eval()
        for world in uses_of(folder):
            table = world.names(msae)
            words = world.usable(table)
            with tempfile.TemporaryDirectory() as scratch:
                searched = load_embeddings(world.parts()[1][0])
                index = ConceptIndex.build(scratch, msae, searched, concepts=table, progress=False)
                for found in (by_words, by_edits):
                    records += means_of(found(index, world, words, arguments.queries), ["world", "query", "by"])
        recalls += recall(folder, Backbone.from_pretrained(world.backbone), arguments.queries)
    print_means(records, ["world", "query", "by"])
    print_means(recalls, ["world", "rows", "lists", "probes", "asked by"])


if __name__ == "__main__":
    main()
