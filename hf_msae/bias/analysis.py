"""Which concepts drive a classifier: association, intervention, what random latents would do, and the report of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from .._utils.checks import check_integers
from .._utils.deprecation import renamed_arguments
from .._utils.evaluating import evaluation_mode
from .._utils.wording import counted, marked
from ..concepts.codes import Embeddings, collect_codes, open_embeddings
from ..concepts.collectors import ColumnCollector, FiringCollector, RowCollector
from ..concepts.editing import latents_of
from ..concepts.table import ConceptTable, check_table, display_names, to_text
from ..metrics import LinearClassifier
from ..statistics import Finding, Result, confirmed, holm
from .interventions import (
    DOSES,
    FEWEST_NAMED,
    driver_candidates,
    intervene,
    latent_directions,
    latents_to_test,
    validated_latents,
)
from .probabilities import as_classifier, probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

_ROWS_OF_STRONGEST = 2048
_RANKED_ENTRIES = 2**22
"""Activations that are ranked at a time; each takes some 70 bytes then."""
_MOST_LISTED = 10
_BOX_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


@torch.no_grad()
@renamed_arguments(acts="embeddings", latents="indices")
def bias_report(
    msae: MSAEModel,
    embeddings: Embeddings,
    classifier: Any,
    positive: int | str = 1,
    concepts: ConceptTable | None = None,
    indices: Sequence[int | str] | None = None,
    target: str | None = None,
    num_samples: int = 500,
    num_null: int = 100,
    num_bootstrap: int = 1000,
    alpha: float = 0.05,
    seed: int = 0,
    progress: bool = True,
) -> BiasReport:
    """Find the concepts that drive a classifier of embeddings.

    What is correlated with a prediction need not cause it, so every concept is intervened on: its latent is set from
    zero to the 90th percentile of its positive activations while everything else stays, including what the MSAE does
    not reconstruct. The change of the mean probability is the effect.

    A concept drives the classifier if the bootstrap interval of its effect excludes zero, and if its effect on the
    log-odds, which do not saturate as probabilities do, is larger than that of random latents. These are drawn from
    the other latents that are active about as often, and moved by as much. The spread of their effects (estimated by
    the median of their sizes, since some of them carry the classifier's own concepts) turns the effect into a z-score,
    and the z-scores into q-values (Benjamini-Hochberg).

    The association is the rank-biserial correlation of the concept's activation with the prediction, with
    Holm-corrected p-values of the Mann-Whitney test.

    Args:
        msae: The MSAE.
        embeddings: Embeddings of data that the classifier was not trained on; anything `load_embeddings` accepts.
        classifier: Anything `as_classifier` takes. Train a probe for this with
            `LinearClassifier.fit(..., regularization="cv")`: one that leans a little on every direction hides what it
            relies on.
        positive: The class to explain, by name or number.
        concepts: Names of the latents.
        indices: Latents to test, by number or name as `latent_of` reads them; those that no row activates are left out
            with a warning. Defaults to the best latent of each
            validated name; if fewer than 10 names are validated, also the latents with the largest activations in
            total, up to 50 latents, a choice that the classifier has no part in.
        target: Name of the class in text and figures.
        num_samples: Number of rows to intervene on, drawn from `embeddings`; of tokens, at most one of each picture.
        num_null: Number of random latents for each concept.
        num_bootstrap: Number of resamples for the intervals.
        alpha: Level of the tests and intervals.
        seed: Random seed of all draws.
        progress: Whether to show progress bars.

    Raises:
        ValueError: One of `indices` is unknown, no row activates any of them, too few latents are left for the null,
            the classifier predicts only one class, or it returns something other than probabilities.
    """
    check_integers(num_samples=(num_samples, 2), num_null=(num_null, 20), num_bootstrap=(num_bootstrap, 20))
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    check_table(concepts)
    ask = as_classifier(classifier, positive)
    embeddings = open_embeddings(msae, embeddings)
    n, rng = msae.config.num_latents, np.random.default_rng(seed)
    if indices is None:
        chosen = _default_latents(msae, embeddings, concepts)
    else:
        chosen = latents_of(indices, n, concepts)
    if not len(chosen):
        raise ValueError("there is no latent to test: choose at least one by name or number")

    predictions = RowCollector(lambda batch: probabilities(ask, batch.embeddings))
    collectors = [ColumnCollector(chosen), FiringCollector(), predictions]
    columns, firing, predicted = collect_codes(msae, embeddings, collectors, progress=progress, description="reading")
    guess, samples = predicted > 0.5, np.arange(len(embeddings))
    if embeddings.has_tokens:
        samples = _one_of_each(embeddings.dataset_rows(), rng)
    if guess[samples].all() or not guess[samples].any():
        predicted_class = "the class" if guess[samples].all() else "another class"
        raise ValueError(
            f"the classifier predicts {predicted_class} for all {len(samples)} samples: there is nothing to explain"
        )
    alive = firing.counts[chosen] > 0
    if not alive.all():
        _leave_out(chosen[~alive], len(chosen), embeddings.source)
    chosen, activations = chosen[alive], columns.values if alive.all() else columns.values[:, alive]
    of_samples = activations[samples] if embeddings.has_tokens else activations
    association, p_association = _associations(of_samples, guess[samples])

    x = embeddings[np.sort(samples[rng.choice(len(samples), min(num_samples, len(samples)), replace=False)])]
    with evaluation_mode(msae):
        codes = msae.encode(x.to(msae.device)).float().cpu()
    frequency, directions = firing.counts / len(embeddings), latent_directions(msae)
    found = intervene(ask, x, codes, directions, chosen, activations, frequency, num_null, rng, progress)
    low, high = found.intervals(alpha, num_bootstrap, rng)
    frame = found.to_pandas(concepts, low[:, 0], high[:, 0], alpha)
    place = frame.columns.get_loc("effect")
    frame.insert(place, "association", association)
    frame.insert(place + 1, "p_association", holm(p_association))
    frame = frame.sort_values("effect", key=abs, ascending=False, kind="stable")
    frame = frame.sort_values("drives", ascending=False, kind="stable", ignore_index=True)
    curves = pd.DataFrame(
        {
            "latent": np.repeat(chosen, len(DOSES)),
            "dose": found.levels.ravel(),
            "quantile": np.tile(DOSES, len(chosen)),
            "probability": found.answers.mean(axis=2).ravel(),
            "low": low[:, 1:].ravel(),
            "high": high[:, 1:].ravel(),
        }
    )
    classes = classifier.classes if isinstance(classifier, LinearClassifier) else ()
    name = target or (positive if isinstance(positive, str) else classes[positive] if classes else f"class {positive}")
    boxes = _boxes(chosen, activations, guess)
    return BiasReport(frame, curves, boxes, float(probabilities(ask, x).mean()), name, len(x), alpha)


def _default_latents(msae: MSAEModel, embeddings: EmbeddingDataset, concepts: ConceptTable | None) -> np.ndarray:
    """Return `latents_to_test`, by the activations of some rows."""
    if len(validated_latents(concepts)) >= FEWEST_NAMED:
        return latents_to_test(np.zeros(0), concepts)
    rows = np.unique(np.linspace(0, len(embeddings) - 1, _ROWS_OF_STRONGEST).astype(np.int64))
    x = embeddings[rows]
    embeddings.check_finite(x, rows)
    with evaluation_mode(msae):
        total = msae.encode(x.to(msae.device)).double().sum(dim=0).cpu().numpy()
    return latents_to_test(total, concepts)


def _one_of_each(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one token of each picture, given the pictures of all tokens (N,): those of one are no separate samples."""
    order = rng.permutation(len(pictures))
    return np.sort(order[np.unique(pictures[order], return_index=True)[1]])


def _leave_out(dead: np.ndarray, of: int, source: str) -> None:
    """Warn of latents that are never active, so that no quantile is there to set them to; refuse if all are."""
    numbers = ", ".join(map(str, dead[:_MOST_LISTED])) + (", ..." if len(dead) > _MOST_LISTED else "")
    message = f"no row of {source} activates {'latent' if len(dead) == 1 else 'the latents'} {numbers}"
    if len(dead) == of:
        raise ValueError(f"{message}: there is nothing to test; choose others, or give other rows")
    warnings.warn(f"{message}: left out of the report", stacklevel=5)  # where bias_report was called


def _associations(activations: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rank-biserial correlations of activations (N, m) with predictions, and their p-values, both (m,)."""
    from scipy.stats import mannwhitneyu  # here, since it takes most of a second

    size, found = max(1, _RANKED_ENTRIES // len(guess)), []
    for first in range(0, activations.shape[1], size):
        part = activations[:, first : first + size].astype(np.float64)
        found.append(mannwhitneyu(part[guess], part[~guess], axis=0, method="asymptotic"))
    statistic, p_value = (np.concatenate([getattr(each, name) for each in found]) for name in ("statistic", "pvalue"))
    return 2 * statistic / (guess.sum() * (~guess).sum()) - 1, p_value


def _boxes(latents: np.ndarray, activations: np.ndarray, guess: np.ndarray) -> pd.DataFrame:
    """Return quantiles of each latent's activations, separately for samples with and without the predicted class."""
    records = []
    for place, latent in enumerate(latents):
        for predicted in (True, False):
            values = activations[guess == predicted, place].astype(np.float64)
            box = map(float, np.quantile(values, _BOX_SHARES))
            records.append((int(latent), predicted, len(values), float((values > 0).mean()), *box))
    columns = ["latent", "predicted", "num_samples", "active", "low", "q1", "median", "q3", "high"]
    return pd.DataFrame(records, columns=columns)


_SHOWN = "name validated latent association effect low high flip_rate z q drives".split()
_BOX = {"low": "whislo", "q1": "q1", "median": "med", "q3": "q3", "high": "whishi"}


@dataclass(frozen=True)
class BiasReport(Result):
    """What `bias_report` found.

    Attributes:
        frame: One row per concept, those that drive the classifier first, then by size of the effect: latent, name,
            validated (whether the name passed its tests); association (rank-biserial correlation of the
            activation with the prediction) and its Holm-corrected p_association; effect (mean change of the
            probability when the concept goes from absent to strong), its bootstrap interval from low to high,
            flip_rate (share of samples whose prediction changes); log_odds (mean change), null_spread (spread of that
            change for random latents), z and q_effect; drives (whether the effect is more than chance).
        curves: Mean probability at each dose of each concept: latent, dose (the activation), quantile, probability,
            low, high.
        boxes: Activations of each concept, separately for samples with and without the predicted class: latent,
            predicted, num_samples, active (share of samples), low, q1, median, q3, high (the 5th, 25th, 50th, 75th and
            95th percentile).
        baseline: Mean probability of the unedited samples.
        target: Name of the predicted class.
        num_samples: Number of samples that were intervened on.
        alpha: Level of tests and intervals.
        accuracy: Share of the labels that the classifier predicts, if that was measured.
        accuracy_of_guessing: Share of the most frequent label, if the accuracy was measured.
    """

    frame: pd.DataFrame = field(metadata={"key": "concepts"})
    curves: pd.DataFrame
    boxes: pd.DataFrame
    baseline: float
    target: str
    num_samples: int
    alpha: float = 0.05
    accuracy: float | None = None
    accuracy_of_guessing: float | None = None

    @property
    def drivers(self) -> pd.DataFrame:
        """The concepts that drive the classifier."""
        return self.frame[self.frame["drives"].astype(bool)]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The concepts that drive the classifier as a red team would report them, corrected together (Holm)."""
        return confirmed(driver_candidates(self.frame, self.target, "bias"), self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, with the latents that drive the classifier."""
        return {**super().to_dict(), "drivers": self.drivers["latent"].tolist()}

    def verdict(self) -> str:
        """Say in one sentence which concepts drive the classifier."""
        names = [
            f"latent {latent}" if pd.isna(name) else marked(name, sure)
            for latent, name, sure in zip(
                self.drivers["latent"],
                self.drivers["name"],
                self.drivers.get("validated", pd.Series(True, self.drivers.index)),
                strict=True,
            )
        ]
        tested = counted(len(self.frame), "concept")
        if not names:
            none = "the only concept tested is not" if len(self.frame) == 1 else f"none of {tested} is"
            return f"{none} shown to drive the prediction of {self.target!r}"
        drive = "drives" if len(names) == 1 else "drive"
        return f"{len(names)} of {tested} {drive} the prediction of {self.target!r}: {', '.join(names)}"

    def __str__(self) -> str:
        table = self.frame.head(12).assign(latent=self.frame["latent"].astype(str))
        table = table.assign(q=table["q_effect"].map("{:.3f}".format)).reset_index(drop=True)
        return f"{self.verdict()}\n{to_text(table, '{:+.3f}', _SHOWN)}\nq: by Benjamini and Hochberg"

    def plot(self, n: int = 6) -> Figure:
        """Draw dose and response of the first n concepts, with the q-value of each effect."""
        from ..plotting import plot_dose_response

        curves = {}
        for (label, latent), row in zip(self._first(n), self.frame.head(n).itertuples(), strict=True):
            q = "q < 0.001" if row.q_effect < 0.001 else f"q = {row.q_effect:.3f}"
            curves[f"{label}\n{q}{'' if row.drives else ', may be chance'}"] = self.curves[
                self.curves["latent"] == latent
            ]
        return plot_dose_response(curves, self.baseline, f"probability of {self.target}")

    def plot_boxes(self, n: int = 6) -> Figure:
        """Draw how active the first n concepts are in samples with and without the predicted class."""
        from ..plotting import plot_boxes

        found = {}
        for label, latent in self._first(n):
            boxes = self.boxes[self.boxes["latent"] == latent].rename(columns=_BOX)
            rows = boxes[list(_BOX.values())].to_dict("records")
            groups = [self.target if predicted else f"not {self.target}" for predicted in boxes["predicted"]]
            found[label] = dict(zip(groups, rows, strict=True))
        return plot_boxes(found, "activation")

    def _first(self, n: int) -> list[tuple[str, int]]:
        first = self.frame.head(n)
        return list(zip(display_names(first), first["latent"].tolist(), strict=True))
