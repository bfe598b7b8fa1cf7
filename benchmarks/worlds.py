"""The worlds that names, searches and explanations are measured on: pictures, and which words are true of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import concatenate_datasets
from sklearn.metrics import roc_auc_score

from hf_msae import MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.clipart import load_clipart
from hf_msae.concepts import ConceptTable, Vocabulary, name_latents
from hf_msae.embeddings import load_embeddings
from hf_msae.scenes import CONCEPTS
from hf_msae.scenes.captions import WORDINGS

GOOD = 0.9
"""AUROC above which a latent is said to detect what a word means."""
MIN_PICTURES = 10
"""A tag on fewer of the pictures that judge is not judged."""
OTHERS = (
    "dog cat car tree river mountain apple phone chair politics music happy angry running sleeping metal glass cheese "
    "window school king queen doctor ship train airplane guitar piano violin computer internet philosophy justice "
    "winter spring summer autumn rain thunder book newspaper letter number equation theory engine wheel bicycle horse "
    "cow sheep pig lion tiger bear wolf fox rabbit mouse kitchen hospital lawyer money market election war peace "
    "language grammar poem novel actor film camera sugar salt"
).split()


@dataclass(frozen=True)
class World:
    """Embedded pictures with their truth, cut into a half that names are made from and a half that judges them.

    Attributes:
        name: Name of the world, and of the pictures where there are several kinds.
        backbone: Name of the backbone.
        pictures: Embeddings `(pictures, width)`, in random order.
        truth: Which word is true of which picture `(pictures, words)`.
        words: Words whose truth is known, most frequent first where frequencies are known.
        others: Words that are true of no picture.
        templates: Templates of the vocabulary.
        half: Number of the first pictures, usually half of them, which names are made from. The others judge.
    """

    name: str
    backbone: str
    pictures: torch.Tensor
    truth: np.ndarray
    words: tuple[str, ...]
    others: tuple[str, ...]
    templates: tuple[str, ...]
    half: int

    def parts(self) -> tuple[tuple[torch.Tensor, np.ndarray], tuple[torch.Tensor, np.ndarray]]:
        """Pictures and truth that names (and probes) are made from, and those that judge."""
        first, last = slice(self.half), slice(self.half, None)
        return (self.pictures[first], self.truth[first]), (self.pictures[last], self.truth[last])

    @cached_property
    def embeds(self) -> torch.Tensor:
        """Text embeddings of the vocabulary, whose first words are `words`."""
        return self.vocabulary([]).embed(Backbone.from_pretrained(self.backbone))

    def names(self, msae: MSAEModel) -> ConceptTable:
        """Names of the latents, made from the first part of the pictures."""
        return name_latents(msae, self.vocabulary([]), self.embeds, self.pictures[: self.half], progress=False)

    def usable(self, table: ConceptTable) -> list[str]:
        """The words with a validated name that are true of enough pictures on both sides, and whose truth is known."""
        counts = [truth.sum(axis=0) for _, truth in self.parts()]
        enough = {word for word, *of_both in zip(self.words, *counts, strict=True) if min(of_both) >= MIN_PICTURES}
        return [name for name in table.best_validated()["name"] if name in enough]

    def judged_names(self, msae: MSAEModel) -> pd.DataFrame:
        """The validated names, and whether they are true, as judged by the other part: latent, name, true."""
        named = self.names(msae).validated()
        pictures, truth = self.parts()[1]
        with torch.no_grad():
            codes = torch.cat([msae.encode(batch).cpu() for batch in pictures.split(4096)]).numpy()
        column = {word: place for place, word in enumerate(self.words)}
        true = [
            name in column and roc_auc_score(truth[:, column[name]], codes[:, latent]) > GOOD
            for latent, name in zip(named["latent"], named["name"], strict=True)
        ]
        return named[["latent", "name"]].assign(true=np.array(true, dtype=bool))

    def vocabulary(self, more: list[str]) -> Vocabulary:
        """The words of the world, those of no picture, and `more`, which is ordered by frequency."""
        place = {word: i for i, word in enumerate(more)}
        words = dict.fromkeys([*self.words, *self.others, *more])
        words = sorted(words, key=lambda word: place.get(word, len(place)))
        return Vocabulary(words, self.templates, order="frequency" if more else None)


def scenes(folder: str) -> World:
    """The held-out scenes of a quickstart."""
    embeddings = load_embeddings(f"{folder}/embeddings/test")
    truth = embeddings.dataset.select_columns(list(CONCEPTS)).to_pandas().to_numpy(dtype=bool)
    templates = Vocabulary.of_scenes().templates
    return World("scenes", "scenes", embeddings[:], truth, CONCEPTS, tuple(OTHERS), templates, len(truth) // 2)


def captions(folder: str) -> World:
    """The captions of a quickstart's scenes: those it was trained on make names, the held-out ones judge."""
    texts = [load_embeddings(f"{folder}/embeddings/{split}").dataset["caption"][:] for split in ("train", "test")]
    embeds = Backbone.from_pretrained("scenes").text_embeds([text for part in texts for text in part])
    said = [re.compile(rf"\b(?:{'|'.join((concept, *WORDINGS[concept]))})\b") for concept in CONCEPTS]
    truth = np.array([[bool(how.search(text)) for how in said] for part in texts for text in part])
    templates = Vocabulary.of_scenes().templates
    return World("captions", "scenes", embeds, truth, CONCEPTS, tuple(OTHERS), templates, len(texts[0]))


