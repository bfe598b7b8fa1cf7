"""The one pass of a report over the embeddings, which collects everything that the sections need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..concepts.codes import CodeBatch, CodeFeed, collect_codes
from ..concepts.collectors import ColumnCollector, Firing, FiringCollector, LatentColumns, SparseCodes, SparseCollector
from ..concepts.labels import MAX_Q, Labels
from ..concepts.validation import too_weak, why_none
from ..metrics import evaluate_msae
from ..metrics.evaluation import MOST_ROWS, measurable_rows

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

_CANDIDATES = 2  # columns kept, as a multiple of the latents shown: some latents may turn out to be silent


@dataclass(frozen=True)
class Chosen:
    """The latents to show, and how they were chosen."""

    latents: list[int]  # best first
    rule: str  # what they were chosen by: "validated", "evidence" or "activation"
    note: str  # the same in a sentence or two


@dataclass(frozen=True)
class Survey:
    """What the pass found."""

    metrics: Mapping[str, Any]  # the content of metrics.json
    firing: Firing
    chosen: Chosen
    columns: LatentColumns  # the chosen latents in all rows, in the order of `chosen`
    codes: SparseCodes  # the k strongest latents of each row


def survey(
    msae: MSAEModel,
    embeddings: EmbeddingDataset,
    labels: Labels,
    number: int,
    k: int,
    metrics: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Survey:
    """Read the embeddings once, choose `number` latents to show, and measure the metrics unless they are given.

    Metrics of more than `MOST_ROWS` embeddings are those of as many, drawn at random before the pass. Embeddings that
    have no metrics, since all their columns are the same, are left out of them.

    Which latents are shown depends on which of them are active (among a row's `k` strongest), so the columns of more
    latents than are shown are kept. If these do not suffice, because the first batch is unlike the rest or most named
    latents are silent, a second pass reads the columns of the latents shown.
    """
    candidates = _Candidates(_ranked(labels), _CANDIDATES * number, k)
    collectors = [FiringCollector(k), SparseCollector(k), candidates]
    if metrics is None and (measured := measurable_rows(embeddings, MOST_ROWS, seed)) is not embeddings:
        metrics = evaluate_msae(msae, measured, progress=progress).to_dict()
    if metrics is None:
        feed = CodeFeed(msae, collectors, len(embeddings))
        metrics = evaluate_msae(msae, embeddings, progress=progress, observe=feed.update).to_dict()
        firing, codes, columns = feed.results()
    else:
        firing, codes, columns = collect_codes(
            msae, embeddings, collectors, progress=progress, description="reading embeddings"
        )
    chosen = choose(labels, firing, number)
    if not set(chosen.latents) <= set(columns.latents.tolist()):
        collectors = [ColumnCollector(chosen.latents, k)]
        (columns,) = collect_codes(msae, embeddings, collectors, progress=progress, description="remaining latents")
    places = [columns.latents.tolist().index(latent) for latent in chosen.latents]
    latents = np.asarray(chosen.latents, dtype=np.int64)
    columns = LatentColumns(latents, columns.values[:, places], columns.strong[:, places])
    return Survey(metrics, firing, chosen, columns, codes)


def choose(labels: Labels, firing: Firing, number: int) -> Chosen:
    """Choose the latents to show: the best one of each validated name; else by evidence; else by activation."""
    alive = firing.strong > 0
    if labels.concepts is None:
        order = np.argsort(-firing.mean, kind="stable")
        note = "The latents of this model have no names. These have the highest mean activation."
        return Chosen(order[alive[order]][:number].tolist(), "activation", note)
    best = np.asarray(_ranked(labels), dtype=np.int64)
    shown = best[alive[best]][:number]
    if not labels.any_validated:
        frame = labels.concepts.frame
        risk = "none of them is certain" if too_weak(frame) else "all of them may be chance"
        note = f"No name is validated: {why_none(frame)}. These names have the best evidence; {risk}."
        return Chosen(shown.tolist(), "evidence", note)
    names, tests = ("name", "passes") if len(best) == 1 else ("names", "pass")
    passed = f"{names} that {tests} the test against chance at a false discovery rate of {MAX_Q:.0%}"
    if labels.has_strength_test:
        passed = f"validated {names} ({labels.rule})"
    number = "" if len(shown) == 1 else f"{len(shown)} "
    which = "only" if len(shown) == len(best) == 1 else f"{number}best of {len(best):,}"
    note = f"The {which} {passed}, {'' if len(shown) == 1 else 'each '}with its best latent."
    if silent := int((~alive[best]).sum()):
        note += f" The best latents of {silent:,} of these names are never among the {firing.k} strongest of a row."
    return Chosen(shown.tolist(), "validated", note)


def _ranked(labels: Labels) -> list[int] | None:
    """Return the latents in the order in which active ones are shown; None for latents without names."""
    return None if labels.concepts is None else labels.concepts.best_available()[0]["latent"].tolist()


class _Candidates(ColumnCollector):
    """The columns of the latents that come first; of latents without names, of the strongest in the first batch."""

    def __init__(self, ranked: Sequence[int] | None, number: int, k: int) -> None:
        super().__init__([] if ranked is None else ranked[:number], k)
        self._number = number if ranked is None else None
        self._start = None

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        super().start(msae, num_rows)
        self._start = (msae, num_rows)

    def update(self, batch: CodeBatch) -> None:
        if self._number is not None:
            mean = batch.latents.mean(dim=0)
            self.latents = mean.topk(min(self._number, len(mean))).indices.cpu().numpy()
            self._number = None
            super().start(*self._start)
        super().update(batch)
