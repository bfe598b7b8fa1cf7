"""The label of a neuron, with its evidence and history; and those of many neurons."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..statistics import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..concepts import ConceptTable
    from .evaluation.label_checks import LabelChecks

HISTORY = (
    *("iteration", "origin", "concept", "score", "first_score", "accepted", "num_images", "mean_activation"),
    *("malformed", "problem", "reasoning", "images"),
)
MEANINGS = (
    *("meaning", "concepts", "score", "low", "high", "auc", "limit", "p_value", "num_images", "confirmed", "problem"),
)
LABEL_FORMAT = 2
"""Labels of another format are found again."""
LABEL_COLUMNS = {
    **{f"line_{name}": name for name in ("label", "score", "low", "high", "metric", "confirmed")},
    "line_meanings": "other_meanings",
}
"""Columns of a table of names -> what of a label they hold."""
CHECK_COLUMNS = {
    **{f"line_{name}": name for name in ("auprc", "correlation", "f1", "iou", "share", "noticed_by")},
    "line_unchecked": "reason",
}
"""Columns of a table of names -> what `LabelChecks.to_pandas` says of a label."""
_TEXTS = tuple(f"line_{name}" for name in ("label", "metric", "confirmed", "meanings", "noticed_by", "unchecked"))
PICTURES = ("kind", "sha256", "concept", "activation")
_ROW = (
    *("neuron", "label", "guess", "score", "low", "high", "metric", "p_value", "confirmed"),
    "search_score",
)


@dataclass(frozen=True)
class NeuronLabel(Result):
    """What a neuron responds to.

    Attributes:
        neuron: The neuron's name.
        label: The concept that was found; None if it is at chance on fresh pictures (p > 0.05), or there is none.
        guess: The same, even if it is at chance.
        score: Its score on fresh pictures, compared with fresh control pictures; NaN if it could not be confirmed.
        low: Lower end of the score's 95% interval.
        high: Upper end.
        metric: "auc", "mad" or "mean".
        p_value: Of a one-sided Mann-Whitney test on the same pictures.
        confirmed: Whether the AUC on fresh pictures reaches its limit with its interval, and is significant. The limit
            is 0.8, or less for a neuron that many control pictures activate; see `neuron_labels.scoring.reach`.
        search_score: The score in the search. It is the best of many, so it is too high.
        pairs: What taking the label out of pictures does to the activation, as `PairConfirmation.to_dict`; None where
            the imager cannot take it out.
        meanings: Clusters of concepts that the neuron responds to, and whether each is confirmed. Concepts are grouped
            by what their pictures show and by words, so that wordings of one concept are one meaning; see
            `hf_msae.neuron_labels.looks.Looks`.
        history: Every concept that was tried or proposed.
        pictures: The pictures of the concepts and of the control that activate the neuron most.
        control: The number of control pictures, and the quantiles of their activations.
        spent: Calls, tokens, images, cost and seconds of the run so far.
        stopped: Why the search or what confirms it ended early; empty if it did not.
        seed: Random seed.
        settings: How the label was found: proposer, imager and search.
        folder: Where the pictures are; None if they were not kept. It is not written to files, which may be moved.
        latent: The neuron's number, if it is a latent of an MSAE.
    """

    neuron: str
    label: str | None
    guess: str | None
    score: float
    low: float
    high: float
    metric: str
    p_value: float
    confirmed: bool
    search_score: float
    meanings: pd.DataFrame = field(metadata={"columns": list(MEANINGS)})
    history: pd.DataFrame = field(metadata={"columns": list(HISTORY)})
    pictures: pd.DataFrame = field(metadata={"columns": list(PICTURES)})
    control: dict[str, float]
    spent: dict[str, float]
    stopped: str
    seed: int
    settings: dict[str, Any]
    folder: str | None = None
    latent: int | None = None
    pairs: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the folder as JSON can hold it, and the format."""
        content = super().to_dict()
        del content["folder"]
        return {"format": LABEL_FORMAT, **content}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> NeuronLabel:
        """Build a label from what `to_dict` returned, which has None for figures that do not exist.

        Raises:
            ValueError: It is of another format, or a field is missing.
        """
        if content.get("format") != LABEL_FORMAT:
            raise ValueError(
                f"the label has the format {content.get('format')}, and this version of hf_msae reads {LABEL_FORMAT}: "
                "label the neuron again, which takes answers and pictures from the folder"
            )
        figures = ("score", "low", "high", "p_value", "search_score")
        return super().from_dict(content | {name: np.nan for name in figures if content.get(name, 0) is None})

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the score."""
        return self.low, self.high

    @property
    def is_polysemantic(self) -> bool:
        """Whether more than one meaning is confirmed; see `meanings` for what that does not rule out."""
        return int(self.meanings["confirmed"].sum()) > 1

    def to_pandas(self) -> pd.DataFrame:
        """Return the label and its evidence as one row."""
        others = self.meanings[self.meanings["confirmed"] & (self.meanings["meaning"] != self.guess)]["meaning"]
        row = {
            **{name: getattr(self, name) for name in _ROW},
            "share_of_pairs": self.pairs["share"] if self.pairs else np.nan,
            "other_meanings": ", ".join(others),
            "num_concepts": int(self.history["score"].notna().sum()),
            "stopped": self.stopped,
        }
        return pd.DataFrame([row])

    def verdict(self) -> str:
        """Say what the neuron responds to, and how sure that is."""
        if self.guess is None:
            return f"{self.neuron}: no label: no concept could be scored ({self.stopped or 'none could be drawn'})"
        if not np.isfinite(self.score):
            return f"{self.neuron}: a guess, {self.guess} (not confirmed: {self._why_not()})"
        figures = f"{self.metric} {self.score:.2f}, {self.low:.2f} to {self.high:.2f}"
        if self.label is None:
            return f"{self.neuron}: no label: {self.guess}, the best guess, is at chance on fresh pictures ({figures})"
        others = self.to_pandas()["other_meanings"].iloc[0]
        if self.pairs:
            figures += f"; weaker without it in {self.pairs['share']:.0%} of {self.pairs['num_pairs']} pairs"
        label = f"{self.label} ({figures})" if self.confirmed else f"a guess, {self.label} ({figures}, not confirmed)"
        return f"{self.neuron}: {label}{f'; also {others}' if others else ''}"

    def _why_not(self) -> str:
        problems = self.meanings.loc[self.meanings["meaning"] == self.guess, "problem"]
        return next((problem for problem in problems if problem), self.stopped or "no fresh pictures")

    def plot(self, folder: str | Path | None = None) -> Figure:
        """Draw the best pictures, the control pictures that activate the neuron most, and the course of the search.

        Args:
            folder: Where the run's pictures are; by default where they were when the label was found.

        Raises:
            ValueError: The pictures were not kept.
        """
        from ..plotting.neuron_labels import plot_neuron_label

        folder = folder or self.folder
        if folder is None:
            raise ValueError("the pictures were not kept: pass output_dir= to label_neuron")
        return plot_neuron_label(self, Path(folder))


@dataclass(frozen=True)
class NeuronLabels(Result):
    """Labels of several neurons.

    Attributes:
        labels: The label of each neuron.
        spent: Calls, tokens (of prompts, of answers, and both), images, cost and seconds of this run.
        problems: Why a neuron has no label, by name.
    """

    labels: tuple[NeuronLabel, ...]
    spent: dict[str, float]
    problems: dict[str, str] = field(default_factory=dict)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row for each neuron."""
        if not self.labels:
            return pd.DataFrame(columns=["neuron", "label", "score", "low", "high", "metric", "p_value", "confirmed"])
        return pd.concat([label.to_pandas() for label in self.labels], ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        labels = [label.to_dict() for label in self.labels]
        return {"labels": labels, "spent": self.spent, "problems": self.problems}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> NeuronLabels:
        """Build the labels from what `to_dict` returned."""
        labels = tuple(NeuronLabel.from_dict(each) for each in content["labels"])
        return cls(labels, content["spent"], content.get("problems", {}))

    def add_to(self, table: ConceptTable, checks: LabelChecks | None = None) -> ConceptTable:
        """Return a table of names with the labels of latents beside the names, as columns of their own.

        They are line_label, line_score, line_low, line_high, line_metric, line_confirmed and line_meanings, what else
        the latent responds to, and empty for a label at chance; and, on real pictures, line_auprc, line_correlation,
        line_f1, line_iou, line_share (of pictures that show the label), line_noticed_by (measures that pass the sanity
        tests on it) and line_unchecked (why there are none of these). Labels of other latents stay.

        Args:
            table: The names.
            checks: What `check_labels` found of these labels.

        Raises:
            ValueError: A label is of no latent of the table.
        """
        rows = [label for label in self.labels if label.latent is not None]
        frame = table.frame.copy()
        if unknown := {label.latent for label in rows} - set(frame["latent"]):
            raise ValueError(f"the table of names has no latent {min(unknown)}")
        columns = {**LABEL_COLUMNS, **CHECK_COLUMNS}
        missing = {column: None if column in _TEXTS else np.nan for column in columns}
        for column, value in missing.items():
            if column not in frame:
                frame[column] = value
        frame = frame.astype(dict.fromkeys(_TEXTS, object))
        places = dict(zip(frame["latent"], frame.index, strict=True))
        checked = {} if checks is None else checks.to_pandas().set_index("neuron").to_dict("index")
        for label in rows:
            # Without a label, figures would look like evidence.
            own = {} if label.label is None else label.to_pandas().iloc[0].to_dict()
            own |= checked.get(label.neuron, {"reason": "not checked"})
            for column, name in columns.items():  # those of an earlier label must not stay
                frame.at[places[label.latent], column] = own.get(name, missing[column])
        provenance = {**table.provenance, "line": self.labels[0].settings if self.labels else {}}
        return replace(table, frame=frame, provenance=provenance)

    @classmethod
    def load(cls, path: str | os.PathLike) -> NeuronLabels:
        """Read the labels of a run, `labels.json` in its folder, where the pictures are as well."""
        folder = Path(path).parent
        loaded = super().load(path)
        is_run = (folder / "images").is_dir()
        return (
            replace(loaded, labels=tuple(replace(each, folder=str(folder)) for each in loaded)) if is_run else loaded
        )

    def __iter__(self) -> Iterator[NeuronLabel]:
        return iter(self.labels)

    def __getitem__(self, place: int) -> NeuronLabel:
        return self.labels[place]

    def __len__(self) -> int:
        return len(self.labels)

    def verdict(self) -> str:
        """Say how many labels were found and confirmed."""
        confirmed = sum(label.confirmed for label in self.labels)
        many = sum(label.is_polysemantic for label in self.labels)
        guessed = sum(label.label is not None for label in self.labels) - confirmed
        number = len(self.labels) + len(self.problems)
        return (
            f"{confirmed} of {number} neurons have a label that fresh pictures confirm, and {guessed} a guess; {many} "
            "respond to several concepts"
        )
