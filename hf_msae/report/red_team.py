"""The page of a red team: its section in the shell of the report."""

from __future__ import annotations

import datetime
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from .._utils.atomic import make_folder
from .._utils.json_files import write_text
from .rendering import check_path, environment, style

if TYPE_CHECKING:
    from ..hyperspectral import RedTeamReport


def write_red_team_report(path: str | os.PathLike, report: RedTeamReport, command: str | None = None) -> Path:
    """Write what a red team found as one HTML file that needs no network and runs no script.

    Args:
        path: File to write, ending in .html.
        report: What `red_team` returned.
        command: The command that made the page, shown on it.

    Returns:
        The path.

    Raises:
        ValueError: `path` is a folder or does not end in .html.
    """
    path = check_path(path)
    template = environment().get_template("red_team_page.html")
    page = template.render(
        report=report,
        body=Markup(report.to_html()),  # rendered with everything escaped
        css=style(),
        command=command,
        date=datetime.date.today().isoformat(),
        version=version("hf_msae"),
    )
    make_folder(path.parent)
    write_text(path, page)
    return path
