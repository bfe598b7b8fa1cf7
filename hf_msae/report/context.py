"""What the sections of a report are built from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..concepts.labels import Labels
from .survey import Survey
from .thumbnails import Thumbnails

if TYPE_CHECKING:
    from datasets import Dataset

    from ..bias import BiasReport
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel
    from ..steering import SwordBenchResult
    from ..vision_text import VisionTextMSAE


@dataclass(frozen=True)
class Settings:
    """The arguments of `write_report` that change what a page shows."""

    num_concepts: int
    images_per_concept: int
    num_searches: int
    num_explained: int
    k: int
    seed: int


@dataclass(frozen=True)
class Context:
    """What a section may use."""

    model: VisionTextMSAE
    embeddings: EmbeddingDataset
    images: Dataset | None
    pictures: Thumbnails  # a template asks it for a row's picture
    survey: Survey  # what the one pass over the embeddings found
    measured_here: bool  # whether the metrics were measured in that pass
    overfitted: str | None  # a sentence, if the model fits the rows it was trained on alone
    bias: Sequence[BiasReport]
    steering: SwordBenchResult | None
    index_folder: str | os.PathLike | None
    settings: Settings
    progress: bool

    @property
    def msae(self) -> MSAEModel:
        """The MSAE."""
        return self.model.msae

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The content of metrics.json."""
        return self.survey.metrics

    @cached_property
    def labels(self) -> Labels:
        """The names of all latents."""
        return Labels(self.model.concepts)

    @property
    def columns(self) -> list[Dataset]:
        """The datasets of the same rows, whose columns may say which concepts a row has."""
        return [each for each in (self.images, self.embeddings.dataset) if each is not None]
