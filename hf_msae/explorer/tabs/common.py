"""What the views of several tabs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..components.bars import Bar
from ..components.concepts import shown_name
from ..components.waiting import once_loaded

if TYPE_CHECKING:
    import pandas as pd
    from gradio.components import Component

    from ..app import Loading
    from ..explorer import Explorer

# Values come as they were sent: the functions of `inputs` check them, with messages for visitors.
QUIET: dict[str, Any] = {
    "preprocess": False,
    "api_visibility": "private",
    "trigger_mode": "always_last",
    "show_progress": "hidden",
}
"""Settings of an event of the page."""
BUSY = QUIET | {"show_progress": "minimal"}
"""Settings of an event of the page that takes a while."""
TILES: dict[str, Any] = {
    "object_fit": "contain",
    "buttons": ["fullscreen"],
    "elem_classes": ["msae-tiles", "msae-filled"],
}
"""Settings of a gallery of small pictures with captions."""


def on_first_open(
    loading: Loading,
    on_open: Callable[..., Any],
    function: Callable[..., Sequence[Any]],
    inputs: Sequence[Component],
    outputs: Sequence[Component],
) -> None:
    """Fill a tab when a visitor opens it for the first time, so that it is never empty.

    Args:
        loading: The explorer.
        on_open: The event of opening the tab.
        function: Takes the values of `inputs`, and returns those of `outputs`. Later events answer what it puts there
            as they answer a visitor.
        inputs: Components that a visitor may have been faster to fill.
        outputs: Components to fill.
    """
    opened = gr.State(False)

    def first(is_open: bool, *given: Any) -> tuple[Any, ...]:
        return (*([gr.skip()] * len(outputs) if is_open else function(*given)), True)

    once_loaded(loading, on_open, first, [opened, *inputs], [*outputs, opened], show_progress="hidden")


def choice(explorer: Explorer, latent: int) -> tuple[str, str]:
    """A latent in a list of concepts: (text, key)."""
    label, key = explorer.label(latent), explorer.key_of(latent)
    return shown_name(label) + ("" if key == str(label) else f", {key}"), key


def concept_bar(explorer: Explorer, latent: int, value: float, text: str) -> Bar:
    """A bar of a latent, with its number if its name means another latent in lists."""
    label, key = explorer.label(latent), explorer.key_of(latent)
    unvalidated = label.name is not None and not label.validated
    return Bar(str(label), value, text, None if key == str(label) else key, unvalidated)


def records(explorer: Explorer, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table with a column "latent", for clients, with each latent's name and whether it is validated."""
    labels = [explorer.label(latent) for latent in frame["latent"]]
    names, validated = [str(label) for label in labels], [label.validated for label in labels]
    return frame.assign(name=names, validated=validated).to_dict("records")
