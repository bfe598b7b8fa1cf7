"""The one pass of a report over the embeddings: all that its sections need to know about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..concepts.codes import CodeBatch, CodeFeed, Collector, collect_codes
from ..concepts.collectors import ColumnCollector, Firing, FiringCollector, LatentColumns, SparseCodes, SparseCollector
from ..concepts.labels import MAX_Q, Labels
from ..metrics import evaluate_msae

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

_CANDIDATES = 2
"""Latents whose columns are kept, as a multiple of those shown: some of them may turn out to be silent."""


@dataclass(frozen=True)
class Chosen:
    """The latents to show.

    Attributes:
        latents: Best first.
        rule: What they were chosen by: "validated", "similarity" or "activation".
        note: How, in a sentence or two.
    """

    latents: list[int]
    rule: str
    note: str


@dataclass(frozen=True)
class Survey:
    """What the pass found.

    Attributes:
        metrics: The content of metrics.json.
        firing: How often each latent is active.
        chosen: The latents to show.
        columns: Their activations in all rows, in the order of `chosen`.
        codes: The k strongest latents of each row.
    """

    metrics: Mapping[str, Any]
    firing: Firing
    chosen: Chosen
    columns: LatentColumns
    codes: SparseCodes


def survey(
    msae: MSAEModel,
    embeddings: EmbeddingDataset,
    labels: Labels,
    number: int,
    k: int,
    metrics: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Survey:
    """Read the embeddings once.

    Which latents are shown depends on which of them are active, so the columns of more candidates than are shown are
    kept. Should a latent be shown that was no candidate, a second pass fetches its column; this takes data whose first
    batch is unlike the rest, or most of whose named latents are silent.

    Args:
        msae: The MSAE.
        embeddings: Its embeddings.
        labels: The names of its latents.
        number: Number of latents to show.
        k: Latents of a row that count as active in it.
        metrics: The content of metrics.json; None measures it in the same pass.
        progress: Whether to show progress bars.
    """
    candidates = _Candidates(_ranked(labels), _CANDIDATES * number, k)
    collectors = [FiringCollector(k), SparseCollector(k), candidates]
    if metrics is None:
        metrics, (firing, codes, columns) = _measured(msae, embeddings, collectors, progress)
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


def _measured(
    msae: MSAEModel, embeddings: EmbeddingDataset, collectors: Sequence[Collector], progress: bool
) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Measure the MSAE, and let the collectors see the same batches."""
    feed = CodeFeed(msae, collectors, len(embeddings))
    result = evaluate_msae(msae, embeddings, progress=progress, observe=feed.update)
    return result.to_dict(), feed.results()


def choose(labels: Labels, firing: Firing, number: int) -> Chosen:
    """Choose the latents to show: the best one of each validated name; else by similarity; else by activation."""
    alive = firing.strong > 0
    if labels.concepts is None:
        order = np.argsort(-firing.mean, kind="stable")
        order = order[alive[order]][:number]
        note = "The latents of this model have no names. These have the highest mean activation."
        return Chosen(order.tolist(), "activation", note)
    best = np.asarray(_ranked(labels), dtype=np.int64)
    shown = best[alive[best]][:number]
    if _has_validated(labels):
        note = (
            f"The {len(shown)} most similar of {len(best):,} names that pass the test against chance at a false "
            f"discovery rate of {MAX_Q:.0%}, each with its best latent."
        )
        if (silent := int((~alive[best]).sum())) > 0:
            note += (
                f" The best latents of {silent:,} of these names are never among the {firing.k} strongest of a row."
            )
        return Chosen(shown.tolist(), "validated", note)
    why = "the table of names has no q-values" if labels.validated is None else f"no q-value is at most {MAX_Q}"
    note = f"No name is validated: {why}. These names have the highest similarity; all of them may be chance."
    return Chosen(shown.tolist(), "similarity", note)


def _has_validated(labels: Labels) -> bool:
    return labels.validated is not None and len(labels.validated) > 0


def _ranked(labels: Labels) -> list[int] | None:
    """The latents in the order in which they are shown as far as they are active; None for latents without names."""
    if labels.concepts is None:
        return None
    return labels.concepts.best_available()[0]["latent"].tolist()


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
