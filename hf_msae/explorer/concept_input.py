"""Where visitors choose a concept, and what it is called there."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from .bars import UNVALIDATED

if TYPE_CHECKING:
    from ..report.labels import Label


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


def concept_input(label: str, **settings: Any) -> gr.Dropdown:
    """A list of concepts, empty until an event fills it; what is chosen is checked by `Explorer.latent_of`.

    Args:
        label: above it.
        settings: further ones of `gr.Dropdown`.
    """
    dropdown = gr.Dropdown([], value=None, label=label, allow_custom_value=True, **settings)
    # Gradio describes it to clients as one of the choices it has now, which are none: no value would do.
    dropdown.api_info = lambda: {"type": "string", "description": 'the name of a concept, or "latent 417"'}
    return dropdown
