"""Everything that is measured at one level: the accumulators of all metrics, updated together.

To add a metric, write a pure function and an accumulator, and add the accumulator to `LevelAccumulator`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from .alignment import CknnaAccumulator, Neighborhood
from .classification import ClassificationAccumulator, LinearClassifier
from .firing import SparsityAccumulator
from .monosemanticity import MonosemanticityAccumulator
from .reconstruction import ReconstructionAccumulator


@dataclass(frozen=True)
class EvaluationBatch:
    """A batch of embeddings, and the part of the work on it that all levels share."""

    first_row: int  # index of its first row in the whole data
    embeddings: torch.Tensor  # raw embeddings (B, d)
    labels: Mapping[str, torch.Tensor | None]  # by classifier, class numbers (B,) or None
    encoder_embeds: torch.Tensor | None  # the other encoder's embeddings (B, d_e), or None
    pieces: list[tuple[slice, Neighborhood]]  # CKNNA batches within it, with the neighborhoods of their embeddings


class LevelAccumulator:
    """All metrics of the reconstructions and codes of one level; a CKNNA or encoder of None leaves its metric out."""

    def __init__(
        self,
        mean: torch.Tensor,
        num_latents: int,
        cknna_batch_size: int | None,
        classifiers: Mapping[str, LinearClassifier],
        encoder: str | None,
    ) -> None:
        self.reconstruction = ReconstructionAccumulator(mean)
        self.firing = SparsityAccumulator(num_latents)
        self.classifiers = {name: ClassificationAccumulator(each) for name, each in classifiers.items()}
        self.cknna = None if cknna_batch_size is None else CknnaAccumulator(cknna_batch_size)
        self.cknna_reconstruction = copy.deepcopy(self.cknna)
        self.monosemanticity = None if encoder is None else MonosemanticityAccumulator(num_latents, encoder)
        parts = (self.reconstruction, self.firing, self.cknna, self.cknna_reconstruction, self.monosemanticity)
        self._all = [*(part for part in parts if part is not None), *self.classifiers.values()]

    def update(self, batch: EvaluationBatch, latents: torch.Tensor, reconstruction: torch.Tensor) -> None:
        """Add the codes (B, n) and reconstructions (B, d) of a batch."""
        x = batch.embeddings
        self.reconstruction.update(x, reconstruction, batch.first_row)
        self.firing.update(latents, batch.first_row)
        for name, each in self.classifiers.items():
            each.update(x, reconstruction, batch.labels.get(name))
        if self.monosemanticity is not None:
            self.monosemanticity.update(latents, batch.encoder_embeds, batch.first_row)
        for piece, neighbors in batch.pieces:
            for accumulator, other in ((self.cknna, latents), (self.cknna_reconstruction, reconstruction)):
                accumulator.count(neighbors, Neighborhood(other[piece]))

    def merge(self, other: LevelAccumulator) -> None:
        """Add everything `other` has counted."""
        for mine, its in zip(self._all, other._all, strict=True):
            mine.merge(its)

    def compute(self, accelerator: Accelerator | None = None) -> dict[str, Any]:
        """Return the metrics over all processes. Every process must call this."""
        metrics = {**self.reconstruction.reduce(accelerator).compute(), **self.firing.reduce(accelerator).compute()}
        for name, each in (("cknna", self.cknna), ("cknna_reconstruction", self.cknna_reconstruction)):
            metrics[name] = None if each is None else each.reduce(accelerator).compute()["cknna"]
        scores = None if self.monosemanticity is None else self.monosemanticity.reduce(accelerator).compute()
        metrics["monosemanticity"] = None if scores is None else scores.mean
        metrics["monosemanticity_std"] = None if scores is None else scores.std
        metrics["monosemanticity_encoder"] = None if scores is None else scores.encoder
        metrics["classifiers"] = {name: each.reduce(accelerator).compute() for name, each in self.classifiers.items()}
        return metrics
