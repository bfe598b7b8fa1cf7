"""What has to be true of a folder before it is published: it loads, and its card says what was measured."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import ModelCard

from ..._utils.fingerprint import model_fingerprint
from ...metrics.result import EvaluationResult
from ...model.modeling_msae import MSAEModel
from ...training.record import TrainingRecord
from .card_edits import RESULTS_TASK
from .card_tables import load_names
from .card_text import rounded

MEASURE = "measure it with hf-msae evaluate FOLDER --data DATA --output FOLDER/metrics.json"
# Undefined for some data, or not asked for: null in metrics.json.
_MAY_BE_NONE = {"cknna", "cknna_batch_size", "cknna_reconstruction", "decoder_orthogonality"}
# Figure -> the least and the most that it can be, whatever the model and the data.
_RANGES = {
    **dict.fromkeys(("fvu", "fvu_per_sample", "normalized_mae", "l0", "dead_latents"), (0, math.inf)),
    **dict.fromkeys(("cosine_similarity", "cosine_similarity_centered", "cknna"), (-1, 1)),
    **dict.fromkeys(("sparsity", "dead_fraction", "decoder_orthogonality"), (0, 1)),
    "num_samples": (1, math.inf),
}
_COUNTS = ("dead_latents", "num_samples")
_ROUNDING = 1e-5
_AT_K = re.compile(r"k ?= ?(\d+)")


def verify_release(folder: Path, fingerprint: str, card: str | None = None) -> None:
    """Load everything that lies in a folder and compare it with what it should be.

    Args:
        folder: config.json, weights and what belongs to them.
        fingerprint: `model_fingerprint` of the model that is to be there.
        card: text of the card; None takes README.md.

    Raises:
        OSError, ValueError: something does not load, or is not what it should be; says which file.
    """
    model = MSAEModel.from_pretrained(folder)
    if (found := model_fingerprint(model)) != fingerprint:
        raise ValueError(
            f"what lies in {folder} is not the model that is to be published (sha256 {found[:12]}, not "
            f"{fingerprint[:12]}): its files changed while they were copied"
        )
    accepted = _fingerprints(model)
    record = TrainingRecord.load(folder)
    if record is not None and _is_rounded(model):  # rounding turns no direction to another word
        accepted.add(record.model_sha256)
    for path in sorted((folder / "concepts").glob("*.parquet")):
        table = load_names(path)
        if len(table) != model.config.num_latents:
            raise ValueError(
                f"concepts/{path.name} names {len(table)} latents, but the model has {model.config.num_latents}: it "
                "belongs to another model; name the latents again with `hf-msae name`"
            )
        named = table.provenance.get("model_sha256")
        if named is not None and named not in accepted:
            raise ValueError(
                f"concepts/{path.name} names the latents of another model (sha256 {str(named)[:12]}, this one's is "
                f"{fingerprint[:12]}): name them again with `hf-msae name`"
            )
    metrics_file = folder / "metrics.json"
    metrics = read_metrics(metrics_file, model) if metrics_file.is_file() else None
    verify_card((folder / "README.md").read_text(encoding="utf-8") if card is None else card, metrics)


def read_metrics(path: Path, model: MSAEModel) -> dict[str, Any]:
    """The content of metrics.json, if it is an evaluation of this very model.

    Raises:
        ValueError: it is none, holds numbers that cannot be, or was measured on another model, or on one that it does
            not tell.
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        EvaluationResult.from_dict(metrics)
        by_k = {int(k): dict(row) for k, row in metrics["by_k"].items()}
        baseline, data = dict(metrics["baseline_mean"]), dict(metrics.get("data") or {})
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} holds no evaluation ({error}): {MEASURE}") from error
    size = model.config.num_latents
    outside = [k for k in by_k if not 1 <= k <= size]
    if not by_k or outside:
        found = f"has figures at k={outside[0]}, but the model has {size} latents" if outside else "has no levels"
        raise ValueError(f"{path} {found}: it belongs to another model; {MEASURE}")
    for k, row in by_k.items():
        _check_row(path, row, f" at k={k}", k, size)
    _check_row(path, metrics, "", size, size)
    _check_row(path, baseline, " of predicting the mean", size, size, partial=True)
    differing = [name for name in _RANGES if metrics.get(name) != by_k[max(by_k)].get(name)]
    if differing:
        raise ValueError(
            f"{path}: {differing[0]} is {metrics[differing[0]]}, but {by_k[max(by_k)].get(differing[0])} at the "
            f"largest level, k={max(by_k)}, whose figures it is to repeat: {MEASURE}"
        )
    counts = {row["num_samples"] for row in by_k.values()} | {data.get("num_samples", metrics["num_samples"])}
    if len(counts) > 1:
        told = ", ".join(sorted(map(str, counts)))
        raise ValueError(f"{path} tells different numbers of embeddings (num_samples): {told}; {MEASURE}")
    if data.get("held_out") not in (None, True, False):
        raise ValueError(f"{path}: held_out of its data is {data['held_out']!r}, but can be true, false or null")
    recorded = metrics.get("model_sha256")
    if recorded is None:
        raise ValueError(
            f"{path} does not say of which weights it is (no model_sha256, as of earlier versions, and of models in "
            f"pieces): {MEASURE}"
        )
    if recorded not in _fingerprints(model):
        raise ValueError(
            f"{path} was measured on another model (sha256 of weights and config {str(recorded)[:12]}, this one's is "
            f"{model_fingerprint(model)[:12]}): {MEASURE}"
        )
    return metrics


