"""Where visitors choose a concept."""

from __future__ import annotations

import gradio as gr


def concept_input(label: str) -> gr.Dropdown:
    """A list of concepts, empty until an event fills it; what is chosen is checked by `Explorer.latent_of`."""
    dropdown = gr.Dropdown([], label=label, allow_custom_value=True)
    # Gradio describes it to clients as one of the choices it has now, which are none: no value would do.
    dropdown.api_info = lambda: {"type": "string", "description": 'the name of a concept, or "latent 417"'}
    return dropdown
