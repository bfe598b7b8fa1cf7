"""How well activations detect the pictures that fit a word, as the backbone sees them: without any labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import rankdata
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

_MOST_ACTIVATIONS = 2**28  # 1 GiB; ranking them takes up to 3
_CHUNK_ENTRIES = 2**24
_BLOCK_ENTRIES = 2**18  # fits into the cache of a CPU core
_DENSE = 100  # a matrix product takes about a hundredth of the time per latent and word that gathering pairs takes


def spread(rows: np.ndarray, num_latents: int) -> np.ndarray:
    """Return at most 20,000 of the rows, evenly spread; fewer where the activations of all latents take over 1 GiB."""
    most = min(MOST_ROWS, max(1, _MOST_ACTIVATIONS // num_latents))
    return rows[:: max(1, -(-len(rows) // most))]


def read_activations(
    msae: MSAEModel, embeddings: Embeddings, rows: np.ndarray, batch_size: int, progress: bool
) -> np.ndarray:
    """Return the activations (rows, latents) of some rows."""
    collectors = [ColumnCollector(np.arange(msae.config.num_latents))]
    (columns,) = collect_codes(
        msae, embeddings, collectors, rows, batch_size=batch_size, progress=progress, description="activations"
    )
    return columns.values


@dataclass(frozen=True)
class RankedPictures:
    """Pictures, ranked by the activation of every latent."""

    ranks: torch.Tensor  # from 0.5 for the least active picture, the mean of ties, (n, N)
    units: torch.Tensor  # unit embeddings (N, d)

    @classmethod
    def read(
        cls, msae: MSAEModel, embeddings: Embeddings, rows: np.ndarray, batch_size: int, progress: bool
    ) -> RankedPictures:
        """Encode and rank the pictures of some rows."""
        activations = read_activations(msae, embeddings, rows, batch_size, progress)
        return cls.of(activations, embeddings[rows], msae.device)

    @classmethod
    def of(
        cls, activations: np.ndarray, embeddings: torch.Tensor, device: torch.device | str = "cpu"
    ) -> RankedPictures:
        """Rank pictures by activations (N, n) of any neurons; embeddings are (N, d)."""
        ranks = torch.empty(activations.shape[1], len(activations))
        for part in torch.arange(len(ranks)).split(max(1, _CHUNK_ENTRIES // len(activations))):
            ranks[part] = torch.from_numpy(rankdata(activations[:, part], axis=0).T - 0.5).float()
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
        the weight 1 / k and all others 0, it is the usual one.

        Args:
            words: Unit embeddings (W, d).
            candidates: Numbers of the words of each latent (n, m).

        Returns:
            The areas (n, m), and the effective numbers of pictures (n, m).
        """
        number, (n, per_latent) = self.units.shape[0], candidates.shape
        size = max(1, _CHUNK_ENTRIES // max(number, n))
        areas = torch.empty(candidates.numel(), device=candidates.device)
        fitting = torch.empty_like(areas)
        used, places = candidates.flatten().unique(return_inverse=True)
        order = places.argsort()
        ends = torch.bincount(places, minlength=len(used)).cumsum(dim=0).tolist()
        for first in range(0, len(used), size):
            last = min(first + size, len(used))
            weights = self.weights(words[used[first:last]])
            of_words = (1 / torch.linalg.vector_norm(weights, dim=1).square()).clamp(max=number - 1)
            of_chunk = order[ends[first - 1] if first else 0 : ends[last - 1]]
            dense = self.ranks @ weights.T if _DENSE * len(of_chunk) > n * (last - first) else None
            for pairs in of_chunk.split(max(1, _BLOCK_ENTRIES // number)):
                latent, word = pairs // per_latent, places[pairs] - first
                if dense is None:
                    mean_rank = torch.einsum("pn,pn->p", self.ranks[latent], weights[word])
                else:
                    mean_rank = dense[latent, word]
                k = fitting[pairs] = of_words[word]
                areas[pairs] = ((mean_rank - k / 2) / (number - k)).clamp(0, 1)
        return areas.view(candidates.shape), fitting.view(candidates.shape)
