"""HTML of the page, from templates in which everything is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ..concepts.labels import UNVALIDATED
from ..concepts.validation import MIN_AGREEMENT, MIN_AUROC
from ..report.rendering import environment


def macros(template: str) -> Any:
    """Load the macros of a template, each of which is called like a function and returns markup.

    `template` is a file in `templates/`, or in `tabs/`, such as "see/view.html". It can import the macros of
    "components.html", and those of the report from "macros.html".
    """
    return _environment().get_template(template).module


@cache
def _environment() -> Any:
    here = Path(__file__).parent
    made = environment(here / "templates", here / "tabs")
    made.globals["UNVALIDATED"] = UNVALIDATED
    made.globals |= {"MIN_AUROC": MIN_AUROC, "MIN_AGREEMENT": MIN_AGREEMENT}
    return made
