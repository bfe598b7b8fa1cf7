"""Concepts on the page: their names, lists to choose one from, and what a visitor changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..inputs import VisitorError

if TYPE_CHECKING:
    import gradio as gr

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


def chosen_slots(explorer: Explorer, slots: Iterable[Sequence[Any]]) -> Iterator[tuple[str, int, Sequence[Any]]]:
    """Read the slots in which a concept is chosen, each at most once: its name, its latent and what else is set."""
    latents = set()
    for name, *settings in slots:
        if name is None or name == "":
            continue
        latent = explorer.latent_of(name)
        if latent in latents:
            raise VisitorError(f"“{name}” is chosen twice: set one of the two back to “none”.")
        latents.add(latent)
        yield name, latent, settings


def concept_choices(explorer: Explorer) -> list[tuple[str, str]]:
    """List all concepts that visitors choose from: (text, key)."""
    return [(explorer.label(each.latent).marked, name) for name, each in explorer.concepts.items()]


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
