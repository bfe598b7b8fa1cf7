"""The look that all figures share, saving them, and putting them into a page as vector images."""

from __future__ import annotations

import base64
import io
import os
import unicodedata
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .._utils.atomic import atomic_path, make_folder
from .._utils.wording import UNVALIDATED, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OWN_FONT = "DejaVu Sans"  # comes with matplotlib
# The palette of Okabe and Ito, whose colors colorblind readers can distinguish.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
}


WIDTH = 3.15
"""Inches of a panel: two fit the text of a page, so that letters are printed in their size."""
LETTER = 0.065
"""Inches of a letter of 8 points, on average."""
_DRAWN_ONCE = ("png", "svg", "pdf", "jpg", "jpeg", "webp")


def figure_text(text: str, most: int = 40) -> str:
    """Return text of a user as a figure can show it: in one style, without mathematics, and never as boxes.

    Dollar signs stay dollar signs, every line is cut to `most` characters with an ellipsis, and characters that no
    installed font has are replaced: symbols by their names in Unicode, all others by their numbers, such as U+732B.
    """
    shown = "".join(each if each == "\n" else _drawable(each) for each in unicodedata.normalize("NFC", text))
    return shortened(shown, most).replace("$", r"\$")


def _drawable(character: str) -> str:
    kind = unicodedata.category(character)
    if kind in ("Cc", "Zl", "Zp"):
        return " "
    if kind == "Cf" or "\ufe00" <= character <= "\ufe0f":  # joiners, direction marks and variation selectors
        return ""
    if character.isascii() or _font_of(character) is not None:
        return character
    name = unicodedata.name(character, "")
    return f":{name.lower()}:" if kind == "So" and name else f"U+{ord(character):04X}"


@lru_cache(maxsize=4096)
def _font_of(character: str) -> str | None:
    """Return the family of an installed font that has a character, matplotlib's own if possible; None without one."""
    from matplotlib.font_manager import fontManager

    fonts = [font for font in fontManager.ttflist if "last resort" not in font.name.lower()]  # it has only boxes
    fonts.sort(key=lambda font: font.name != _OWN_FONT)
    return next((font.name for font in fonts if ord(character) in _characters(font.fname)), None)


@lru_cache(maxsize=512)
def _characters(file: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(file).get_charmap())
    except (OSError, RuntimeError):  # color bitmaps of emoji, which matplotlib cannot draw, and damaged files
        return frozenset()


def _look() -> AbstractContextManager:
    import matplotlib
    from cycler import cycler

    return matplotlib.rc_context({**STYLE, "axes.prop_cycle": cycler(color=PALETTE)})


