"""Dose and response as a line chart: an SVG with a title and a description, and its numbers in a table below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise

from ..rendering import UNVALIDATED, macros

# Drawn for a narrow screen, so that the words can be read there; on a wide one it is enlarged.
_FRAME = {"width": 420, "height": 270, "left": 42, "right": 316, "bottom": 224}
_TOP = 14
_LABEL_GAP, _LABEL_LENGTH = 14.0, 13
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
MAX_CURVES = len(_DASHES)
_ids = count(1)  # ids are unique in the page, which may hold several charts
_html = macros("dose_chart.html")


@dataclass(frozen=True)
class Curve:
    """The mean probability at each dose of a concept."""

    name: str
    validated: bool  # whether the name passed its tests
    # The doses as shares of the pictures with the concept that have no more of it; 0 means absent.
    shares: tuple[float, ...]
    doses: tuple[float, ...]  # the doses as activations
    probabilities: tuple[float, ...]  # mean over the pictures, with the concept at each dose
    low: tuple[float, ...]  # lower ends of the bootstrap intervals
    high: tuple[float, ...]  # upper ends of the bootstrap intervals

    @property
    def is_sure(self) -> bool:
        """Whether its name cannot be wrong: it is validated, or a number."""
        return self.validated or self.name.startswith("latent ")


def dose_chart(curves: Sequence[Curve], baseline: float, target: str) -> str:
    """Draw at most `MAX_CURVES` curves of the same shares, with a table of their numbers (HTML).

    `baseline` is the mean probability of the unedited pictures, and `target` what the probability is of.
    """
    label_ys = _spread([_y(curve.probabilities[-1]) for curve in curves])
    lines = [_line(curve, *drawn) for curve, *drawn in zip(curves, label_ys, _DASHES, strict=False)]
    y_ticks = [(percentage, _y(percentage / 100)) for percentage in (0, 25, 50, 75, 100)]
    frame = {**_FRAME, "id": next(_ids), "y_ticks": y_ticks, "baseline": _y(baseline)}
    return _html.dose_chart(target, baseline, frame, lines)


def _y(probability: float) -> float:
    return _FRAME["bottom"] - (_FRAME["bottom"] - _TOP) * probability


def _line(curve: Curve, label_y: float, dashes: str) -> dict[str, object]:
    """What the template draws for a curve."""
    step = (_FRAME["right"] - _FRAME["left"]) / (len(curve.shares) - 1)
    dots = [
        {
            "x": _FRAME["left"] + place * step,
            "y": _y(probability),
            "dose": "absent" if share == 0 else "most" if share == 1 else f"{share:.0%}",
            "probability": probability,
            "low": low,
            "high": high,
        }
        for place, (share, probability, low, high) in enumerate(
            zip(curve.shares, curve.probabilities, curve.low, curve.high, strict=True)
        )
    ]
    edges = [(dot["x"], _y(dot["high"])) for dot in dots] + [(dot["x"], _y(dot["low"])) for dot in reversed(dots)]
    is_long = len(curve.name) > _LABEL_LENGTH
    return {
        "name": curve.name if curve.is_sure else f"{curve.name} {UNVALIDATED}",
        "short_name": f"{curve.name[: _LABEL_LENGTH - 1]}…" if is_long else curve.name,
        "is_sure": curve.is_sure,
        "dots": dots,
        "band": " ".join(f"{x:.1f},{y:.1f}" for x, y in edges),
        "dashes": dashes,
        "label_y": label_y,
    }


def _spread(places: Sequence[float]) -> list[float]:
    """Move labels down until none covers another, and up again from the lower edge."""
    order = sorted(range(len(places)), key=lambda each: places[each])
    found = list(places)
    for before, each in pairwise(order):
        found[each] = max(found[each], found[before] + _LABEL_GAP)
    lowest = _FRAME["bottom"]
    for each in reversed(order):
        found[each] = min(found[each], lowest)
        lowest = found[each] - _LABEL_GAP
    return found
