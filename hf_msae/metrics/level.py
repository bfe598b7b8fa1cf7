"""Everything that is measured at one granularity: the accumulators of all metrics, moved along together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ._inputs import as_matrix
from .alignment import CknnaAccumulator, Neighbourhood
from .classification import ClassificationAccumulator, LinearClassifier
from .firing import SparsityAccumulator
from .monosemanticity import MonosemanticityAccumulator
from .reconstruction import ReconstructionAccumulator

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Measurements:
    """What is to be measured, the same at all levels.

    Attributes:
        mean: of the embeddings, (d,).
        num_latents: n.
        cknna_batch_size: None leaves CKNNA out.
        classifiers: by name.
        encoder: that judges monosemanticity; None leaves it out.
    """

    mean: torch.Tensor
    num_latents: int
    cknna_batch_size: int | None = None
    classifiers: Mapping[str, LinearClassifier] = field(default_factory=dict)
    encoder: str | None = None


@dataclass(frozen=True)
class EvaluationBatch:
    """A batch of embeddings, and what levels share of the work on it.

    Attributes:
        first_row: number of its first row in the whole data.
        embeddings: (B, d).
        labels: by classifier; (B,), or None.
        encoder_embeds: the other encoder's (B, d_e), or None.
        pieces: CKNNA batches within it, with the neighbourhoods of their embeddings (None: there are too few of them
            for a full CKNNA batch).
    """

    first_row: int
    embeddings: torch.Tensor
    labels: Mapping[str, torch.Tensor | None]
    encoder_embeds: torch.Tensor | None
    pieces: list[tuple[slice, Neighbourhood | None]]


class LevelAccumulator:
    """All metrics of the reconstructions and codes of one level.

    Args:
        measurements: which.
    """

    def __init__(self, measurements: Measurements) -> None:
        self.measurements = measurements
        self.reconstruction = ReconstructionAccumulator(measurements.mean)
        self.firing = SparsityAccumulator(measurements.num_latents)
        self.classifiers = {name: ClassificationAccumulator(each) for name, each in measurements.classifiers.items()}
        size, encoder = measurements.cknna_batch_size, measurements.encoder
        self.cknna = None if size is None else CknnaAccumulator(size)
        self.cknna_reconstruction = None if size is None else CknnaAccumulator(size)
        self.monosemanticity = (
            None if encoder is None else MonosemanticityAccumulator(measurements.num_latents, encoder)
        )

    def update(self, batch: EvaluationBatch, latents: torch.Tensor, reconstruction: torch.Tensor) -> None:
        """Count the codes (B, n) and reconstructions (B, d) of a batch."""
        x = batch.embeddings
        self.reconstruction.update(x, reconstruction, batch.first_row)
        self.firing.update(latents, batch.first_row)
        for name, each in self.classifiers.items():
            each.update(x, reconstruction, batch.labels.get(name))
        if self.monosemanticity is not None:
            self.monosemanticity.update(latents, batch.encoder_embeds, batch.first_row)
        for piece, neighbours in batch.pieces:
            for accumulator, other in ((self.cknna, latents), (self.cknna_reconstruction, reconstruction)):
                if neighbours is None:
                    accumulator.update(x[piece], other[piece])
                else:
                    accumulator.count(neighbours, Neighbourhood(as_matrix("codes", other[piece])))

    def merge(self, other: LevelAccumulator) -> None:
        """Count everything `other` has counted."""
        for mine, its in zip(self._all, other._all, strict=True):
            mine.merge(its)

    def compute(self, accelerator: Accelerator | None = None) -> dict[str, Any]:
        """The metrics, over all processes, which all call this."""
        metrics = {**self.reconstruction.reduce(accelerator).compute(), **self.firing.reduce(accelerator).compute()}
        metrics |= {"cknna": None, "cknna_batch_size": None, "cknna_reconstruction": None}
        if self.cknna is not None:
            metrics |= self.cknna.reduce(accelerator).compute()
            metrics["cknna_reconstruction"] = self.cknna_reconstruction.reduce(accelerator).compute()["cknna"]
        metrics |= {"monosemanticity": None, "monosemanticity_std": None, "monosemanticity_encoder": None}
        if self.monosemanticity is not None:
            found = self.monosemanticity.reduce(accelerator).compute()
            metrics |= {
                "monosemanticity": found.mean,
                "monosemanticity_std": found.std,
                "monosemanticity_encoder": found.encoder,
            }
        reduced = {name: each.reduce(accelerator).compute() for name, each in self.classifiers.items()}
        return {**metrics, "classifiers": reduced}

    @property
    def _all(self) -> list:
        parts = (self.reconstruction, self.firing, self.cknna, self.cknna_reconstruction, self.monosemanticity)
        return [*(part for part in parts if part is not None), *self.classifiers.values()]
