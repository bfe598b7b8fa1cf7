"""Search and edit: what resembles a picture or words, before and after some concepts are changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
import pandas as pd

from ...answers import answering, in_place
from ...components.concepts import NONE, concept_choices, concept_input
from ...components.picture_input import picture_input
from ...components.waiting import Loading, on_first_open
from ...explorer import Explorer
from ...rendering import macros
from ..common import QUIET, TILES
from .answer import KINDS, LEAST, MOST, PICTURE, ROW, WORDS, example_edit, read_row, read_strengths, search

TITLE = "Search"
SLOTS = 4
"""Number of concepts that can be changed at a time."""
html = macros("search/view.html")
_EMPTY = macros("components.html").empty("Nothing has been searched for yet: press Search.")


def ordinal(number: int) -> str:
    """Write a number as 1st, 2nd, 3rd, 4th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def pictures(explorer: Explorer, hits: pd.DataFrame, score: str = "similarity") -> list[tuple[str, str]]:
    """Paths and captions for a gallery."""
    return [
        (
            explorer.thumbnail(hit["row"]),
            f"{ordinal(hit['rank'])}, {score} {hit['score']:.2f}"
            + (f", was {ordinal(hit['rank_before'])}" if "rank_before" in hit else ""),
        )
        for hit in hits.to_dict("records")
    ]


def _slot(number: int) -> tuple[gr.Column, gr.Dropdown, gr.Slider]:
    """A concept to change, and how much."""
    with gr.Column(min_width=200, visible=number == 1) as place:
        name = concept_input(f"Concept {number}", [NONE], value="", allow_custom_value=False)
        strength = gr.Slider(
            LEAST, MOST, value=1.0, step=0.25, label=f"Strength of concept {number}", visible=False, buttons=[]
        )
    return place, name, strength


