"""The embeddings that `hf-msae doctor` finds for a model."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..embeddings.metadata import EmbeddingMetadata
    from ..model.modeling_msae import MSAEModel

_NEAR = ("activations.json", "*/activations.json", "*/*/activations.json")
"""Where folders of embeddings are looked for, below a place."""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings that may belong to the model."""

    folder: Path
    metadata: EmbeddingMetadata
    problem: str | None  # why they do not fit the model
    is_given: bool = False  # with --data

    @property
    def is_held_out(self) -> bool:
        """Whether the name says that they were not trained on."""
        return any(word in self.folder.name for word in ("test", "val", "eval"))


def find_embeddings(folder: Path, msae: MSAEModel, data: str | None) -> tuple[list[Embeddings], list[Path]]:
    """Find embeddings in the model's folder, next to it, and where it was trained.

    Returns the embeddings, those of `data` first, and the places that were looked at, the model's folder first.
    """
    folder = folder.resolve()
    places = list(dict.fromkeys([folder, folder.parent, *_trained_on(folder)]))
    if data is None:
        return list(_near(places, msae)), places
    given = _given(data, msae)
    return [given, *(each for each in _near(places, msae) if each.folder != given.folder)], places


def _trained_on(folder: Path) -> list[Path]:
    """The embeddings in the command that trained the model, if they are folders seen from here."""
    from ..training.record import TrainingRecord

    try:
        record = TrainingRecord.load(folder)
        words = shlex.split(("" if record is None else record.command or "").replace("=", " "))
    except ValueError:  # which another finding reports
        return []
    places = (Path(word) for flag, word in pairwise(words) if flag in ("--train_data", "--eval_data"))
    return [place.resolve() for place in places if place.is_dir()]


def _given(data: str, msae: MSAEModel) -> Embeddings:
    """The embeddings that --data names, of any kind."""
    from ..embeddings import load_embeddings
    from ..embeddings.metadata import EmbeddingMetadata, Shard

    place, hook_point = Path(data).expanduser(), msae.config.hook_point
    place = place.resolve() if place.exists() else place
    try:
        metadata = EmbeddingMetadata.load(place)
        if metadata is None:
            found = load_embeddings(data, None, hook_point, verify=False)
            rows, columns = [Shard(data, len(found), 0)], {hook_point: found.width}
            metadata = EmbeddingMetadata(columns, "float32", provenance=found.provenance, shards=rows, complete=True)
    except (OSError, ValueError) as error:
        return Embeddings(place, EmbeddingMetadata({}, "float32"), str(error), is_given=True)
    return Embeddings(place, metadata, _misfit(metadata, msae), is_given=True)


def _near(places: list[Path], msae: MSAEModel) -> Iterator[Embeddings]:
    from ..embeddings.metadata import EmbeddingMetadata

    for each in sorted({file.parent for place in places for near in _NEAR for file in place.glob(near)}):
        try:
            metadata = EmbeddingMetadata.load(each)
        except ValueError as error:  # of the model's own folder; others may belong to other models
            if each.is_relative_to(places[0]):
                yield Embeddings(each, EmbeddingMetadata({}, "float32"), str(error))
            continue
        yield Embeddings(each, metadata, _misfit(metadata, msae))


def _misfit(metadata: EmbeddingMetadata, msae: MSAEModel) -> str | None:
    """Say why embeddings do not fit the model; None if they do."""
    config, weights = msae.config, metadata.provenance.get("base_model_weights_sha256")
    if config.hook_point not in metadata.columns:
        return f"they are {', '.join(metadata.columns)}, not {config.hook_point}"
    if metadata.columns[config.hook_point] != config.d_in:
        return f"they are {metadata.columns[config.hook_point]} wide, not {config.d_in}"
    if None not in (weights, config.base_model_weights_sha256) and weights != config.base_model_weights_sha256:
        return "they are of a backbone with other weights"
    return None if metadata.complete else "their extraction has not finished"
