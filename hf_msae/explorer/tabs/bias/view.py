"""What drives a classifier? The concepts that do, those that only go along with it, and dose-response curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
import pandas as pd

from ....concepts.table import display_name
from ...answers import answering, in_place
from ...components.bars import bars
from ...components.dose_chart import MAX_CURVES, dose_chart
from ...components.waiting import Loading, on_first_open
from ...explorer import Explorer
from ...rendering import macros
from ..common import BUSY, QUIET, choice, concept_bar
from .answer import (
    NUM_NULL,
    TEXTS,
    Bias,
    bias,
    dose_response,
    first_to_ask,
    first_to_draw,
    read_target,
    usable_columns,
)

TITLE = "Bias"
_ALONG = 8
_DRIVE = (
    "What drives it: change in probability, in percentage points, as the concept goes from absent to strong (nine in "
    "ten pictures that have it have no more)"
)
_GO_ALONG = "What only goes along with it, and is not shown to drive it: correlation with the answer, from -1 to 1"
_html, _empty = macros("bias/view.html"), macros("components.html").empty
_WRITE = _empty("Write in the two boxes what the classifier chooses between, and press Ask.")


def headline(found: Bias) -> str:
    """Say in one sentence what drives the classifier; what may be chance is called not proven, with its odds."""
    report = found.report
    likeliest = report.frame.loc[report.frame["q_effect"].idxmin()]
    if len(report.drivers) or likeliest.q_effect > 0.5:
        verdict = report.verdict()
        return f"{verdict[0].upper()}{verdict[1:]}."
    name = display_name(likeliest["name"], int(likeliest.latent))
    doubt = f"1 in {1 / max(likeliest.q_effect, 1e-3):.0f} such findings is due to chance"
    if likeliest.q_effect <= report.alpha:
        doubt = "the interval of its effect includes 0"
    return f"Not proven: “{name}” may drive the prediction of “{report.target}”, but {doubt}."


def findings(explorer: Explorer, found: Bias) -> str:
    """The verdict, the concepts that drive the classifier, and those that only go along with it (HTML)."""
    report = found.report

    def change(row: Any) -> str:
        return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * each for each in (row.effect, row.low, row.high)))

    drive = [concept_bar(explorer, row.latent, row.effect, change(row)) for row in report.drivers.itertuples()]
    along = report.frame[~report.frame["drives"] & (report.frame["p_association"] <= report.alpha)]
    along = along.sort_values("association", key=abs, ascending=False, kind="stable").head(_ALONG)
    along = [
        concept_bar(explorer, row.latent, row.association, f"{row.association:+.2f}") for row in along.itertuples()
    ]
    return _html.findings(
        headline(found),
        found,
        NUM_NULL,
        bars(drive, _DRIVE, ("concept", "change and its 95% interval")) if drive else "",
        bars(along, _GO_ALONG, ("concept", "correlation")) if along else "",
    )


def numbers(found: Bias) -> dict[str, Any]:
    """All numbers, for clients."""
    records = found.report.frame.astype(object).where(pd.notna(found.report.frame), None).to_dict("records")
    return {
        "target": str(found.target),
        "verdict": headline(found),
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
    """Build the tab."""
    gr.Markdown(
        "## What drives a classifier?\n"
        "Does a classifier look at what it should? Choose what it decides. Each concept is then removed from "
        "the pictures' embeddings and added to them, while everything else stays. What changes the answer drives the "
        "classifier; what merely goes along with the answer is listed separately.",
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
            message = gr.HTML(
                _empty(
                    "The concepts that drive the classifier appear here. For a column of the collection, a linear "
                    "probe is trained; two texts of yours make a zero-shot classifier."
                ),
                label="Findings",
            )
    # The columns are known once the explorer is loaded; until then, clients are told to send any words.
    target.api_info = lambda: {"type": "string", "description": f'a column of two classes, or "{TEXTS}"'}
    with gr.Column(visible=False) as details:
        shown = gr.Dropdown(
            [],
            multiselect=True,
            max_choices=MAX_CURVES,
            label=f"Draw the dose-response curves of up to {MAX_CURVES} concepts",
        )
        chart = gr.HTML()
        with gr.Accordion("The numbers", open=False):
            table = gr.JSON(label="All numbers", show_label=False)

    def ask(target: Any, text: Any, other: Any) -> tuple[str, dict[str, Any], Bias]:
        """Find which concepts drive a classifier, and which only go along with it, from a sample of the collection.

        Args:
            target: A column of the collection with two classes, such as "star", or "two texts of mine".
            text: What a zero-shot classifier says yes to, if the target is "two texts of mine"; otherwise "".
            other: The alternative, if the target is "two texts of mine"; otherwise "".

        Returns:
            The findings (HTML), and all numbers.
        """
        explorer = loading.get()
        found = bias(explorer, read_target(explorer, target, text, other))
        return findings(explorer, found), numbers(found), found

    def refused(message: str) -> tuple[str, None, None]:
        return message, None, None

    def draw(found: Bias | None, names: Any) -> str:
        if found is None or not names:
            return ""
        return dose_chart(dose_response(loading.get(), found, names), found.report.baseline, found.report.target)

    def draw_first(found: Bias | None) -> tuple[Any, Any, str]:
        if found is None:  # the question was refused
            return gr.Column(visible=False), gr.Dropdown([], value=[]), ""
        explorer = loading.get()
        names = first_to_draw(explorer, found)
        listed = [choice(explorer, latent) for latent in found.report.frame["latent"].tolist()]
        return gr.Column(visible=True), gr.Dropdown(choices=listed, value=names), draw(found, names)

    def dose_response_(target: str, text: str, other: str, concepts: list[str]) -> list[dict[str, Any]]:
        """Compute a classifier's mean probability while a concept goes from absent to the strongest seen.

        Args:
            target: A column of the collection with two classes, such as "star", or "two texts of mine".
            text: What a zero-shot classifier says yes to, if the target is "two texts of mine"; otherwise "".
            other: The alternative, if the target is "two texts of mine"; otherwise "".
            concepts: Names of up to four concepts that bias has found, or "latent 417".

        Returns:
            For each concept its name, whether the name is validated, and lists of equal length: shares (0 for absent,
            otherwise the share of the pictures with the concept that have no more of it, up to 1), doses (the
            activations at these shares), probabilities (the classifier's mean over the pictures with the concept at
            that dose), low and high (the ends of their 95% intervals).
        """
        explorer = loading.get()
        found = bias(explorer, read_target(explorer, target, text, other))
        return [vars(each) for each in dose_response(explorer, found, concepts)]

    def start(target: Any) -> tuple[Any]:
        """List the columns, and choose one of them."""
        explorer = loading.get()
        listed = [*usable_columns(explorer), TEXTS]
        if target is not None:  # somebody was faster than the loading
            return (gr.Dropdown(choices=listed),)
        return (gr.Dropdown(choices=listed, value=first_to_ask(explorer) or TEXTS),)

    def answer(target: Any, text: Any, other: Any) -> tuple[Any, ...]:
        return refused(_WRITE) if target == TEXTS and not (text or other) else ask(target, text, other)

    on_first_open(loading, on_open, start, [target], [target])
    target.change(lambda target: gr.Group(visible=target == TEXTS), target, words, **QUIET)
    # A column is asked about as soon as it is chosen.
    gr.on(
        [button.click, text.submit, other.submit, target.change],
        answering(in_place(answer, refused)),
        [target, text, other],
        [message, table, asked],
        show_progress_on=message,
        **BUSY,
    ).success(answering(draw_first), asked, [details, shown, chart], **QUIET)
    gr.on([], answering(ask), [target, text, other], [message, table, asked], preprocess=False, api_name="bias")
    shown.input(answering(in_place(draw, str)), [asked, shown], chart, **QUIET)
    gr.api(answering(dose_response_), api_name="dose_response")
