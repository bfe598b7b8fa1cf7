"""Search and edit: what is like a picture or words, and what is like them with some concepts changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from ...answers import answering, in_place
from ...components.concepts import NONE, change_list, concept_choices
from ...components.picture_input import picture_input
from ...components.waiting import once_loaded
from ...inputs import read_whole_number
from .answer import KINDS, LEAST, MOST, PICTURE, ROW, WORDS, Found, Hit, example_edit, read_strengths, search

if TYPE_CHECKING:
    from ...app import Loading
    from ...explorer import Explorer

TITLE = "Search"

SLOTS = 4
"""Concepts that can be changed at a time."""
STEP = 0.25
_LEAD = (
    "## What is like it, and what if?\n"
    "Search by a picture, by words, or by concepts. Then change up to four concepts of what you search by, and see "
    "who comes up and who goes down. Strength **1** adds as much of a concept as the pictures have that show it most, "
    "**0** leaves it as it is, **-1** takes it out, **-2** pushes away from it."
)
_EMPTY = '<p class="msae-empty">Nothing is searched yet: press Search.</p>'


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def pictures(explorer: Explorer, hits: Sequence[Hit], score: str = "similarity") -> list[tuple[str, str]]:
    """Paths and captions for a gallery."""
    found = []
    for hit in hits:
        was = "" if hit.rank_before is None else f", was {ordinal(hit.rank_before)}"
        found.append((explorer.thumbnail(hit.row), f"{ordinal(hit.rank)}, {score} {hit.score:.2f}{was}"))
    return found


def summary(explorer: Explorer, found: Found) -> str:
    """What was done, in a few words of HTML."""
    if found.by_concepts:
        return "<p>The pictures that show these concepts most, each counted relative to how strong it usually is.</p>"
    if found.after is None:
        return "<p>The nearest pictures. Choose a concept above to change what you search by.</p>"
    changes = change_list(explorer, found.changes)
    if not found.changed:
        told = "This changes nothing: what you search by has none of it. A strength above 0 brings it in."
        return f"<p>{told}</p>{changes}"
    new = len({hit.row for hit in found.after} - {hit.row for hit in found.before})
    return f"<p><b>{new} of the {len(found.after)} nearest pictures are others</b> after this change:</p>{changes}"


def rank_table(explorer: Explorer, found: Found) -> str:
    """The ranks before and after as an HTML table."""
    lines = []
    for hit in found.moves:
        up = (hit.rank_before or hit.rank) - hit.rank
        change = "same" if not up else f"▲ {up:,}" if up > 0 else f"▼ {-up:,}"
        kind = "" if not up else "msae-up" if up > 0 else "msae-down"
        lines.append(
            f'<tr><th scope="row"><span>{escape(explorer.caption(hit.row))}</span></th><td>{hit.rank_before:,}</td>'
            f'<td>{hit.rank:,}</td><td class="{kind}">{change}</td><td>{hit.score:.3f}</td></tr>'
        )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("picture", "before", "after", "change", "similarity"))
    return (
        '<table class="msae-ranks"><caption>Ranks of all pictures above, before and after</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _slot(number: int) -> tuple[gr.Column, gr.Dropdown, gr.Slider]:
    """A concept to change, and how much."""
    with gr.Column(min_width=200, visible=number == 1) as place:
        name = gr.Dropdown([NONE], value="", label=f"Concept {number}")
        strength = gr.Slider(
            LEAST, MOST, value=1.0, step=STEP, label=f"Strength of concept {number}", visible=False, buttons=[]
        )
    # Names are known when the explorer is loaded: clients are told to send any words.
    name.api_info = lambda: {"type": "string", "description": 'name of a concept, or "" for none'}
    return place, name, strength


def _unfold(slots: Sequence[tuple[gr.Column, gr.Dropdown, gr.Slider]]) -> None:
    """A slider comes when its concept is chosen, and then the place for one more, lest all of them push the result off
    a phone's screen.
    """
    names = [name for _, name, _ in slots]

    def unfold(*chosen: Any) -> list[gr.Column | gr.Slider]:
        wanted = [number == 0 or bool(chosen[number - 1] or value) for number, value in enumerate(chosen)]
        return [
            *(gr.Column(visible=each) for each in wanted),
            *(gr.Slider(visible=bool(value)) for value in chosen),
        ]

    gr.on(
        [name.change for name in names],
        unfold,
        names,
        [*(place for place, _, _ in slots), *(strength for _, _, strength in slots)],
        queue=False,
        preprocess=False,
        show_progress="hidden",
        api_visibility="private",
    )


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """The tab's components and events."""
    gr.Markdown(_LEAD, elem_classes="msae-lead")
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
            places = []
            with gr.Column(visible=False) as edits_column:  # until there are names to choose from
                for first in range(1, SLOTS, 2):
                    with gr.Row():
                        places += [_slot(number) for number in (first, first + 1)]
            _unfold(places)
            slots = [(name, strength) for _, name, strength in places]
            button = gr.Button("Search", variant="primary")
            told = gr.HTML(_EMPTY, label="What was done")
    look = {"object_fit": "contain", "buttons": ["fullscreen"], "elem_classes": ["msae-tiles", "msae-filled"]}
    with gr.Row():
        with gr.Column(min_width=300):
            before = gr.Gallery(label="Found", **look)
        with gr.Column(min_width=300, visible=False) as after_column:
            after = gr.Gallery(label="After the change", **look)
    with gr.Accordion("Rank changes", open=False, visible=False) as ranks_box:
        ranks = gr.HTML(label="Rank changes")

    opened = gr.State(False)

    def example(is_open: bool, kind: Any, picture: Any, words: Any, row: Any, *chosen: Any) -> tuple[Any, ...]:
        """Names to choose from; and, when the tab is opened first, an edit that shows what one does."""
        if is_open:
            return tuple(gr.skip() for _ in range(SLOTS + len(results) + 4))
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
        return (*lists, first, at, *answered, gr.Column(visible=True), True)

    def refused(told: str) -> tuple[Any, ...]:
        return [], [], told, "", gr.Column(visible=False), gr.Accordion(visible=False)

    def chosen_picture(number: object) -> str:
        explorer = loading.get()
        return explorer.thumbnail(read_whole_number(number, 0, len(explorer.images) - 1, "The number of the picture"))

    def another_picture() -> tuple[int, str]:
        explorer = loading.get()
        number = random.randrange(len(explorer.images))
        return number, explorer.thumbnail(number)

    def answer(
        kind: Any,
        picture: Any,
        words: Any,
        row: Any,
        concept_1: Any,
        strength_1: Any,
        concept_2: Any,
        strength_2: Any,
        concept_3: Any,
        strength_3: Any,
        concept_4: Any,
        strength_4: Any,
    ) -> tuple:
        """Find the 12 pictures of the collection that are most like a picture or words, before and after up to four
        named concepts have been made stronger or weaker.

        Args:
            kind: which input is used: "my picture", "words", "a picture of the collection", or "concepts alone",
                which finds the pictures that show the concepts with strengths above 0 most.
            picture: a picture file to search by, where kind is "my picture".
            words: at most 500 characters to search by, where kind is "words".
            row: number of a picture of the collection, from 0, where kind is "a picture of the collection".
            concept_1: name of a concept to change, or "latent 417"; "" for none.
            strength_1: from -2 to 3: 1 adds as much of it as the pictures have that show it most, 0 changes nothing,
                -1 takes it out, -2 pushes away from it.
            concept_2: as concept_1.
            strength_2: as strength_1.
            concept_3: as concept_1.
            strength_3: as strength_1.
            concept_4: as concept_1.
            strength_4: as strength_1.

        Returns:
            The nearest pictures before the change with captions of rank and cosine similarity, those after it (none
            where nothing is changed), what was changed as HTML, and a table of ranks before and after as HTML.
        """
        explorer = loading.get()
        edits = [(concept_1, strength_1), (concept_2, strength_2), (concept_3, strength_3), (concept_4, strength_4)]
        found = search(explorer, kind, picture, words, row, read_strengths(explorer, edits))
        edited = found.after is not None
        return (
            pictures(explorer, found.before, "score" if found.by_concepts else "similarity"),
            pictures(explorer, found.after or ()),
            summary(explorer, found),
            rank_table(explorer, found) if edited else "",
            gr.Column(visible=edited),
            gr.Accordion(visible=edited),
        )

    kind.change(
        lambda kind: [gr.Column(visible=kind == each) for each in (ROW, PICTURE, WORDS)],
        kind,
        [row_inputs, picture_inputs, words_inputs],
        queue=False,
        preprocess=False,
        show_progress="hidden",
        api_visibility="private",
    )
    names = [name for name, _ in slots]
    results = [before, after, told, ranks, after_column, ranks_box]
    once_loaded(
        loading,
        on_open,
        example,
        [opened, kind, picture, words, row, *names],
        [*names, row, shown, *results, edits_column, opened],
        show_progress="hidden",
    )
    asked = [kind, picture, words, row, *(each for slot in slots for each in slot)]
    # Values come as they were sent: the functions of `inputs` check them, with messages for visitors.
    settings: dict[str, Any] = {"preprocess": False, "api_visibility": "private"}
    found = in_place(answer, refused)
    gr.on(
        [
            *(button.click, words.submit, words.blur, kind.input, picture.change, row.change),
            *(name.input for name, _ in slots),
            *(strength.release for _, strength in slots),
        ],
        answering(found),
        asked,
        results,
        trigger_mode="always_last",
        **settings,
    )
    thumbnail = in_place(chosen_picture, lambda _: None)  # the search says why
    row.input(answering(thumbnail), row, shown, show_progress="hidden", trigger_mode="always_last", **settings)
    dice.click(answering(another_picture), None, [row, shown], show_progress="hidden", **settings)
    gr.on([], answering(answer), asked, results, preprocess=False, api_name="search")
