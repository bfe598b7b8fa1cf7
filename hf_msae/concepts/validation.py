"""When a name counts as validated, and what another one lacks: it may be due to chance, or be too weak."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

MAX_Q = 0.05
"""The false discovery rate at which a name counts as validated."""

MIN_AUROC = 0.9
"""What the lower end of a name's AUROC interval has to reach for the name to count as validated, if it has one."""

MIN_AGREEMENT = 0.4
"""What the agreement of a name from pictures has to reach. A handful of pictures can give a high AUROC by accident."""

Doubt = Literal["untested", "chance", "strength"]
_BOUNDS = ("zero_shot_auroc_low", "auroc_low")


def has_strength_test(frame: pd.DataFrame) -> bool:
    """Return whether the names also have to be strong enough: they come from pictures or labels."""
    return any(column in frame for column in _BOUNDS)


def doubts(frame: pd.DataFrame, q: float = MAX_Q) -> pd.Series:
    """Return why each name is not validated; None for a validated one.

    "untested" without a q-value, "chance" if it is above `q`, "strength" if only the lower end of the AUROC's interval
    is below 0.9, or the agreement of a name from pictures below 0.4.
    """
    found = np.full(len(frame), None, dtype=object)
    bounds = {column: _numbers(frame, column) for column in _BOUNDS if column in frame}
    for values in bounds.values():
        found[~(values >= MIN_AUROC)] = "strength"
    if _BOUNDS[0] in bounds and "agreement" in frame:
        found[~(_numbers(frame, "agreement") >= MIN_AGREEMENT) & ~np.isnan(bounds[_BOUNDS[0]])] = "strength"
    q_values = _numbers(frame, "q_value") if "q_value" in frame else np.full(len(frame), np.nan)
    found[q_values > q] = "chance"
    found[np.isnan(q_values)] = "untested"
    return pd.Series(found, frame.index, dtype=object)


def _numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    return frame[column].to_numpy(np.float64, na_value=np.nan)


def rule(frame: pd.DataFrame, q: float = MAX_Q) -> str:
    """Write in words what a validated name has to reach."""
    strong = ""
    if _BOUNDS[0] in frame:
        strong = (
            f", the AUROC minus one standard error at least {MIN_AUROC}, and the agreement at least {MIN_AGREEMENT}"
        )
    elif has_strength_test(frame):
        strong = f", and the lower end of the AUROC's 95% interval at least {MIN_AUROC}"
    return f"q at most {q}{strong}"


def too_weak(frame: pd.DataFrame, q: float = MAX_Q) -> str:
    """Write how many latents have a name that is better than chance, but not strong enough; "" if none has."""
    number = int(((doubts(frame, q) == "strength") & frame["name"].notna()).sum())
    if not number:
        return ""
    have = "latent has a name that is" if number == 1 else "latents have a name that is"
    return (
        f"{number:,} {have} better than chance (q at most {q}), but not strong enough: the lower end of its AUROC's "
        f"interval is below {MIN_AUROC}{f', or its agreement below {MIN_AGREEMENT}' if 'agreement' in frame else ''}"
    )


def why_none(frame: pd.DataFrame, q: float = MAX_Q) -> str:
    """Write why no name of a table is validated."""
    if "q_value" not in frame:
        return "the table of names has no q-values"
    return too_weak(frame, q) or f"no q-value is at most {q}{_powerless(frame, q)}"


def _powerless(frame: pd.DataFrame, q: float) -> str:
    """Write that the test found nothing in any latent, if so: it may not work on this backbone."""
    if "p_value" not in frame or not (lowest := frame["p_value"].min()) > q:
        return ""
    if has_strength_test(frame):
        what = (
            "random mixtures of words are detected as well as the words are, so the backbone may not tell them apart"
        )
    else:
        what = "random directions are as near to words, as where a gap separates texts and images; use pictures"
    return f" (the lowest p-value is {lowest:.2g}: {what})"
