"""Figures in one look, with colors that colorblind readers can distinguish."""

from .concepts import (
    plot_boxes,
    plot_coarse_to_fine,
    plot_contact_sheet,
    plot_contributions,
    plot_dose_response,
    plot_patch_map,
    plot_tree,
)
from .look import PALETTE, STYLE, check_figure_path, new_figure, save_figure
from .quality import plot_quality_against_k, plot_training

__all__ = [
    "PALETTE",
    "STYLE",
    "check_figure_path",
    "new_figure",
    "plot_boxes",
    "plot_coarse_to_fine",
    "plot_contact_sheet",
    "plot_contributions",
    "plot_dose_response",
    "plot_patch_map",
    "plot_quality_against_k",
    "plot_training",
    "plot_tree",
    "save_figure",
]
