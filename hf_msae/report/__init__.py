"""One HTML page about a model: how good it is, what its latents show, what drives a classifier, what it finds."""

from .page import write_report
from .red_team import write_red_team_report

__all__ = ["write_red_team_report", "write_report"]
