"""The tables of a model card: figures at every level, and names with their evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .card_text import cell, figure

if TYPE_CHECKING:
    from ...concepts import ConceptTable
    from ...model.configuration_msae import MSAEConfig

_QUALITY = {  # metric -> heading
    "fvu": "FVU",
    "cosine_similarity": "cosine",
    "cosine_similarity_centered": "cosine, mean off",
    "l0": "L0",
    "sparsity": "sparsity",
    "dead_latents": "dead latents",
    "cknna": "CKNNA",
}
_Q = 0.05


@dataclass(frozen=True)
class Table:
    """Headings and rows of cells."""

    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class QualityTable(Table):
    """One row for each level, or for several that have the same figures; whether one stands for several."""

    shared: bool


@dataclass(frozen=True)
class ConceptSection(Table):
    """Names with their evidence, what to say before them and of the columns, and the file."""

    names: list[str]
    summary: str
    legend: str
    file: str


def load_names(path: Path) -> ConceptTable:
    """The table of names in a file.

    Raises:
        ValueError: it is none.
    """
    from ...concepts import ConceptTable

    try:
        return ConceptTable.load(path)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read as a table of names ({type(error).__name__}: {error}): name the latents again "
            "with `hf-msae name`, or delete it"
        ) from error


def quality_table(metrics: Mapping[str, Any]) -> QualityTable:
    """The figures at every level; levels beyond what ever fires are alike, and share a row."""
    by_k = metrics["by_k"]
    keys = [key for key in _QUALITY if any(row.get(key) is not None for row in by_k.values())]
    groups: list[tuple[list[str], list[str]]] = []
    for k in sorted(by_k, key=int):
        cells = [figure(by_k[k].get(key)) for key in keys]
        if groups and groups[-1][1] == cells:
            groups[-1][0].append(k)
        else:
            groups.append(([k], cells))
    rows = [[ks[0] if len(ks) == 1 else f"{ks[0]} to {ks[-1]}", *cells] for ks, cells in groups]
    baseline = metrics.get("baseline_mean") or {}
    if baseline:
        rows.append(["predicting the mean", *(figure(baseline.get(key)) for key in keys)])
    columns = ["k", *(_QUALITY[key] for key in keys)]
    shared = any(len(ks) > 1 for ks, _ in groups)
    return QualityTable(columns, rows, shared)


def concepts(tables: Sequence[Path], config: MSAEConfig, number: int = 20) -> ConceptSection | None:
    """The best-named latents with their evidence: those with valid names first, each name once.

    Raises:
        ValueError: the table is of another number of latents, or cannot be read.
    """
    if not tables:
        return None
    table = load_names(tables[0])
    if len(table) != config.num_latents:
        raise ValueError(
            f"{tables[0]} names {len(table)} latents, but the model has {config.num_latents}: it belongs to another "
            "model; name the latents again with `hf-msae name`"
        )
    best = table.best_available(_Q)[0].head(number)
    columns = ["latent", "name", "similarity", "runner-up"]
    rows = []
    extra = [(key, _EVIDENCE[key]) for key in _EVIDENCE if key in best]
    for row in best.to_dict("records"):
        runner_up = f"{cell(row['runner_up'])} ({row['runner_up_similarity']:.3f})" if row["runner_up"] else ""
        cells = [str(row["latent"]), cell(row["name"]), f"{row['similarity']:.3f}", runner_up]
        rows.append([*cells, *(show(row[key], row) for key, (_, show, _) in extra)])
    columns += [heading for _, (heading, _, _) in extra]
    by = table.provenance.get("similarity") or "cosine of the latent's direction and the word's text embedding"
    legend = " ".join([f"Similarity: {by}.", *(told for _, (_, _, told) in extra)])
    return ConceptSection(
        columns, rows, best["name"].tolist(), _naming_summary(table), legend, f"concepts/{tables[0].name}"
    )


_EVIDENCE = {  # column -> heading, how a cell is written, what it means
    "q_value": (
        *("q", lambda value, row: f"{value:.2g}"),
        f"q: false discovery rate at which the name is more than chance; {_Q} is taken for valid.",
    ),
    "activation_name": (
        "named by activations",
        lambda value, row: cell(value) + (" ✓" if row.get("agrees") else ""),
        "Named by activations: what the samples agree on that activate the latent most; ✓ where it is the same.",
    ),
    "auroc": (
        *("AUROC", lambda value, row: "" if value != value else f"{value:.3f}"),
        "AUROC: how well the latent's activation tells held-out samples that the name is true of.",
    ),
}


def _naming_summary(table: ConceptTable) -> str:
    words = table.provenance.get("words")
    vocabulary = f"a vocabulary of {words:,} words" if isinstance(words, int) else "a vocabulary"
    told = f"Latents are named from {vocabulary}."
    if "q_value" not in table.frame:
        told += " There are no q-values: which of the names are more than chance was not tested"
        if "auroc" in table.frame:
            true = int((table.frame["auroc"] > 0.9).sum())
            told += f"; {true:,} of {len(table):,} tell held-out samples that the name is true of (AUROC > 0.9)"
        return f"{told}. The best of each name:"
    valid = table.validated(_Q)
    told += f" {len(valid):,} of {len(table):,} have a name that is more than chance (q <= {_Q})"
    if "agrees" in valid:
        told += f"; {int(valid['agrees'].sum()):,} of these are called the same by what activates them"
    if "auroc" in valid:
        told += f"; {int((valid['auroc'] > 0.9).sum()):,} tell held-out samples that the name is true of (AUROC > 0.9)"
    return f"{told}. The best of each name:" if len(valid) else f"{told}. The most similar, then:"
