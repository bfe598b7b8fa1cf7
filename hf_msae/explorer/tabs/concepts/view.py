"""All concepts of the model: what their names rest on, their pictures, how active they are, and what is above them."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
import pandas as pd

from ....report.sections.concepts import Example, Histogram
from ....report.wording import number, share, small
from ...answers import answering, in_place
from ...components.concepts import concept_choices, concept_input, shown_name, shown_name_html
from ...components.waiting import once_loaded
from ...explorer import INDEX_K
from ...inputs import VisitorError
from .answer import COLUMNS, ORDERS, Evidence, Listing, evidence, listing, strong

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

    from ...app import Loading
    from ...explorer import Explorer

TITLE = "Concepts"

_LEAD = (
    "## Which concepts does the model have?\n"
    "Every latent (a direction that the autoencoder has learned), with the word that it is nearest to. Search the "
    "table and **choose a row** to see what the name rests on: look at the pictures from the middle, not only at the "
    "strongest ones. Of the names up to a *q-value*, at most that share is expected to be chance."
)
_VALIDATED = "validated names only"
_EMPTY = '<p class="msae-empty">Choose a row of the table, or a concept from the list.</p>'


def describe(found: Evidence) -> str:
    """The evidence as HTML."""
    label, card = found.label, found.card
    title = shown_name_html(label)
    if label.name is None:
        verdict = "This latent has no name."
    elif label.validated:
        verdict = "The name is more than chance, by the test that was made when the latents were named."
    elif found.q_value is None:
        verdict = "The name was not tested against chance: take it as a guess."
    else:
        verdict = "The name may be chance: it did not pass its test. Take it as a guess."
    rows = [("latent", str(label.latent))]
    if found.similarity is not None:
        rows.append(("similarity of name and direction", number(found.similarity)))
    if found.runner_up is not None:
        rows.append(("next word", f"{found.runner_up} ({number(found.runner_up_similarity)})"))
    if found.p_value is not None:
        rows.append(("p-value", small(found.p_value)))
    if found.q_value is not None:
        rows.append(("q-value (of all names together)", small(found.q_value)))
    if found.activation_name is not None:
        rows.append(("name by its pictures", f"{found.activation_name} ({'agrees' if found.agrees else 'differs'})"))
    if card is not None:
        rows.append((f"among the {INDEX_K} strongest in", f"{card.count:,} pictures ({share(card.share)})"))
        rows.append(("active at all in", f"{share(card.share_full)} of the pictures"))
        rows.append(("activation there: median, largest", f"{number(card.median)}, {number(card.largest)}"))
        if card.auroc is not None:
            rows.append(("agrees with the data set's own column: AUROC", number(card.auroc, 3)))
    items = "".join(f"<dt>{escape(what)}</dt><dd>{escape(value)}</dd>" for what, value in rows)
    return f'<h3>{title}</h3><p>{verdict}</p><dl class="msae-evidence">{items}</dl>'


def draw_histogram(found: Evidence) -> str:
    """The activations of a latent as an SVG, with a sentence for those who do not see it."""
    card = found.card
    if card is None:
        return (
            f"<p>It is among the {INDEX_K} strongest latents of no picture of this collection, so there are none to "
            f"show. The order “{ORDERS['share']}” begins with concepts that have many.</p>"
        )
    histogram = card.histogram
    bars = "".join(_bar(histogram, place) for place, count in enumerate(histogram.counts) if count)
    low, high = histogram.middle
    width = max(256 * (high - low), 3)
    told = f"Histogram of {card.count} activations from 0 to {card.largest:.2f}, with a median of {card.median:.2f}"
    keys = '<span class="msae-key msae-middle"></span> where the pictures from the middle are from'
    if histogram.true is not None:
        name = escape(str(found.label))
        keys = (
            f'<span class="msae-key msae-true"></span> the data set says {name} <span class="msae-key msae-false">'
            f"</span> it does not {keys}"
        )
    return (
        f"<p><b>How strongly it is active</b> in the {card.count:,} pictures that have it among their {INDEX_K} "
        f'strongest</p><svg class="msae-histogram" viewBox="0 0 256 60" role="img" aria-label="{told}">{bars}'
        f'<rect class="msae-middle" x="{256 * low:.1f}" y="55" width="{width:.1f}" height="4"/></svg>'
        f'<p class="msae-axis" aria-hidden="true"><span>0</span><span>{card.largest:.2f}</span></p><p>{keys}</p>'
    )


def _bar(histogram: Histogram, place: int) -> str:
    count, width = histogram.counts[place], 256 / len(histogram.counts)
    height = max(52 * count / max(histogram.counts), 1)
    part = height if histogram.true is None else height * histogram.true[place] / count
    at = f'x="{place * width:.1f}" width="{width - 1:.1f}"'
    return (
        f'<rect class="msae-false" {at} y="{52 - height:.1f}" height="{height - part:.1f}"/>'
        f'<rect class="msae-true" {at} y="{52 - part:.1f}" height="{part:.1f}"/>'
    )


def describe_place(found: Evidence) -> str:
    """The hierarchy around a latent as HTML."""
    place = found.place
    if not place.looked_at:
        return (
            "<p><b>Hierarchy:</b> not looked for. Only the concepts of the list that are active in enough pictures "
            f"are compared with each other, {place.number} here.</p>"
        )
    if not place.parents and not place.children:
        return (
            f"<p><b>Hierarchy:</b> none was found. Of {place.number} concepts none is active nearly whenever this one "
            "is (or the other way round), and often without it.</p>"
        )
    parts = []
    for head, relatives in (("is part of", place.parents), ("has below it", place.children)):
        if relatives:
            items = "".join(
                f"<li>{shown_name_html(each.label)}: together in {each.together:,} pictures, {share(each.share)} of "
                f"the lower one's (at least {share(each.low)})</li>"
                for each in relatives
            )
            parts.append(f"<p><b>{shown_name_html(found.label)} {head}</b></p><ul>{items}</ul>")
    return "".join(parts)


def best_known(explorer: Explorer) -> str | None:
    """The concept to begin with: of those that pictures show, the one whose name is nearest to its latent.

    Returns:
        Its name; the first of the list where latents have no names; None where the list is empty.
    """
    table, shown = explorer.model.concepts, strong(explorer).any(axis=0)
    names = [name for name, each in explorer.concepts.items() if shown[each.latent]] or list(explorer.concepts)
    if table is None or not names:
        return next(iter(names), None)
    similarity = dict(zip(table.frame["latent"], table.frame["similarity"], strict=True))
    return max(names, key=lambda name: similarity[explorer.concepts[name].latent])


def pictures(explorer: Explorer, examples: list[Example]) -> list[tuple[str, str]]:
    """Paths and captions for a gallery."""
    return [
        (explorer.thumbnail(each.row), f"picture {each.row}, activation {each.activation:.2f}") for each in examples
    ]


def styled(explorer: Explorer, frame: pd.DataFrame) -> Styler:
    """The table with names that are not validated marked, and in faint italics."""
    labels = [explorer.label(latent) for latent in frame["latent"]]
    guess = [not label.validated for label in labels]
    return frame.assign(name=[shown_name(label) for label in labels]).style.apply(
        lambda column: ["font-style: italic; opacity: 0.75" if each else "" for each in guess], subset=["name"]
    )


def counted(found: Listing) -> str:
    """How many concepts are in the table; where there are none, how to find some."""
    shown = len(found.frame)
    if not found.number:
        return (
            f"None of {found.total:,} latents fits: search for the beginning of another word, or untick "
            f"“{_VALIDATED}”."
        )
    more = "" if shown == found.number else f" The first {shown:,} are shown: search for others."
    names = "one name" if found.names == 1 else f"{found.names:,} names"
    names = f", with {names} in all" if 0 < found.names < found.number else ""  # several latents may have the same
    return f"{found.number:,} of {found.total:,} latents{names}.{more}"


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """The tab's components and events."""
    gr.Markdown(_LEAD, elem_classes="msae-lead")
    with gr.Row(equal_height=True):
        words = gr.Textbox("", label="Search", placeholder="a word, or a latent's number", min_width=200, scale=2)
        order = gr.Dropdown(
            [(text, key) for key, text in ORDERS.items()], value="name", label="Order", min_width=180, filterable=False
        )
        validated = gr.Checkbox(True, label=_VALIDATED, min_width=180)
    with gr.Column(visible=False) as lists:  # until there is something in them
        count = gr.Markdown(label="How many")
        table = gr.Dataframe(
            headers=list(COLUMNS), datatype=["str", "number", *["str"] * 5], interactive=False, max_height=300,
            label="Concepts", buttons=[], pinned_columns=1,
        )  # fmt: skip
        chosen = concept_input("Concept", info="a name, or “latent 417”", min_width=200)
    look = {"object_fit": "contain", "buttons": ["fullscreen"], "elem_classes": ["msae-tiles", "msae-filled"]}
    with gr.Row():
        with gr.Column(min_width=300):
            told = gr.HTML(_EMPTY, label="Evidence")
        with gr.Column(min_width=300):
            top = gr.Gallery(label="Strongest", **look)
    with gr.Row():
        with gr.Column(min_width=300):
            histogram = gr.HTML(label="Activations")
            hierarchy = gr.HTML(label="Hierarchy")
        with gr.Column(min_width=300):
            middle = gr.Gallery(label="From the middle of its activations", **look)

    def concepts(words: Any, validated_only: Any, order: Any) -> tuple[Styler, str]:
        """List the concepts of the model, with the evidence for their names.

        Args:
            words: only concepts with these words in their name, in their name by pictures or in "latent 417", each
                word by its beginning: "st" finds "star", but "tar" does not; "" for all.
            validated_only: whether to leave out names that may be chance.
            order: "name", "similarity" (of name and direction, largest first) or "share" (of the pictures that have
                it among their strongest, largest first).

        Returns:
            A table of the first 300 of them with the evidence for each name (names that may be chance end in
            "(unvalidated)"), and how many there are of how many.
        """
        explorer = loading.get()
        found = listing(explorer, words, validated_only, order)
        return styled(explorer, found.frame), counted(found)

    def concept(name: Any) -> tuple:
        """Show what the name of a concept rests on, and the pictures in which it is active.

        Args:
            name: of a concept, or "latent 417".

        Returns:
            The evidence, a histogram of activations and the place in the hierarchy as HTML, the pictures in which it
            is strongest, and pictures from the middle of its activations.
        """
        explorer = loading.get()
        found = evidence(explorer, name)
        return (
            describe(found),
            draw_histogram(found),
            describe_place(found),
            pictures(explorer, found.card.top if found.card else []),
            pictures(explorer, found.card.middle if found.card else []),
        )

    opened = gr.State(False)

    def start(is_open: bool, name: Any, *filters: Any) -> tuple[Any, ...]:
        """The table and the list; and, when the tab is opened first, the concept with the best evidence."""
        if is_open:
            return tuple(gr.skip() for _ in range(5))
        explorer = loading.get()
        listed = concept_choices(explorer)
        best = None if name else best_known(explorer)
        choices = gr.Dropdown(choices=listed) if best is None else gr.Dropdown(choices=listed, value=best)
        return (*concepts(*filters), choices, gr.Column(visible=True), True)

    def choose(event: gr.SelectData) -> str:
        place = COLUMNS.index("latent")
        try:
            latent = int(event.row_value[place])
        except (TypeError, ValueError, IndexError):
            raise VisitorError("Choose a row of the table.") from None
        explorer = loading.get()
        return explorer.key_of(explorer.latent_of(f"latent {latent}"))

    filters = [words, validated, order]
    details = [told, histogram, hierarchy, top, middle]
    once_loaded(
        loading,
        on_open,
        start,
        [opened, chosen, *filters],
        [table, count, chosen, lists, opened],
        show_progress="hidden",
    )
    # Values come as they were sent: the functions of `inputs` check them, with messages for visitors.
    gr.on(
        [words.submit, words.input, validated.input, order.input],
        answering(concepts),
        filters,
        [table, count],
        preprocess=False,
        trigger_mode="always_last",
        show_progress="hidden",
        api_name="concepts",
    )
    shown = in_place(concept, lambda told: (told, "", "", [], []))
    table.select(
        answering(choose),
        None,
        chosen,
        show_progress="hidden",
        api_visibility="private",
        trigger_mode="always_last",
    )
    # Whoever has chosen it: the table, the visitor, or the opening of the tab.
    chosen.change(
        answering(shown), chosen, details, preprocess=False, show_progress="minimal", api_visibility="private"
    )
    gr.on([], answering(concept), chosen, details, preprocess=False, api_name="concept")
