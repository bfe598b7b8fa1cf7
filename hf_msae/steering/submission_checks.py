"""What the figures of a submission have to be: in range, and what follows from its rows is what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..statistics import auroc_interval, resampled_means
from .damage import GROUPS, MIN_ROWS

_AUROCS = ("detection_auroc", "removal_auroc", "leakage_linear", "leakage_nonlinear")

FIGURES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("success", "bias_cost", "damage", "over_correction"), (-1.0, 1.0)),
    **{"net_gain": (-3.0, 2.0), "recovery": (-math.inf, math.inf)},
    **dict.fromkeys(("flip_rate", "worst_group", "worst_group_before"), (0.0, 1.0)),
    **dict.fromkeys(("kl", "dose", "drift"), (0.0, math.inf)),
    **dict.fromkeys(("exactness", "injection_exactness"), (-math.inf, 1.0)),
    **dict.fromkeys(_AUROCS, (0.0, 1.0)),
}
"""The figures of a submission, all of the bias, with the least and the greatest value that each can have."""

NEEDED = ("success", "bias_cost", "damage", "net_gain", "worst_group_before")
"""The figures without which a method cannot be ranked."""

_PRESENT = ("recovery", "over_correction")  # null where they are not defined
_MINIMA = ("worst_group", "worst_group_before")  # resampling lowers a minimum, so it may lie above its interval
_EXACT = 1e-4  # figures have six decimals
_DRAWN = 0.01  # ends of intervals, of which another version of numpy may draw other resamples

Figures = Mapping[str, list[Any]]
Gains = Mapping[str, np.ndarray]


def is_number(value: Any) -> bool:
    """Return whether a value of a JSON file is a finite number."""
    if isinstance(value, int):  # JSON sets no limit, and a float does
        return not isinstance(value, bool) and abs(value) < 2**53
    return isinstance(value, float) and math.isfinite(value)


def check_cell(place: str, figures: Figures, gains: Gains) -> None:
    """Check the figures of one task and seed, alone and against what removal gained in each row.

    Recomputed are success, damage, over-correction, net gain, recovery, and the intervals of AUROCs, which follow from
    the numbers of rows. What the rows leave open has to be possible. `check_intervals` does the rest.
    """
    for name, figure in figures.items():
        _check_figure(f"{place}: {name}", name, figure)
    if missing := [name for name in NEEDED if name not in figures or figures[name][0] is None]:
        raise ValueError(f"{place}: {missing[0]} is not defined, so the method cannot be ranked")
    if missing := [name for name in _PRESENT if name not in figures]:
        raise ValueError(f"{place}: {missing[0]} is missing; where it is not defined, it is [null, null, null]")
    means = _of_means(*(gains[group].mean() if len(gains[group]) else 0.0 for group in GROUPS))
    if not len(gains["aligned"]):
        means["over_correction"] = math.nan
    for name, value in means.items():
        _compare(f"{place}: {name}", figures[name][0], float(value), _EXACT)
    success, (cost, low, _) = figures["success"][0], figures["bias_cost"]
    is_defined = low is not None and low > 0
    recovery = success / cost if is_defined else math.nan
    rounding = 1e-6 * (1 + abs(recovery)) / cost if is_defined else 0
    _compare(f"{place}: recovery", figures["recovery"][0], recovery, _EXACT + rounding)
    with_bias, without = len(gains["biased"]) + len(gains["aligned"]), len(gains["unbiased"])
    if areas := {name: figures[name][0] for name in _AUROCS if name in figures and figures[name][0] is not None}:
        ends = np.transpose(auroc_interval(np.array(list(areas.values())), with_bias, without))
        for name, each in zip(areas, ends, strict=True):
            _compare_ends(place, name, figures, each)
    for name, (least, most, why) in _possible(figures, gains).items():
        value = figures[name][0]
        if not least - _EXACT <= value <= most + _EXACT:
            raise ValueError(
                f"{place}: {name} is {value}, but {why} leaves {max(least, FIGURES[name][0]):.6f} to "
                f"{min(most, FIGURES[name][1]):.6f}"
            )


def check_intervals(places: Sequence[str], figures: Sequence[Figures], gains: Gains, seed: int) -> None:
    """Check the intervals of means over rows, of submissions to the same task and seed: resamples are drawn once.

    `places` are for messages, and `gains` is what removal gained in each row of a group (rows, submissions).
    """
    draws = []
    for place, group in enumerate(GROUPS):
        found = gains[group] if len(gains[group]) else np.zeros((1, len(places)))
        draws.append(resampled_means(found, seed=seed + place))
        if 0 < len(gains[group]) < MIN_ROWS:
            draws[-1][:] = np.nan
    for name, drawn in _of_means(*draws).items():
        if name == "over_correction" and not len(gains["aligned"]):
            drawn[:] = np.nan
        ends = (
            np.full((2, len(places)), np.nan) if np.isnan(drawn).any() else np.quantile(drawn, (0.025, 0.975), axis=0)
        )
        for place, each, (low, high) in zip(places, figures, ends.T, strict=True):
            _compare_ends(place, name, each, (low, high))


def _check_figure(place: str, name: str, figure: list[Any]) -> None:
    if name not in FIGURES:
        raise ValueError(f"{place[:120]} is none of the figures {', '.join(FIGURES)}")
    least, most = FIGURES[name]
    numbers = [each for each in figure if each is not None]
    if len(figure) != 3 or not all(map(is_number, numbers)):
        raise ValueError(f"{place} has to be a value and the ends of its interval, but is {str(figure)[:80]}")
    if len(numbers) not in (0, 3) and figure[1:] != [None, None]:
        raise ValueError(f"{place} is {figure}: an interval has two ends and a value, or there is none")
    if out := [each for each in numbers if not least <= each <= most]:
        raise ValueError(f"{place} is {out[0]}, but has to lie between {least} and {most}")
    if len(numbers) == 3:
        value, low, high = figure
        if not low <= high:
            raise ValueError(f"{place} has an interval that ends before it begins: {figure}")
        if value < low - _EXACT or (value > high + _EXACT and name not in _MINIMA):
            raise ValueError(f"{place} is {value}, outside its interval from {low} to {high}")


def _of_means(biased: Any, unbiased: Any, aligned: Any) -> dict[str, Any]:
    net_gain = biased + unbiased + np.minimum(0, aligned)
    return {"success": biased, "damage": -unbiased, "over_correction": -aligned, "net_gain": net_gain}


def _possible(figures: Figures, gains: Gains) -> dict[str, tuple[float, float, str]]:
    """Return what the rows leave of other figures: least, most and why."""
    lost, won = (
        {group: float((sign * gains[group] > 0).mean()) for group in ("biased", "unbiased")} for sign in (-1, 1)
    )
    rows = len(gains["unbiased"])
    found = {
        "bias_cost": (won["biased"] - 1, 1 - lost["biased"], "what was lost and won in biased rows"),
        "worst_group": (0, 1 - max(lost["biased"], lost["unbiased"]), "what was lost in the rows"),
        "worst_group_before": (0, 1 - max(won["biased"], won["unbiased"]), "what was won in the rows"),
        "flip_rate": (lost["unbiased"] + won["unbiased"], 1, f"what changed in {rows} unbiased rows"),
    }
    found = {name: each for name, each in found.items() if name in figures and figures[name][0] is not None}
    for name, changed in (("dose", lost["biased"] + won["biased"]), ("drift", figures.get("flip_rate", [0])[0])):
        if changed and name in figures and figures[name][0] is not None:
            found[name] = (2 * _EXACT, math.inf, "that predictions change")
    return found


def _compare_ends(place: str, name: str, figures: Figures, ends: Sequence[float]) -> None:
    for end, given, expected in zip(("low", "high"), figures[name][1:], ends, strict=True):
        _compare(f"{place}: the {end} end of {name}", given, float(expected), _DRAWN)


def _compare(place: str, given: float | None, expected: float, tolerance: float) -> None:
    if math.isnan(expected) != (given is None) or (given is not None and abs(given - expected) > tolerance):
        found = "not defined" if math.isnan(expected) else f"{expected:.6f}"
        raise ValueError(f"{place} is {'not defined' if given is None else given}, but the rows make it {found}")
