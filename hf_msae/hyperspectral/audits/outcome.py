"""What an audit returns, and the resampling that audits share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..._utils.json_files import json_records
from ...statistics import Finding, auroc, percentiles, resampled_auroc, resampled_means
from ..subject import ALL, Subject

RELATED = 0.1
"""A correlation of predictions and target above which a model says something of the target."""


@dataclass(frozen=True)
class Outcome:
    """What an audit found.

    `candidates` become findings if they stay significant among the tests of all audits; None stands for what is not
    defined. `remarks` say how it was measured, or why something was left out.
    """

    tables: Mapping[str, pd.DataFrame]
    candidates: Sequence[Finding] = ()
    remarks: Sequence[str] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "tables": {
                name: {"columns": list(table.columns), "records": json_records(_without_infinity(table))}
                for name, table in self.tables.items()
            },
            "candidates": [each.to_dict() for each in self.candidates],
            "remarks": list(self.remarks),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Outcome:
        """Build an outcome from what `to_dict` returned."""
        tables = {
            name: pd.DataFrame(table["records"], columns=table["columns"]) for name, table in content["tables"].items()
        }
        return cls(tables, [Finding.from_dict(each) for each in content["candidates"]], content["remarks"])


def _without_infinity(table: pd.DataFrame) -> pd.DataFrame:
    return table.replace([np.inf, -np.inf], np.nan)


def r2_draws(subject: Subject, *predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute R2 of several predictions (n, t) of the same rows, also in bootstrap resamples, which are paired.

        R2 = 1 - sum (y - prediction)^2 / sum (y - mean y)^2

    Returns values (predictions, t + 1) and resamples (predictions, resamples, t + 1); the last column is the mean over
    targets.
    """
    Y = subject.Y - subject.Y.mean(axis=0)  # for precision
    errors = [(subject.Y - each) ** 2 for each in predictions]
    t = Y.shape[1]
    columns = np.concatenate([*errors, Y, Y**2], axis=1)
    draws = resampled_means(columns, subject.num_resamples, subject.seed)
    values = columns.mean(axis=0)[None]

    def r2(means: np.ndarray) -> np.ndarray:
        total = means[:, -t:] - means[:, -2 * t : -t] ** 2
        found = np.stack([1 - means[:, i * t : (i + 1) * t] / np.maximum(total, 1e-300) for i in range(len(errors))])
        return np.concatenate([found, found.mean(axis=-1, keepdims=True)], axis=-1)

    return r2(values)[:, 0], r2(draws)


def is_related(subject: Subject, predictions: np.ndarray) -> np.ndarray:
    """Say of which targets (t,) the 95% interval of the correlation with predictions (n, t) lies above 0.1.

    R2 need not show that if some predictions are far off.
    """
    y, p = ((each - each.mean(axis=0)) / np.maximum(each.std(axis=0), 1e-300) for each in (subject.Y, predictions))
    columns = np.concatenate([y, p, y**2, p**2, y * p], axis=1)
    means = resampled_means(columns, subject.num_resamples, subject.seed).reshape(subject.num_resamples, 5, -1)
    my, mp, yy, pp, yp = means.transpose(1, 0, 2)
    with np.errstate(all="ignore"):
        r = (yp - my * mp) / np.sqrt((yy - my**2) * (pp - mp**2))
    return np.array([percentiles(each)[0] > RELATED for each in r.T])


def score_draws(subject: Subject, *predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute what `r2_draws` does, or for a classifier the same of the AUROC of probabilities."""
    if subject.classes is None:
        return r2_draws(subject, *predictions)
    number, names = len(predictions), len(subject.targets)
    values, draws = np.empty((number, names)), np.empty((number, subject.num_resamples, names))
    for target, truth in enumerate(subject.Y.T > 0.5):
        scores = np.stack([each[:, target] for each in predictions], axis=1)
        values[:, target] = auroc(truth, scores)
        draws[:, :, target] = resampled_auroc(truth, scores, subject.num_resamples, subject.seed).T
    return tuple(np.concatenate([each, each.mean(axis=-1, keepdims=True)], axis=-1) for each in (values, draws))


def scores(subject: Subject, predictions: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Compute how good predictions (n, t) of some rows are: t values, NaN where all are alike, and their mean."""
    Y, found = subject.Y[rows], predictions[rows]
    values = np.full(Y.shape[1], np.nan)
    for target, y in enumerate(Y.T):
        if np.ptp(y) > 0:
            p = found[:, target]
            values[target] = 1 - ((y - p) ** 2).mean() / y.var() if subject.classes is None else auroc(y > 0.5, p)
    return np.append(values, values.mean())


def score_name(subject: Subject) -> str:
    """Return what `score_draws` computes: "R2" or "AUROC"."""
    return "R2" if subject.classes is None else "AUROC"


def chance_score(subject: Subject) -> float:
    """Return the score of knowing nothing."""
    return 0.0 if subject.classes is None else 0.5


def score_limits(subject: Subject, limits: Sequence[float]) -> tuple[float, ...]:
    """Return limits of differences in R2 as those of the score; an AUROC has half the range above chance."""
    return tuple(limit * (1 - chance_score(subject)) for limit in limits)


def target_names(subject: Subject) -> list[str]:
    """Return the names of targets, followed by `ALL` if there are several."""
    return [*subject.targets, ALL] if len(subject.targets) > 1 else list(subject.targets)
