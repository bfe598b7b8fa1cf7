"""What concepts are called on the page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...concepts.labels import Label
    from ..explorer import Explorer

UNVALIDATED = "(unvalidated)"
"""Stands behind a name that may be chance."""
NONE = ("none", "")
"""The choice of no concept: (what is shown, key)."""


def shown_name(label: Label) -> str:
    """What a latent is called in plain text (captions, lists): a name that may be chance says so.

    Args:
        label: as `Explorer.label` gives it.

    Returns:
        "star", "star (unvalidated)", or "latent 417" where there is no name that could be wrong.
    """
    return str(label) if label.validated or label.name is None else f"{label} {UNVALIDATED}"


def shown_name_html(label: Label) -> str:
    """The same as HTML: grey italics for eyes, the word for screen readers."""
    name = escape(str(label))
    if label.validated or label.name is None:
        return name
    return f'<span class="msae-guess">{name}<span class="msae-unseen"> {UNVALIDATED}</span></span>'


def concept_choices(explorer: Explorer) -> list[tuple[str, str]]:
    """All concepts for a list: (what is shown, key)."""
    return [(shown_name(explorer.label(each.latent)), name) for name, each in explorer.concepts.items()]
