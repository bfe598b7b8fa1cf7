"""Where visitors choose a concept."""

from __future__ import annotations

from typing import Any

import gradio as gr


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
