"""Bias: which concepts drive a classifier, which only go along with it, and how the answer depends on the dose."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
import pandas as pd

from ....bias import BiasReport
from ...answers import answering, in_place
from ...components.bars import Bar, bars
from ...components.concepts import shown_name
from ...components.dose_chart import MAX_CURVES, dose_chart
from ...components.waiting import once_loaded
from .answer import (
    NUM_NULL,
    TEXTS,
    Bias,
    Target,
    bias,
    dose_response,
    first_to_ask,
    first_to_draw,
    read_target,
    usable_columns,
)

if TYPE_CHECKING:
    from ...app import Loading
    from ...explorer import Explorer

TITLE = "Bias"
_ALONG = 8
_WRITE = '<p class="msae-empty">Write in the two boxes what the classifier chooses between, and press Ask.</p>'


def findings(explorer: Explorer, found: Bias) -> str:
    """The verdict, what drives, and what goes along, as HTML."""
    report = found.report
    if found.accuracy is None:
        how = (
            f"The classifier chooses between “{escape(found.target.texts[0])}” and “{escape(found.target.texts[1])}”. "
            f"It says the first of {found.share:.0%} of {found.num_pictures} pictures."
        )
    else:
        how = (
            f"The probe was trained on one half of the collection and asked about the other, {found.num_pictures} "
            f"pictures: it is right about {found.accuracy:.1%}, where guessing would be about {found.guessing:.1%}."
        )
    asked = f" All {found.num_concepts} concepts that are in these pictures were asked about."
    if found.num_concepts > len(report.frame):
        asked = (
            f" {len(report.frame)} of {found.num_concepts} concepts were asked about: those that go along with the "
            "answer most; the tests pay for all of them."
        )
    verdict = report.verdict()
    return (
        f'<p class="msae-verdict">{escape(verdict[0].upper() + verdict[1:])}.</p><p class="msae-small">{how}{asked} '
        f"This is a quick look at {report.num_samples} of them, with {NUM_NULL} random latents to compare each "
        "concept with: small effects may be missed. <code>hf-msae bias</code> looks thoroughly.</p>"
        f'<div class="msae-wide">{_driving(explorer, report)}</div>{_along(explorer, report)}'
    )


def _bar(explorer: Explorer, latent: int, value: float, text: str) -> Bar:
    label = explorer.label(latent)
    note = None if explorer.key_of(latent) == str(label) else f"latent {latent}"
    return Bar(str(label), value, text, note, label.name is not None and not label.validated)


def _choice(explorer: Explorer, latent: int) -> tuple[str, str]:
    """What a concept is called in a list, and its key."""
    label, key = explorer.label(latent), explorer.key_of(latent)
    return shown_name(label) + ("" if key == str(label) else f", {key}"), key


def _driving(explorer: Explorer, report: BiasReport) -> str:
    rows = [
        _bar(explorer, row.latent, row.effect, f"{_points(row.effect)} ({_points(row.low)} to {_points(row.high)})")
        for row in report.drivers.itertuples(index=False)
    ]
    caption = (
        "They drive it: change of the probability, in percentage points, when the concept goes from absent to strong "
        "(nine of ten pictures having it have no more)"
    )
    return bars(rows, caption, ("concept", "change and its 95% interval")) if rows else ""


def _along(explorer: Explorer, report: BiasReport) -> str:
    frame = report.frame[~report.frame["drives"] & (report.frame["p_association"] <= report.alpha)]
    frame = frame.sort_values("association", key=abs, ascending=False, kind="stable").head(_ALONG)
    rows = [_bar(explorer, row.latent, row.association, f"{row.association:+.2f}") for row in frame.itertuples()]
    caption = "They only go along with it, and are not shown to drive it: correlation with the answer, from -1 to 1"
    return bars(rows, caption, ("concept", "correlation")) if rows else ""


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def numbers(found: Bias) -> dict[str, Any]:
    """All of it for clients."""
    records = found.report.frame.astype(object).where(pd.notna(found.report.frame), None).to_dict("records")
    return {
        "target": str(found.target),
        "verdict": found.report.verdict(),
        "num_pictures": found.num_pictures,
        "num_samples": found.report.num_samples,
        "num_null": NUM_NULL,
        "share_predicted": found.share,
        "accuracy": found.accuracy,
        "accuracy_of_guessing": found.guessing,
        "mean_probability": found.report.baseline,
        "concepts": records,
    }


def build(loading: Loading, on_open: Callable[..., Any]) -> None:
    """The tab."""
    gr.Markdown(
        "## What drives a classifier?\n"
        "Does a classifier look at what it should? Choose what it decides. Each concept is then taken out of the "
        "pictures' embeddings and put in, all else kept. What changes the answer drives the classifier; what merely "
        "occurs together with it is listed apart.",
        elem_classes="msae-lead",
    )
    asked = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            target = gr.Dropdown([TEXTS], value=None, label="What does the classifier decide?")
            with gr.Group(visible=False) as words:
                text = gr.Textbox(label="1. Is it ...", placeholder="a star", max_lines=2)
                other = gr.Textbox(label="2. ... or is it ...", placeholder="no star", max_lines=2)
                button = gr.Button("Ask", variant="primary")
        with gr.Column(scale=3, min_width=300):
            told = gr.HTML(
                '<p class="msae-empty">The concepts that drive the classifier appear here. A column of the collection '
                "gets a linear probe; two texts of yours make a zero-shot classifier.</p>",
                label="Findings",
            )
    # Columns are known when the explorer is loaded: clients are told to send any words.
    target.api_info = lambda: {"type": "string", "description": f'a column of yes and no, or "{TEXTS}"'}
    with gr.Column(visible=False) as details:
        shown = gr.Dropdown(
            [],
            multiselect=True,
            max_choices=MAX_CURVES,
            label=f"Draw the dose and response of up to {MAX_CURVES} concepts",
        )
        chart = gr.HTML()
        with gr.Accordion("The numbers", open=False):
            table = gr.JSON(label="All numbers", show_label=False)

    def ask(target: Any, text: Any, other: Any) -> tuple[str, dict[str, Any], Target]:
        """Which concepts drive a classifier, and which only go along with it, by a small sample of the collection.

        Args:
            target: a column of the collection with yes or no for each picture, such as "star"; or "two texts of mine".
            text: what a zero-shot classifier says yes to, where the target is "two texts of mine"; else "".
            other: what it could be otherwise; else "".

        Returns:
            The findings as HTML, and all numbers.
        """
        explorer = loading.get()
        chosen = read_target(explorer, target, text, other)
        found = bias(explorer, chosen)
        return findings(explorer, found), numbers(found), chosen

    def refused(told: str) -> tuple[str, None, None]:
        return told, None, None

    def draw(chosen: Target | None, names: Any) -> str:
        if chosen is None or not names:
            return ""
        explorer = loading.get()
        curves = dose_response(explorer, chosen, names)
        return dose_chart(curves, bias(explorer, chosen).report.baseline, str(chosen))

    def draw_first(chosen: Target | None) -> tuple[Any, Any, str]:
        if chosen is None:  # the question was refused
            return gr.Column(visible=False), gr.Dropdown([], value=[]), ""
        explorer = loading.get()
        found = bias(explorer, chosen)
        names = first_to_draw(explorer, found)
        listed = [_choice(explorer, latent) for latent in found.report.frame["latent"].tolist()]
        return gr.Column(visible=True), gr.Dropdown(choices=listed, value=names), draw(chosen, names)

    def dose_response_(target: str, text: str, other: str, concepts: list[str]) -> list[dict[str, Any]]:
        """The probability that a classifier gives on average while a concept goes from absent to the strongest seen.

        Args:
            target: a column of the collection with yes or no for each picture, such as "star"; or "two texts of mine".
            text: what a zero-shot classifier says yes to, where the target is "two texts of mine"; else "".
            other: what it could be otherwise; else "".
            concepts: names of up to four concepts that bias tells of, or "latent 417".

        Returns:
            For each concept its name, whether the name is validated, and lists of the same length to plot against each
            other: shares (0 for absent, else the share of the pictures having the concept that have no more of it, to
            1 for the most), doses (the activations that these are), probabilities (the classifier's mean over the
            pictures with the concept at that dose), low and high (their 95% intervals).
        """
        explorer = loading.get()
        chosen = read_target(explorer, target, text, other)
        return [vars(each) for each in dose_response(explorer, chosen, concepts)]

    opened = gr.State(False)

    def start(is_open: bool, target: Any) -> tuple[Any, ...]:
        """The columns to choose from; and, when the tab is opened first, one of them to ask about."""
        if is_open:
            return gr.skip(), True
        explorer = loading.get()
        listed = [*usable_columns(explorer), TEXTS]
        if target is not None:  # somebody was faster than the loading
            return gr.Dropdown(choices=listed), True
        # Whose coming is answered as a visitor's choice is.
        return gr.Dropdown(choices=listed, value=first_to_ask(explorer) or TEXTS), True

    def answer(target: Any, text: Any, other: Any) -> tuple[Any, ...]:
        return refused(_WRITE) if target == TEXTS and not (text or other) else ask(target, text, other)

    def words_shown(target: Any) -> Any:
        return gr.Group(visible=target == TEXTS)

    once_loaded(
        loading,
        on_open,
        start,
        [opened, target],
        [target, opened],
        show_progress="hidden",
    )
    target.change(words_shown, target, words, preprocess=False, api_visibility="private", show_progress="hidden")
    # A column is asked about as soon as it is chosen.
    gr.on(
        [button.click, text.submit, other.submit, target.change],
        answering(in_place(answer, refused)),
        [target, text, other],
        [told, table, asked],
        preprocess=False,
        api_visibility="private",
        trigger_mode="always_last",
        show_progress="minimal",
        show_progress_on=told,
    ).success(
        answering(draw_first),
        asked,
        [details, shown, chart],
        preprocess=False,
        api_visibility="private",
        trigger_mode="always_last",
        show_progress="hidden",
    )
    gr.on([], answering(ask), [target, text, other], [told, table, asked], preprocess=False, api_name="bias")
    shown.input(
        answering(in_place(draw, str)),
        [asked, shown],
        chart,
        preprocess=False,
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="always_last",
    )
    gr.api(answering(dose_response_), api_name="dose_response")
