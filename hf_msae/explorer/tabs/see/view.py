"""What does the model see? A picture as named concepts, from coarse to fine; where they are; who else has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from PIL import Image

from ...answers import answering, in_place
from ...components.bars import bars
from ...components.concepts import concept_choices, concept_input
from ...components.picture_input import (
    collection_button,
    embedded_upload,
    example_pictures,
    examples_of,
    picture_input,
    picture_of,
    read_upload,
)
from ...components.waiting import Loading, on_first_open
from ...components.where import where
from ...explorer import Explorer
from ...rendering import macros
from ..common import BUSY, QUIET, choice, split_bars, split_numbers
from .answer import ALL, DEFAULT, LEAST, Sight, granularity_bounds, see

TITLE = "See"
SHOWN = 16
ALIKE = 8
html = macros("see/view.html")
_HINT = macros("components.html").empty("The concepts appear here as soon as you choose a picture.")


def alike(explorer: Explorer, concept: Any) -> list[tuple[str, str]]:
    """The pictures of the collection that show a concept most: (path of a thumbnail, caption)."""
    latent = explorer.latent_of(concept)
    name = explorer.label(latent).marked
    rows = explorer.strongest(latent, ALIKE)
    return [(explorer.thumbnail(row), f"{name} {explorer.codes[row, latent]:.2f}") for row in rows]


def concept_bars(explorer: Explorer, values: dict[str, Any]) -> str:
    """Draw how well the concepts rebuild the embedding, and their shares, given as `numbers` (HTML)."""
    rows = split_bars(explorer, values, "share", _percent, "bias of the model")
    (level,) = (each for each in values["levels"] if each["granularity"] == values["granularity"])
    caption = "What sets this picture apart from the average picture (100% in total)"
    return html.rebuilt(level) + bars(rows, caption, ("concept", "share"))


def _percent(share: float) -> str:
    return f"{share:.1%}" if abs(share) >= 0.0005 else "0.0%"


def numbers(explorer: Explorer, sight: Sight) -> dict[str, Any]:
    """All numbers, for clients."""
    parts = split_numbers(explorer, sight, sight.concepts, "share", SHOWN)
    return {"granularity": sight.granularity, **parts, "levels": sight.levels}


def closer_choices(explorer: Explorer, *sights: Sight) -> list[tuple[str, str]]:
    """Concepts to look closer at, as (text, key): those of the picture first, then all others."""
    choices = {}
    own = [choice(explorer, latent) for sight in sights for latent in sight.concepts["latent"].head(SHOWN)]
    for text, key in own + concept_choices(explorer):
        choices.setdefault(key, text)
    return [(text, key) for key, text in choices.items()]


def granularity_slider() -> gr.Slider:
    """A slider from coarse to fine, whose bounds are set once the explorer is loaded; its right end means all."""
    slider = gr.Slider(LEAST, 2 * DEFAULT, value=DEFAULT, step=1, precision=0, label="How many concepts?", buttons=[])
    # Gradio would describe bounds that are not known yet when the page is made, and leave out "all".
    slider.api_info = lambda: {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "description": f'a whole number of concepts from {LEAST} up, such as 16 or "16", or "{ALL}". The most that '
        "any picture of the collection has also means all; more is refused.",
    }
    slider.example_payload = slider.example_value = lambda: DEFAULT
    return slider


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """Build the tab."""
    gr.Markdown(
        "## What does the model see?\n"
        "Choose a picture. The bars show the concepts that make up the model's embedding of it, the largest first. A "
        "few concepts give a coarse description; the more there are, the less is left unexplained.",
        elem_classes="msae-lead",
    )
    embedded = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            picture = picture_input("Your picture")
            examples = example_pictures(loading, picture)
            collection_button(loading, picture)
        with gr.Column(scale=3, min_width=300):
            hint = gr.HTML(_HINT)
            with gr.Column(visible=False) as first:
                granularity = granularity_slider()
                concepts = gr.HTML()
    with gr.Column(visible=False) as second:
        with gr.Row():
            with gr.Column(min_width=300):
                levels = gr.HTML()
                with gr.Accordion("The numbers", open=False):
                    found = gr.JSON(show_label=False)
            with gr.Column(min_width=300):
                concept = concept_input("Look closer at a concept")
                patch_map = gr.Image(
                    label="Where it is",
                    alt_text="Your picture, in color where the chosen concept is and faded elsewhere",
                    format="webp",
                    height=260,
                    interactive=False,
                    buttons=[],
                    elem_classes="msae-filled",
                )
                note = gr.HTML()
        gr.Markdown("**Pictures of the collection that show it most**, with its activation in each")
        gallery = gr.Gallery(
            label="Pictures of the collection that show the concept most",
            show_label=False,
            columns=4,
            object_fit="contain",
            height="auto",
            elem_classes=["msae-gallery", "msae-filled"],
            buttons=[],
            interactive=False,
        )

    def seen(picture: Any, granularity: Any, embedded: Any) -> tuple[str, str, dict[str, Any], Any]:
        """Split a picture into the concepts that the model sees in it.

        Args:
            picture: A picture file.
            granularity: How many concepts the explanation may use, from coarse to fine: a whole number from 8 up,
                such as 16 or "16", or "all". The most concepts that any picture of the collection has also means all;
                more is refused.
            embedded: The embedding of the last picture, which the page keeps.

        Returns:
            A table of the concepts and their shares (HTML), a table that compares the rebuilt embedding with the
            picture's own at this granularity, at powers of two and with all concepts (HTML), and all numbers.
        """
        embedded = embedded_upload(loading, picture, embedded)
        explorer = loading.get()
        values = numbers(explorer, see(explorer, embedded[1], granularity))
        return concept_bars(explorer, values), html.levels(values), values, embedded

    def closer(picture: Any, concept: Any) -> tuple[Image.Image | None, str, list[tuple[str, str]]]:
        """Show where in a picture a concept is, and the pictures of the collection that show it most.

        Args:
            picture: A picture file.
            concept: Name of a concept, or "latent 417".

        Returns:
            The picture, faded where the concept is not (nothing if no model of patches has the concept), how to read
            this map (HTML), and the pictures of the collection with captions.
        """
        explorer = loading.get()
        pictures = alike(explorer, concept)
        found = where(explorer, read_upload(picture), concept)
        if found is None:
            return None, "", pictures
        name = explorer.label(explorer.latent_of(concept)).marked
        return found.picture, html.where(found, name), pictures

    def example(picture: Any) -> tuple[Any, list[tuple[str, str]]]:
        explorer = loading.get()
        return picture_of(explorer, 0) if picture is None else gr.skip(), examples_of(explorer)

    def nothing(hint: str) -> tuple[Any, ...]:
        hidden, empty = gr.Column(visible=False), gr.Dropdown([], value=None)
        return hidden, hidden, gr.HTML(hint, visible=True), gr.skip(), "", "", None, empty, None

    def changed(picture: Any, granularity: Any, embedded: Any) -> tuple[Any, ...]:
        if picture is None:
            return nothing(_HINT)
        explorer = loading.get()
        embedded = embedded_upload(loading, picture, embedded)
        least, most = granularity_bounds(explorer)
        # A slider that nobody has moved may stand outside of this collection's bounds.
        chosen = min(max(granularity, least), most) if isinstance(granularity, int) else min(DEFAULT, most)
        sight, fine = see(explorer, embedded[1], chosen), see(explorer, embedded[1], ALL)
        values, shown = numbers(explorer, sight), gr.Column(visible=True)
        offered = closer_choices(explorer, sight, fine)
        return (
            *(shown, shown, gr.HTML(visible=False)),
            gr.Slider(least, most, value=chosen, info="From coarse to fine. The right end stands for all."),
            *(concept_bars(explorer, values), html.levels(values), values),
            gr.Dropdown(choices=offered, value=offered[0][1] if offered else None),
            embedded,
        )

    closer_in_place = in_place(closer, lambda message: (None, message, []))

    def closer_to_first(picture: Any, concept: Any) -> tuple[Image.Image | None, str, list[tuple[str, str]]]:
        return (None, "", []) if picture is None or concept is None else closer_in_place(picture, concept)

    looked = ([picture, concept], [patch_map, note, gallery])
    on_first_open(loading, on_open, example, [picture], [picture, examples])
    picture.change(
        answering(in_place(changed, nothing)),
        [picture, granularity, embedded],
        [first, second, hint, granularity, concepts, levels, found, concept, embedded],
        **BUSY,
    ).success(answering(closer_to_first), *looked, **BUSY)
    granularity.input(
        answering(seen),
        [picture, granularity, embedded],
        [concepts, levels, found, embedded],
        **QUIET | {"api_visibility": "public"},
        api_name="see",
    )
    concept.input(answering(closer_in_place), *looked, **BUSY)
    gr.on([], answering(closer), *looked, preprocess=False, api_name="look_closer")
