"""Tables of a model card: figures at every level, and names with their evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult

from ..._utils.levels import read_levels
from .card_edits import RESULTS_TASK
from .markdown import figure, rounded

if TYPE_CHECKING:
    from ...concepts import ConceptTable

_QUALITY = {  # metric -> heading
    "fvu": "FVU",
    "train_fvu": "FVU, training data",
    "cosine_similarity": "cosine",
    "cosine_similarity_centered": "centered cosine",
    "l0": "L0",
    "sparsity": "sparsity",
    "dead_latents": "dead latents",
    "cknna": "CKNNA",
}
_Q = 0.05


def load_names(path: Path, num_latents: int | None = None) -> ConceptTable:
    """Load the names of a model with `num_latents` latents; raise ValueError if the file holds something else."""
    from ...concepts import ConceptTable

    try:
        table = ConceptTable.load(path)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read as a table of names ({type(error).__name__}: {error}): name the latents again "
            "with `hf-msae name`, or move it away"
        ) from error
    if num_latents not in (None, len(table)):
        raise ValueError(
            f"{path} names {len(table)} latents, but the model has {num_latents}: it belongs to another model; name "
            "the latents again with `hf-msae name`"
        )
    return table


def quality_table(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures at every level: columns, rows, what a level is, and whether levels with the same codes share one."""
    levels = read_levels(metrics)
    rows_of = [level.metrics for level in levels.each]
    keys = [key for key in _QUALITY if any(row.get(key) is not None for row in rows_of)]
    rows = [[level.label, *(figure(level.metrics.get(key)) for key in keys)] for level in levels.distinct]
    if baseline := metrics.get("baseline_mean"):
        rows.append(["predicting the mean", *(figure(baseline.get(key)) for key in keys)])
    columns = [levels.heading, *(_QUALITY[key] for key in keys)]
    shared = len(levels.distinct) < len(levels.each)
    return {"columns": columns, "rows": rows, "meaning": levels.meaning, "shared": shared}


def eval_results(row: Mapping[str, Any], keys: Sequence[str], suffix: str = "", **dataset: str) -> list[EvalResult]:
    """The entries of the Hub's model-index for the metrics among `keys` that `row` has.

    `suffix` ends the metrics' names, such as " at k=32"; `dataset` is `dataset_type`, `_name` and `_split`.
    """
    return [
        EvalResult(
            task_type="feature-extraction",
            task_name=RESULTS_TASK,
            metric_type=key,
            metric_name=f"{key}{suffix}",
            metric_value=rounded(row[key]),
            **dataset,
        )
        for key in keys
        if row.get(key) is not None
    ]


def named_concepts(file: Path, num_latents: int, number: int = 20) -> dict[str, Any]:
    """The best-named latents with their evidence, each name once, only validated ones if there are any."""
    from ...concepts.line_labels import line_labels
    from ...concepts.validation import rule, why_none

    table = load_names(file, num_latents)
    best = table.best_available(_Q)[0].head(number)
    tested = "q_value" in table.frame
    named = table.validated(_Q) if tested else table.frame
    words = table.provenance.get("words")
    return {
        "file": f"concepts/{file.name}",
        "columns": list(best.columns),
        "rows": best.to_dict("records"),
        "evidence": table.evidence,
        "words": words if isinstance(words, int) else None,
        "similarity": table.provenance.get("similarity"),
        "q": _Q,
        "tested": tested,
        "rule": rule(table.frame, _Q),
        "why_none": why_none(table.frame, _Q) if tested and named.empty else "",
        "latents": len(table),
        "named": len(named),
        "agreeing": int(named["agrees"].sum()) if tested and "agrees" in named else None,
        "line": line_labels(table, number),
        "detecting": int((named["auroc"] > 0.9).sum()) if "auroc" in named and table.evidence != "labels" else None,
    }
