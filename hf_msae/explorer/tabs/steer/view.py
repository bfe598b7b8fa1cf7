"""Steer: zero-shot labels of a picture, before and after some of its concepts are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from ...answers import answering, in_place
from ...components.concepts import NONE, change_list, concept_choices
from ...components.picture_input import collection_button, embedded_upload, picture_input, picture_of
from ...components.waiting import once_loaded
from ...inputs import VisitorError
from .answer import (
    AS_IT_IS,
    HOW,
    MAX_LABELS,
    MIN_LABELS,
    MOST,
    MULTIPLY,
    PROMPTS,
    SLOTS,
    Steered,
    concepts_in,
    example_edit,
    example_labels,
    prompts,
    read_edits,
    read_labels,
    steer,
)

if TYPE_CHECKING:
    from ...app import Loading
    from ...explorer import Explorer

TITLE = "Steer"
_SHOWN = 8
_EMPTY = (
    '<p class="msae-empty">The probabilities of the labels appear here. They are a softmax over your labels alone: '
    "one of them always wins, also where none fits.</p>"
)


def paired_bars(found: Steered) -> str:
    """The likeliest label, and the probabilities before and after as one table, so that all bars have one scale."""
    lines = []
    for label, before, after in zip(found.labels, found.before, found.after, strict=True):
        lines.append(
            f'<tr><th scope="row">{escape(label)}</th><td>{_bar(before, "muted")}</td>'
            f'<td>{_bar(after, "positive")}</td><td class="msae-change">{_change(after - before)}</td></tr>'
        )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("label", "before", "after", "change"))
    return (
        f"{_verdict(found)}"
        '<table class="msae-steer"><caption>How likely each label is, 100% in all</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _verdict(found: Steered) -> str:
    """What the model says, and whether the changes turn that, in a sentence."""
    first, then = (max(range(len(shares)), key=shares.__getitem__) for shares in (found.before, found.after))
    told = f"The likeliest label is “{escape(found.labels[first])}”, {found.before[first]:.1%}"
    if found.changed and first == then:
        told += f". It stays so after the change, {found.after[then]:.1%}"
    elif found.changed:
        told += f". After the change it is “{escape(found.labels[then])}”, {found.after[then]:.1%}"
    return f'<p class="msae-verdict">{told}.</p>'


def _bar(share: float, kind: str) -> str:
    return (
        f'<span class="msae-track" aria-hidden="true"><span class="msae-bar msae-{kind}" '
        f'style="left:0;width:{share:.2%}"></span></span><span class="msae-value">{share:.1%}</span>'
    )


def _change(change: float) -> str:
    points = f"{100 * change:+.1f}"
    if points in ("+0.0", "-0.0"):
        return "0.0"
    return f"{'▲' if change > 0 else '▼'} {points}"


def summary(explorer: Explorer, found: Steered) -> str:
    """What was done, as HTML."""
    if not found.changes:
        return (
            '<p class="msae-small">Nothing is changed yet. Choose a concept to see what the labels become without it, '
            "or with more of it.</p>"
        )
    changes = change_list(explorer, found.changes)
    if found.changed:
        told = (
            "Only these activations are changed; the rest of the embedding stays, also what no concept explains. The "
            f"cosine of the embeddings before and after is {found.similarity:.3f}."
        )
    else:
        told = (
            "This changes nothing: to multiply does nothing to what is not in the picture, nor does multiplying by 1 "
            "or adding 0."
        )
    return f'<div class="msae-small"><p>{told}</p>{changes}</div>'


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """The tab."""
    gr.Markdown(
        "## What if the picture had less of it?\n"
        "Give a picture and some labels: the model says how well each fits. Then change a concept of the picture, and "
        "see what the model makes of it. If the answer changes, the model goes by that concept.",
        elem_classes="msae-lead",
    )
    embedded = gr.State(None)
    slots: list[Any] = []
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            picture = picture_input("Your picture")
            collection_button(loading, picture)
            labels = gr.Textbox(
                label=f"Labels, {MIN_LABELS} to {MAX_LABELS}, with commas between them",
                placeholder="a star, a circle, a heart",
                max_lines=MAX_LABELS,
            )
            with gr.Accordion("How to say a label", open=False):
                prompt = gr.Dropdown(
                    list(PROMPTS),
                    value=AS_IT_IS,
                    label="How to say a label",
                    show_label=False,
                    info="Models know some phrases better than bare words.",
                )
        with gr.Column(scale=3, min_width=300):
            slots.extend(_slot(1))
            with gr.Accordion("Up to three more concepts", open=False):
                for number in range(2, SLOTS + 1):
                    slots.extend(_slot(number))
            gr.HTML(
                '<p class="msae-small">Multiply: 0 switches a concept off, 1 leaves it, 3 triples it. Add: 1 adds '
                "as much as a strong one has (nine of ten pictures having it have no more), also where it is not in "
                "the picture.</p>"
            )
            button = gr.Button("Compare", variant="primary")
            prompt.api_info = lambda: {"type": "string", "description": f'how a label is said, such as "{AS_IT_IS}"'}
            seen = gr.HTML(_EMPTY, label="Probabilities")
            told = gr.HTML(label="What was changed")
            with gr.Accordion("The numbers", open=False):
                table = gr.JSON(label="All numbers", show_label=False)

    opened = gr.State(False)

    def start(is_open: bool, picture: Any, chosen: Any, words: Any, prompt: Any) -> tuple[Any, ...]:
        """Lists to choose from; and, when the tab is opened first, a picture and an edit that turns the answer."""
        if is_open:
            return tuple(gr.skip() for _ in range(SLOTS + 4))
        explorer = loading.get()
        said = words or example_labels(explorer)
        listed = [NONE, *concept_choices(explorer)]
        lists = [gr.Dropdown(choices=listed)] * SLOTS
        given = (gr.Dropdown(choices=list(prompts(explorer))), said)
        found = None if picture is not None or chosen or words else example_edit(explorer, said, prompt)
        if found is None:  # somebody was faster than the loading, or the model cannot read
            return (*given, *lists, gr.skip(), True)
        row, name = found
        lists[0] = gr.Dropdown(choices=listed, value=name)
        return (*given, *lists, picture_of(explorer, row), True)

    def steer_(
        picture: Any, labels: Any, prompt: Any, embedded: Any,
        concept_1: Any, how_1: Any, amount_1: Any, concept_2: Any, how_2: Any, amount_2: Any,
        concept_3: Any, how_3: Any, amount_3: Any, concept_4: Any, how_4: Any, amount_4: Any,
    ) -> tuple[str, str, dict[str, Any], Any]:  # fmt: skip
        """How likely labels are for a picture, before and after some of its named concepts are changed.

        Args:
            picture: a picture file.
            labels: two to ten, with commas between them.
            prompt: how a label is said: "as it is", "a photo of a ...", "a picture of a ...", or, where concepts were
                named by texts, "as concepts are named".
            concept_1: name of a concept to change, "" for none.
            how_1: "multiply" its activation, or "add" to it.
            amount_1: from 0 to 3: what to multiply by, or to add, 1 being as much as a strong one
                has, which nine of ten pictures having it do not exceed.
            concept_2: as concept_1.
            how_2: as how_1.
            amount_2: as amount_1.
            concept_3: as concept_1.
            how_3: as how_1.
            amount_3: as amount_1.
            concept_4: as concept_1.
            how_4: as how_1.
            amount_4: as amount_1.

        Returns:
            The probabilities as HTML, what was changed as HTML, and all numbers.
        """
        explorer = loading.get()
        edits = read_edits(
            explorer,
            [
                (concept_1, how_1, amount_1),
                (concept_2, how_2, amount_2),
                (concept_3, how_3, amount_3),
                (concept_4, how_4, amount_4),
            ],
        )
        chosen = read_labels(labels)
        embedded = embedded_upload(loading, picture, embedded)
        found = steer(explorer, embedded[1], chosen, edits, prompt)
        return paired_bars(found), summary(explorer, found), asdict(found), embedded

    def refused(told: str) -> tuple[Any, ...]:
        return told, "", None, gr.skip()

    def changed(*values: Any) -> tuple[Any, ...]:
        return (_EMPTY, "", None, None) if values[0] is None else in_place(steer_, refused)(*values)

    def in_picture(value: Any, kept: Any) -> tuple[Any, ...]:
        explorer = loading.get()
        names = concept_choices(explorer)
        try:
            kept = None if value is None else embedded_upload(loading, value, kept)
        except VisitorError:  # told in place of the probabilities, which are asked for next
            kept = None
        if kept is None:
            listed = [NONE, *names]
        else:
            there = concepts_in(explorer, kept[1])
            called = {key: shown for shown, key in names}
            first = [(f"{called[name]}, {activation:.1f} here", name) for name, activation in there[:_SHOWN]]
            listed = [NONE, *first, *(each for each in names if each[1] not in dict(there[:_SHOWN]))]
        return (kept, *[gr.Dropdown(choices=listed)] * SLOTS)

    steer_.__name__ = "steer"
    inputs, outputs = [picture, labels, prompt, embedded, *slots], [seen, told, table, embedded]
    again: dict[str, Any] = {
        "preprocess": False,
        "api_visibility": "private",
        "show_progress": "hidden",
        "trigger_mode": "always_last",
    }
    once_loaded(
        loading,
        on_open,
        start,
        [opened, picture, slots[0], labels, prompt],
        [prompt, labels, *slots[::3], picture, opened],
        show_progress="hidden",
    )
    picture.change(answering(in_picture), [picture, embedded], [embedded, *slots[::3]], **again).success(
        answering(changed), inputs, outputs, **again
    )
    waited_for = again | {"show_progress": "minimal", "show_progress_on": seen}
    gr.on([button.click, labels.submit, labels.blur], answering(changed), inputs, outputs, **waited_for)
    gr.on(
        [
            prompt.input,
            *(each.input for each in slots[::3]),
            *(each.input for each in slots[1::3]),
            *(each.release for each in slots[2::3]),
        ],
        answering(changed),
        inputs,
        outputs,
        **again,
    )
    gr.on([], answering(steer_), inputs, outputs, preprocess=False, api_name="steer")


def _slot(number: int) -> tuple[gr.Dropdown, gr.Radio, gr.Slider]:
    """The components of one concept."""
    with gr.Row(elem_classes="msae-slot"):
        concept = gr.Dropdown([NONE], value="", label=f"Concept {number}", min_width=200, scale=4)
        how = gr.Radio(list(HOW), value=MULTIPLY, label=f"Change {number}", min_width=170, scale=4)
        amount = gr.Slider(0, MOST, value=0, step=0.1, label=f"Amount {number}", min_width=150, scale=4, buttons=[])
    # Names are known when the explorer is loaded: clients are told to send any words.
    concept.api_info = lambda: {"type": "string", "description": 'name of a concept, or "" for none'}
    return concept, how, amount
