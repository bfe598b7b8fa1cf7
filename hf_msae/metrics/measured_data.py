"""What embeddings are, in few words: what a measurement records beside its figures, and a training in its record."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset

_IDENTITY = ("num_samples", "width", "mean_length", "spread")


def describe_embeddings(data: EmbeddingDataset, split: str | None = None) -> dict[str, Any]:
    """Where embeddings are from, how many there are, their mean and spread; no folder of this machine.

    Args:
        data: the embeddings; takes a pass over them where their statistics are not known yet.
        split: which of the source's splits they are, where it was chosen.

    Returns:
        source (a Hub id, or the name of a local folder or file), is_local, dataset (of images or texts that they were
        extracted from), dataset_split, hub_dataset (its id, if it is on the Hub), split, column, hook_point, num_rows
        (of the data set), num_samples (embeddings), width, mean_length (of the mean), spread (standard deviation of a
        dimension, by the mean variance over dimensions).
    """
    from .._utils.redaction import public

    statistics, provenance = data.statistics(), data.provenance
    dataset = provenance.get("dataset")
    is_local = Path(data.source).expanduser().exists() or " " in data.source  # "the given array"
    of_hub = dataset or (None if is_local else data.source.split("@")[0])
    described = {
        "source": Path(data.source).name if is_local else data.source,
        "is_local": is_local,
        "dataset": Path(dataset).name if dataset and Path(dataset).expanduser().exists() else dataset,
        "dataset_split": provenance.get("dataset_split"),
        "hub_dataset": of_hub if is_hub_id(of_hub) and not Path(of_hub).expanduser().exists() else None,
        "split": split,
        "column": data.column,
        "hook_point": provenance.get("hook_point"),
        "num_rows": len(data) if data.dataset is None else len(data.dataset),
        "num_samples": len(data),
        "width": data.width,
        "mean_length": float(statistics.mean.norm()),
        "spread": math.sqrt(statistics.mean_squared_distance / data.width),
    }
    return public(described)


def is_same_data(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two descriptions are of the same embeddings, whatever they are called: as many, with the same mean and
    spread. Parts of one another are not the same.
    """
    if not one or not other:
        return False
    pairs = [(one.get(key), other.get(key)) for key in _IDENTITY]
    return all(a is not None and b is not None and math.isclose(a, b, rel_tol=1e-6) for a, b in pairs)


def is_hub_id(name: str | None) -> bool:
    """Whether a name has the form of a Hub id, `owner/name`."""
    return bool(name) and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", name) is not None
