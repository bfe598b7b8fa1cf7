"""Concepts on the page: their names, lists to choose one from, and what a visitor changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio as gr

    from ...concepts.labels import Label
    from ..explorer import Explorer

NONE = ("none", "")
"""The choice of no concept: (text, key)."""


@dataclass(frozen=True)
class Change:
    """The activation of a concept before and after a visitor's edit."""

    name: str  # the key that the visitor chose
    latent: int
    validated: bool
    before: float  # its activation before the edit
    after: float  # its activation after the edit


def shown_name(label: Label) -> str:
    """Format a name for captions and lists: "star", "star (unvalidated)", or "latent 417" if it has no name."""
    return label.marked


def concept_choices(explorer: Explorer) -> list[tuple[str, str]]:
    """List all concepts that visitors choose from: (text, key)."""
    return [(shown_name(explorer.label(each.latent)), name) for name, each in explorer.concepts.items()]


def concept_input(label: str, choices: Sequence[Any] = (), **settings: Any) -> gr.Dropdown:
    """Make a list of concepts, which an event fills later; `Explorer.latent_of` checks what is chosen.

    `choices` are those before it is filled, such as `NONE`; `settings` are further arguments of `gr.Dropdown`.
    """
    import gradio as gr  # here, since answers need no gradio

    settings = {"value": None, "allow_custom_value": True, **settings}
    dropdown = gr.Dropdown(list(choices), label=label, **settings)
    # Gradio tells clients to send one of the present choices, of which there are none yet.
    description = 'the name of a concept, or "latent 417"' + (', or "" for none' if choices else "")
    dropdown.api_info = lambda: {"type": "string", "description": description}
    return dropdown
