"""Short descriptions of embeddings, recorded with metrics and with trainings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._utils.redaction import public

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset

_IDENTITY = ("num_samples", "width", "mean_length", "spread")


def describe_embeddings(embeddings: EmbeddingDataset, split: str | None = None) -> dict[str, Any]:
    """Describe where embeddings come from, their number, mean and spread, without naming any local folder.

    This takes a pass over them unless their statistics are known. `mean_length` is the length of the mean, `spread`
    the root of the mean variance over dimensions; `source` is a Hub id, or the name of a local folder or file.
    """
    statistics, provenance = embeddings.statistics(), embeddings.provenance
    dataset = provenance.get("dataset")
    is_local = Path(embeddings.source).expanduser().exists() or " " in embeddings.source  # "the given array"
    of_hub = dataset or (None if is_local else embeddings.source.split("@")[0])
    described = {
        "source": Path(embeddings.source).name if is_local else embeddings.source,
        "is_local": is_local,
        "dataset": Path(dataset).name if dataset and Path(dataset).expanduser().exists() else dataset,
        "dataset_split": provenance.get("dataset_split"),
        "hub_dataset": of_hub if is_hub_id(of_hub) and not Path(of_hub).expanduser().exists() else None,
        "split": split,
        "column": embeddings.column,
        "hook_point": provenance.get("hook_point"),
        "num_rows": len(embeddings) if embeddings.dataset is None else len(embeddings.dataset),
        "num_samples": len(embeddings),
        "width": embeddings.width,
        "mean_length": float(statistics.mean.norm()),
        "spread": math.sqrt(statistics.mean_squared_distance / embeddings.width),
    }
    return public(described)


def is_same_data(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two descriptions are of the same embeddings, judged by number, width, mean and spread, not by name."""
    if not one or not other:
        return False
    pairs = [(one.get(key), other.get(key)) for key in _IDENTITY]
    return all(a is not None and b is not None and math.isclose(a, b, rel_tol=1e-6) for a, b in pairs)


def is_hub_id(name: str | None) -> bool:
    """Whether a name looks like a Hub id, `owner/name`."""
    return bool(name) and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", name) is not None
