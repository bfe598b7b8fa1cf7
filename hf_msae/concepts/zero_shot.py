"""How well activations detect the pictures that fit a word, as the backbone sees them: without any labels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from .codes import Embeddings, collect_codes
from .collectors import ColumnCollector

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel

SHARPNESS = 2.0
"""Weights of pictures are exp(2 z), with z the standard score of the cosine of picture and word. The scales of 100 and
more that CLIP and SigLIP learn give factors around 2.3, since cosines of a word spread by about 0.02."""

MOST_ROWS = 20_000
"""Pictures of each half of the data whose activations are ranked, at most."""

_MOST_ACTIVATIONS = 2**28  # 1 GiB, and as much for the ranks
_CHUNK_ENTRIES = 2**24
_RANKED_ENTRIES = 2**20


def spread(rows: np.ndarray, num_latents: int) -> np.ndarray:
    """Return at most 20,000 of the rows, evenly spread; fewer where the activations of all latents take over 1 GiB."""
    most = min(MOST_ROWS, max(1, _MOST_ACTIVATIONS // num_latents))
    return rows[:: max(1, -(-len(rows) // most))]


def read_activations(
    msae: MSAEModel,
    embeddings: Embeddings,
    latents: np.ndarray,
    rows: np.ndarray,
    batch_size: int,
    progress: bool,
) -> np.ndarray:
    """Return the activations (rows, latents) of some latents in some rows."""
    collectors = [ColumnCollector(latents)]
    (columns,) = collect_codes(
        msae, embeddings, collectors, rows, batch_size=batch_size, progress=progress, description="activations"
    )
    return columns.values


def mean_ranks(values: np.ndarray) -> torch.Tensor:
    """Rank the values of each row of a matrix (n, N), as float32; ties get their mean rank, and the least is 0.5.

    Floats are ordered like their bits, negative ones in reverse. Sorting these together with the places takes a third
    of the time of `scipy.stats.rankdata`.
    """
    number = values.shape[1]
    bits = (values.astype(np.float32) + np.float32(0)).view(np.int32)  # adding 0 makes -0.0 positive
    bits ^= (bits >> 31) & 0x7FFFFFFF
    keys = (bits.astype(np.int64) << 32) | np.arange(number)
    keys.sort(axis=1)
    ordered = keys >> 32
    is_first = np.ones(ordered.shape, dtype=bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=is_first[:, 1:])
    starts = np.flatnonzero(is_first)
    lengths = np.diff(starts, append=ordered.size)
    of_ties = (starts % number + lengths / 2).astype(np.float32).repeat(lengths).reshape(ordered.shape)
    places = np.bitwise_and(keys, 0xFFFFFFFF, out=keys)
    return torch.empty(ordered.shape).scatter_(1, torch.from_numpy(places), torch.from_numpy(of_ties))


@dataclass(frozen=True)
class RankedPictures:
    """Pictures, ranked by the activation of every latent."""

    ranks: torch.Tensor  # from 0.5 for the least active picture, the mean of ties, (n, N)
    units: torch.Tensor  # unit embeddings (N, d)

    @classmethod
    def read(
        cls,
        msae: MSAEModel,
        embeddings: Embeddings,
        latents: np.ndarray,
        rows: np.ndarray,
        batch_size: int,
        progress: bool,
    ) -> RankedPictures:
        """Encode the pictures of some rows, and rank them by some latents."""
        activations = read_activations(msae, embeddings, latents, rows, batch_size, progress)
        return cls.of(activations, embeddings[rows], msae.device)

    @classmethod
    def of(
        cls, activations: np.ndarray, embeddings: torch.Tensor, device: torch.device | str = "cpu"
    ) -> RankedPictures:
        """Rank pictures by activations (N, n) of any neurons; embeddings are (N, d)."""
        ranks = torch.empty(activations.shape[1], len(activations))
        size = max(1, _RANKED_ENTRIES // len(activations))
        for first in range(0, len(ranks), size):
            part = slice(first, first + size)
            ranks[part] = mean_ranks(activations[:, part].T)
        units = F.normalize(embeddings.float(), dim=-1)
        return cls(ranks.to(device), units.to(device))

    def weights(self, words: torch.Tensor) -> torch.Tensor:
        """Return how well each picture fits words (W, d), as weights (W, N) that add up to 1 for each word."""
        deviation = ((words @ self._covariance) * words).sum(dim=1, keepdim=True).clamp(min=1e-24).sqrt()
        return (SHARPNESS / deviation * words @ self.units.T).softmax(dim=1)  # which takes away the mean

    @cached_property
    def _covariance(self) -> torch.Tensor:
        centered = self.units - self.units.mean(dim=0)
        return centered.T @ centered / len(centered)

    def areas(self, words: torch.Tensor, candidates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Measure how well activations detect the pictures that fit words.

        With the weights p of pictures for a word, k = 1 / sum p^2 is the effective number of pictures that fit it
        (Kish). With r the ranks of N pictures by activation, from 0.5, the area is

            (sum p r - k / 2) / (N - k)

        This is the AUROC of positives with the weights p and negatives with the weights 1 - k p. If k pictures have
        the weight 1 / k and all others 0, it is the usual one. `words` are unit embeddings (W, d), and `candidates`
        (n, m) the words of each latent. Returns the areas, and the effective numbers of pictures, both (n, m).
        """
        number = self.units.shape[0]
        areas, fitting = (torch.empty(candidates.shape, device=candidates.device) for _ in range(2))
        used, places = candidates.unique(return_inverse=True)
        for part in torch.arange(len(used), device=used.device).split(max(1, _CHUNK_ENTRIES // number)):
            weights = self.weights(words[used[part]])
            of_words = (1 / torch.linalg.vector_norm(weights, dim=1).square()).clamp(1, number - 1)
            mine = (places >= part[0]) & (places <= part[-1])
            place = places[mine] - part[0]
            mean_rank = _products(self.ranks, weights, mine.sum(dim=1), place)
            k = fitting[mine] = of_words[place]
            areas[mine] = ((mean_rank - k / 2) / (number - k)).clamp(0, 1)
        return areas, fitting


def _products(left: torch.Tensor, right: torch.Tensor, counts: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return some inner products of rows of two matrices, without the others and without copies of the rows.

    Row i of `left` has `counts[i]` products, with the rows of `right` that are next in `columns`.
    """
    with warnings.catch_warnings():  # torch warns that sparse matrices may change; a test compares the products
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        pairs = torch.sparse_csr_tensor(
            F.pad(counts.cumsum(dim=0), (1, 0)),
            columns,
            left.new_zeros(len(columns)),
            (len(left), len(right)),
            check_invariants=False,  # they include an order of the columns, which is not needed here
        )
    return torch.sparse.sampled_addmm(pairs, left, right.T, beta=0).values()
