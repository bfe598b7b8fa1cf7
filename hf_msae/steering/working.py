"""At which doses a removal works: the longest run of measured doses with enough success and little harm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

_ENDS = ("part", "dose")


def working_ranges(curves: pd.DataFrame, epsilon: float) -> pd.DataFrame:
    """Find the doses that work, as `SwordBenchResult.working_doses` says."""
    rows = []
    for task, of_task in curves.groupby("task", sort=False):
        harmless = (of_task["damage"] <= epsilon) & ~(of_task["over_correction"] > epsilon)
        best = of_task.loc[harmless, "success"].max()
        works = harmless & (of_task["success"] >= best / 2) if best > 0 else harmless & False
        for method, curve in of_task.groupby("method", sort=False):
            found = _longest_run(curve[works[curve.index]], curve["part"].tolist())
            reason = "" if len(found) else "no dose works"
            if len(found) and not found["dose"].iloc[0] < found["dose"].iloc[-1]:
                reason = f"one dose works, {found['dose'].iloc[0]:.2g}, and one is no range"
                found = found.iloc[:0]
            ends = [found[name].iloc[place] if len(found) else np.nan for name in _ENDS for place in (0, -1)]
            rows.append((task, method, *ends, found["success"].max(), best / 2 if best > 0 else np.nan, reason))
    columns = ["task", "method", *(f"{name}_{end}" for name in _ENDS for end in ("from", "to"))]
    return pd.DataFrame(rows, columns=[*columns, "best", "needed", "reason"])


def _longest_run(working: pd.DataFrame, parts: Sequence[float]) -> pd.DataFrame:
    """Return the longest run of rows whose parts follow each other."""
    places = np.array([parts.index(part) for part in working["part"]], dtype=int)
    runs = np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) != 1) + 1)
    return working.iloc[max(runs, key=len)]
