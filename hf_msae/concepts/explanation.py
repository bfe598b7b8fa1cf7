"""What a model sees in an image or text, and why two of them match: as named concepts that add up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ..statistics import Result
from .codes import kept_activations
from .table import ConceptTable, display_name, names_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from ..model.modeling_msae import MSAEModel
    from .percentiles import ActivationPercentiles


@dataclass(frozen=True)
class Explanation(Result):
    """The strongest concepts of an embedding, as `explain_embedding` found them.

    Attributes:
        frame: One row per concept, strongest first: latent, name, activation, level, share, and percentile if there
            was data to compare with.
        k: Number of activations that the code keeps at most.
        num_active: Number of activations that the code has.
        explained: Share of the embedding's squared distance to the mean that the whole code explains,
            1 - |residual|^2 / |centered embedding|^2.
        bias: The share of the model's bias.
        not_reconstructed: The share of what the MSAE does not reconstruct. The shares of all active latents, of
            the bias and of this add up to 1.
    """

    frame: pd.DataFrame = field(metadata={"key": "concepts"})
    k: int
    num_active: int
    explained: float
    bias: float
    not_reconstructed: float

    def verdict(self) -> str:
        """Say in one sentence how much of the embedding the code explains."""
        return f"{len(self.frame)} of {self.num_active} active latents; the code explains {self.explained:.1%}"

    def __str__(self) -> str:
        return f"{self.frame.to_string(index=False, float_format='{:.3f}'.format)}\n{self.verdict()}"

    def plot(self, image: Image.Image | None = None, title: str | None = None) -> Figure:
        """Draw the activations as bars, next to the image if one is given."""
        from ..plotting import plot_contributions

        return plot_contributions(self.labels(), self.frame["activation"], "activation", image, title)

    def labels(self) -> list[str]:
        """Names and numbers of the concepts, for figures."""
        return [display_name(row.name, row.latent) for row in self.frame.itertuples(index=False)]


@dataclass(frozen=True)
class SimilarityExplanation(Result):
    """The parts of a cosine, as `explain_similarity` found them.

    The contributions of all rows, `bias` and `not_reconstructed` add up to `similarity`.

    Attributes:
        frame: One row per concept, or per pair of concepts if both sides were taken apart, largest part first: latent,
            name, contribution (and other_latent, other_name).
        similarity: The cosine.
        bias: What the mean and the bias of the model contribute.
        not_reconstructed: What the MSAE does not reconstruct contributes.
    """

    frame: pd.DataFrame = field(metadata={"key": "concepts"})
    similarity: float
    bias: float
    not_reconstructed: float

    def top(self, n: int = 10) -> pd.DataFrame:
        """The n parts that are largest in size."""
        return self.frame.head(n)

    def verdict(self) -> str:
        """Say in one sentence what the cosine is made of."""
        return (
            f"cosine {self.similarity:.4f} = concepts {self.frame['contribution'].sum():+.4f}, bias and mean "
            f"{self.bias:+.4f}, not reconstructed {self.not_reconstructed:+.4f}"
        )

    def __str__(self) -> str:
        return self.describe()

    def describe(self, n: int = 10) -> str:
        """The sum and its n largest parts, as text."""
        return f"{self.verdict()}\n{self.top(n).to_string(index=False, float_format='{:+.4f}'.format)}"

    def plot(self, image: Image.Image | None = None, n: int = 10, title: str | None = None) -> Figure:
        """Draw the n largest parts as bars, then the sum of the others, the bias and what is not reconstructed."""
        from ..plotting import plot_contributions

        shown = self.top(n)
        labels, values = [_pair_label(row) for row in shown.to_dict("records")], list(shown["contribution"])
        labels += [f"{len(self.frame) - len(shown)} others", "bias and mean", "not reconstructed"]
        values += [self.frame["contribution"].sum() - sum(values), self.bias, self.not_reconstructed]
        return plot_contributions(
            labels, values, "part of the cosine", image, title or f"cosine {self.similarity:.3f}"
        )


def _pair_label(row: dict[str, Any]) -> str:
    label = display_name(row["name"], row["latent"])
    return f"{label} & {display_name(row['other_name'], row['other_latent'])}" if "other_latent" in row else label


class ConceptShares(NamedTuple):
    """The shares of an embedding; `shares`, `bias` and `not_reconstructed` add up to 1.

    Attributes:
        latents: The active latents, int64 (m,), by number.
        shares: Their shares, float64 (m,); a latent that points away from the embedding has a negative one.
        bias: The share of the model's bias.
        not_reconstructed: The share of what the MSAE does not reconstruct.
    """

    latents: torch.Tensor
    shares: torch.Tensor
    bias: float
    not_reconstructed: float


@torch.no_grad()
def concept_shares(msae: MSAEModel, embedding: torch.Tensor, k: int | None = None) -> ConceptShares:
    """Divide an embedding among the concepts of its code.

    With c = x - mean the centered embedding and x = sum_j z_j d_j + b + mean + e in raw space (b the model's bias, e
    what it does not reconstruct), the share of latent j is

        z_j <d_j, c> / <c, c>

    and those of b and e are <b, c> / <c, c> and <e, c> / <c, c>. A latent's share does not depend on k: a larger k
    only takes from `not_reconstructed` what the latents it adds explain.

    Args:
        msae: The MSAE.
        embedding: Raw embedding (d,).
        k: Number of largest activations that the code keeps. Default: as `MSAEModel.encode`.
    """
    latents, parts, bias, residual = _taken_apart(msae, embedding, k)
    mean = msae.input_mean.double()
    centered = embedding.to(msae.device).double() - mean
    direction = centered / (centered @ centered).clamp(min=1e-300)
    shares = parts @ direction
    return ConceptShares(latents, shares, float((bias - mean) @ direction), float(residual @ direction))


@torch.no_grad()
def explain_embedding(
    msae: MSAEModel,
    embedding: torch.Tensor,
    concepts: ConceptTable | None = None,
    top: int = 10,
    k: int | None = None,
    percentiles: ActivationPercentiles | None = None,
) -> Explanation:
    """Find the strongest concepts of an embedding.

    In the result, `level` is the smallest of the MSAE's levels whose code has the latent, and `share` is defined by
    `concept_shares`.

    Args:
        msae: The MSAE.
        embedding: Raw embedding (d,).
        concepts: Names of the latents.
        top: Number of concepts to return.
        k: Number of largest activations that the code keeps: few give the coarse picture, many the fine one. Default:
            as `MSAEModel.encode`.
        percentiles: Percentiles of the latents' activations over other data.

    Raises:
        ValueError: `embedding` is not a vector of the MSAE's width, or `top` is not positive.
    """
    if embedding.shape != (msae.config.d_in,):
        raise ValueError(f"an embedding has shape ({msae.config.d_in},), got {tuple(embedding.shape)}")
    if top < 1:
        raise ValueError(f"top must be positive, got {top}")
    embedding = embedding.to(msae.device)
    code = msae.encode(embedding[None], k)[0]
    order = code.argsort(descending=True, stable=True)
    active = order[code[order] > 0]
    levels = np.array(msae.config.nesting_ks)
    level = levels[np.minimum(np.searchsorted(levels, np.arange(1, len(active) + 1)), len(levels) - 1)]
    found = concept_shares(msae, embedding, k)
    share = torch.zeros(len(code), dtype=torch.float64, device=code.device)
    share[found.latents] = found.shares
    residual = (embedding.double() - msae.decode(code[None])[0].double()).square().sum()
    distance = (embedding.double() - msae.input_mean.double()).square().sum().clamp(min=1e-300)
    shown = active[:top]
    frame = pd.DataFrame(
        {
            "latent": shown.tolist(),
            "name": names_of(concepts, shown.tolist()),
            "activation": code[shown].double().tolist(),
            "level": level[: len(shown)].tolist(),
            "share": share[shown].tolist(),
        }
    )
    if percentiles is not None:
        frame["percentile"] = percentiles(shown, code[shown]).tolist()
    kept = kept_activations(msae) if k is None else k
    explained = float(1 - residual / distance)
    return Explanation(frame, kept, len(active), explained, found.bias, found.not_reconstructed)


@torch.no_grad()
def explain_similarity(
    msae: MSAEModel,
    embedding: torch.Tensor,
    other: torch.Tensor,
    concepts: ConceptTable | None = None,
    both: bool = False,
    k: int | None = None,
) -> SimilarityExplanation:
    """Split the cosine of two embeddings into what each concept of the first contributes.

    With x = sum_j z_j d_j + b + e in raw space (b the bias and the mean, e what is not reconstructed), the cosine of x
    and y is the sum of z_j <d_j, y>, <b, y> and <e, y>, each divided by |x| |y|. The sum is exact; y stays whole.

    Args:
        msae: The MSAE of both embeddings.
        embedding: Raw embedding x (d,).
        other: Raw embedding y (d,).
        concepts: Names of the latents.
        both: Whether to split y as well: one row for each pair of active latents. Parts with a bias on one side and
            nothing unreconstructed on the other go to `bias`, all other parts to `not_reconstructed`.
        k: Number of largest activations that the codes keep.

    Raises:
        ValueError: An argument is not a vector of the MSAE's width, or is zero.
    """
    width = msae.config.d_in
    for each in (embedding, other):
        if each.shape != (width,):
            raise ValueError(f"an embedding has shape ({width},), got {tuple(each.shape)}")
    x, y = (each.to(msae.device).double() for each in (embedding, other))
    lengths = x.norm() * y.norm()
    if lengths == 0:
        raise ValueError("one of the embeddings is zero: it has no direction to compare")
    latents, parts, bias, residual = _taken_apart(msae, embedding, k)
    latents = latents.tolist()
    similarity = float(x @ y / lengths)
    if not both:
        frame = pd.DataFrame({"latent": latents, "name": names_of(concepts, latents)})
        frame["contribution"] = (parts @ y / lengths).tolist()
        of_bias, of_residual = float(bias @ y / lengths), float(residual @ y / lengths)
    else:
        others, other_parts, other_bias, other_residual = _taken_apart(msae, other, k)
        others = others.tolist()
        pairs = (parts @ other_parts.T / lengths).cpu().numpy()
        rows, columns = (each.ravel() for each in np.indices(pairs.shape))
        names, other_names = names_of(concepts, latents), names_of(concepts, others)
        frame = pd.DataFrame(
            {
                "latent": np.array(latents, dtype=int)[rows],
                "name": [names[row] for row in rows],
                "other_latent": np.array(others, dtype=int)[columns],
                "other_name": [other_names[column] for column in columns],
                "contribution": pairs.ravel(),
            }
        )
        of_residual = float((x @ other_residual + residual @ (y - other_residual)) / lengths)
        of_bias = float(((x - residual) @ other_bias + bias @ other_parts.sum(dim=0)) / lengths)
    frame = frame.sort_values("contribution", key=abs, ascending=False, kind="stable", ignore_index=True)
    return SimilarityExplanation(frame, similarity, of_bias, of_residual)


def _taken_apart(
    msae: MSAEModel, embedding: torch.Tensor, k: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Active latents (m,); their parts (m, d), the bias (d,) and the residual (d,), which sum to the raw embedding."""
    embedding = embedding.to(msae.device)
    code = msae.encode(embedding[None], k)[0].double()
    latents = code.nonzero().flatten()
    scale = msae.input_scale.double()
    parts = code[latents, None] * msae.dictionary[latents].double() / scale
    bias = msae.pre_bias.double() / scale + msae.input_mean.double()
    return latents, parts, bias, embedding.double() - parts.sum(dim=0) - bias
