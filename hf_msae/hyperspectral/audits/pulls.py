"""Pulls: how far a group shifts what a classifier says of rows of the same class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...statistics import Finding, candidate, log_odds, percentiles, resampled_means
from ..subject import Subject

LIMITS = (0.05, 0.15, 0.3)
"""Pulls that are minor, moderate and severe."""
COLUMNS = ["grouping", "group", "target", "rows", "pull", "low", "high"]
_FEWEST = 8  # rows of a class in the group, and outside
_SUREST = 1e-3
_ADVICE = (
    "Test the classifier on rows in which the {grouping} does not go with the class. Train on such rows, or erase "
    "what tells the {grouping} (hf_msae.steering), and check again."
)


def pulls(subject: Subject) -> tuple[pd.DataFrame, list[Finding | None], list[str]]:
    """Compare log-odds of rows of the same class in a group and outside of it.

    A classifier that reads the class alone says the same of rows of one class, whatever their group. The pull of a
    group is the difference in the mean log-odds of rows of one class between the group and the others, averaged over
    the classes that have at least 8 rows in both, and divided by the difference that the class makes: 0 if the group
    does not matter, 1 if it matters as much as the class. (It compares scores of the same class, as equalized odds
    do: Hardt et al., "Equality of opportunity in supervised learning", NeurIPS 2016.)
    """
    records, tests, remarks = [], [], []
    for grouping, labels in subject.groups.items():
        names = np.unique(labels)
        too_few: dict[str, int] = {}
        for place, target in enumerate(subject.targets):
            says = log_odds(np.clip(subject.predictions[:, place], _SUREST, 1 - _SUREST))
            classes = np.stack([subject.Y[:, place] < 0.5, subject.Y[:, place] > 0.5], axis=1)
            for name in names[1:] if len(names) == 2 else names:
                inside = labels == name
                cells = np.concatenate([classes & inside[:, None], classes & ~inside[:, None]], axis=1)
                enough = (cells.sum(axis=0) >= _FEWEST).reshape(2, 2).all(axis=0)
                if not enough.any():
                    too_few[str(name)] = too_few.get(str(name), 0) + 1
                    continue
                columns = np.concatenate([cells, classes], axis=1)
                columns = np.concatenate([columns, columns * says[:, None]], axis=1).astype(np.float64)
                value = float(_pull(columns.mean(axis=0)[None], enough)[0])
                draws = _pull(resampled_means(columns, subject.num_resamples, subject.seed), enough)
                records.append((grouping, str(name), target, int(inside.sum()), value, *percentiles(draws)))
                evidence = (
                    f"Among rows of the same class, log-odds of {target} are shifted by {value:+.2f} times what the "
                    f"class itself makes of them where {grouping} is {name} ({int(inside.sum())} rows)."
                )
                sign = 1 if value >= 0 else -1
                title = f"{'More' if sign > 0 else 'Less'} {target} is predicted where {grouping} is {name}"
                where = f"{target} where {grouping} is {name}"
                arguments = (
                    "shortcuts",
                    f"pull of {grouping}",
                    where,
                    title,
                    "group_pull",
                    sign * value,
                    sign * draws,
                )
                tests.append(
                    candidate(*arguments, LIMITS, evidence, _ADVICE.format(grouping=grouping), two_sided=True)
                )
        remarks += _not_measured(grouping, too_few, len(names) - (len(names) == 2), subject)
    return pd.DataFrame(records, columns=COLUMNS), tests, remarks


def _not_measured(grouping: str, too_few: dict[str, int], number: int, subject: Subject) -> list[str]:
    if not too_few:
        return []
    first = ", ".join(list(too_few)[:3]) + ", ..." * (len(too_few) > 3)
    which = f"any of its {number} groups" if len(too_few) == number > 1 else first
    some = "" if min(too_few.values()) == len(subject.targets) else " (of some classes)"
    return [
        f"{grouping}: how far it pulls predictions was not measured for {which}{some}, since no class has at least "
        f"{_FEWEST} rows both there and elsewhere."
    ]


def _pull(means: np.ndarray, enough: np.ndarray) -> np.ndarray:
    """Compute pulls from means of the six indicators, and of these times the log-odds."""
    with np.errstate(all="ignore"):
        inside, outside, whole = np.split(means[:, 6:] / means[:, :6], 3, axis=1)
        return (inside - outside)[:, enough].mean(axis=1) / np.abs(whole[:, 1] - whole[:, 0])
