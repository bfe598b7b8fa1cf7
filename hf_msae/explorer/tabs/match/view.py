"""Why did this match? The cosine of two embeddings, split into concepts that add up to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ...answers import answering, in_place
from ...components.bars import Bar, bars
from ...components.picture_input import collection_button, picture_input, picture_of, read_upload
from ...components.waiting import Loading, on_first_open
from ...explorer import Explorer
from ...inputs import MAX_TEXT, VisitorError, read_text
from ...rendering import macros
from ..common import BUSY, QUIET, split_bars, split_numbers
from .answer import Match, fitting_words, match

TITLE = "Match"
SHOWN = 12
WORDS, PICTURE = "words", "another picture"
_html = macros("match/view.html")
_EMPTY = macros("components.html").empty(
    "The cosine and its parts appear here. A positive bar speaks for the match, a negative one against it."
)
_TELLING = 0.1
"""Contributions below this share of the largest are not worth a sentence."""


def numbers(explorer: Explorer, found: Match) -> dict[str, Any]:
    """All numbers, for clients."""
    explanation = found.explanation
    parts = split_numbers(explorer, explanation, explanation.frame, "contribution", SHOWN)
    closer = {"num_closer_pictures": found.num_closer, "num_pictures": found.num_pictures}
    return {"cosine": explanation.similarity, **parts, **closer}


def match_table(explorer: Explorer, values: dict[str, Any]) -> str:
    """Draw the parts of a cosine and their sum, given as `numbers`, as bars (HTML)."""
    rows = split_bars(explorer, values, "contribution", "{:+.4f}".format, "what all pictures share (bias)")
    rows.append(Bar("sum, which is the cosine", values["cosine"], f"{values['cosine']:+.4f}"))
    return bars(rows, f"Cosine {values['cosine']:.4f}, concept by concept", ("concept", "contribution"))


def in_words(values: dict[str, Any], second: str) -> str:
    """Sum up `numbers` in sentences that mention only validated names (HTML); `second` is what is compared with."""
    least = _TELLING * max((abs(each["contribution"]) for each in values["concepts"]), default=0.0)
    validated = [each for each in values["concepts"] if each["validated"]]
    pro = [each["name"] for each in validated if each["contribution"] > least]
    con = [each["name"] for each in validated if each["contribution"] < -least]
    return _html.sentences(values, second, pro[:3], con[:3])


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """Build the tab."""
    gr.Markdown(
        "## Why did this match?\n"
        "A search engine matches things whose embeddings have a high cosine. Choose a picture and write some words, "
        "or choose two pictures. The bars show which concepts of the **first picture** bring it closer to the second "
        "thing, and which push it away. They add up to the cosine exactly.",
        elem_classes="msae-lead",
    )
    with gr.Row():
        with gr.Column(min_width=280):
            picture = picture_input("First: a picture")
            collection_button(loading, picture)
        with gr.Column(min_width=280):
            kind = gr.Radio([WORDS, PICTURE], value=WORDS, label="Second")
            with gr.Column() as with_words:
                words = gr.Textbox(label="Words", placeholder="for example: a red circle", max_length=MAX_TEXT)
                ask = gr.Button("Explain the match", variant="primary")
            with gr.Column(visible=False) as with_picture:
                other = picture_input("Second: a picture", height=210)
                collection_button(loading, other)
    sentences = gr.HTML(_EMPTY)
    table = gr.HTML(elem_classes="msae-narrow")
    with gr.Column(visible=False) as rest, gr.Accordion("The numbers", open=False):
        found = gr.JSON(show_label=False)
    gr.Markdown(
        "*How to read this.* Only the first picture is split into concepts. The second embedding stays whole: this "
        "autoencoder was trained on embeddings of pictures, and those of words lie elsewhere, so concepts found in "
        "words could mean little. How high the cosine of a picture and fitting words is differs from model to model, "
        "which is why it is compared with those of the pictures in the collection.",
        elem_classes="msae-small",
    )

    def answer(picture: Any, second: Any, name: str) -> tuple[str, str, dict[str, Any]]:
        explorer = loading.get()
        values = numbers(explorer, match(explorer, explorer.embed_picture(picture), second(explorer)))
        return in_words(values, name), match_table(explorer, values), values

    def match_words(picture: Any, words: Any) -> tuple[str, str, dict[str, Any]]:
        """Explain why a picture and words match: what each concept of the picture contributes to their cosine.

        Args:
            picture: A picture file.
            words: A short description of at most 500 characters.

        Returns:
            The result in a few sentences (HTML), a table of the contributions, which add up to the cosine (HTML), and
            all numbers.
        """
        image, text = read_upload(picture), read_text(words, "description")
        return answer(image, lambda explorer: explorer.embed_texts([text])[0], "these words")

    def match_pictures(picture: Any, other: Any) -> tuple[str, str, dict[str, Any]]:
        """Explain why two pictures match: what each concept of the first contributes to their cosine.

        Args:
            picture: A picture file, which is split into concepts.
            other: A picture file.

        Returns:
            The result in a few sentences (HTML), a table of the contributions, which add up to the cosine (HTML), and
            all numbers.
        """
        first, second = read_upload(picture), read_upload(other)
        return answer(first, lambda explorer: explorer.embed_picture(second), "the second picture")

    def switch(kind: Any) -> tuple[gr.Column, gr.Column]:
        return gr.Column(visible=kind != PICTURE), gr.Column(visible=kind == PICTURE)

    def explain(kind: Any, picture: Any, words: Any, other: Any) -> tuple[Any, ...]:
        if picture is None or not (other if kind == PICTURE else words):
            return nothing(_EMPTY)
        found = match_pictures(picture, other) if kind == PICTURE else match_words(picture, words)
        return *found, gr.Column(visible=True)

    def nothing(message: str) -> tuple[Any, ...]:
        return message, "", None, gr.Column(visible=False)

    def example(picture: Any, words: Any, kind: Any) -> tuple[Any, ...]:
        if picture is not None or words or kind == PICTURE:
            return gr.skip(), gr.skip()
        explorer = loading.get()
        text = fitting_words(explorer, 0)
        try:
            explorer.embed_texts([text])
        except VisitorError:  # this model cannot read, so that only pictures can be compared
            text = gr.skip()
        return picture_of(explorer, 0), text

    on_first_open(loading, on_open, example, [picture, words, kind], [picture, words])
    kind.input(switch, kind, [with_words, with_picture], queue=False, **QUIET)
    outputs = [sentences, table, found]
    gr.on(
        [ask.click, words.submit, words.blur, kind.input, picture.change, other.change],
        answering(in_place(explain, nothing)),
        [kind, picture, words, other],
        [*outputs, rest],
        **BUSY,
    )
    gr.on([], answering(match_words), [picture, words], outputs, preprocess=False, api_name="match_words")
    gr.on([], answering(match_pictures), [picture, other], outputs, preprocess=False, api_name="match_pictures")