def _unfold(slots: Sequence[tuple[gr.Column, gr.Dropdown, gr.Slider]]) -> None:
    """Show a slider once its concept is chosen, and then the next slot.

    All slots at once would push the result off a phone's screen.
    """
    places, names, strengths = zip(*slots, strict=True)

    def unfold(*chosen: Any) -> list[gr.Column | gr.Slider]:
        wanted = [number == 0 or bool(chosen[number - 1] or value) for number, value in enumerate(chosen)]
        return [
            *(gr.Column(visible=each) for each in wanted),
            *(gr.Slider(visible=bool(value)) for value in chosen),
        ]

    gr.on([name.change for name in names], unfold, [*names], [*places, *strengths], queue=False, **QUIET)


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """Build the tab."""
    gr.Markdown(
        "## What is similar, and what if?\n"
        "Search by a picture, by words, or by concepts. Then change up to four concepts of what you search by, "
        "and see which pictures move up and which move down. A strength of **1** adds as much of a concept as the "
        "pictures have that show it most, **0** changes nothing, **-1** removes it, and **-2** pushes away from it.",
        elem_classes="msae-lead",
    )
    with gr.Row():
        with gr.Column(min_width=300):
            kind = gr.Radio(list(KINDS), value=ROW, label="Search by")
            with gr.Column(visible=True) as row_inputs:
                row = gr.Number(0, label="Number of the picture", precision=0, minimum=0)
                shown = gr.Image(
                    label="Picture of the collection",
                    alt_text="Picture of the collection",
                    interactive=False,
                    height=180,
                    buttons=[],
                    type="filepath",
                )
                dice = gr.Button("Another picture", size="sm")
            with gr.Column(visible=False) as picture_inputs:
                picture = picture_input("Your picture", height=240)
            with gr.Column(visible=False) as words_inputs:
                words = gr.Textbox("", label="Words", placeholder="a red circle on snow", max_lines=3, lines=1)
        with gr.Column(min_width=300, scale=2):
            slots = []
            with gr.Column(visible=False) as edits_column:  # until there are names to choose from
                for first in range(1, SLOTS, 2):
                    with gr.Row():
                        slots += [_slot(number) for number in (first, first + 1)]
            _unfold(slots)
            button = gr.Button("Search", variant="primary")
            message = gr.HTML(_EMPTY, label="What was done")
    with gr.Row():
        with gr.Column(min_width=300):
            before = gr.Gallery(label="Found", **TILES)
        with gr.Column(min_width=300, visible=False) as after_column:
            after = gr.Gallery(label="After the change", **TILES)
    with gr.Accordion("Rank changes", open=False, visible=False) as ranks_box:
        ranks = gr.HTML(label="Rank changes")

    def example(kind: Any, picture: Any, words: Any, row: Any, *chosen: Any) -> tuple[Any, ...]:
        """Fill the lists of concepts, and search with an edit that shows what one does."""
        explorer = loading.get()
        active = (explorer.codes > 0).any(axis=0)
        listed = [NONE, *(each for each in concept_choices(explorer) if active[explorer.concepts[each[1]].latent])]
        lists = [gr.Dropdown(choices=listed)] * SLOTS
        first = gr.Number(maximum=len(explorer.images) - 1)
        at = gr.skip() if row else explorer.thumbnail(0)
        answered = tuple(gr.skip() for _ in results)
        if kind == ROW and not (picture or words or row or any(chosen)):  # nobody was faster than the loading
            name = example_edit(explorer, 0)
            lists[0] = gr.Dropdown(choices=listed, value=name)
            answered = answer(ROW, None, "", 0, name, 1.0, *("", 0) * (SLOTS - 1))
        return (*lists, first, at, *answered, gr.Column(visible=True))

    def refused(message: str) -> tuple[Any, ...]:
        return [], [], message, "", gr.Column(visible=False), gr.Accordion(visible=False)

    def chosen_picture(number: object) -> str:
        explorer = loading.get()
        return explorer.thumbnail(read_row(explorer, number))

    def another_picture() -> tuple[int, str]:
        explorer = loading.get()
        number = random.randrange(len(explorer.images))
        return number, explorer.thumbnail(number)

    def answer(
        kind: Any, picture: Any, words: Any, row: Any,
        concept_1: Any, strength_1: Any, concept_2: Any, strength_2: Any,
        concept_3: Any, strength_3: Any, concept_4: Any, strength_4: Any,
    ) -> tuple:  # fmt: skip
        """Find the 12 pictures of the collection that are most similar to a picture or words.

        Up to four named concepts can be made stronger or weaker; the pictures before and after that are returned.

        Args:
            kind: Which input is used: "my picture", "words", "a picture of the collection", or "concepts alone",
                which finds the pictures that most show the concepts with strengths above 0.
            picture: A picture file to search by, if kind is "my picture".
            words: At most 500 characters to search by, if kind is "words".
            row: Number of a picture of the collection, from 0, if kind is "a picture of the collection".
            concept_1: Name of a concept to change, or "latent 417"; "" for none.
            strength_1: A number from -2 to 3: 1 adds as much of it as the pictures have that show it most, 0 changes
                nothing, -1 removes it, -2 pushes away from it.
            concept_2: Like concept_1.
            strength_2: Like strength_1.
            concept_3: Like concept_1.
            strength_3: Like strength_1.
            concept_4: Like concept_1.
            strength_4: Like strength_1.

        Returns:
            The nearest pictures before the change, with captions of rank and cosine similarity, those after it (none
            if nothing is changed), what was changed (HTML), and a table of ranks before and after (HTML).
        """
        explorer = loading.get()
        edits = [(concept_1, strength_1), (concept_2, strength_2), (concept_3, strength_3), (concept_4, strength_4)]
        found = search(explorer, kind, picture, words, row, read_strengths(explorer, edits))
        edited = found.after is not None
        return (
            pictures(explorer, found.before, "score" if found.by_concepts else "similarity"),
            pictures(explorer, found.after) if edited else [],
            html.summary(explorer, found),
            html.ranks(explorer, found.moves.to_dict("records")) if edited else "",
            gr.Column(visible=edited),
            gr.Accordion(visible=edited),
        )

    kind.change(
        lambda kind: [gr.Column(visible=kind == each) for each in (ROW, PICTURE, WORDS)],
        kind,
        [row_inputs, picture_inputs, words_inputs],
        queue=False,
        **QUIET,
    )
    names = [name for _, name, _ in slots]
    results = [before, after, message, ranks, after_column, ranks_box]
    inputs = [kind, picture, words, row, *names]
    on_first_open(loading, on_open, example, inputs, [*names, row, shown, *results, edits_column])
    asked = [kind, picture, words, row, *(each for _, *slot in slots for each in slot)]
    gr.on(
        [
            *(button.click, words.submit, words.blur, kind.input, picture.change, row.change),
            *(name.input for name in names),
            *(strength.input for *_, strength in slots),
        ],
        answering(in_place(answer, refused)),
        asked,
        results,
        **QUIET | {"show_progress": "full"},
    )
    thumbnail = in_place(chosen_picture, lambda _: None)  # the search says why
    row.input(answering(thumbnail), row, shown, **QUIET)
    dice.click(answering(another_picture), None, [row, shown], **QUIET)
    gr.on([], answering(answer), asked, results, preprocess=False, api_name="search")