def in_common_look(plot: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorate a function that plots: titles, lines and legends have the common look too, not only the axes."""

    @wraps(plot)
    def plot_in_look(*args: Any, **kwargs: Any) -> Figure:
        with _look():
            return plot(*args, **kwargs)

    return plot_in_look


def _figure(**settings: Any) -> Figure:
    """Make a figure that draws characters beyond matplotlib's own font with the fonts that have them."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    class NamedFigure(Figure):
        def draw(self, renderer: Any) -> None:
            for text in self.findobj(Text):
                found = {_font_of(each) for each in text.get_text() if not each.isascii()}
                if further := sorted(found - {None, _OWN_FONT}):
                    text.set_fontfamily([_OWN_FONT, *further])
                if UNVALIDATED in text.get_text():  # as on the pages of reports and of the explorer
                    text.set(color="0.4", style="italic")
            with _look():  # ticks are made only now
                super().draw(renderer)

    return NamedFigure(**settings)


def new_figure(
    rows: int,
    columns: int,
    width: float = WIDTH,
    height: float = 2.5,
    title: str | None = None,
    first_width: float | None = None,
) -> tuple[Figure, np.ndarray]:
    """Return a figure of rows x columns panels in the common look, and its axes as a (rows, columns) array.

    The figure is independent of pyplot: it needs no display, changes no global state and need not be closed. Width and
    height are those of a panel in inches; the panels of the first column may have another width.
    """
    widths = [width if first_width is None else first_width, *[width] * (columns - 1)]
    with _look():
        figure = _figure(figsize=(sum(widths), height * rows), layout="constrained", dpi=200)
        axes = figure.subplots(rows, columns, squeeze=False, width_ratios=widths)
    if title:
        figure.suptitle(figure_text(title, most=max(40, round(12 * width * columns))), fontsize=10)
    return figure, axes


def new_panels(
    count: int, columns: int = 2, width: float = WIDTH, height: float = 2.5, title: str | None = None
) -> tuple[Figure, list[Axes]]:
    """Return a figure as in `new_figure` and its first `count` panels, row by row; the others are empty."""
    columns = max(1, min(count, columns))
    figure, axes = new_figure(-(-max(1, count) // columns), columns, width, height, title)
    for panel in axes.flat[count:]:
        panel.set_axis_off()
    return figure, list(axes.flat[:count])


def log_axis(panel: Axes, name: str = "y") -> None:
    """Make an axis of a panel logarithmic, with a few plain numbers instead of 9x10^-2 next to 8x10^-2."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    panel.set(**{f"{name}scale": "log"})
    axis = getattr(panel, f"{name}axis")
    low, high = axis.get_view_interval()
    between = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)  # more labels would overlap
    axis.set_major_locator(MaxNLocator(5) if high < 10 * low else LogLocator(subs=between))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def check_figure_path(path: str | os.PathLike) -> None:
    """Raise ValueError, before a figure is made, unless matplotlib can write a file with this suffix."""
    from matplotlib.backend_bases import FigureCanvasBase

    ending = Path(path).suffix.removeprefix(".")
    known = FigureCanvasBase.get_supported_filetypes()
    if ending not in known:
        raise ValueError(
            f"{path} does not have the suffix of a figure: choose .png, .pdf, .svg, or another of {', '.join(known)}"
        )


def save_figure(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a figure in the format of the path's suffix, e.g. .png; the folder is created if necessary."""
    path = Path(path).expanduser()
    check_figure_path(path)
    make_folder(path.parent)
    with atomic_path(path) as temporary:
        write_figure(figure, temporary, path.suffix.removeprefix("."))
    return path


def write_figure(figure: Figure, file: str | os.PathLike | IO[bytes], kind: str, **options: Any) -> None:
    """Write what `figure.savefig` writes, drawn once: it draws twice, first for a layout that drawing makes anyway."""
    from matplotlib import rcParams, rcParamsDefault
    from matplotlib.backend_bases import get_registered_canvas_class

    is_usual = all(rcParams[key] == rcParamsDefault[key] for key in rcParams if key.startswith("savefig."))
    if kind not in _DRAWN_ONCE or not is_usual:
        return figure.savefig(file, format=kind, **options)
    canvas, dpi = figure.canvas, figure.dpi
    try:
        getattr(get_registered_canvas_class(kind)(figure), f"print_{kind}")(file, **options)
    finally:
        figure.set_canvas(canvas)
        figure.dpi = dpi


@dataclass(frozen=True)
class SvgFigure:
    """A figure of the page."""

    source: str  # a data URI
    alt: str  # what it shows, for people who cannot see it
    width: int  # in CSS pixels, below which its letters would be too small


def svg_figure(figure: Figure, alt: str) -> SvgFigure:
    """Convert a figure to SVG, whose bytes depend only on what is drawn."""
    import matplotlib

    stored = io.BytesIO()
    # Without a salt the ids inside are random; without metadata the time of day is left out.
    with matplotlib.rc_context({"svg.hashsalt": "hf_msae"}):
        write_figure(figure, stored, "svg", metadata={"Date": None, "Creator": None})
    return SvgFigure(data_uri(stored.getvalue(), "image/svg+xml"), alt, round(figure.get_figwidth() * 80))


def data_uri(content: bytes, kind: str) -> str:
    """Encode content as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
