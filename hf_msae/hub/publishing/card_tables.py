"""Tables of a model card: figures at every level, and names with their evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .card_text import escaped, figure

if TYPE_CHECKING:
    from ...concepts import ConceptTable
    from ...model.configuration_msae import MSAEConfig

_QUALITY = {  # metric -> heading
    "fvu": "FVU",
    "cosine_similarity": "cosine",
    "cosine_similarity_centered": "centered cosine",
    "l0": "L0",
    "sparsity": "sparsity",
    "dead_latents": "dead latents",
    "cknna": "CKNNA",
}
_Q = 0.05


@dataclass(frozen=True)
class QualityTable:
    """One row per level, or per several levels with the same figures (`shared`: there is such a row)."""

    columns: list[str]
    rows: list[list[str]]
    shared: bool


@dataclass(frozen=True)
class ConceptSection:
    """A table of names with their evidence, a summary, a legend of the columns, and the file it is from."""

    columns: list[str]
    rows: list[list[str]]
    names: list[str]
    summary: str
    legend: str
    file: str


def load_names(path: Path, num_latents: int | None = None) -> ConceptTable:
    """Load the names of a model with `num_latents` latents.

    Raises:
        ValueError: The file is not a table of names, or names another number of latents.
    """
    from ...concepts import ConceptTable

    try:
        table = ConceptTable.load(path)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read as a table of names ({type(error).__name__}: {error}): name the latents again "
            "with `hf-msae name`, or delete it"
        ) from error
    if num_latents not in (None, len(table)):
        raise ValueError(
            f"{path} names {len(table)} latents, but the model has {num_latents}: it belongs to another model; name "
            "the latents again with `hf-msae name`"
        )
    return table


def quality_table(metrics: Mapping[str, Any]) -> QualityTable:
    """The figures at every level; neighboring levels with the same figures share a row."""
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
    """The best-named latents with their evidence, each name once, only validated ones if there are any.

    Raises:
        ValueError: The table names another number of latents, or cannot be read.
    """
    if not tables:
        return None
    table = load_names(tables[0], config.num_latents)
    best = table.best_available(_Q)[0].head(number)
    columns = ["latent", "name", "similarity", "runner-up"]
    rows = []
    extra = [(key, _EVIDENCE[key]) for key in _EVIDENCE if key in best]
    for row in best.to_dict("records"):
        runner_up = f"{escaped(row['runner_up'])} ({row['runner_up_similarity']:.3f})" if row["runner_up"] else ""
        cells = [str(row["latent"]), escaped(row["name"]), f"{row['similarity']:.3f}", runner_up]
        rows.append([*cells, *(show(row[key], row) for key, (_, show, _) in extra)])
    columns += [heading for _, (heading, _, _) in extra]
    by = escaped(table.provenance.get("similarity")) or "cosine of a latent's direction and a word's text embedding"
    legend = " ".join([f"Similarity: {by}.", *(meaning for _, (_, _, meaning) in extra)])
    return ConceptSection(
        columns, rows, best["name"].tolist(), _naming_summary(table), legend, f"concepts/{tables[0].name}"
    )


_EVIDENCE = {  # column -> heading, how a cell is written, what it means
    "q_value": (
        "q",
        lambda value, row: f"{value:.2g}",
        f"q: false discovery rate of the name; up to {_Q} the name counts as better than chance.",
    ),
    "activation_name": (
        "named by activations",
        lambda value, row: escaped(value) + (" ✓" if row.get("agrees") else ""),
        "Named by activations: what the samples that activate the latent most have in common; ✓ if it is the same.",
    ),
    "auroc": (
        "AUROC",
        lambda value, row: "" if value != value else f"{value:.3f}",
        "AUROC: how well the latent's activation detects the held-out samples that the name is true of.",
    ),
}


def _naming_summary(table: ConceptTable) -> str:
    words = table.provenance.get("words")
    vocabulary = f"a vocabulary of {words:,} words" if isinstance(words, int) else "a vocabulary"
    text = f"Latents are named from {vocabulary}. "
    named, count = table.frame, ""
    if "q_value" in named:
        named = table.validated(_Q)
        text += f"{len(named):,} of {len(table):,} have a name that is better than chance (q <= {_Q})"
        if "agrees" in named:
            text += f"; {int(named['agrees'].sum()):,} of these get the same name from what activates them"
    else:
        text += "There are no q-values: it was not tested which names are better than chance"
        count = f" of {len(table):,}"
    if "auroc" in named:
        text += f"; {int((named['auroc'] > 0.9).sum()):,}{count} detect held-out samples of their name (AUROC > 0.9)"
    return f"{text}. The best latent of each name:" if len(named) else f"{text}. The most similar names:"