def _check_row(path: Path, row: Mapping[str, Any], where: str, k: int, size: int, partial: bool = False) -> None:
    """Args:
        k, size: no more than so many latents can fire, and be.
        partial: some figures may be missing.

    Raises:
        ValueError: a figure is missing, no finite number, or one that cannot be.
    """
    for name, (least, most) in _RANGES.items():
        value = row.get(name)
        if value is None and (partial or name in _MAY_BE_NONE):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{path}: {name}{where} is {value!r}, not a finite number: {MEASURE}")
        most = {"l0": k, "dead_latents": size}.get(name, most)
        if not least - _ROUNDING <= value <= most + _ROUNDING * max(1, most if math.isfinite(most) else 1):
            raise ValueError(f"{path}: {name}{where} is {value}, but can be from {least} to {most}: {MEASURE}")
        if name in _COUNTS and value != int(value):
            raise ValueError(f"{path}: {name}{where} is {value}, but counts something: {MEASURE}")


def verify_card(card: str, metrics: Mapping[str, Any] | None) -> None:
    """Results that others have put into the card's model-index are theirs.

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
        if at_k and at_k.group(1) not in metrics["by_k"]:
            raise ValueError(f"the card's model-index claims {name}, but metrics.json has no figures at this k")
        measured = (metrics["by_k"][at_k.group(1)] if at_k else metrics).get(result.metric_type)
        if isinstance(measured, bool) or not isinstance(measured, (int, float)):
            raise ValueError(
                f"the card's model-index claims {name} = {result.metric_value}, which metrics.json does not hold: "
                f"take it out there, or give it a task of its own (not {RESULTS_TASK!r})"
            )
        if result.metric_value not in (measured, rounded(measured)):
            raise ValueError(
                f"the card's model-index claims {name} = {result.metric_value}, but metrics.json says "
                f"{measured}: take the edit back, or leave the line out of README.md"
            )


def _fingerprints(model: MSAEModel) -> set[str]:
    """Of the model as it is, and as evaluations load it, in float32."""
    found = {model_fingerprint(model)}
    if _is_rounded(model):
        widened = type(model)(model.config).to(torch.float32)
        widened.load_state_dict(model.state_dict())
        found.add(model_fingerprint(widened))
    return found


def _is_rounded(model: MSAEModel) -> bool:
    return model.dtype not in (torch.float32, torch.float64)
