"""Figures in one look, with colors that colorblind readers can distinguish."""

from .concepts import plot_boxes as plot_boxes
from .concepts import plot_coarse_to_fine as plot_coarse_to_fine
from .concepts import plot_contact_sheet as plot_contact_sheet
from .concepts import plot_contributions as plot_contributions
from .concepts import plot_dose_response as plot_dose_response
from .concepts import plot_patch_map as plot_patch_map
from .concepts import plot_tree as plot_tree
from .look import PALETTE as PALETTE
from .look import STYLE as STYLE
from .look import check_figure_path as check_figure_path
from .look import new_figure as new_figure
from .look import save_figure as save_figure
from .quality import plot_quality_against_k as plot_quality_against_k
from .quality import plot_training as plot_training
