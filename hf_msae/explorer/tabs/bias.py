"""Bias: which concepts drive a classifier, which only go along with it, and how the answer depends on the dose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ...activations import load_activations
from ...concepts import BiasReport, bias_report
from ...metrics import LinearClassifier
from ..bars import Bar, bars
from ..dose_chart import MAX_CURVES, Curve, dose_chart
from ..inputs import VisitorError, read_choice, read_text
from ..zero_shot import zero_shot

if TYPE_CHECKING:
    from ..app import Loading
    from ..explorer import Explorer

TITLE = "Bias"
TEXTS = "two texts of mine"
NUM_SAMPLES, NUM_NULL, NUM_BOOTSTRAP = 150, 100, 200
"""Fewer pictures than `bias_report` takes, but as many random latents: with fewer, small effects look like more."""
MAX_CONCEPTS = 64
"""Concepts that are asked about, those of most pictures: each costs time."""
MIN_EACH = 20
"""Pictures with and without what a probe is trained for, of which it sees half."""
_ALONG = 8
_KEPT = 64


@dataclass(frozen=True)
class Target:
    """What a classifier decides.

    Attributes:
        column: of the collection, for a probe; or None.
        texts: two, for a zero-shot classifier, the class asked about first; or None.
    """

    column: str | None = None
    texts: tuple[str, str] | None = None

    def __str__(self) -> str:
        return self.column if self.texts is None else self.texts[0]


@dataclass(frozen=True)
class Bias:
    """What drives a classifier.

    Attributes:
        target: what it decides.
        report: of the concepts.
        share: of the pictures that the report is about, the part that the classifier says yes to.
        num_pictures: that it was asked about.
        num_concepts: that could have been asked about; the report is of `MAX_CONCEPTS` at most.
        accuracy: the part of pictures that a probe labels as the column does; None of a zero-shot classifier.
        guessing: the accuracy of always saying what is more frequent; None likewise.
    """

    target: Target
    report: BiasReport
    share: float
    num_pictures: int
    num_concepts: int
    accuracy: float | None = None
    guessing: float | None = None


def columns(explorer: Explorer) -> tuple[str, ...]:
    """The columns with yes or no for each picture."""
    features = explorer.images.features
    return tuple(name for name, feature in features.items() if getattr(feature, "dtype", None) == "bool")


@lru_cache(maxsize=1)
def usable_columns(explorer: Explorer) -> tuple[str, ...]:
    """Those of them that a probe can be trained for."""
    found = _truths(explorer, columns(explorer))
    return tuple(name for name, truth in found.items() if min((truth == 0).sum(), (truth == 1).sum()) >= MIN_EACH)


def read_target(explorer: Explorer, target: object, text: object = None, other: object = None) -> Target:
    """What a visitor asks about.

    Args:
        target: a column, or `TEXTS`.
        text: what the classifier says yes to, for `TEXTS`.
        other: what it could be otherwise.

    Raises:
        VisitorError: there is no such column, or a text is missing or too long, or they are the same.
    """
    if read_choice(target, (*columns(explorer), TEXTS), "target") != TEXTS:
        return Target(column=str(target))
    texts = read_text(text, "text in box 1"), read_text(other, "text in box 2")
    if texts[0].casefold() == texts[1].casefold():
        raise VisitorError("The two texts are the same: write what it could be otherwise, for example “no star”.")
    return Target(texts=texts)


@lru_cache(maxsize=_KEPT)
def bias(explorer: Explorer, target: Target) -> Bias:
    """Which concepts drive a classifier, by a small sample; kept, since it depends on nothing else.

    A probe is trained on one half of the collection and asked about the other; a zero-shot classifier is asked about
    all of it.

    Raises:
        VisitorError: there are too few pictures of a kind, or the classifier gives all the same answer.
    """
    if target.texts is None:
        classifier, rows, accuracy, guessing = _probe(explorer, target.column)
    else:
        classifier, rows = zero_shot(explorer, [*target.texts]), np.arange(len(explorer.acts))
        # The class asked about is the second of a probe's two, and of these too.
        classifier = LinearClassifier(classifier.weight.flip(0), classifier.bias.flip(0), classifier.classes[::-1])
        accuracy = guessing = None
    ask = probability_of_second(classifier)
    embeddings = explorer.acts[rows]
    share = float((ask(embeddings) > 0.5).double().mean())
    if share in (0.0, 1.0):
        raise VisitorError(
            f"The classifier gives all {len(rows)} pictures the same answer, {'yes' if share else 'no'}: there is "
            "nothing to explain. Ask about something that some of them have."
        )
    latents = _asked(explorer)
    if not latents:
        raise VisitorError("This model has too few active concepts to compare with.")
    report = bias_report(
        explorer.msae,
        load_activations(embeddings),
        ask,
        concepts=explorer.model.concepts,
        latents=latents,
        target=str(target),
        num_samples=NUM_SAMPLES,
        num_null=NUM_NULL,
        num_bootstrap=NUM_BOOTSTRAP,
        progress=False,
    )
    return Bias(target, report, share, len(rows), len(explorer.concepts), accuracy, guessing)


def probability_of_second(classifier: LinearClassifier) -> Callable[[torch.Tensor], torch.Tensor]:
    """The probability of the second of two classes, as `as_classifier` gives it, but by one product in float32.

    A report asks a million times; this makes it several times as fast.
    """
    direction = (classifier.weight[1] - classifier.weight[0]).float()
    bias = float(classifier.bias[1] - classifier.bias[0])

    def ask(x: torch.Tensor) -> torch.Tensor:
        lengths = torch.linalg.vector_norm(x, dim=1)
        return ((x @ direction) / lengths.masked_fill(lengths == 0, 1.0)).double().add(bias).sigmoid()

    return ask


def _truths(explorer: Explorer, names: Sequence[str]) -> dict[str, np.ndarray]:
    """1, 0, or -1 where a column is empty, (N,) of each."""
    frame = explorer.images.select_columns(list(names)).to_pandas() if names else pd.DataFrame()
    return {name: frame[name].map({True: 1, False: 0}).fillna(-1).to_numpy(int) for name in frame}


def _probe(explorer: Explorer, column: str) -> tuple[LinearClassifier, np.ndarray, float, float]:
    """A probe, the rows that it was not trained on, its accuracy there, and that of guessing."""
    truth = _truths(explorer, [column])[column]
    have, have_not = int((truth == 1).sum()), int((truth == 0).sum())
    if min(have, have_not) < MIN_EACH:
        raise VisitorError(
            f"{have} of the {len(truth)} pictures have “{column}” and {have_not} have it not: a probe needs "
            f"{MIN_EACH} of each kind. Choose another target, or describe it by two texts."
        )
    # Each half has as many of both kinds, in whatever order the collection is.
    rows = np.random.default_rng(0).permutation(np.flatnonzero(truth >= 0))
    rows = rows[np.argsort(truth[rows], kind="stable")]
    train, test = np.sort(rows[::2]), np.sort(rows[1::2])
    probe = LinearClassifier.fit(explorer.acts[train], truth[train], ("no", "yes"), regularization="cv")
    guess = (probability_of_second(probe)(explorer.acts[test]) > 0.5).numpy()
    share = float(truth[test].mean())
    return probe, test, float((guess == truth[test]).mean()), max(share, 1 - share)


def _asked(explorer: Explorer) -> list[int]:
    """The latents of the concepts that are asked about; none where too few would be left to compare with."""
    latents = np.array([each.latent for each in explorer.concepts.values()])
    often = (explorer.codes > 0).sum(axis=0)
    most = min(MAX_CONCEPTS, int((often > 0).sum()) // 2)
    latents = latents[often[latents] > 0]
    return sorted(latents[np.argsort(-often[latents], kind="stable")][:most].tolist())


def key_of(explorer: Explorer, latent: int) -> str:
    """What `Explorer.latent_of` takes for a latent."""
    name = str(explorer.label(latent))
    chosen = explorer.concepts.get(name)
    return name if chosen is not None and chosen.latent == latent else f"latent {latent}"


def dose_response(explorer: Explorer, target: Target, names: object) -> tuple[Curve, ...]:
    """The curve of each concept chosen.

    Args:
        target: as for `bias`.
        names: of concepts that its report has, `MAX_CURVES` at most.

    Raises:
        VisitorError: there are none, too many, or others; and as `bias`.
    """
    if not isinstance(names, (list, tuple)) or not names:
        raise VisitorError("Choose a concept to draw.")
    if len(names) > MAX_CURVES:
        raise VisitorError(f"At most {MAX_CURVES} concepts can be drawn at a time.")
    report = bias(explorer, target).report
    found = {}
    for name in names:
        latent = explorer.latent_of(name)
        rows = report.curves[report.curves["latent"] == latent]
        if rows.empty:
            raise VisitorError("A concept was not asked about, being in too few pictures: choose others.")
        values = [rows[column].tolist() for column in ("quantile", "dose", "probability", "low", "high")]
        found[latent] = Curve(key_of(explorer, latent), explorer.label(latent).validated, *map(tuple, values))
    return tuple(found.values())


def first_to_draw(explorer: Explorer, found: Bias) -> list[str]:
    """The concepts that drive a classifier most; where none is shown to, the one of the largest effect."""
    drivers = found.report.drivers["latent"].tolist() or found.report.frame["latent"].tolist()[:1]
    return [key_of(explorer, latent) for latent in drivers[:3]]


# -- what is shown ---------------------------------------------------------------------------------------------------


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
    cut = ""
    if found.num_concepts > len(report.frame):
        cut = (
            f" {len(report.frame)} of {found.num_concepts} concepts were asked about: those that are in most pictures."
        )
    verdict = report.verdict()
    return (
        f'<p class="msae-verdict">{escape(verdict[0].upper() + verdict[1:])}.</p><p class="msae-small">{how}{cut} '
        f"This is a quick look at {report.num_samples} of them, with {NUM_NULL} random latents to compare each concept "
        "with: small effects may be missed. <code>hf-msae bias</code> looks thoroughly.</p>"
        f'<div class="msae-wide">{_driving(explorer, report)}</div>{_along(explorer, report)}'
    )


def _bar(explorer: Explorer, latent: int, value: float, text: str) -> Bar:
    label = explorer.label(latent)
    note = None if key_of(explorer, latent) == str(label) else f"latent {latent}"
    return Bar(str(label), value, text, note, not label.validated)


def _driving(explorer: Explorer, report: BiasReport) -> str:
    rows = [
        _bar(explorer, row.latent, row.effect, f"{_points(row.effect)} ({_points(row.low)} to {_points(row.high)})")
        for row in report.drivers.itertuples(index=False)
    ]
    caption = (
        "They drive it: change of the probability, in percentage points, when the concept goes from absent to strong"
    )
    return bars(rows, caption, ("concept", "change and its 95% interval"))


def _along(explorer: Explorer, report: BiasReport) -> str:
    frame = report.frame[~report.frame["drives"] & (report.frame["p_association"] <= report.alpha)]
    frame = frame.sort_values("association", key=abs, ascending=False, kind="stable").head(_ALONG)
    rows = [_bar(explorer, row.latent, row.association, f"{row.association:+.2f}") for row in frame.itertuples()]
    caption = "They only go along with it, and are not shown to drive it: correlation with the answer, from -1 to 1"
    return bars(rows, caption, ("concept", "correlation"))


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


def build(loading: Loading) -> None:
    """The tab."""
    import gradio as gr

    from ..app import answering

    gr.Markdown(
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
                "gets a linear probe; two texts of yours make a zero-shot classifier.</p>"
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
            table = gr.JSON(show_label=False)

    def start() -> Any:
        explorer = loading.get()
        return gr.Dropdown(choices=[*usable_columns(explorer), TEXTS])

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

    def draw(chosen: Target | None, names: Any) -> str:
        if chosen is None or not names:
            return ""
        explorer = loading.get()
        curves = dose_response(explorer, chosen, names)
        return dose_chart(curves, bias(explorer, chosen).report.baseline, str(chosen))

    def draw_first(chosen: Target) -> tuple[Any, Any, str]:
        explorer = loading.get()
        found = bias(explorer, chosen)
        names = first_to_draw(explorer, found)
        listed = [key_of(explorer, latent) for latent in found.report.frame["latent"].tolist()]
        return gr.Column(visible=True), gr.Dropdown(choices=listed, value=names), draw(chosen, names)

    def dose_response_(target: str, text: str, other: str, concepts: list[str]) -> list[dict[str, Any]]:
        """The probability that a classifier gives on average while a concept goes from absent to the strongest seen.

        Args:
            target: as for bias.
            text: as for bias.
            other: as for bias.
            concepts: names of up to four concepts that bias tells of.

        Returns:
            For each concept its doses (activations, and the shares of pictures having it that have no more of it), and
            the mean probabilities with their intervals.
        """
        explorer = loading.get()
        chosen = read_target(explorer, target, text, other)
        return [vars(each) for each in dose_response(explorer, chosen, concepts)]

    def words_shown(target: Any) -> Any:
        return gr.Group(visible=target == TEXTS)

    gr.on(None, answering(start), None, target, preprocess=False, show_progress="hidden", api_visibility="private")
    target.input(words_shown, target, words, preprocess=False, api_visibility="private", show_progress="hidden")
    gr.on(
        [button.click, text.submit, other.submit],
        answering(ask),
        [target, text, other],
        [told, table, asked],
        preprocess=False,
        api_name="bias",
        show_progress="minimal",
        show_progress_on=told,
    ).success(
        answering(draw_first),
        asked,
        [details, shown, chart],
        preprocess=False,
        api_visibility="private",
        show_progress="hidden",
    )
    shown.input(
        answering(draw),
        [asked, shown],
        chart,
        preprocess=False,
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="always_last",
    )
    gr.api(answering(dose_response_), api_name="dose_response")
