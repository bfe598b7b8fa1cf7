"""Why did this match? The cosine of two embeddings, taken apart into concepts that add up to it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from ...answers import answering, in_place
from ...components.bars import Bar, bars
from ...components.picture_input import collection_button, picture_input, picture_of, read_upload
from ...components.waiting import once_loaded
from ...inputs import MAX_TEXT, VisitorError, read_text
from .answer import Match, fitting_words, match

if TYPE_CHECKING:
    from ...app import Loading

TITLE = "Match"
WORDS, PICTURE = "words", "another picture"
_EMPTY = (
    '<p class="msae-empty">The cosine and its parts appear here. A positive bar speaks for the match, a negative one '
    "against it.</p>"
)
_TELLING = 0.1  # of the largest contribution: smaller ones are not worth a sentence


def match_table(found: Match) -> str:
    """`Match` as a table of bars, and its sum."""
    rows = [
        Bar(
            x.name,
            x.contribution,
            f"{x.contribution:+.4f}",
            None if x.only else f"latent {x.latent}",
            unvalidated=x.is_guess,
        )
        for x in found.parts
    ]
    rest = []
    if found.num_others:
        rest.append((f"all {found.num_others} other concepts", found.others))
    rest += [("what all pictures share (bias)", found.bias), ("not explained", found.unexplained)]
    rows += [Bar(name, value, f"{value:+.4f}", muted=True) for name, value in rest]
    rows.append(Bar("the sum, which is the cosine", found.cosine, f"{found.cosine:+.4f}"))
    return bars(rows, f"Cosine {found.cosine:.4f}, concept by concept", ("concept", "contribution"))


def in_words(found: Match, second: str) -> str:
    """The result as sentences (HTML), in which names that are not validated say nothing.

    Args:
        found: it.
        second: what the picture was compared with, e.g. "these words".
    """
    least = _TELLING * max((abs(x.contribution) for x in found.parts), default=0.0)
    names = [x.name for x in found.parts if x.contribution > least and x.validated][:3]
    against = [x.name for x in found.parts if x.contribution < -least and x.validated][:3]
    text = f"The cosine of the picture and {second} is <b>{found.cosine:.3f}</b>. "
    text += (
        f"Of the {found.num_pictures:,} pictures of the collection, {found.num_closer:,} are closer to {second} than "
        "yours is. "
    )
    if names:
        text += f"Most speaks for it: {escape(', '.join(names))}. "
    if against:
        text += f"Most speaks against it: {escape(', '.join(against))}."
    return f'<p class="msae-lead">{text.strip()}</p>'


def numbers(found: Match) -> dict[str, Any]:
    """`Match` as JSON."""
    return {
        "cosine": found.cosine,
        "concepts": [
            {"name": x.name, "latent": x.latent, "validated": x.validated, "contribution": x.contribution}
            for x in found.parts
        ],
        "num_other_concepts": found.num_others,
        "other_concepts": found.others,
        "bias": found.bias,
        "not_explained": found.unexplained,
        "num_closer_pictures": found.num_closer,
        "num_pictures": found.num_pictures,
    }


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """The tab."""
    gr.Markdown(
        "## Why did this match?\n"
        "A search engine puts things together whose embeddings have a large cosine. Give a picture and words, or two "
        "pictures: the bars say which concepts of the **first picture** bring it close to the second thing, and which "
        "push it away. They add up to the cosine exactly.",
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
    sentence = gr.HTML(_EMPTY)
    table = gr.HTML(elem_classes="msae-narrow")
    with gr.Column(visible=False) as rest, gr.Accordion("The numbers", open=False):
        found = gr.JSON(show_label=False)
    gr.Markdown(
        "*How to read it.* Only the first picture is taken apart. The second embedding is taken as it is: this "
        "autoencoder was trained on embeddings of pictures, and those of words lie elsewhere, so that concepts found "
        "in words could mean little. How large the cosine of a picture and fitting words is differs from model to "
        "model; that is why it is compared with those of the collection's pictures.",
        elem_classes="msae-small",
    )

    def answer(result: Match, second: str) -> tuple[str, str, dict[str, Any]]:
        return in_words(result, second), match_table(result), numbers(result)

    def match_words(picture: Any, words: Any) -> tuple[str, str, dict[str, Any]]:
        """Why a picture and words match: what each concept of the picture contributes to their cosine.

        Args:
            picture: a picture file.
            words: a short description, at most 500 characters.

        Returns:
            The result in a sentence, a table of the contributions, which add up to the cosine (both HTML), and all
            numbers.
        """
        image, text = read_upload(picture), read_text(words, "description")
        explorer = loading.get()
        result = match(explorer, explorer.embed_picture(image), explorer.embed_texts([text])[0])
        return answer(result, "these words")

    def match_pictures(picture: Any, other: Any) -> tuple[str, str, dict[str, Any]]:
        """Why two pictures match: what each concept of the first contributes to their cosine.

        Args:
            picture: a picture file; this one is taken apart.
            other: a picture file.

        Returns:
            The result in a sentence, a table of the contributions, which add up to the cosine (both HTML), and all
            numbers.
        """
        first, second = read_upload(picture), read_upload(other)
        explorer = loading.get()
        result = match(explorer, explorer.embed_picture(first), explorer.embed_picture(second))
        return answer(result, "the second picture")

    def switch(kind: Any) -> tuple[gr.Column, gr.Column]:
        return gr.Column(visible=kind != PICTURE), gr.Column(visible=kind == PICTURE)

    def explain(kind: Any, picture: Any, words: Any, other: Any) -> tuple[Any, ...]:
        if picture is None or not (other if kind == PICTURE else words):
            return nothing(_EMPTY)
        found = match_pictures(picture, other) if kind == PICTURE else match_words(picture, words)
        return *found, gr.Column(visible=True)

    def nothing(told: str) -> tuple[Any, ...]:
        return told, "", None, gr.Column(visible=False)

    def example(picture: Any, words: Any, kind: Any) -> tuple[Any, ...]:
        if picture is not None or words or kind == PICTURE:
            return gr.skip(), gr.skip()
        explorer = loading.get()
        text = fitting_words(explorer, 0)
        try:
            explorer.embed_texts([text])
        except VisitorError:  # a model that cannot read: pictures alone can be compared, which visitors have to choose
            return picture_of(explorer, 0), gr.skip()
        return picture_of(explorer, 0), text  # whose coming is answered as a visitor's

    # A tab nobody looks at need not be answered, and one that is looked at should not be empty.
    once_loaded(
        loading,
        on_open,
        example,
        [picture, words, kind],
        [picture, words],
        show_progress="hidden",
    )
    kind.input(
        switch,
        kind,
        [with_words, with_picture],
        queue=False,
        api_visibility="private",
        trigger_mode="always_last",
        show_progress="hidden",
    )
    outputs = [sentence, table, found]
    gr.on(
        [ask.click, words.submit, words.blur, kind.input, picture.change, other.change],
        answering(in_place(explain, nothing)),
        [kind, picture, words, other],
        [*outputs, rest],
        preprocess=False,
        api_visibility="private",
        trigger_mode="always_last",
        show_progress="minimal",
    )
    gr.on([], answering(match_words), [picture, words], outputs, preprocess=False, api_name="match_words")
    gr.on([], answering(match_pictures), [picture, other], outputs, preprocess=False, api_name="match_pictures")
