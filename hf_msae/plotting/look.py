"""The look that all figures share, and saving them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .._utils.atomic import atomic_path, make_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The palette of Okabe and Ito, whose colors colorblind readers can distinguish.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {
    "axes.prop_cycle": None,  # set in `new_figure`, which imports cycler only when needed
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "font.size": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
}


def new_figure(
    rows: int, columns: int, width: float = 3.1, height: float = 2.5, title: str | None = None
) -> tuple[Figure, np.ndarray]:
    """Return a figure of rows x columns panels in the common look, and its axes as a (rows, columns) array.

    The figure is independent of pyplot: it needs no display, changes no global state and need not be closed. Width and
    height are those of a panel in inches.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "axes.prop_cycle": cycler(color=PALETTE)}):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=160)
        axes = figure.subplots(rows, columns, squeeze=False)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure, axes


def new_panels(
    count: int, columns: int, width: float, height: float = 2.5, title: str | None = None
) -> tuple[Figure, list[Axes]]:
    """Return a figure as in `new_figure` and its first `count` panels, row by row; the others are empty."""
    columns = max(1, min(count, columns))
    figure, axes = new_figure(-(-max(1, count) // columns), columns, width, height, title)
    for panel in axes.flat[count:]:
        panel.set_axis_off()
    return figure, list(axes.flat[:count])


def check_figure_path(path: str | os.PathLike) -> None:
    """Check, before a figure is made, that matplotlib can write a file with this suffix.

    Raises:
        ValueError: The suffix is not that of a figure.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    ending = Path(path).suffix.removeprefix(".")
    known = FigureCanvasBase.get_supported_filetypes()
    if ending not in known:
        raise ValueError(
            f"{path} does not have the suffix of a figure: choose .png, .pdf, .svg, or another of {', '.join(known)}"
        )


def save_figure(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a figure in the format of the path's suffix, e.g. .png; the folder is created if necessary."""
    path = Path(path)
    check_figure_path(path)
    make_folder(path.parent)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."))
    return path
