"""Labels on real pictures whose contents are known: do they fit, and would the figures notice if they did not?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ...statistics import Result
from .accuracy import MIN_IMAGES
from .measures import MEASURES, checked_activations, unmeasurable
from .sanity import LEAST_DROP, LEAST_SHARE, label_sanity
from .truth import Truth

if TYPE_CHECKING:
    from ..result import NeuronLabels

SHOWN = ("auprc", "correlation", "f1", "iou")
"""The measures that are shown with a label; all pass the sanity tests of arXiv 2506.05774."""
_COMPARED = "auc"  # what the search goes by: tested beside them, since it may not notice
_LABELS = ("neuron", "latent", "label", "num_images", "num_shown", "reason")
_COLUMNS = (
    *("neuron", "label", "measure", "value", "low", "high", "missing", "extra", "missing_drop", "extra_drop"),
    *("drops", "reason"),
)
_SANITY = ("measure", "value", "missing_drop", "extra_drop", "missing_share", "extra_share", "passes", "num_neurons")
_VERDICTS = (("passed", True), ("failed", False))
_WORDING = {"auprc": "AUPRC", "correlation": "correlation", "f1": "F1", "iou": "IoU", "auc": "AUC"}


@dataclass(frozen=True)
class LabelChecks(Result):
    """How labels fit real pictures, with the sanity tests of arXiv 2506.05774 on these very labels.

    Attributes:
        labels: One row per label: neuron, latent (None if it is no latent), label, num_images, num_shown (pictures
            that show the label), reason (why there are no figures, or "").
        frame: One row per label and measure, of the labels that have figures: neuron, label, measure, value, its 95%
            interval (low, high), missing and extra (the value if the label were true of half of its pictures, or of as
            many others as well), missing_drop and extra_drop (shares of the measure's range), drops (whether both are
            above 0.001), and reason (why there are no tests, or "").
        sanity: The tests over all labels, as `sanity_tests` has them; empty if no label can be tested.
    """

    labels: pd.DataFrame = field(metadata={"columns": list(_LABELS)})
    frame: pd.DataFrame = field(metadata={"columns": list(_COLUMNS)})
    sanity: pd.DataFrame = field(metadata={"columns": list(_SANITY)})

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per label, with a column for each measure, and the measures that pass both tests on it."""
        figures = self.frame.pivot(index="neuron", columns="measure", values="value").reindex(columns=[*SHOWN])
        noticing = self.frame[self.frame["drops"].astype(bool)].groupby("neuron")["measure"].agg(", ".join)
        wide = self.labels.join(figures, on="neuron").join(noticing.rename("noticed_by"), on="neuron")
        wide["noticed_by"] = wide["noticed_by"].fillna("")
        return wide.assign(share=wide["num_shown"] / wide["num_images"].where(wide["num_images"] > 0))

    def describe(self, neuron: str) -> str:
        """Say in two lines how the label of a neuron fits, and which figures would notice if it did not."""
        label = self.labels.set_index("neuron").loc[neuron]
        if label["reason"]:
            return f"not checked on real pictures: {label['reason']}"
        rows = self.frame[self.frame["neuron"] == neuron].set_index("measure")
        parts = [f"{_WORDING[name]} {row.value:.2f} ({row.low:.2f} to {row.high:.2f})" for name, row in _of(rows)]
        chance = label["num_shown"] / label["num_images"]
        lines = (
            f"on {label['num_images']:,} real pictures, {label['num_shown']:,} of which show it: {', '.join(parts)}; "
            f"chance is an AUPRC of {chance:.2f}\n"
        )
        if reason := rows["reason"].iloc[0]:
            return f"{lines}sanity tests: none, since {reason}"
        tests = [f"{_WORDING[name]} {row.missing:.2f} and {row.extra:.2f}" for name, row in _of(rows)]
        blind = " and ".join(_WORDING[name] for name, row in rows.iterrows() if not row["drops"])
        noticed = f"not noticed by {blind}" if blind else "noticed by all of these and the AUC"
        return f"{lines}sanity tests: half and twice as broad, it would have {', '.join(tests)}; {noticed}"

    def verdict(self) -> str:
        """Say how many labels were checked, how they fit, and which measures pass the sanity tests on them."""
        checked = self.to_pandas()[self.labels["reason"].eq("").to_numpy()]
        if checked.empty:
            first, *others = dict.fromkeys(self.labels["reason"]) or ("there are none",)
            return f"No label was checked on real pictures: {first}{', and other reasons' if others else ''}"
        means = ", ".join(f"{_WORDING[name]} {checked[name].mean():.2f}" for name in SHOWN)
        text = f"{len(checked)} of {len(self.labels)} labels were checked on real pictures; means: {means}"
        if self.sanity.empty:
            return text
        passed = self.sanity.set_index("measure")["passes"].astype(bool)
        groups = {
            word: [_WORDING[name] for name in passed.index[passed == is_passed]] for word, is_passed in _VERDICTS
        }
        tests = "; ".join(f"{word} by {', '.join(names)}" for word, names in groups.items() if names)
        return f"{text}. Sanity tests, over {self.sanity['num_neurons'].iloc[0]} of them: {tests}"


