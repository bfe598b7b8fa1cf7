"""A task of embeddings that people have, with columns of labels: which rows are trained and which are tested on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2_contingency

from .._utils.checks import check_integers, check_several
from .damage import MIN_ROWS, MOST_P_VALUE
from .data import is_opened
from .tasks import Task
from .tasks.datasets import booleans_of, labels_of, splits_of

if TYPE_CHECKING:
    import pandas as pd

    from ..embeddings import EmbeddingDataset


def task_from_embeddings(
    embeddings: EmbeddingDataset,
    target: str,
    bias: str,
    concepts: Sequence[str] = (),
    split_column: str | None = None,
    test_share: float = 0.5,
    balance_test: bool | None = None,
    num_rows: int | None = None,
    name: str | None = None,
    seed: int = 0,
) -> Task:
    """Make a task of opened embeddings with columns of labels; it has no counterfactuals.

    Rows of the same label that are alike in whether they have the bias are a cell. Without a column of splits, each
    cell is split at random by `test_share`, so the training rows keep the correlation of label and bias that the data
    have. In the test it would count against every method, so as many rows of each cell are tested, and the others are
    left out. Where a cell has too few rows for that, none are left out and a warning says what the test cannot show.

    Args:
        embeddings: What `load_embeddings` opened, one embedding a row.
        target: Column of the label; its values become numbers in sorted order.
        bias: Column of the concept that is spuriously correlated with the label.
        concepts: Columns of other concepts. Those of concepts hold booleans, 0 and 1, or -1 and 1.
        split_column: Column of the splits: "train" and "test", or 0 and 2; rows of a validation split are left out.
        test_share: Without such a column, the share of rows of each cell that may be tested on.
        balance_test: Whether to test on as many rows of each cell. Defaults to true without a column of splits, and
            to all test rows with one.
        num_rows: Number of rows at most, drawn at random before anything else; None for all.
        name: Name of the task. Defaults to the label's column.
        seed: Random seed of what is drawn: each seed has a split of its own.

    Raises:
        ValueError: A column is missing or holds something else, a split has no rows, or a row has many embeddings.
    """
    check_several("columns", concepts=concepts)
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must lie between 0 and 1, got {test_share}")
    columns = list(dict.fromkeys([target, bias, *concepts, *([split_column] if split_column else [])]))
    check_integers("num_rows", num_rows=(num_rows, 1), seed=(seed, 0))
    table = _table(embeddings, columns)
    values, labels = labels_of(table[target], target, embeddings.dataset.features[target])
    truth = {column: booleans_of(table[column], column) for column in dict.fromkeys((bias, *concepts))}
    random, cells = np.random.default_rng(seed), 2 * labels + truth[bias]
    if split_column is None:
        split = np.full(len(table), "train", dtype="<U8")
    else:
        split = splits_of(table[split_column], split_column)
    if num_rows is not None:
        split[random.permutation(len(table))[num_rows:]] = "left out"
    if split_column is None:
        for cell in range(2 * len(values)):
            rows = random.permutation(np.flatnonzero((cells == cell) & (split == "train")))
            # At least one is tested on, and one trained on: a label that only test rows have would be refused.
            split[rows[: min(max(1, round(test_share * len(rows))), len(rows) - 1)]] = "test"
    name = name or target
    groups = [f"{target} = {value} {has} {bias}" for value in values for has in ("without", "with")]
    test = np.flatnonzero(split == "test")
    counts = np.bincount(cells[test], minlength=len(groups))
    few = [f"{group} ({number})" for group, number in zip(groups, counts, strict=True) if number < MIN_ROWS]
    if few:
        more = f" and {len(few) - 4} more such groups" if len(few) > 4 else ""
        warnings.warn(
            f"{name} has too few test rows with {', '.join(few[:4])}{more}. Figures of a group with fewer than "
            f"{MIN_ROWS} have no intervals, and no method can be called perfect; test rows are not balanced, so "
            "figures of all of them, such as leakage, may show the label in place of the bias",
            stacklevel=2,
        )
    elif balance_test or (balance_test is None and split_column is None):
        for cell in range(len(groups)):
            rows = random.permutation(test[cells[test] == cell])
            split[rows[counts.min() :]] = "left out"
    elif balance_test is None and (p_value := chi2_contingency(counts.reshape(-1, 2)).pvalue) <= MOST_P_VALUE:
        warnings.warn(
            f"label and bias of {name} are correlated in the test rows too (p = {p_value:.2g}), so figures of all of "
            "them, such as leakage, may show the label in place of the bias; with balance_test, as many rows of each "
            "label are tested on with the bias as without it",
            stacklevel=2,
        )
    rows = np.flatnonzero(np.isin(split, ("train", "test")))
    return Task(
        name=name,
        backbone=str(embeddings.provenance.get("base_model_name_or_path") or "unknown"),
        features=embeddings[rows].numpy(),
        concepts={column: found[rows] for column, found in truth.items()},
        target=labels[rows],
        bias=bias,
        split=split[rows],
        provenance={**embeddings.provenance, "label": target, "seed": int(seed), "inputs": rows.tolist()},
    )


def _table(embeddings: EmbeddingDataset, columns: Sequence[str]) -> pd.DataFrame:
    if not is_opened(embeddings):
        raise TypeError(f"embeddings must be what load_embeddings returns, got {type(embeddings).__name__}")
    if embeddings.dataset is None:
        raise ValueError(
            f"{embeddings.source} has no columns of labels: give a folder of hf-msae extract, or a dataset or parquet "
            f"file with columns"
        )
    from datasets import ClassLabel, Value  # here, since it takes a second

    for column in columns:
        if column not in embeddings.dataset.column_names:
            raise ValueError(f"there is no column {column!r}, only {', '.join(embeddings.dataset.column_names)}")
        if not isinstance(feature := embeddings.dataset.features[column], ClassLabel | Value):
            raise ValueError(f"column {column!r} of {embeddings.source} holds {feature}, not labels")
    if embeddings.has_tokens:
        raise ValueError(f"a row of {embeddings.source} has many embeddings, its tokens: average them first")
    return embeddings.dataset.select_columns(list(columns)).to_pandas()
