"""What attacks do to attributions: a model may keep its predictions and change its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from ..model_of_patches import ModelOfPatches
from ..subject import Subject
from .explainers import SAMPLED, explain
from .stability import agreement

COLUMNS = ["attack", "target", "rows", "rank_correlation", "top_overlap"]
_BACKGROUND = 100


def attribution_shift(
    subject: Subject, rows: np.ndarray, attacked: Mapping[str, np.ndarray]
) -> tuple[pd.DataFrame, list[str]]:
    """Compare attributions of the same rows, by the same model, before and after attacks: a table, and remarks.

    The rows of one fold are explained, with the model that did not see them. rank_correlation is Spearman's, between
    the mean absolute SHAP values of all columns, and top_overlap the share of the ten strongest columns that stay.
    Sampled values are left out: their own noise would pass for a change. `attacked` is X of `rows` after each attack.
    """
    train, test, fitted = subject.fold_models[0]
    own = np.isin(rows, test)
    if subject.space is not None or isinstance(subject.model, ModelOfPatches) or own.sum() < 2:
        return pd.DataFrame(columns=COLUMNS), []

    def attributions(X: np.ndarray) -> np.ndarray | None:
        changed = subject.X.copy()
        changed[rows[own]] = X[own]
        found = explain(replace(subject, X=changed), fitted, rows[own], train[:_BACKGROUND])
        return None if found.method == SAMPLED else np.abs(found.values).mean(axis=0)[:, : len(subject.targets)]

    before = attributions(subject.X[rows])
    if before is None:
        return pd.DataFrame(columns=COLUMNS), ["How attacks change sampled attributions was not measured."]
    records = []
    for name, X in attacked.items():
        after = attributions(X)
        for place, target in enumerate(subject.targets):
            correlations, overlaps = agreement([before[:, place], after[:, place]])
            records.append((name, target, int(own.sum()), float(correlations[0]), float(overlaps[0])))
    table = pd.DataFrame(records, columns=COLUMNS)
    mean = table.groupby("attack", sort=False)["rank_correlation"].mean()
    lowest, highest = (f"{value:.2f}" for value in (mean.min(), mean.max()))
    span = lowest if lowest == highest else f"{lowest} ({mean.idxmin()}) to {highest} ({mean.idxmax()})"
    remark = (
        f"Under the attacks that a model has to survive, ranks of attributions correlate with those before at {span}."
    )
    return table, [remark]
