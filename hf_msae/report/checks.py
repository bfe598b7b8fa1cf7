"""Checks of a report's arguments, made before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import torch

from .._utils.fingerprint import model_fingerprint
from ..bias import BiasReport
from ..concepts.codes import open_embeddings
from ..embeddings import EmbeddingDataset
from ..model.modeling_msae import MSAEModel
from ..steering import SwordBenchResult


def check_types(
    images: datasets.Dataset | None, bias: Sequence[BiasReport], steering: SwordBenchResult | None
) -> None:
    """Raise TypeError unless these are None or what their types say."""
    kinds = {"images": datasets.Dataset, "bias": BiasReport, "steering": SwordBenchResult}
    for name, value in [("images", images), *(("bias", each) for each in bias), ("steering", steering)]:
        if value is not None and not isinstance(value, kinds[name]):
            raise TypeError(f"{name} takes {kinds[name].__name__}, not {type(value).__name__}")


_STORED = ("string", "binary")


def check_embeddings(msae: MSAEModel, embeddings: EmbeddingDataset) -> None:
    """Raise TypeError or ValueError unless these are pooled image embeddings that fit the MSAE."""
    config = msae.config
    if config.hook_point != "image_embeds":
        raise ValueError(f"the MSAE was trained on {config.hook_point}: a report needs one trained on image_embeds")
    if not isinstance(embeddings, EmbeddingDataset):
        raise TypeError(f"embeddings must be what load_embeddings returns, got {type(embeddings).__name__}")
    open_embeddings(msae, embeddings)  # checks their width
    of = embeddings.provenance.get("hook_point", "image_embeds")
    if embeddings.has_tokens or of != "image_embeds":
        raise ValueError(f"{embeddings.source} holds {of}, but the MSAE was trained on image_embeds: extract these")


def check_metrics(msae: MSAEModel, metrics: Mapping[str, Any] | None) -> None:
    """Raise ValueError unless these are None or an evaluation, of the MSAE if they say of which model."""
    if metrics is None:
        return
    if not (isinstance(metrics, Mapping) and metrics.get("by_k")):
        raise ValueError(
            "metrics must be the content of metrics.json, with levels in by_k, or what to_dict of an EvaluationResult "
            "returns; None measures them"
        )
    measured = metrics.get("model_sha256")
    if measured is None or msae.dtype != torch.float32:  # other dtypes have other fingerprints
        return
    if measured != (fingerprint := model_fingerprint(msae)):
        raise ValueError(
            f"the metrics were measured on another model (sha256 of weights and config {str(measured)[:12]}, this "
            f"one's is {fingerprint[:12]}): give this one's, or none, so that they are measured"
        )


def check_images(images: datasets.Dataset | None, image_column: str, embeddings: EmbeddingDataset) -> None:
    """Raise ValueError unless `images` is None or a dataset with a picture for each embedding."""
    if images is None:
        return
    if len(images) != len(embeddings):
        raise ValueError(
            f"there are {len(images)} rows of images, but {embeddings.source} has {len(embeddings)} embeddings: both "
            "must have the same rows in the same order"
        )
    if image_column not in images.features:
        raise ValueError(f"there is no image column {image_column!r}; the columns are {', '.join(images.features)}")
    kind = images.features[image_column]
    is_stored = isinstance(kind, datasets.Value) and kind.dtype.removeprefix("large_").removesuffix("_view") in _STORED
    is_record = isinstance(kind, dict) and {"bytes"} <= kind.keys() <= {"bytes", "path"}
    if not (isinstance(kind, datasets.Image) or is_stored or is_record):
        raise ValueError(f"image_column {image_column!r} holds {kind} instead of images")
