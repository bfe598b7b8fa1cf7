"""Dose and response as a line chart: an SVG for the eye, with a title and a description, and its numbers below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import count, pairwise

from .names import UNVALIDATED

# Drawn for a narrow screen, so that the words are still read there; a wide one enlarges it.
_WIDTH, _HEIGHT = 420, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 316, 14, 224
_LABEL_GAP, _LABEL_LENGTH = 14.0, 13
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
MAX_CURVES = len(_DASHES)
_numbers = count(1)


@dataclass(frozen=True)
class Curve:
    """The mean probability at each dose of a concept.

    Attributes:
        name: of the concept.
        validated: whether the name is more than chance.
        shares: the doses as shares of the pictures having the concept that have no more of it, 0 for its absence.
        doses: the activations.
        probabilities: mean over the pictures, with the concept at that dose.
        low, high: their bootstrap intervals.
    """

    name: str
    validated: bool
    shares: tuple[float, ...]
    doses: tuple[float, ...]
    probabilities: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def is_sure(self) -> bool:
        """Whether its name cannot be wrong: it is validated, or a number."""
        return self.validated or self.name.startswith("latent ")


def dose_chart(curves: Sequence[Curve], baseline: float, target: str) -> str:
    """HTML with the chart and a table of its numbers; everything in it is escaped.

    Args:
        curves: at most `MAX_CURVES`, of the same shares.
        baseline: the mean probability, unedited.
        target: what the probability is of.
    """
    shares = curves[0].shares
    xs = [_LEFT + (_RIGHT - _LEFT) * place / (len(shares) - 1) for place in range(len(shares))]
    title = f"Probability of {target} by how strong a concept is"
    told = "; ".join(
        f"{_told(each)}: from {each.probabilities[0]:.0%} to {each.probabilities[-1]:.0%}" for each in curves
    )
    number = next(_numbers)  # ids are of the whole page
    parts = [
        f'<svg class="msae-dose" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-labelledby="msae-dose-title-{number} msae-dose-text-{number}">'
        f'<title id="msae-dose-title-{number}">{escape(title)}</title>'
        f'<desc id="msae-dose-text-{number}">From absent to the strongest seen. {escape(told)}.</desc>'
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            f'<line class="msae-grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{_y(share):.1f}" y2="{_y(share):.1f}"/>'
            f'<text x="{_LEFT - 5}" y="{_y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        )
    for x, share in zip(xs, shares, strict=True):
        parts.append(f'<text x="{x:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{_share(share)}</text>')
    parts.append(
        f'<text x="{(_LEFT + _RIGHT) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">how strong the concept is</text>'
        f'<line class="msae-baseline" x1="{_LEFT}" x2="{_RIGHT}" y1="{_y(baseline):.1f}" y2="{_y(baseline):.1f}"/>'
    )
    for place, each in enumerate(curves):
        parts.append(_drawn(each, xs, place))
    names = [_shortened(each.name) for each in curves]
    kinds = ["" if each.is_sure else " msae-guess" for each in curves]
    for place, y in enumerate(_spread([_y(each.probabilities[-1]) for each in curves])):
        parts.append(
            f'<text class="msae-line-{place + 1} msae-line-name{kinds[place]}" x="{_RIGHT + 8}" y="{y + 4:.1f}">'
            f"<title>{escape(_told(curves[place]))}</title>{escape(names[place])}</text>"
        )
    parts.append("</svg>")
    return (
        f'<figure class="msae-figure"><figcaption>{escape(title)}</figcaption>{"".join(parts)}'
        f'<p class="msae-small">Dotted: {baseline:.1%}, the mean with nothing changed. 50%: half of the pictures '
        "having the concept have no more of it; 90% is what is called strong above. Bands are 95% intervals.</p>"
        f"<details><summary>The numbers of the chart</summary>{_table(curves)}</details></figure>"
    )


def _y(probability: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * probability


def _share(share: float) -> str:
    return "absent" if share == 0 else "most" if share == 1 else f"{share:.0%}"


def _told(curve: Curve) -> str:
    return curve.name if curve.is_sure else f"{curve.name} {UNVALIDATED}"


def _shortened(name: str) -> str:
    return name if len(name) <= _LABEL_LENGTH else f"{name[: _LABEL_LENGTH - 1]}…"


def _drawn(curve: Curve, xs: Sequence[float], place: int) -> str:
    """A line with its points and its band."""
    line = " ".join(f"{x:.1f},{_y(p):.1f}" for x, p in zip(xs, curve.probabilities, strict=True))
    edges = [*zip(xs, curve.high, strict=True), *reversed(list(zip(xs, curve.low, strict=True)))]
    band = " ".join(f"{x:.1f},{_y(p):.1f}" for x, p in edges)
    points = "".join(
        f'<circle cx="{x:.1f}" cy="{_y(p):.1f}" r="3"><title>{escape(curve.name)} {_share(share)}: {p:.1%}</title>'
        "</circle>"
        for x, p, share in zip(xs, curve.probabilities, curve.shares, strict=True)
    )
    dash = f' stroke-dasharray="{_DASHES[place]}"' if _DASHES[place] else ""
    return (
        f'<g class="msae-line-{place + 1}"><polygon class="msae-band" points="{band}"/>'
        f'<polyline points="{line}"{dash}/>{points}</g>'
    )


def _spread(places: Sequence[float]) -> list[float]:
    """Where labels go so that none covers another: moved down as far as needed, and up again from the lower edge."""
    order = sorted(range(len(places)), key=lambda each: places[each])
    found = list(places)
    for before, each in pairwise(order):
        found[each] = max(found[each], found[before] + _LABEL_GAP)
    below = _BOTTOM
    for each in reversed(order):
        found[each] = min(found[each], below)
        below = found[each] - _LABEL_GAP
    return found


def _table(curves: Sequence[Curve]) -> str:
    heads = "".join(f'<th scope="col">{_share(share)}</th>' for share in curves[0].shares)
    lines = []
    for each in curves:
        cells = "".join(
            f"<td>{p:.1%} <span>{low:.1%} to {high:.1%}</span></td>"
            for p, low, high in zip(each.probabilities, each.low, each.high, strict=True)
        )
        kind = "" if each.is_sure else ' class="msae-muted"'
        lines.append(f'<tr{kind}><th scope="row">{escape(_told(each))}</th>{cells}</tr>')
    return (
        '<div class="msae-scroll" tabindex="0"><table class="msae-numbers"><thead><tr><th scope="col">concept</th>'
        f"{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
