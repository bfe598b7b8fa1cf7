"""What all figures have in common: look, colours, and how they are written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {
    "axes.prop_cycle": None,  # set in `new_figure`: cycler must not be imported before it is needed
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


def new_figure(rows: int, columns: int, width: float = 3.1, height: float = 2.5) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns panels in the common look, and its axes as a (rows, columns) array.

    No display and no global state is touched: the figure is not known to pyplot and needs no closing.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "axes.prop_cycle": cycler(color=PALETTE)}):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=160)
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes


def check_figure_path(path: str | os.PathLike) -> None:
    """Find out before there is a figure whether it could be written.

    Raises:
        ValueError: the file's ending is none that figures are written with.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    ending = Path(path).suffix.removeprefix(".")
    known = FigureCanvasBase.get_supported_filetypes()
    if ending not in known:
        raise ValueError(
            f"{path} does not end like a figure: choose .png, .pdf, .svg, or another of {', '.join(known)}"
        )


def save_figure(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a figure as PNG (or what the suffix says) under a temporary name, then rename it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".tmp-{path.name}")
    figure.savefig(unfinished)
    os.replace(unfinished, path)
    return path
