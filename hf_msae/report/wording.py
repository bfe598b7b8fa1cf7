"""How numbers are written on the page."""

from __future__ import annotations

DASH = "\N{EN DASH}"
"""Where there is no value."""
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 2) -> str:
    """With a fixed number of digits; a dash where there is none."""
    return DASH if value is None else f"{value:,.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """With its sign, which of a rounded zero is left out."""
    text = f"{value:+,.{digits}f}"
    return text[1:] if not float(text.replace(",", "")) else text.replace("-", MINUS)


def share(value: float) -> str:
    """In percent, with as many digits as tell it from none and from all."""
    if 0 < value < 0.001:
        return "< 0.1%"
    return "> 99.9%" if 0.9995 <= value < 1 else f"{value:.1%}"


def small(value: float | None) -> str:
    """A p- or q-value."""
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
