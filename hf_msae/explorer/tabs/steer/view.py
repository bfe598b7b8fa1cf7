"""What if? Zero-shot labels of a picture, before and after some of its concepts are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gradio as gr

from ...answers import answering, in_place
from ...components.concepts import NONE, concept_choices, concept_input
from ...components.picture_input import collection_button, embedded_upload, picture_input, picture_of
from ...components.waiting import Loading, on_first_open
from ...inputs import VisitorError
from ...rendering import macros
from ..common import BUSY, QUIET
from .answer import (
    AS_IT_IS,
    HOW,
    MAX_LABELS,
    MIN_LABELS,
    MOST,
    MULTIPLY,
    PROMPTS,
    SLOTS,
    concepts_in,
    example,
    example_labels,
    prompts,
    read_edits,
    read_labels,
    steer,
)

TITLE = "Steer"
_SHOWN = 8
html = macros("steer/view.html")
_EMPTY = macros("components.html").empty(
    "The probabilities of the labels appear here. They are a softmax over your labels alone, so one of them always "
    "wins, even if none fits."
)


def _slot(number: int) -> tuple[gr.Dropdown, gr.Radio, gr.Slider]:
    """A concept to change, how, and how much."""
    with gr.Row(elem_classes="msae-slot"):
        concept = concept_input(
            f"Concept {number}", [NONE], value="", allow_custom_value=False, min_width=200, scale=4
        )
        how = gr.Radio(list(HOW), value=MULTIPLY, label=f"Change {number}", min_width=170, scale=4)
        amount = gr.Slider(0, MOST, value=0, step=0.1, label=f"Amount {number}", min_width=150, scale=4, buttons=[])
    return concept, how, amount


def labels_input() -> gr.Textbox:
    """Make a field for labels, which `read_labels` reads."""
    return gr.Textbox(
        label=f"Labels, {MIN_LABELS} to {MAX_LABELS}, separated by commas",
        placeholder="a star, a circle, a heart",
        max_lines=MAX_LABELS,
    )


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """Build the tab."""
    gr.Markdown(
        "## What if the picture had less of it?\n"
        "Choose a picture and write some labels: the model says how well each fits. Then change a concept of the "
        "picture, and see what the model makes of it. If the answer changes, the model relies on that concept.",
        elem_classes="msae-lead",
    )
    embedded = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            picture = picture_input("Your picture")
            collection_button(loading, picture)
            labels = labels_input()
            with gr.Accordion("How to phrase a label", open=False):
                prompt = gr.Dropdown(
                    list(PROMPTS),
                    value=AS_IT_IS,
                    label="How to phrase a label",
                    show_label=False,
                    info="Models understand some phrases better than bare words.",
                )
        with gr.Column(scale=3, min_width=300):
            slots = [_slot(1)]
            with gr.Accordion("Up to three more concepts", open=False):
                slots += [_slot(number) for number in range(2, SLOTS + 1)]
            gr.Markdown(
                "Multiply: 0 turns a concept off, 1 leaves it as it is, 3 triples it. Add: 1 adds as much as a strong "
                "example has (nine in ten pictures with the concept have no more), even if the picture has none.",
                elem_classes="msae-small",
            )
            button = gr.Button("Compare", variant="primary")
            seen = gr.HTML(_EMPTY, label="Probabilities")
            message = gr.HTML(label="What was changed")
            with gr.Accordion("The numbers", open=False):
                table = gr.JSON(label="All numbers", show_label=False)
    # The phrases of the names are known once the explorer is loaded; until then, clients are told to send any words.
    prompt.api_info = lambda: {"type": "string", "description": f'how a label is phrased, such as "{AS_IT_IS}"'}
    concepts, hows, amounts = zip(*slots, strict=True)

    def start(picture: Any, chosen: Any, words: Any, prompt: Any) -> tuple[Any, ...]:
        """Fill the lists, and choose a picture and an edit that changes the answer."""
        explorer = loading.get()
        listed = [NONE, *concept_choices(explorer)]
        lists = [gr.Dropdown(choices=listed)] * SLOTS
        shown = gr.skip()
        said = words or example_labels(explorer, 0)
        found = None if picture is not None or chosen or words else example(explorer, prompt)
        if found is not None:  # nobody was faster than the loading, and the model can read
            row, said, name = found
            lists[0], shown = gr.Dropdown(choices=listed, value=name), picture_of(explorer, row)
        return (gr.Dropdown(choices=list(prompts(explorer))), said, *lists, shown)

    def steer_(
        picture: Any, labels: Any, prompt: Any, embedded: Any,
        concept_1: Any, how_1: Any, amount_1: Any, concept_2: Any, how_2: Any, amount_2: Any,
        concept_3: Any, how_3: Any, amount_3: Any, concept_4: Any, how_4: Any, amount_4: Any,
    ) -> tuple[str, str, dict[str, Any], Any]:  # fmt: skip
        """Compute how likely labels are for a picture, before and after some of its named concepts are changed.

        Args:
            picture: A picture file.
            labels: Two to ten labels, separated by commas.
            prompt: How a label is phrased: "as it is", "a photo of a ...", "a picture of a ...", or, if concepts were
                named by texts, "as concepts are named".
            embedded: The embedding of the last picture, which the page keeps.
            concept_1: Name of a concept to change; "" for none.
            how_1: Whether to "multiply" its activation or "add" to it.
            amount_1: A number from 0 to 3: the factor, or how much to add, where 1 is as much as a strong example
                has (nine in ten pictures with the concept have no more).
            concept_2: Like concept_1.
            how_2: Like how_1.
            amount_2: Like amount_1.
            concept_3: Like concept_1.
            how_3: Like how_1.
            amount_3: Like amount_1.
            concept_4: Like concept_1.
            how_4: Like how_1.
            amount_4: Like amount_1.

        Returns:
            The probabilities (HTML), what was changed (HTML), and all numbers.
        """
        explorer = loading.get()
        slots = [
            (concept_1, how_1, amount_1),
            (concept_2, how_2, amount_2),
            (concept_3, how_3, amount_3),
            (concept_4, how_4, amount_4),
        ]
        edits, chosen = read_edits(explorer, slots), read_labels(labels)
        embedded = embedded_upload(loading, picture, embedded)
        found = steer(explorer, embedded[1], chosen, edits, prompt)
        return html.probabilities(found), html.summary(explorer, found), asdict(found), embedded

    def refused(message: str) -> tuple[Any, ...]:
        return message, "", None, gr.skip()

    def changed(*values: Any) -> tuple[Any, ...]:
        return (_EMPTY, "", None, None) if values[0] is None else in_place(steer_, refused)(*values)

    def in_picture(value: Any, kept: Any) -> tuple[Any, ...]:
        """List the concepts of the picture first."""
        explorer = loading.get()
        listed = {key: text for text, key in concept_choices(explorer)}
        try:
            kept = None if value is None else embedded_upload(loading, value, kept)
        except VisitorError:  # shown in place of the probabilities, which are asked for next
            kept = None
        there = {} if kept is None else dict(list(concepts_in(explorer, kept[1]).items())[:_SHOWN])
        choices = [(f"{listed[name]}, {activation:.1f} here", name) for name, activation in there.items()]
        choices += [(text, key) for key, text in listed.items() if key not in there]
        return (kept, *[gr.Dropdown(choices=[NONE, *choices])] * SLOTS)

    steer_.__name__ = "steer"
    inputs = [picture, labels, prompt, embedded, *(each for slot in slots for each in slot)]
    outputs = [seen, message, table, embedded]
    on_first_open(
        loading, on_open, start, [picture, concepts[0], labels, prompt], [prompt, labels, *concepts, picture]
    )
    picture.change(answering(in_picture), [picture, embedded], [embedded, *concepts], **QUIET).success(
        answering(changed), inputs, outputs, **QUIET
    )
    gr.on(
        [button.click, labels.submit, labels.blur],
        answering(changed),
        inputs,
        outputs,
        show_progress_on=seen,
        **BUSY,
    )
    gr.on(
        [
            prompt.input,
            *(each.input for each in (*concepts, *hows)),
            *(each.input for each in amounts),
        ],
        answering(changed),
        inputs,
        outputs,
        **QUIET,
    )
    gr.on([], answering(steer_), inputs, outputs, preprocess=False, api_name="steer")
