"""Second moments of activations and embeddings, from which the agreement of any latent with any word follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from .codes import CodeBatch, Collector

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel

_CHUNK_ENTRIES = 2**24
_TINY = 1e-12  # instead of the spread of what never changes
_MOST_COMMON = 0.4  # of the variance of scores; it is 0.05 to 0.35 for pictures of both worlds, 0.39 for captions


@dataclass(frozen=True)
class Moments:
    """Second moments of activations and unit embeddings over some pictures."""

    covariance: torch.Tensor  # of activations and embeddings, (n, d)
    spread: torch.Tensor  # standard deviations of the activations, (n,)
    embeddings: torch.Tensor  # covariance of the embeddings, (d, d)

    @classmethod
    def of(cls, activations: torch.Tensor, embeddings: torch.Tensor) -> Moments:
        """Compute the moments of activations (N, n) of any neurons and embeddings (N, d)."""
        a, x = activations - activations.mean(dim=0), F.normalize(embeddings.float(), dim=-1)
        x = x - x.mean(dim=0)
        return cls(a.T.float() @ x / len(a), a.square().mean(dim=0).sqrt().float(), x.T @ x / len(x))

    def select(self, latents: torch.Tensor) -> Moments:
        """Return the moments of some latents."""
        return Moments(self.covariance[latents], self.spread[latents], self.embeddings)

    def spread_of(self, words: torch.Tensor) -> torch.Tensor:
        """Return the standard deviations (W,) of the scores of words (W, d)."""
        return ((words @ self.embeddings) * words).sum(dim=1).clamp(min=0).sqrt()

    def common_part(self, words: torch.Tensor) -> torch.Tensor:
        """Return what to subtract from words (W, d) so that their scores do not rise and fall all together: (d,).

        Some pictures have higher cosines than others with whatever word. If that makes up more than 40% of the
        variance of scores, which pictures are a word's depends too much on it. So much of the words' mean is
        subtracted that it makes up 40%.
        """
        mean = words.mean(dim=0)
        common = self.spread_of(mean[None]).square()
        own = (self.spread_of(words).square().mean() - common).clamp(min=0)
        kept = (_MOST_COMMON / (1 - _MOST_COMMON) * own / common.clamp(min=_TINY)).sqrt().clamp(max=1)
        return (1 - kept) * mean

    def agreements(self, words: torch.Tensor, bar: tqdm) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the correlations of activations and scores, some latents at a time: (latents, W)."""
        scaled = words / self.spread_of(words).clamp(min=_TINY)[:, None]
        size = max(1, _CHUNK_ENTRIES // len(words))
        for first in range(0, len(self.spread), size):
            part = slice(first, min(first + size, len(self.spread)))
            yield part, (self.covariance[part] / self.spread[part, None].clamp(min=_TINY)) @ scaled.T
            bar.update(part.stop - part.start)

    def agreement_of(self, words: torch.Tensor) -> np.ndarray:
        """Return the correlation (n,) of each activation with the scores of its own word; words are (n, d)."""
        scale = (self.spread * self.spread_of(words)).clamp(min=_TINY)
        return ((self.covariance * words).sum(dim=1) / scale).cpu().numpy()


class MomentsCollector(Collector):
    """Collects the `Moments` of two sets of rows; `second` (N,) says which belong to the second set."""

    needs_latents = True

    def __init__(self, second: np.ndarray) -> None:
        self._second = torch.from_numpy(second)

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        """Allocate what is kept."""
        n, d = msae.config.num_latents, msae.config.d_in

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(2, *shape, device=msae.device)

        self._counts = [0, 0]
        self._products, self._outer = zeros(n, d), zeros(d, d)
        self._sums, self._squares, self._means = zeros(n), zeros(n), zeros(d)
        self._shift = None

    def update(self, batch: CodeBatch) -> None:
        """Take a batch."""
        latents = batch.latents.float()
        embeddings = F.normalize(batch.embeddings.to(latents.device).float(), dim=-1)
        if self._shift is None:  # embeddings lie in a cone: differences lose less when squares are subtracted
            self._shift = embeddings.mean(dim=0)
        embeddings = embeddings - self._shift
        of_second = self._second[batch.rows].to(latents.device)
        for place, chosen in enumerate((~of_second, of_second)):
            a, x = latents[chosen], embeddings[chosen]
            self._counts[place] += len(a)
            self._products[place] += a.T @ x
            self._outer[place] += x.T @ x
            self._sums[place] += a.sum(dim=0)
            self._squares[place] += a.square().sum(dim=0)
            self._means[place] += x.sum(dim=0)

    def result(self) -> tuple[Moments, Moments]:
        """Return the moments of both sets."""
        return tuple(self._moments(place) for place in range(2))

    def _moments(self, place: int) -> Moments:
        n = self._counts[place]
        a, x = self._sums[place] / n, self._means[place] / n
        variance = self._squares[place] / n - a.square()
        variance = variance.where(variance > 1e-6 * a.square(), 0)  # what is left of an activation that hardly changes
        return Moments(
            covariance=self._products[place] / n - torch.outer(a, x),
            spread=variance.sqrt(),
            embeddings=self._outer[place] / n - torch.outer(x, x),
        )
