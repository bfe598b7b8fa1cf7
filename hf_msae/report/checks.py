"""What a report refuses, before any work is done."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets

from ..bias import BiasReport
from ..embeddings import EmbeddingDataset

if TYPE_CHECKING:
    from ..vision_text import VisionTextMSAE

_SUFFIXES = (".html", ".htm")


def check_path(path: str | os.PathLike) -> Path:
    """Where the page is written.

    Raises:
        ValueError: it is a folder, or does not end like a web page.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file, {path / 'report.html'} for one")
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{path} does not end like a web page: choose {path.with_suffix('.html')}")
    return path


def check_embeddings(model: VisionTextMSAE, acts: EmbeddingDataset) -> None:
    """Whether these are pooled image embeddings, and the model's.

    Raises:
        TypeError: they are not an `EmbeddingDataset`.
        ValueError: the model's hook point is another, or the embeddings are of other width, of tokens, or of texts.
    """
    config = model.msae.config
    if model.hook_point.name != "image_embeds":
        raise ValueError(
            f"the MSAE is of {config.hook_point}: a report is about pooled embeddings of images (image_embeds)"
        )
    if not isinstance(acts, EmbeddingDataset):
        raise TypeError(f"acts must be what load_embeddings returns, got {type(acts).__name__}")
    if acts.width != config.d_in:
        raise ValueError(
            f"the embeddings of {acts.source} have {acts.width} columns, but this MSAE was trained on {config.d_in}"
        )
    of = acts.provenance.get("hook_point", "image_embeds")
    if acts.has_tokens or of != "image_embeds":
        raise ValueError(f"{acts.source} holds {of}, but the MSAE is of image_embeds: extract those")


def check_images(images: datasets.Dataset | None, image_column: str, acts: EmbeddingDataset) -> None:
    """Whether the data set has a picture for each embedding.

    Raises:
        TypeError: it is not a `datasets.Dataset`.
        ValueError: it has another number of rows, no such column, or one that holds no pictures.
    """
    if images is None:
        return
    if not isinstance(images, datasets.Dataset):
        raise TypeError(f"images must be a datasets.Dataset or None, got {type(images).__name__}")
    if len(images) != len(acts):
        raise ValueError(
            f"there are {len(images)} rows of images, but {acts.source} has {len(acts)} embeddings: they have to be "
            "of the same rows, in the same order"
        )
    if image_column not in images.features:
        raise ValueError(f"image_column names {image_column!r}, but the columns are {', '.join(images.features)}")
    kind = images.features[image_column]
    is_stored = isinstance(kind, datasets.Value) and kind.dtype in ("string", "large_string", "binary", "large_binary")
    is_record = isinstance(kind, dict) and kind.keys() == {"bytes", "path"}
    if not (isinstance(kind, datasets.Image) or is_stored or is_record):
        raise ValueError(f"image_column {image_column!r} holds no images but {kind}")


def check_findings(bias: Sequence[BiasReport], metrics: Mapping[str, Any] | None) -> None:
    """Whether bias reports and metrics are such.

    Raises:
        TypeError: a bias report is something else.
        ValueError: the metrics have no `by_k`.
    """
    for place, each in enumerate(bias):
        if not isinstance(each, BiasReport):
            raise TypeError(f"bias takes what bias_report returns; number {place} is {type(each).__name__}")
    if metrics is not None and not (isinstance(metrics, Mapping) and metrics.get("by_k")):
        raise ValueError("metrics must be the content of metrics.json, with levels in by_k; None measures them")


def check_numbers(num_latents: int, k: int, **numbers: int) -> None:
    """Whether k is a number of latents, and the others are counts.

    Raises:
        ValueError: one is not; says which.
    """
    if not 1 <= k <= num_latents:
        raise ValueError(f"k must be between 1 and num_latents={num_latents}, got {k}")
    for name, value in numbers.items():
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
