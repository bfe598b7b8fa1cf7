"""What the latents do over a data set, read in passes that hold no dense codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

from ..model.nested_topk import top_activations

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

_BATCH = 2048


@dataclass(frozen=True)
class Firing:
    """How often and how strongly every latent is active.

    Attributes:
        counts: rows in whose full code it is, int64 (n,).
        strong: rows of which it is among the k strongest, int64 (n,).
        mean: activation over all rows, (n,).
        num_samples: rows.
        k: latents of a row that count as its strongest.
    """

    counts: np.ndarray
    strong: np.ndarray
    mean: np.ndarray
    num_samples: int
    k: int


@dataclass(frozen=True)
class Activations:
    """What a few latents do in all rows.

    Attributes:
        values: activations in the full code, float32 (N, m).
        strong: where the latent is among the k strongest of the row, bool (N, m).
    """

    values: np.ndarray
    strong: np.ndarray


def survey_firing(msae: MSAEModel, acts: EmbeddingDataset, k: int, progress: bool) -> Firing:
    """One pass over the data, in which nothing but sums is kept."""
    n = msae.config.num_latents
    counts, strong, sums = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n)
    for codes, is_strong in _codes(msae, acts, k, "which latents are active", progress):
        counts += (codes > 0).sum(dim=0).cpu().numpy()
        strong += is_strong.sum(dim=0).cpu().numpy()
        sums += codes.sum(dim=0, dtype=torch.float64).cpu().numpy()
    return Firing(counts, strong, sums / len(acts), len(acts), k)


def activations_of(
    msae: MSAEModel, acts: EmbeddingDataset, latents: Sequence[int], k: int, progress: bool
) -> Activations:
    """One pass over the data, in which the columns of a few latents are kept."""
    shape = (len(acts), len(latents))
    found = Activations(np.empty(shape, dtype=np.float32), np.empty(shape, dtype=bool))
    if not len(latents):
        return found
    chosen, first = torch.as_tensor(list(latents), device=msae.device), 0
    for codes, is_strong in _codes(msae, acts, k, "activations of the gallery", progress):
        rows = slice(first, first + len(codes))
        found.values[rows] = codes[:, chosen].float().cpu().numpy()
        found.strong[rows] = is_strong[:, chosen].cpu().numpy()
        first = rows.stop
    return found


@torch.no_grad()
def _codes(
    msae: MSAEModel, acts: EmbeddingDataset, k: int, what: str, progress: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Full codes (B, n), and which of them are among the k strongest of their row."""
    with tqdm(total=len(acts), desc=what, unit="row", disable=not progress) as bar:
        for x in acts.batches(_BATCH):
            codes = msae.encode(x.to(msae.device))
            strongest = top_activations(codes, k)[1]
            is_strong = torch.zeros_like(codes, dtype=torch.bool).scatter_(1, strongest, True)
            yield codes, is_strong & (codes > 0)
            bar.update(len(x))
