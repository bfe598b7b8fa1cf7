"""How numbers are written on the page and in the explorer."""

from __future__ import annotations

DASH = "\N{EN DASH}"
"""Stands for a missing value."""
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 2) -> str:
    """Format with a fixed number of digits; None becomes a dash."""
    return DASH if value is None else f"{value:,.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """Format with a sign, except for what rounds to zero."""
    text = f"{value:+,.{digits}f}"
    return text[1:] if not float(text.replace(",", "")) else text.replace("-", MINUS)


def share(value: float) -> str:
    """Format a share in percent, never rounded to 0% or 100%."""
    if 0 < value < 0.001:
        return "< 0.1%"
    return "> 99.9%" if 0.9995 <= value < 1 else f"{value:.1%}"


def small(value: float | None) -> str:
    """Format a p- or q-value."""
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
