"""Saved edits: what one reads in a picture, and what changes when its concept is removed or added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gradio as gr

from ...answers import answering, in_place
from ...components.picture_input import collection_button, embedded_upload, picture_input, picture_of
from ...components.waiting import Loading, on_first_open
from ...rendering import macros
from ..common import BUSY, QUIET, TILES
from ..search.view import html as of_search
from ..search.view import pictures
from ..steer.answer import example_labels, read_labels
from ..steer.view import html as of_steer
from ..steer.view import labels_input
from .answer import LEAST, MOST, apply_edit, example

TITLE = "Saved edits"
html = macros("edits/view.html")
_EMPTY = macros("components.html").empty("What the edit reads in the picture appears here.")


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """Build the page."""
    gr.Markdown(
        "## What does a saved edit do?\n"
        "An edit has learned a concept from labels or from a name. It reads how much of the concept a picture has, "
        "removes it, and adds it: **-1** removes it, **-0.5** takes half of that step, and **1** adds the difference "
        "between pictures with the concept and without it.",
        elem_classes="msae-lead",
    )
    embedded = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            picture = picture_input("Your picture")
            collection_button(loading, picture)
            labels = labels_input()
        with gr.Column(scale=3, min_width=300):
            name = gr.Dropdown([], value=None, label="Edit", allow_custom_value=True)
            amount = gr.Slider(LEAST, MOST, value=-1.0, step=0.05, label="Amount", buttons=[])
            message = gr.HTML(_EMPTY, label="What the edit reads and does")
            seen = gr.HTML(label="Probabilities")
    moves = gr.HTML(label="What is new")
    with gr.Row():
        with gr.Column(min_width=300):
            before = gr.Gallery(label="Nearest before", **TILES)
        with gr.Column(min_width=300):
            after = gr.Gallery(label="Nearest after", **TILES)
    with gr.Accordion("Rank changes", open=False, visible=False) as ranks_box:
        ranks = gr.HTML(label="Rank changes")
    with gr.Accordion("The numbers", open=False):
        numbers = gr.JSON(label="All numbers", show_label=False)
    name.api_info = lambda: {"type": "string", "description": "the name of an edit"}

    def start(picture: Any, chosen: Any, words: Any) -> tuple[Any, ...]:
        """Fill the list of edits, and choose a picture that has the concept of the first."""
        explorer = loading.get()
        listed = [(f"{each}, by {edit.method}", each) for each, edit in explorer.edits.items()]
        first = chosen or next(iter(explorer.edits))
        row = example(explorer, first)
        said = words or (example_labels(explorer, row) if explorer.model.backbone.has_text_tower else "")
        # An answer follows the picture; where a visitor was faster than the loading, that is theirs.
        return (
            gr.Dropdown(choices=listed, value=first),
            said,
            picture_of(explorer, row) if picture is None else gr.skip(),
        )

    def edit_(picture: Any, edit: Any, amount: Any, labels: Any, embedded: Any) -> tuple[Any, ...]:
        """Compute how a saved edit changes a picture: its score, its nearest pictures, and how likely labels are.

        Args:
            picture: A picture file.
            edit: Name of the edit.
            amount: A number from -2 to 2: -1 removes the concept of the edit, a part of that takes as much of the
                step, and 1 adds the difference between pictures with the concept and without it.
            labels: Two to ten labels, separated by commas; "" for none.
            embedded: The embedding of the last picture, which the page keeps.

        Returns:
            What the edit reads and does (HTML), the probabilities (HTML), what is new among the nearest pictures
            (HTML), the nearest pictures before and after with captions of rank and similarity, a table of ranks
            (HTML), and all numbers.
        """
        explorer = loading.get()
        chosen = read_labels(labels) if labels else ()
        embedded = embedded_upload(loading, picture, embedded)
        found, near = apply_edit(explorer, embedded[1], edit, amount, chosen)
        return (
            html.summary(found),
            of_steer.probabilities(found) if chosen else "",
            html.neighbors(near),
            pictures(explorer, near.before),
            pictures(explorer, near.after),
            of_search.ranks(explorer, near.moves.to_dict("records")),
            asdict(found),
            embedded,
            gr.Accordion(visible=True),
        )

    def refused(message: str) -> tuple[Any, ...]:
        return message, "", "", [], [], "", None, gr.skip(), gr.Accordion(visible=False)

    def changed(*values: Any) -> tuple[Any, ...]:
        if values[0] is None or values[1] is None:  # nothing is asked yet
            return (*refused(_EMPTY)[:-2], None, gr.Accordion(visible=False))
        return in_place(edit_, refused)(*values)

    inputs = [picture, name, amount, labels, embedded]
    outputs = [message, seen, moves, before, after, ranks, numbers, embedded, ranks_box]
    on_first_open(loading, on_open, start, [picture, name, labels], [name, labels, picture])
    gr.on(
        [picture.change, labels.submit, labels.blur],
        answering(changed),
        inputs,
        outputs,
        show_progress_on=message,
        **BUSY,
    )
    # Not `input`: what the page opens with comes after its picture.
    gr.on([name.change, amount.change], answering(changed), inputs, outputs, **QUIET)
    gr.on([], answering(edit_), inputs, outputs, preprocess=False, api_name="edit")
