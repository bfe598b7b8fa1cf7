"""Monosemanticity score: do the images that activate a latent look alike to another encoder?"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .._utils.tensors import as_tensor
from .accumulator import SumAccumulator, as_matrix

if TYPE_CHECKING:
    import pandas as pd
    from accelerate import Accelerator


@dataclass(frozen=True)
class Monosemanticity:
    """Monosemanticity scores of all latents; see `MonosemanticityAccumulator` for the formula.

    Attributes:
        scores: (n,); NaN for latents with a constant activation (dead ones) or only one activating sample.
        baseline: Mean cosine of all pairs, the score of a latent with the same activation everywhere.
        encoder: Encoder that judges similarity. Scores of different encoders cannot be compared.
        num_samples: Number of samples the scores are computed on.
    """

    scores: np.ndarray
    baseline: float
    encoder: str
    num_samples: int

    @property
    def mean(self) -> float | None:
        """Mean over the latents that have a score; None if none has."""
        return None if np.isnan(self.scores).all() else float(np.nanmean(self.scores))

    @property
    def std(self) -> float | None:
        """Standard deviation over the latents that have a score; None if none has."""
        return None if np.isnan(self.scores).all() else float(np.nanstd(self.scores))

    def to_pandas(self) -> pd.DataFrame:
        """Return columns latent and monosemanticity, best first; latents without a score come last."""
        import pandas as pd

        frame = pd.DataFrame({"latent": np.arange(len(self.scores)), "monosemanticity": self.scores})
        return frame.sort_values("monosemanticity", ascending=False, kind="stable", ignore_index=True)

    def __str__(self) -> str:
        scored = int((~np.isnan(self.scores)).sum())
        if not scored:
            return f"no latent has a monosemanticity score on {self.num_samples} samples"
        return (
            f"monosemanticity {self.mean:.4f} (std {self.std:.4f}) over {scored} of {len(self.scores)} latents, "
            f"judged by {self.encoder}, whose mean cosine is {self.baseline:.4f}; {self.num_samples} samples"
        )


class MonosemanticityAccumulator(SumAccumulator):
    """Monosemanticity of latents from codes and another encoder's embeddings that arrive batch by batch.

    With the activations a_ij of sample i and latent j scaled to weights w_ij = (a_ij - min_i) / (max_i - min_i), and
    unit embeddings e_i of another encoder ("Sparse Autoencoders Learn Monosemantic Features in Vision-Language
    Models", arXiv 2504.02821)::

        MS_j = sum_{a<b} w_aj w_bj cos(e_a, e_b) / sum_{a<b} w_aj w_bj
             = (||M_j||^2 - sum_i w_ij^2) / ((sum_i w_ij)^2 - sum_i w_ij^2),     M_j = sum_i w_ij e_i

    The second line covers all pairs of samples with one matrix product per batch and n x d_e numbers of memory. The
    scale of the weights cancels out, so only the minimum is kept in addition to the sums.

    Args:
        num_latents: Number of latents n.
        encoder: Name of the other encoder, without which the score means little.
    """

    def __init__(self, num_latents: int, encoder: str) -> None:
        if not str(encoder).strip():
            raise ValueError("name the encoder whose embeddings judge what looks alike")
        # The width of the embeddings is known from the first batch on; until then, those sums are the number 0.
        super().__init__(samples=(), activation=num_latents, squared=num_latents, weighted=(), embedding=())
        self.num_latents, self.encoder = num_latents, encoder
        self._lowest = torch.full((num_latents,), torch.inf, dtype=torch.float64)
        self._highest = torch.full((num_latents,), -torch.inf, dtype=torch.float64)

    def update(self, latents: torch.Tensor, encoder_embeds: torch.Tensor, first_row: int | None = None) -> None:
        """Add a batch of codes (B, n) and the other encoder's embeddings (B, d_e); errors count from `first_row`.

        Raises:
            ValueError: The shapes do not fit, a value is not finite, or an embedding is zero.
        """
        first_row = self.first_row(first_row)
        a, e = as_matrix("latents", latents, first_row), as_matrix("encoder_embeds", encoder_embeds, first_row)
        if a.shape[1] != self.num_latents or len(a) != len(e):
            raise ValueError(
                f"expected {self.num_latents} latents and as many embeddings as codes, got codes of shape "
                f"{tuple(a.shape)} and embeddings of shape {tuple(e.shape)}"
            )
        norms = e.norm(dim=1, keepdim=True)
        if not norms.all():
            raise ValueError(f"row {first_row + int(norms.argmin())} of encoder_embeds, of {self.encoder}, is zero")
        e = (e / norms).to(a.device)
        seen = self._sums["embedding"]
        if seen.ndim and len(seen) != e.shape[1]:
            raise ValueError(f"encoder_embeds have {e.shape[1]} columns, but had {len(seen)}")
        self.add(samples=len(a), activation=a.sum(0), squared=a.square().sum(0), weighted=a.T @ e, embedding=e.sum(0))
        self._widen(a.amin(0), a.amax(0))

    def _widen(self, lowest: torch.Tensor, highest: torch.Tensor) -> None:
        self._lowest = torch.minimum(self._lowest.to(lowest.device), lowest)
        self._highest = torch.maximum(self._highest.to(highest.device), highest)

    def merge(self, other: MonosemanticityAccumulator) -> None:
        """Add everything `other` has counted (another part of the data).

        Raises:
            ValueError: The encoders differ.
        """
        if other.encoder != self.encoder:
            raise ValueError(f"scores by {self.encoder} and by {other.encoder} cannot be combined")
        super().merge(other)
        self._widen(other._lowest, other._highest)

    def reduce(self, accelerator: Accelerator | None) -> MonosemanticityAccumulator:
        """Return a new accumulator over the samples of all processes. Every process must call this."""
        if accelerator is None or accelerator.num_processes == 1:
            return super().reduce(accelerator)
        width = int(accelerator.gather(torch.tensor([self._sums["embedding"].numel()]).to(accelerator.device)).max())
        part = copy.deepcopy(self)
        part.add(weighted=torch.zeros(self.num_latents, width), embedding=torch.zeros(width))  # had it no data
        result = super(MonosemanticityAccumulator, part).reduce(accelerator)
        ends = accelerator.gather(torch.stack([self._lowest, self._highest])[None].to(accelerator.device))
        result._lowest, result._highest = ends[:, 0].amin(0), ends[:, 1].amax(0)
        return result

    def compute(self) -> Monosemanticity:
        """Return the scores of all latents."""
        self.require_samples()
        n = self.value("samples")
        low, total, squared = self._lowest, self._sums["activation"], self._sums["squared"]
        # The weights w = a - low are never formed, only their sums.
        weights = total - n * low
        weights_squared = squared - 2 * low * total + n * low.square()
        moment = self._sums["weighted"] - low[:, None] * self._sums["embedding"]
        pairs = weights.square() - weights_squared
        # Rounding leaves a little more than zero for constant latents and for those with one activating sample.
        undefined = (self._highest <= low) | (pairs <= 1e-10 * weights.square())
        scores = (moment.square().sum(1) - weights_squared) / torch.where(undefined, torch.nan, pairs)
        # With equal weights, the score is the mean cosine over pairs.
        baseline = float((self._sums["embedding"].square().sum() - n) / (n * (n - 1))) if n > 1 else float("nan")
        return Monosemanticity(scores.cpu().numpy(), baseline, self.encoder, int(n))


def monosemanticity(latents: torch.Tensor, encoder_embeds: torch.Tensor, encoder: str) -> Monosemanticity:
    """Score codes (N, n) by the embeddings (N, d_e) of the named encoder; see `MonosemanticityAccumulator`."""
    accumulator = MonosemanticityAccumulator(as_tensor(latents).shape[-1], encoder)
    accumulator.update(latents, encoder_embeds)
    return accumulator.compute()
