"""What has to be true of a folder before it is published: it loads, and its card says what was measured."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import ModelCard

from ..concepts import ConceptTable
from ..fingerprint import weights_fingerprint
from ..metrics.result import EvaluationResult
from ..modeling_msae import MSAEModel
from .card_edits import RESULTS_TASK
from .card_text import rounded

MEASURE = "measure it with training/evaluate_msae.py --model FOLDER --eval_data DATA --output_file FOLDER/metrics.json"
# Undefined for some data, or not asked for: null in metrics.json.
_MAY_BE_NONE = {"cknna", "cknna_batch_size", "cknna_reconstruction", "decoder_orthogonality"}
_NUMBERS = (
    *("fvu", "fvu_per_sample", "cosine_similarity", "cosine_similarity_centered", "normalized_mae", "l0", "sparsity"),
    *("dead_latents", "dead_fraction", "cknna", "decoder_orthogonality", "num_samples"),
)
_AT_K = re.compile(r"k ?= ?(\d+)")


def verify_release(folder: Path, fingerprint: str, card: str | None = None) -> None:
    """Load everything that lies in a folder and compare it with what it should be.

    Args:
        folder: config.json, weights and what belongs to them.
        fingerprint: `weights_fingerprint` of the model that is to be there.
        card: text of the card; None takes README.md.

    Raises:
        OSError, ValueError: something does not load, or is not what it should be; says which file.
    """
    model = MSAEModel.from_pretrained(folder)
    if (found := weights_fingerprint(model)) != fingerprint:
        raise ValueError(
            f"the weights in {folder} are not those of the model (sha256 {found[:12]}, not {fingerprint[:12]}): they "
            "changed while they were copied"
        )
    for path in sorted((folder / "concepts").glob("*.parquet")):
        table = ConceptTable.load(path)
        if len(table) != model.config.num_latents:
            raise ValueError(
                f"concepts/{path.name} names {len(table)} latents, but the model has {model.config.num_latents}: it "
                "belongs to another model; name the latents again with `hf-msae name`"
            )
        named = table.provenance.get("weights_sha256")
        # Rounding to half precision turns no direction to another word.
        exact = model.dtype in (torch.float32, torch.float64)
        if exact and named is not None and named != fingerprint:
            raise ValueError(
                f"concepts/{path.name} names the latents of other weights (sha256 {named[:12]}, the model's is "
                f"{fingerprint[:12]}): name them again with `hf-msae name`"
            )
    metrics_file = folder / "metrics.json"
    metrics = read_metrics(metrics_file, model) if metrics_file.is_file() else None
    verify_card((folder / "README.md").read_text(encoding="utf-8") if card is None else card, metrics)


def read_metrics(path: Path, model: MSAEModel) -> dict[str, Any]:
    """The content of metrics.json, if it is an evaluation of this very model.

    Raises:
        ValueError: it is none, holds numbers that are not finite, or was measured on other weights.
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        EvaluationResult.from_dict(metrics)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} holds no evaluation ({error}): {MEASURE}") from error
    for where, row in _rows(metrics):
        for name in _NUMBERS:
            value = row.get(name)
            if value is None and name in _MAY_BE_NONE:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{path}: {name}{where} is {value!r}, not a finite number: {MEASURE}")
    outside = [k for k in metrics["by_k"] if not str(k).isdecimal() or not 1 <= int(k) <= model.config.num_latents]
    if outside:
        raise ValueError(
            f"{path} has figures at k={outside[0]}, but the model has {model.config.num_latents} latents: it belongs "
            f"to another model; {MEASURE}"
        )
    recorded = metrics.get("weights_sha256")
    if recorded is not None and recorded not in _fingerprints(model):
        raise ValueError(
            f"{path} was measured on other weights (sha256 {recorded[:12]}, the model's is "
            f"{weights_fingerprint(model)[:12]}): {MEASURE}"
        )
    return metrics


def verify_card(card: str, metrics: Mapping[str, Any] | None) -> None:
    """
    Results that others have put into the card's model-index are theirs.

    Raises:
        ValueError: the card's metadata cannot be read, or it claims other results than metrics.json holds.
    """
    try:
        data = ModelCard(card, ignore_metadata_errors=False).data
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"the metadata of the card (README.md) is not valid: {' '.join(str(error).split())}"
        ) from error
    for result in data.eval_results or []:
        if result.task_name != RESULTS_TASK:
            continue
        name = f"{result.metric_type} ({result.metric_name})" if result.metric_name else result.metric_type
        if metrics is None:
            raise ValueError(f"the card's model-index claims {name}, but there is no metrics.json: take it out there")
        at_k = _AT_K.search(result.metric_name or "")
        row = metrics["by_k"].get(at_k.group(1), {}) if at_k else metrics
        measured = row.get(result.metric_type, result.metric_value)
        if result.metric_value not in (measured, rounded(measured)):
            raise ValueError(
                f"the card's model-index claims {name} = {result.metric_value}, but metrics.json says "
                f"{measured}: take the edit back, or leave the line out of README.md"
            )
        if at_k and at_k.group(1) not in metrics["by_k"]:
            raise ValueError(f"the card's model-index claims {name}, but metrics.json has no figures at this k")


def _rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "", metrics
    for k, row in metrics["by_k"].items():
        yield f" at k={k}", row


def _fingerprints(model: MSAEModel) -> set[str]:
    """Of the model as it is, and as evaluations load it, in float32."""
    found = {weights_fingerprint(model)}
    if model.dtype not in (torch.float32, torch.float64):
        widened = type(model)(model.config).to(torch.float32)
        widened.load_state_dict(model.state_dict())
        found.add(weights_fingerprint(widened))
    return found