def check_labels(
    labels: NeuronLabels | Sequence[str | None],
    activations: np.ndarray,
    truth: Truth,
    seed: int = 0,
    num_resamples: int = 200,
) -> LabelChecks:
    """Measure labels on real pictures whose contents are known, and apply the two sanity tests to these very labels.

    The measures are those that pass the tests of arXiv 2506.05774: AUPRC, Pearson's correlation, F1 and IoU. The AUC,
    which the search goes by, is tested beside them. A label with a word that the truth does not know has no figures,
    nor has one that fewer than 10 pictures show or lack.

    Args:
        labels: What `label_neurons` found, or texts.
        activations: Activations of these neurons, in the same order, on the pictures of `truth` (N, n). None of the
            pictures may have chosen a label: of control pictures, take `control.confirm_rows`.
        truth: What is in the pictures: `SceneTruth`, `WordTruth`, or what `known_truth` reads from a dataset.
        seed: Random seed of the intervals and tests.
        num_resamples: Number of resamples of the pictures for the intervals.

    Raises:
        ValueError: Numbers of labels, neurons or pictures differ.

    Example:
        >>> rows = control.confirm_rows
        >>> activations = np.stack([control.activations(neuron)[rows] for neuron in neurons], axis=1)
        >>> print(check_labels(found, activations, known_truth(dataset.select(rows))).verdict())
    """
    texts, latents, names = _texts(labels)
    activations = checked_activations(activations)
    if activations.shape != (len(truth.presence), len(texts)):
        raise ValueError(
            f"activations have shape {activations.shape}, but there are {len(truth.presence)} pictures and "
            f"{len(texts)} labels"
        )
    rows, measured = [], []
    for place, text in enumerate(texts):
        reading, column = truth.read(text), activations[:, [place]]
        shown = 0 if reading.presence is None else int(reading.presence.sum())
        reason = reading.problem
        if not reason and reading.unknown:
            reason = f"it is not known which pictures show {', '.join(map(repr, reading.unknown))}"
        elif not reason and min(shown, len(activations) - shown) < MIN_IMAGES:
            reason = (
                f"{shown} of {len(activations)} pictures show it; at least {MIN_IMAGES} have to, and as many must not"
            )
        presence = None if reason else reading.presence[:, None].astype(np.float64)
        reason = reason or unmeasurable(column, presence)[0, 0]
        rows.append((names[place], latents[place], text, len(activations), shown, reason))
        if not reason:
            measured += _measured(names[place], text, column, presence, seed, num_resamples)
    frame = pd.DataFrame(measured, columns=list(_COLUMNS))
    return LabelChecks(pd.DataFrame(rows, columns=list(_LABELS)).astype({"latent": object}), frame, _sanity(frame))


def _texts(labels: NeuronLabels | Sequence[str | None]) -> tuple[list[str | None], list[int | None], list[str]]:
    found = getattr(labels, "labels", None)
    if found is None:
        return list(labels), [None] * len(labels), [f"neuron {place}" for place in range(len(labels))]
    return [one.label for one in found], [one.latent for one in found], [one.neuron for one in found]


def _measured(
    name: str, text: str, column: np.ndarray, presence: np.ndarray, seed: int, num_resamples: int
) -> list[dict]:
    random = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {measure: [] for measure in (*SHOWN, _COMPARED)}
    for _ in range(num_resamples):
        rows = random.integers(len(column), size=len(column))
        for measure, values in draws.items():
            values.append(MEASURES[measure](column[rows], presence[rows])[0, 0])
    tests = label_sanity(column, presence, tuple(draws), seed).to_dict("records")
    intervals = {measure: np.nanquantile(values, [0.025, 0.975]) for measure, values in draws.items()}
    return [
        {"neuron": name, "label": text, **test, **dict(zip(("low", "high"), intervals[test["measure"]], strict=True))}
        for test in tests
    ]


def _sanity(frame: pd.DataFrame) -> pd.DataFrame:
    """Sum up the tests as `sanity_tests` does: a measure passes if it drops for more than 90% of the labels."""
    rows = []
    for measure, tested in frame[frame["reason"] == ""].groupby("measure", sort=False):
        drops = tested[["missing_drop", "extra_drop"]].astype(float)
        shares = (drops > LEAST_DROP).mean()
        passes = bool((shares > LEAST_SHARE).all())
        rows.append((measure, tested["value"].mean(), *drops.mean(), *shares, passes, len(tested)))
    return pd.DataFrame(rows, columns=list(_SANITY))


def _of(rows: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    return [(name, rows.loc[name]) for name in SHOWN]
