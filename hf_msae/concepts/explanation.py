"""What a model sees in an image or text, and why two of them match: as named concepts that add up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch

from .._utils.checks import check_integers
from .._utils.tensors import as_tensor
from .._utils.wording import shortened
from ..metrics.levels import own_levels
from ..statistics import Result
from .table import ConceptTable, display_names, name_columns, to_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from ..model.modeling_msae import MSAEModel
    from .percentiles import ActivationPercentiles

_COLUMNS = ["latent", "name", "validated", "activation", "level", "share"]
_PARTS = ["latent", "name", "validated", "contribution"]
_TINY = 1e-300
_PART_OF_PAIR = 28  # characters of each label of a pair in a figure


@dataclass(frozen=True)
class Explanation(Result):
    """The strongest concepts of an embedding, as `explain_embedding` found them.

    Attributes:
        frame: One row per concept, strongest first: latent, name, validated (whether the name passed its tests),
            activation, level, share, and percentile if there was data to compare with.
        k: Number of activations that the code keeps at most.
        num_active: Number of activations that the code has.
        explained: Share of the embedding's squared distance to the mean that the whole code explains,
            1 - |residual|^2 / |centered embedding|^2.
        bias: The share of the model's bias.
        not_reconstructed: The share of what the MSAE does not reconstruct. Together with `bias` and the shares of all
            active latents it adds up to 1.
    """

    frame: pd.DataFrame = field(metadata={"key": "concepts", "columns_if_empty": _COLUMNS})
    k: int
    num_active: int
    explained: float
    bias: float
    not_reconstructed: float

    def verdict(self) -> str:
        """Say in one sentence how much of the embedding the code explains."""
        return f"{len(self.frame)} of {self.num_active} active latents; {self.share_explained()}"

    def share_explained(self) -> str:
        """Say how much the code explains, or that it explains nothing, as of data unlike that of the training."""
        if self.explained >= 0:
            return f"the code explains {self.explained:.1%}"
        return (
            f"the code is further from the embedding than the mean is ({self.explained:.0%} explained): what is "
            "embedded lies outside what this MSAE was trained on"
        )

    def __str__(self) -> str:
        return f"{to_text(self.frame, '{:.3f}')}\n{self.verdict()}"

    def plot(self, image: Image.Image | None = None, title: str | None = None) -> Figure:
        """Draw the activations as bars, next to the image if one is given."""
        from ..plotting import plot_contributions

        return plot_contributions(self.labels(), self.frame["activation"], "activation", image, title)

    def labels(self) -> list[str]:
        """Return the names and numbers of the concepts, for figures."""
        return display_names(self.frame)


@dataclass(frozen=True)
class SimilarityExplanation(Result):
    """The parts of a cosine, as `explain_similarity` found them.

    The contributions of all rows, `bias` and `not_reconstructed` add up to `similarity`.

    Attributes:
        frame: One row per concept, or per pair of concepts if both sides were taken apart, largest part first: latent,
            name, validated, contribution (and other_latent, other_name, other_validated).
        similarity: The cosine.
        bias: What the mean and the bias of the model contribute.
        not_reconstructed: What the MSAE does not reconstruct contributes.
    """

    frame: pd.DataFrame = field(metadata={"key": "concepts", "columns_if_empty": _PARTS})
    similarity: float
    bias: float
    not_reconstructed: float

    def top(self, n: int = 10) -> pd.DataFrame:
        """Return the n parts that are largest in size."""
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
        """Return the sum and its n largest parts as text."""
        return f"{self.verdict()}\n{to_text(self.top(n), '{:+.4f}')}"

    def plot(self, image: Image.Image | None = None, n: int = 10, title: str | None = None) -> Figure:
        """Draw the n largest parts as bars, then the sum of the others, the bias and what is not reconstructed."""
        from ..plotting import plot_contributions

        shown = self.top(n)
        labels = display_names(shown)
        if "other_latent" in shown:
            pairs = zip(labels, display_names(shown, "other_"), strict=True)
            labels = [" & ".join(shortened(each, _PART_OF_PAIR) for each in pair) for pair in pairs]
        values = list(shown["contribution"])
        labels += [f"{len(self.frame) - len(shown)} others", "bias and mean", "not reconstructed"]
        values += [self.frame["contribution"].sum() - sum(values), self.bias, self.not_reconstructed]
        return plot_contributions(
            labels, values, "part of the cosine", image, title or f"cosine {self.similarity:.3f}"
        )


class ConceptShares(NamedTuple):
    """The shares of an embedding; `shares`, `bias` and `not_reconstructed` add up to 1."""

    latents: torch.Tensor  # the active latents, int64 (m,), by number
    shares: torch.Tensor  # their shares, float64 (m,); negative if a latent points away from the embedding
    bias: float  # the share of the model's bias
    not_reconstructed: float  # the share of what the MSAE does not reconstruct


@torch.no_grad()
def concept_shares(msae: MSAEModel, embedding: torch.Tensor | np.ndarray, k: int | None = None) -> ConceptShares:
    """Divide a raw embedding (d,) among the concepts of its code.

    With c = x - mean the centered embedding and x = sum_j z_j d_j + b + mean + e in raw space (b the model's bias, e
    what it does not reconstruct), the share of latent j is

        z_j <d_j, c> / <c, c>

    and those of b and e are <b, c> / <c, c> and <e, c> / <c, c>. A latent's share does not depend on k: a larger k
    only takes from `not_reconstructed` what the latents it adds explain.
    """
    return _shares(msae, _split(msae, embedding, k))


@torch.no_grad()
def explain_embedding(
    msae: MSAEModel,
    embedding: torch.Tensor | np.ndarray,
    concepts: ConceptTable | None = None,
    top: int = 10,
    k: int | None = None,
    percentiles: ActivationPercentiles | None = None,
) -> Explanation:
    """Find the strongest concepts of an embedding.

    In the result, `level` is the smallest of the MSAE's levels (a k, or a width of a prefix of the dictionary) whose
    code has the latent, and `share` is defined by `concept_shares`.

    Args:
        msae: The MSAE.
        embedding: Raw embedding (d,).
        concepts: Names of the latents.
        top: Number of concepts to return.
        k: Number of largest activations that the code keeps: few give the coarse picture, many the fine one. Defaults
            to that of `MSAEModel.encode`.
        percentiles: Percentiles of the latents' activations over other data.

    Raises:
        ValueError: `embedding` is not a vector of the MSAE's width, or `top` is not positive.
    """
    check_integers(top=(top, 1))
    parts = _split(msae, embedding, k)
    shares = _shares(msae, parts)
    order = parts.order[:top]
    latents, activations = parts.latents[order], parts.activations[order]
    levels, of_dictionary = own_levels(msae.config)
    places = latents.cpu().numpy() + 1 if of_dictionary else np.arange(1, len(order) + 1)
    first_level = np.searchsorted(levels, places).clip(max=len(levels) - 1)
    frame = pd.DataFrame(
        {
            "latent": latents.tolist(),
            **name_columns(concepts, latents.tolist()),
            "activation": activations.tolist(),
            "level": np.array(levels)[first_level].tolist(),
            "share": shares.shares[order].tolist(),
        }
    )
    if percentiles is not None:
        frame["percentile"] = percentiles(latents, activations).tolist()
    distance = (parts.embedding - msae.input_mean.double()).square().sum().clamp(min=_TINY)
    return Explanation(
        frame,
        k=msae.family.default_k(msae.config) if k is None else k,
        num_active=len(parts.latents),
        explained=float(1 - parts.residual.square().sum() / distance),
        bias=shares.bias,
        not_reconstructed=shares.not_reconstructed,
    )


@torch.no_grad()
def explain_similarity(
    msae: MSAEModel,
    embedding: torch.Tensor | np.ndarray,
    other: torch.Tensor | np.ndarray,
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
    one, two = (_split(msae, each, k) for each in (embedding, other))
    x, y = one.embedding, two.embedding
    lengths = x.norm() * y.norm()
    if lengths == 0:
        raise ValueError("one of the embeddings is zero: it has no direction to compare")
    if not both:
        latents = one.latents.tolist()
        frame = pd.DataFrame({"latent": latents, **name_columns(concepts, latents)})
        contribution, of_bias, of_residual = one.vectors @ y, one.bias @ y, one.residual @ y
    else:
        rows, columns = (each.flatten() for each in torch.meshgrid(one.latents, two.latents, indexing="ij"))
        frame = pd.DataFrame({"latent": rows.tolist(), **name_columns(concepts, rows.tolist())})
        others = {"latent": columns.tolist(), **name_columns(concepts, columns.tolist())}
        frame = frame.assign(**{f"other_{column}": values for column, values in others.items()})
        contribution = (one.vectors @ two.vectors.T).flatten()
        of_residual = x @ two.residual + one.residual @ (y - two.residual)
        of_bias = (x - one.residual) @ two.bias + one.bias @ two.vectors.sum(dim=0)
    frame["contribution"] = (contribution / lengths).tolist()
    frame = frame.sort_values("contribution", key=abs, ascending=False, kind="stable", ignore_index=True)
    similarity, of_bias, of_residual = (float(each / lengths) for each in (x @ y, of_bias, of_residual))
    return SimilarityExplanation(frame, similarity, of_bias, of_residual)


class _Split(NamedTuple):
    """An embedding in float64, and the vectors, bias and residual that sum to it."""

    embedding: torch.Tensor  # (d,)
    latents: torch.Tensor  # active ones, by number (m,)
    activations: torch.Tensor  # (m,)
    order: torch.Tensor  # their places from strongest to weakest before the cap, which can make them equal (m,)
    vectors: torch.Tensor  # of each active latent (m, d)
    bias: torch.Tensor  # with the mean (d,)
    residual: torch.Tensor  # (d,)


def _split(msae: MSAEModel, embedding: torch.Tensor | np.ndarray, k: int | None) -> _Split:
    embedding = as_tensor(embedding).to(msae.device)
    if embedding.shape != (msae.config.d_in,):
        raise ValueError(f"an embedding has shape ({msae.config.d_in},), got {tuple(embedding.shape)}")
    k = msae.family.default_k(msae.config) if k is None else k
    values, ranked = (found[0] for found in msae.encode_topk(embedding[None], k))
    is_active = values > 0
    latents, ranks = ranked[is_active].sort()
    activations = values[is_active][ranks].double()
    scale, x = msae.input_scale.double(), embedding.double()
    vectors = activations[:, None] * msae.dictionary[latents].double() / scale
    bias = msae.pre_bias.double() / scale + msae.input_mean.double()
    return _Split(x, latents, activations, ranks.argsort(), vectors, bias, x - vectors.sum(dim=0) - bias)


def _shares(msae: MSAEModel, parts: _Split) -> ConceptShares:
    mean = msae.input_mean.double()
    centered = parts.embedding - mean
    direction = centered / (centered @ centered).clamp(min=_TINY)
    bias, residual = (parts.bias - mean) @ direction, parts.residual @ direction
    return ConceptShares(parts.latents, parts.vectors @ direction, float(bias), float(residual))
