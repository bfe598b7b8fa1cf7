"""What has to be true of a folder before it is published: it loads, and its metrics and names belong to it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..._utils.fingerprint import model_fingerprint
from ...metrics.result import EvaluationResult
from ...model.modeling_msae import MSAEModel
from ...training.record import TrainingRecord
from .card_tables import load_names

MEASURE = "measure it with `hf-msae evaluate FOLDER --data DATA --output FOLDER/metrics.json`"
# Undefined for some data, or not requested: null in metrics.json.
_MAY_BE_NONE = {"cknna", "cknna_batch_size", "cknna_reconstruction", "decoder_orthogonality"}
# Metric -> smallest and largest possible value.
_RANGES = {
    **dict.fromkeys(("fvu", "fvu_per_sample", "normalized_mae", "l0", "dead_latents"), (0, math.inf)),
    **dict.fromkeys(("cosine_similarity", "cosine_similarity_centered", "cknna"), (-1, 1)),
    **dict.fromkeys(("sparsity", "dead_fraction", "decoder_orthogonality"), (0, 1)),
    "num_samples": (1, math.inf),
}
_ROUNDING = 1e-5


def verify_release(folder: Path, expected: MSAEModel) -> None:
    """Load everything in a folder; raise OSError or ValueError unless it is the model that is to be published."""
    model, fingerprint = MSAEModel.from_pretrained(folder), model_fingerprint(expected)
    if (found := model_fingerprint(model)) != fingerprint:
        raise ValueError(
            f"the files in {folder} are not the model that is to be published (sha256 {found[:12]}, not "
            f"{fingerprint[:12]}): they changed while they were copied"
        )
    accepted = fingerprints_of(model)
    record = TrainingRecord.load(folder)
    if record is not None and len(accepted) > 1:  # rounding the weights changes no names
        accepted.add(record.model_sha256)
    for path in sorted((folder / "concepts").glob("*.parquet")):
        named = load_names(path, model.config.num_latents).provenance.get("model_sha256")
        if named is not None and named not in accepted:
            raise ValueError(
                f"concepts/{path.name} names the latents of another model (sha256 {str(named)[:12]}, this one's is "
                f"{fingerprint[:12]}): name them again with `hf-msae name`"
            )
    if (folder / "metrics.json").is_file():
        read_metrics(folder / "metrics.json", model)


def read_metrics(path: Path, model: MSAEModel) -> dict[str, Any]:
    """Read metrics.json; raise ValueError unless it is a possible evaluation of this very model."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        EvaluationResult.from_dict(metrics)
        by_k, by_width = (
            {int(size): dict(row) for size, row in (metrics.get(name) or {}).items()} for name in ("by_k", "by_width")
        )
        baseline = dict(metrics["baseline_mean"])
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is not an evaluation ({error}): {MEASURE}") from error
    size = model.config.num_latents
    outside = [
        f"{kind}={each}" for kind, rows in (("k", by_k), ("width", by_width)) for each in rows if not 1 <= each <= size
    ]
    if not by_k or outside:
        found = f"has figures at {outside[0]}, but the model has {size} latents" if outside else "has no levels"
        raise ValueError(f"{path} {found}: it belongs to another model; {MEASURE}")
    for k, row in by_k.items():
        _check_row(path, row, f" at k={k}", k, size)
    for width, row in by_width.items():
        _check_row(path, row, f" of the first {width} latents", width, width)
    _check_row(path, metrics, "", size, size)
    _check_row(path, baseline, " of predicting the mean", size, size, required=False)
    rows = by_width or by_k
    if changed := [name for name in _RANGES if metrics.get(name) != rows[max(rows)].get(name)]:
        values = f"{metrics.get(changed[0])}, but {rows[max(rows)].get(changed[0])} at the largest level, {max(rows)}"
        raise ValueError(f"{path}: {changed[0]} is {values}, where it has to be the same: {MEASURE}")
    if metrics.get("model_sha256") is None:
        raise ValueError(f"{path} does not say which weights it was measured on (no model_sha256): {MEASURE}")
    check_measured(path, metrics["model_sha256"], model)
    return metrics


def check_measured(path: Path, measured: str, model: MSAEModel) -> None:
    """Raise ValueError if the metrics in `path` were measured on another model than this one."""
    if measured not in fingerprints_of(model):
        raise ValueError(
            f"{path} was measured on another model (sha256 of weights and config {str(measured)[:12]}, this one's is "
            f"{model_fingerprint(model)[:12]}): {MEASURE}, or delete metrics.json"
        )


def fingerprints_of(model: MSAEModel) -> set[str]:
    """Fingerprints of the model as it is and in float32, as evaluations load it."""
    found = {model_fingerprint(model)}
    if model.dtype not in (torch.float32, torch.float64):
        widened = type(model)(model.config).to(torch.float32)
        widened.load_state_dict(model.state_dict())
        found.add(model_fingerprint(widened))
    return found


def _check_row(path: Path, row: Mapping[str, Any], where: str, k: int, size: int, required: bool = True) -> None:
    """Raise ValueError if a metric is missing, not finite, or impossible with `k` active and `size` latents in all."""
    for name, (least, most) in _RANGES.items():
        value = row.get(name)
        if value is None and (name in _MAY_BE_NONE or not required):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{path}: {name}{where} is {value!r}, not a finite number: {MEASURE}")
        most = {"l0": k, "dead_latents": size}.get(name, most)
        if not least - _ROUNDING <= value <= most + _ROUNDING * max(1, most):
            raise ValueError(f"{path}: {name}{where} is {value}, but can only be from {least} to {most}: {MEASURE}")
