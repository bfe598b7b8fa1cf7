"""Which concepts does the model have? All of them, with the evidence for a name and the pictures that show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
import pandas as pd
from pandas.io.formats.style import Styler

from ....report.sections.concepts import Example
from ...answers import answering, in_place
from ...components.concepts import concept_choices, concept_input
from ...components.waiting import Loading, on_first_open
from ...explorer import Explorer
from ...inputs import VisitorError
from ...rendering import macros
from ..common import BUSY, QUIET, TILES
from .answer import COLUMNS, ORDERS, Listing, best_known, evidence, listing

TITLE = "Concepts"
html = macros("concepts/view.html")
_VALIDATED = "validated names only"
_EMPTY = macros("components.html").empty("Choose a row of the table, or a concept from the list.")


def pictures(explorer: Explorer, examples: list[Example]) -> list[tuple[str, str]]:
    """Paths and captions for a gallery."""
    return [
        (explorer.thumbnail(each.row), f"picture {each.row}, activation {each.activation:.2f}") for each in examples
    ]


def styled(explorer: Explorer, frame: pd.DataFrame) -> Styler:
    """The table with names that are not validated marked, and in faint italics."""
    labels = [explorer.label(latent) for latent in frame["latent"]]
    styles = ["" if label.validated else "font-style: italic; opacity: 0.75" for label in labels]
    return frame.assign(name=[label.marked for label in labels]).style.apply(lambda column: styles, subset=["name"])


def counted(found: Listing) -> str:
    """How many concepts match; if there are none, how to find some."""
    if not found.number:
        if found.none_validated:
            return f"No name is validated ({found.none_validated}), and no latent that pictures show matches."
        return (
            f"None of {found.total:,} latents matches: search for the beginning of another word, or untick "
            f"“{_VALIDATED}”."
        )
    text = f"{found.number:,} of {found.total:,} latents"
    if found.none_validated:
        text = f"No name is validated: {found.none_validated}. So the latents that pictures show are listed: {text}"
    if 0 < found.names < found.number:  # several latents can have the same name
        text += f", with {'one name' if found.names == 1 else f'{found.names:,} names'} in all"
    if len(found.frame) < found.number:
        return f"{text}. The first {len(found.frame):,} are shown: search for the others."
    return f"{text}."


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """Build the tab."""
    gr.Markdown(
        "## Which concepts does the model have?\n"
        "Every latent (a direction that the autoencoder has learned), with the word or label that fits it best. "
        "Search the table and **choose a row** to see what the name is based on. Look at the pictures from the middle "
        "too, not only at the strongest ones. Of all names up to a given *q-value*, about that share is expected to "
        "be chance.",
        elem_classes="msae-lead",
    )
    with gr.Row(equal_height=True):
        words = gr.Textbox("", label="Search", placeholder="a word, or a latent's number", min_width=200, scale=2)
        order = gr.Dropdown(
            [(text, key) for key, text in ORDERS.items()], value="name", label="Order", min_width=180, filterable=False
        )
        validated = gr.Checkbox(True, label=_VALIDATED, min_width=180)
    with gr.Column(visible=False) as lists:  # until there is something in them
        count = gr.Markdown(label="How many")
        table = gr.Dataframe(
            headers=list(COLUMNS), datatype=["str", "number", *["str"] * 6], interactive=False, max_height=300,
            label="Concepts", buttons=[], pinned_columns=1,
        )  # fmt: skip
        chosen = concept_input("Concept", info="a name, or “latent 417”", min_width=200)
    with gr.Row():
        with gr.Column(min_width=300):
            message = gr.HTML(_EMPTY, label="Evidence")
        with gr.Column(min_width=300):
            top = gr.Gallery(label="Strongest", **TILES)
    with gr.Row():
        with gr.Column(min_width=300):
            histogram = gr.HTML(label="Activations")
            hierarchy = gr.HTML(label="Hierarchy")
        with gr.Column(min_width=300):
            middle = gr.Gallery(label="From the middle", **TILES)

    def concepts(words: Any, validated_only: Any, order: Any) -> tuple[Styler, str]:
        """List the concepts of the model, with the evidence for their names.

        Args:
            words: Find only concepts with these words in their name, in their name by pictures or in "latent 417",
                each word by its beginning: "st" finds "star", but "tar" does not; "" for all.
            validated_only: Whether to leave out names that are not validated; if all are, the latents that pictures
                show are listed.
            order: "name", "similarity" (best evidence first) or "share" (of the pictures that have
                it among their strongest, largest first).

        Returns:
            A table of the first 300 concepts with the evidence for each name (names that are not validated end in
            "(unvalidated)"), and how many there are.
        """
        explorer = loading.get()
        found = listing(explorer, words, validated_only, order)
        return styled(explorer, found.frame), counted(found)

    def concept(name: Any) -> tuple[str, str, str, list[tuple[str, str]], list[tuple[str, str]]]:
        """Show what the name of a concept is based on, and the pictures in which it is active.

        Args:
            name: Name of a concept, or "latent 417".

        Returns:
            The evidence (HTML), a histogram of activations (HTML), the place in the hierarchy (HTML), the pictures in
            which it is strongest, and pictures from the middle of its activations.
        """
        explorer = loading.get()
        found = evidence(explorer, name)
        examples = ([], []) if found.card is None else (found.card.top, found.card.middle)
        drawn = [pictures(explorer, each) for each in examples]
        return html.evidence(found), html.histogram(found, ORDERS["share"]), html.place(found), *drawn

    def start(name: Any, *filters: Any) -> tuple[Any, ...]:
        """Fill the table and the list, and choose the concept with the best evidence."""
        explorer = loading.get()
        best = None if name else best_known(explorer)
        choices = {"choices": concept_choices(explorer)} | ({} if best is None else {"value": best})
        return (*concepts(*filters), gr.Dropdown(**choices), gr.Column(visible=True))

    def choose(event: gr.SelectData) -> str:
        try:
            latent = int(event.row_value[COLUMNS.index("latent")])
        except (TypeError, ValueError, IndexError):
            raise VisitorError("Choose a row of the table.") from None
        explorer = loading.get()
        return explorer.key_of(explorer.latent_of(f"latent {latent}"))

    filters = [words, validated, order]
    details = [message, histogram, hierarchy, top, middle]
    on_first_open(loading, on_open, start, [chosen, *filters], [table, count, chosen, lists])
    gr.on(
        [words.submit, words.input, validated.input, order.input],
        answering(concepts),
        filters,
        [table, count],
        **QUIET | {"api_visibility": "public"},
        api_name="concepts",
    )
    table.select(answering(choose), None, chosen, **QUIET | {"preprocess": True})
    # Whoever has chosen it: the table, the visitor, or the opening of the tab.
    chosen.change(answering(in_place(concept, lambda message: (message, "", "", [], []))), chosen, details, **BUSY)
    gr.on([], answering(concept), chosen, details, preprocess=False, api_name="concept")
