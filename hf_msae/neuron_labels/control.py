"""Control pictures: what a neuron's response is compared with, and concepts to start a search from that they say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers.utils import logging

from .._utils.images import ImageInput, to_rgb
from ..concepts.vocabulary import Vocabulary
from .imagers.base import image_sha256
from .neuron import Neuron, NeuronError, activations_of, features_of
from .words import concepts_among, unit_rows

if TYPE_CHECKING:
    from ..backbones import Backbone

logger = logging.get_logger(__name__)

_LEAST = 20
_BATCH = 64  # decoded at a time: photographs are large


class Control:
    """Pictures as they come, such as those of a dataset; half of them for the search, half to confirm its result.

    If pictures are given by class, each class is halved.

    Args:
        images: PIL images, paths, or a column of a dataset; or, for `paper=True`, those of each of several classes by
            name. Several hundred are enough; at least 20.
        seed: Seed of the halves.
        progress: Whether to show a progress bar.

    Raises:
        TypeError: `images` is a whole dataset.
        ValueError: There are fewer than 20 pictures, or a class has fewer than 4.
    """

    def __init__(
        self,
        images: Sequence[ImageInput] | Mapping[str, Sequence[ImageInput]],
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        if hasattr(images, "column_names"):
            raise TypeError(f"pass a column of the dataset ({', '.join(images.column_names)}), not all of it")
        self.progress = progress
        self.classes: dict[str, np.ndarray] = {}
        if isinstance(images, Mapping):
            rows: dict[str, int] = {}  # a picture may belong to several classes
            pictures: list[ImageInput] = []
            for name, members in images.items():
                if len(members) < 4:
                    raise ValueError(f"the control class {name!r} has {len(members)} pictures; at least 4 are needed")
                places = []
                for member in members:
                    is_path = isinstance(member, str | Path)
                    key = str(member) if is_path else image_sha256(to_rgb(member))
                    places.append(rows.setdefault(key, len(pictures)))
                    if places[-1] == len(pictures):
                        pictures.append(member)
                self.classes[name] = np.array(list(dict.fromkeys(places)))
            images = pictures
        self.images: Any = images
        if len(images) < _LEAST:
            raise ValueError(f"there are {len(images)} control pictures; at least {_LEAST} are needed")
        random = np.random.default_rng([seed, 0])
        is_searched = np.full(len(images), -1)
        for members in self.classes.values() or [np.arange(len(images))]:
            # Those of an earlier class have their half already; the others make up for them.
            half = (is_searched[members] == 1).sum() - (is_searched[members] == 0).sum()
            for row in random.permutation(members[is_searched[members] < 0]):
                is_searched[row] = half <= 0
                half += 1 if half <= 0 else -1
        self.search_rows, self.confirm_rows = np.flatnonzero(is_searched == 1), np.flatnonzero(is_searched == 0)
        self.hashes: set[str] = set()
        """SHA-256 of the pictures, once features were read."""
        self._features: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.images)

    @property
    def search_classes(self) -> dict[str, np.ndarray]:
        """The rows of each class that are for the search."""
        return {name: np.intersect1d(rows, self.search_rows) for name, rows in self.classes.items()}

    def picture(self, row: int) -> Image.Image:
        """Return a control picture as RGB."""
        return to_rgb(self.images[int(row)], f"control picture {row}")

    def activations(self, neuron: Neuron) -> np.ndarray:
        """Return the activations (n,) of all control pictures, float64; raise NeuronError if they say nothing."""
        found = activations_of(neuron, self.features(neuron))
        if found.min() == found.max():
            raise NeuronError(
                f"{neuron.name} gives {found[0]:g} for all {len(found)} control pictures: it is dead on them, so "
                "there is nothing to label"
            )
        return found

    def features(self, neuron: Neuron) -> np.ndarray:
        """Return the features (n, ...) of all control pictures, which neurons of one source share."""
        if neuron.source not in self._features:
            self._features[neuron.source] = self._read(neuron)
        return self._features[neuron.source]

    def _read(self, neuron: Neuron) -> np.ndarray:
        starts: Iterable[int] = range(0, len(self), _BATCH)
        parts, are_hashed = [], bool(self.hashes)
        for start in tqdm(starts, desc="control pictures", unit="batch", disable=not self.progress):
            pictures = [self.picture(row) for row in range(start, min(start + _BATCH, len(self)))]
            parts.append(features_of(neuron, pictures))
            if not are_hashed:
                self.hashes.update(map(image_sha256, pictures))
        if not are_hashed and (copies := len(self) - len(self.hashes)):
            logger.warning(
                f"{copies} of the {len(self)} control pictures are copies of others: leave them out, since the "
                "search has seen those that are in both halves, and intervals count each as one more picture"
            )
        return np.concatenate(parts)


class ZeroShotStart:
    """Starts from the words whose zero-shot scores correlate most with a neuron's activations on control pictures.

    The search then looks for something better, which need not be in the vocabulary. Any backbone with a text tower
    does, whatever network the neuron belongs to. Only the search's half of the control pictures is used.

    Args:
        control: The control pictures of the search.
        backbone: Embeds control pictures and words.
        vocabulary: The words. Those that are no concepts, such as numbers, are left out.
        number: Number of words.
    """

    def __init__(
        self, control: Control, backbone: Backbone, vocabulary: Vocabulary | Sequence[str], number: int = 5
    ) -> None:
        self.control, self.backbone, self.number = control, backbone, number
        templates = vocabulary.templates if isinstance(vocabulary, Vocabulary) else ("{}",)
        self.words = concepts_among(vocabulary)
        self._vocabulary = Vocabulary(self.words, templates)

    def __call__(self, neuron: Neuron) -> list[str]:
        """Return the words for a neuron, best first."""
        rows = self.control.search_rows
        activations = self.control.activations(neuron)[rows]
        centered = activations - activations.mean()
        scores = self._scores[rows] - self._scores[rows].mean(axis=0)
        norms = np.linalg.norm(scores, axis=0)
        correlations = centered @ scores / np.where(norms > 0, norms, np.inf)
        return [self.words[place] for place in np.argsort(-correlations, kind="stable")[: self.number]]

    @cached_property
    def _scores(self) -> np.ndarray:
        number = len(self.control)
        images = [
            self.backbone.read("image_embeds", [self.control.picture(row) for row in rows])
            for rows in np.array_split(np.arange(number), -(-number // _BATCH))
        ]
        return unit_rows(torch.cat(images)) @ unit_rows(self._vocabulary.embed(self.backbone)).T


def best_classes(control: Control, neuron: Neuron, number: int = 5) -> list[str]:
    """Return the classes of control pictures whose search half has the highest mean activation; none without any."""
    activations, classes = control.activations(neuron), control.search_classes
    order = sorted(classes, key=lambda name: -activations[classes[name]].mean())
    return concepts_among(order[:number])
