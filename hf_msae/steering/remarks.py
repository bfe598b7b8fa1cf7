"""What ranks and means do not show: what was left out, what was stretched, and which rows they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from .result import SwordBenchResult

MOST_STRETCH = 2.0
"""How many times its own change an edit may be scaled by at equal doses without a remark; curves end there too."""


def with_stretch(ranking: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Add to ranks at equal doses how much each removal was stretched on average, with a note beyond twice."""
    values = frame[frame["metric"] == "stretch"].astype({"value": float}).groupby(["task", "method"])["value"].mean()
    stretch = [values.get(place, float("nan")) for place in zip(ranking["task"], ranking["method"], strict=True)]
    notes = [
        "; ".join([*([note] if note else []), *([f"stretched {by:.1f} times"] if by > MOST_STRETCH else [])])
        for note, by in zip(ranking["note"], stretch, strict=True)
    ]
    place = list(ranking).index("seeds")
    found = ranking.assign(note=notes)
    found.insert(place, "stretch", pd.Series(stretch, index=ranking.index, dtype=float))
    return found


def largest_equal_doses(frame: pd.DataFrame) -> dict[str, float]:
    """Return the largest of the doses that are equal for all methods, for each task, the mean over seeds."""
    places = ["task", "method", "seed", "concept"]
    values = frame.pivot_table(index=places, columns="metric", values="value", aggfunc="first", sort=False)
    if not {"stretch", "dose"} <= set(values):
        return {}
    return (values["stretch"] * values["dose"]).astype(float).dropna().groupby("task", sort=False).mean().to_dict()


def remarks(result: SwordBenchResult) -> list[str]:
    """Return the sentences of `SwordBenchResult.remarks`."""
    found, summary = [], result.summary(None)
    for task, each in summary[summary["missing"] != ""].groupby("task", sort=False):
        first = each.iloc[0]
        more = f" (as one of {len(each)} means: see the column missing of the summary)" if len(each) > 1 else ""
        found.append(
            f"a figure on {task} is not defined for all seeds and concepts: the mean {first['metric']} of "
            f"{first['method']} is without {first['missing']}{more}"
        )
    for task, each in result.gains[result.gains["biased"].map(len) > 0].groupby("task", sort=False):
        if each["task_sha256"].nunique() == 1:
            found.append(
                f"all rows of {task} are one draw: ranks and their intervals are of these test rows, and say nothing "
                "about other training rows"
            )
    return found