def clipart(folder: str, splits: tuple[str, ...], name: str, judges: tuple[str, ...] = ()) -> World:
    """Drawings, whose truth is the tags of their authors.

    Args:
        folder: Folder of a model that `train_clipart_msae.py` wrote, with its embeddings.
        splits: Splits of the drawings.
        name: Name for tables.
        judges: Splits of the drawings that judge. Defaults to half of the drawings.
    """
    drawings = concatenate_datasets([load_clipart(split) for split in (*splits, *judges)])
    pictures = torch.cat([_drawings(folder, split) for split in (*splits, *judges)])
    half = sum(len(load_clipart(split)) for split in splits) if judges else len(drawings) // 2
    order = np.arange(len(drawings))
    if not judges:
        np.random.default_rng(0).shuffle(order)  # the rows are ordered by category
    tags_of = [set(tags) for tags in drawings["tags"]]
    judging = Counter(tag for i in order[half:] for tag in tags_of[i])
    words = tuple(tag for tag, count in judging.most_common() if count >= MIN_PICTURES)
    truth = np.array([[word in tags_of[i] for word in words] for i in order])
    known = {word for tags in tags_of for tag in tags for word in (tag, *tag.split())}
    others = tuple(word for word in OTHERS if word not in known)
    return World(name, "clipart", pictures[order], truth, words, others, ("{}",), half)


def _drawings(folder: str, split: str) -> torch.Tensor:
    """Embeddings of the drawings, which come before the icons in the training split."""
    return load_embeddings(Path(folder) / "embeddings" / split)[: len(load_clipart(split))]


def worlds_of(folder: str) -> list[World]:
    """The worlds of a model's folder: of the scenes or of the clip art."""
    if (Path(folder) / "embeddings" / "validation").is_dir():
        return [
            clipart(folder, ("train",), "clipart, known authors"),
            clipart(folder, ("validation", "test"), "clipart, unseen authors"),
        ]
    return [scenes(folder)]


def uses_of(folder: str) -> list[World]:
    """The worlds that names are put to use in: those of known authors are used on drawings by unseen ones, too."""
    known, *unseen = worlds_of(folder)
    if unseen:
        unseen = [clipart(folder, ("train",), "clipart, unseen authors", judges=("validation", "test"))]
    return [known, *unseen]


def means_of(records: Iterable[dict], keys: list[str]) -> list[dict]:
    """Means of numbers for each combination of the keys, with the number of records as `cases`, for one model."""
    groups = pd.DataFrame(records).groupby(keys, sort=False)
    return groups.mean(numeric_only=True).assign(cases=groups.size()).reset_index().to_dict("records")


def print_means(records: list[dict], keys: list[str]) -> None:
    """Print the means and ranges over models of what the records hold, for each combination of the keys."""
    groups = pd.DataFrame(records).groupby(keys, sort=False)
    with pd.option_context("display.width", 250, "display.max_columns", None):
        print(groups.agg(_mean_and_range).to_string(), "\n")


def _mean_and_range(values: pd.Series) -> str:
    """Such as 0.5 (0.4 to 0.6)."""
    mean, low, high = (f"{value:.3g}" for value in (values.mean(), values.min(), values.max()))
    return mean if low == high else f"{mean} ({low} to {high})"
