"""What does the model see? A picture as named concepts, from coarse to fine; where they are; who else has them."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from ...answers import answering, in_place
from ...components.bars import Bar, bars
from ...components.concepts import concept_choices, concept_input, shown_name
from ...components.picture_input import (
    collection_button,
    embedded_upload,
    example_pictures,
    examples_of,
    picture_input,
    picture_of,
    read_upload,
)
from ...components.waiting import once_loaded
from ...components.where import Where, where
from .answer import ALL, DEFAULT, LEAST, Sight, granularity_bounds, see

if TYPE_CHECKING:
    from ...app import Loading
    from ...explorer import Explorer

TITLE = "See"
ALIKE = 8
_HINT = '<p class="msae-empty">The concepts appear here as soon as there is a picture.</p>'


def alike(explorer: Explorer, concept: Any) -> list[tuple[str, str]]:
    """The pictures of the collection with most of a concept: (path of a thumbnail, caption).

    Raises:
        VisitorError: there is no such concept.
    """
    latent = explorer.latent_of(concept)
    name = shown_name(explorer.label(latent))
    rows = explorer.strongest(latent, ALIKE)
    return [(explorer.thumbnail(row), f"{name} {explorer.codes[row, latent]:.2f}") for row in rows]


def concept_bars(sight: Sight) -> str:
    """`Sight` as a line on how well its concepts rebuild the embedding, and a table of bars."""
    rows = [
        Bar(
            each.name,
            each.part,
            _percent(each.part),
            None if each.key == each.name else each.key,
            unvalidated=each.is_guess,
        )
        for each in sight.concepts
    ]
    if sight.num_others:
        rows.append(Bar(f"{sight.num_others} other concepts", sight.others, _percent(sight.others), muted=True))
    rows.append(Bar("bias of the model", sight.bias, _percent(sight.bias), muted=True))
    rows.append(Bar("not explained", sight.unexplained, _percent(sight.unexplained), muted=True))
    table = bars(rows, "What sets this picture apart from the average picture, 100% in all", ("concept", "part"))
    return rebuilt(sight) + str(table)


def rebuilt(sight: Sight) -> str:
    """How alike the embedding and the one rebuilt from the chosen concepts are, in a line (HTML)."""
    (level,) = (each for each in sight.levels if each.granularity == sight.granularity)
    which = f"All {level.num_active}" if level.granularity == ALL else f"{level.num_active}"
    verb = "concept rebuilds" if level.num_active == 1 else "concepts rebuild"
    return (
        f'<p class="msae-rebuilt" role="status"><b>{which}</b> {verb} the embedding to a similarity of '
        f"<b>{level.centred_cosine:.3f}</b> (cosine, mean taken off).</p>"
    )


def _percent(part: float) -> str:
    return f"{part:.1%}" if abs(part) >= 0.0005 else "0.0%"


def level_table(sight: Sight) -> str:
    """The similarities of all levels as a table, that of the chosen one marked."""
    lines = []
    for each in sight.levels:
        chosen = each.granularity == sight.granularity
        name = f"all {each.num_active}" if each.granularity == ALL else each.granularity
        mark = ' <span class="msae-note">chosen</span>' if chosen else ""
        kind = ' class="msae-chosen" aria-current="true"' if chosen else ""
        lines.append(
            f'<tr{kind}><th scope="row">{name}{mark}</th>'
            f'<td><span class="msae-track" aria-hidden="true"><span class="msae-bar msae-positive" '
            f'style="left:0;width:{max(0.0, each.centred_cosine):.2%}"></span></span>'
            f'<span class="msae-value">{each.centred_cosine:.3f}</span></td><td>{each.cosine:.3f}</td></tr>'
        )
    return (
        '<table class="msae-levels"><caption>How alike are the picture\'s embedding and the one rebuilt from its '
        'concepts?</caption><thead><tr><th scope="col">concepts</th><th scope="col">cosine, mean taken off</th>'
        f'<th scope="col">cosine</th></tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def numbers(sight: Sight) -> dict[str, Any]:
    """`Sight` as JSON, for those who want to go on from here."""
    return {
        "granularity": sight.granularity,
        "concepts": [
            {"name": x.name, "latent": x.latent, "validated": x.validated, "activation": x.activation, "part": x.part}
            for x in sight.concepts
        ],
        "num_other_concepts": sight.num_others,
        "other_concepts": sight.others,
        "bias": sight.bias,
        "not_explained": sight.unexplained,
        "levels": [vars(each) for each in sight.levels],
    }


def closer_choices(explorer: Explorer, *sights: Sight) -> list[tuple[str, str]]:
    """Concepts to look closer at, (what is shown, key): those of the picture first, then all others."""
    choices = {}
    for each in (each for sight in sights for each in sight.concepts):
        shown = shown_name(explorer.label(each.latent))
        choices.setdefault(each.key, shown if each.name == each.key else f"{shown}, {each.key}")
    for shown, key in concept_choices(explorer):
        choices.setdefault(key, shown)
    return [(shown, key) for key, shown in choices.items()]


def where_text(found: Where | None, name: str) -> str:
    """How to read a map (HTML)."""
    if found is None:
        return ""
    return (
        f'<p class="msae-small">The picture keeps its colours where there is <b>{escape(name)}</b> and fades to grey '
        "elsewhere. That is the word of a second model, which sees patches. Its strongest patch here has "
        f"{found.strongest:.2f}; the strongest in the collection's first {found.num_compared} pictures has "
        f"{found.scale:.2f}, and from half of that on all colours stay.</p>"
    )


def granularity_slider() -> gr.Slider:
    """From coarse to fine. Its bounds are set when the explorer is there; the right end means all."""
    slider = gr.Slider(
        LEAST,
        2 * DEFAULT,
        value=DEFAULT,
        step=1,
        precision=0,
        label="How many concepts?",
        buttons=[],
    )
    # Gradio would describe bounds that are not yet known when the page is made, and leave "all" out.
    slider.api_info = lambda: {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "description": f'a whole number of concepts from {LEAST} up, as 16 or "16"; or "{ALL}". What a picture of the '
        "collection has at most means all too, and more is refused.",
    }
    slider.example_payload = slider.example_value = lambda: DEFAULT
    return slider


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """The tab."""
    gr.Markdown(
        "## What does the model see?\n"
        "Give a picture. The bars are the concepts that the model's embedding of it is made of, strongest first. Few "
        "concepts are the coarse picture; with more, less is left unexplained.",
        elem_classes="msae-lead",
    )
    embedded = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            picture = picture_input("Your picture")
            examples = example_pictures(loading, picture)
            collection_button(loading, picture, "Take any picture of the collection")
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
                    alt_text="Your picture, in colours where the chosen concept is and faded elsewhere",
                    format="webp",
                    height=260,
                    interactive=False,
                    buttons=[],
                    elem_classes="msae-filled",
                )
                note = gr.HTML()
        gr.Markdown("**The pictures of the collection with most of it**, and how active it is in them")
        gallery = gr.Gallery(
            label="Pictures of the collection with most of the concept",
            show_label=False,
            columns=4,
            object_fit="contain",
            height="auto",
            elem_classes=["msae-gallery", "msae-filled"],
            buttons=[],
            interactive=False,
        )

    def seen(picture: Any, granularity: Any, embedded: Any) -> tuple[str, str, dict[str, Any], Any]:
        """The concepts that the model sees in a picture, and how well they rebuild its embedding.

        Args:
            picture: a picture file.
            granularity: how many concepts the explanation may use, coarse to fine: a whole number from 8 up, as 16
                or "16"; or "all". The most concepts that a picture of the collection has means all as well, and more
                is refused.

        Returns:
            A table of the concepts and their parts, a table of the similarity of the rebuilt embedding at this
            granularity, at powers of two, and with all concepts (both HTML), and all numbers.
        """
        embedded = embedded_upload(loading, picture, embedded)
        sight = see(loading.get(), embedded[1], granularity)
        return concept_bars(sight), level_table(sight), numbers(sight), embedded

    def closer(picture: Any, concept: Any) -> tuple[Image.Image | None, str, list[tuple[str, str]]]:
        """Where in a picture a concept is, and the pictures of the collection with most of it.

        Args:
            picture: a picture file.
            concept: the name of a concept, or "latent 417".

        Returns:
            The picture, faded where the concept is not (nothing where there is no model of patches, or it has no such
            concept), how to read the map, and the pictures with captions.
        """
        explorer = loading.get()
        pictures = alike(explorer, concept)
        found = where(explorer, read_upload(picture), concept)
        return (
            None if found is None else found.picture,
            where_text(found, shown_name(explorer.label(explorer.latent_of(concept)))),
            pictures,
        )

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
        shown = gr.Column(visible=True)
        offered = closer_choices(explorer, sight, fine)
        return (
            *(shown, shown, gr.HTML(visible=False)),
            gr.Slider(least, most, value=chosen, info="From coarse to fine; the right end is all that a picture has."),
            *(concept_bars(sight), level_table(sight), numbers(sight)),
            gr.Dropdown(choices=offered, value=offered[0][1] if offered else None),
            embedded,
        )

    closer_in_place = in_place(closer, lambda told: (None, told, []))

    def closer_to_first(picture: Any, concept: Any) -> tuple[Image.Image | None, str, list[tuple[str, str]]]:
        return (None, "", []) if picture is None or concept is None else closer_in_place(picture, concept)

    picture.change(
        answering(in_place(changed, nothing)),
        [picture, granularity, embedded],
        [first, second, hint, granularity, concepts, levels, found, concept, embedded],
        preprocess=False,
        api_visibility="private",
        show_progress="minimal",
    ).success(
        answering(closer_to_first),
        [picture, concept],
        [patch_map, note, gallery],
        preprocess=False,
        api_visibility="private",
        trigger_mode="always_last",
        show_progress="minimal",
    )
    # When the page is opened: an empty page says little of what this is.
    once_loaded(loading, on_open, example, [picture], [picture, examples], show_progress="hidden")
    granularity.input(
        answering(seen),
        [picture, granularity, embedded],
        [concepts, levels, found, embedded],
        preprocess=False,
        api_name="see",
        trigger_mode="always_last",
        show_progress="hidden",
    )
    concept.input(
        answering(closer_in_place),
        [picture, concept],
        [patch_map, note, gallery],
        preprocess=False,
        api_visibility="private",
        trigger_mode="always_last",
        show_progress="minimal",
    )
    gr.on(
        [], answering(closer), [picture, concept], [patch_map, note, gallery], preprocess=False, api_name="look_closer"
    )
