"""What a model sees in an image or text, and why two of them match: as named concepts that add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from .._utils.json_files import json_records

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from ..model.modeling_msae import MSAEModel
    from .percentiles import ActivationPercentiles
    from .table import ConceptTable


@dataclass(frozen=True)
class Explanation:
    """What `explain_embedding` found.

    Attributes:
        frame: one row a concept, strongest first: latent, name, activation, level, share; and percentile, where there
            is something to compare with.
        k: activations that the code has at most.
        num_active: activations that it has.
        explained: share of the embedding's distance to the mean that the whole code explains, 1 - |residual|^2 /
            |centred embedding|^2.
    """

    frame: pd.DataFrame
    k: int
    num_active: int
    explained: float

    def to_pandas(self) -> pd.DataFrame:
        """A copy of `frame`."""
        return self.frame.copy()

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        numbers = {"k": self.k, "num_active": self.num_active, "explained": self.explained}
        return {**numbers, "concepts": json_records(self.frame)}

    def __str__(self) -> str:
        text = self.frame.to_string(index=False, float_format="{:.3f}".format)
        return f"{text}\n{len(self.frame)} of {self.num_active} active latents; the code explains {self.explained:.1%}"

    def plot(self, image: Image.Image | None = None, title: str | None = None) -> Figure:
        """Bars of the concepts, beside the image if there is one."""
        from ..plotting import plot_contributions

        return plot_contributions(self.labels(), self.frame["activation"], "activation", image, title)

    def labels(self) -> list[str]:
        """Names and numbers of the concepts, for figures."""
        return [f"{row.name or 'latent'} · {row.latent}" for row in self.frame.itertuples(index=False)]


@dataclass(frozen=True)
class SimilarityExplanation:
    """What `explain_similarity` found: `contributions`, `bias` and `not_reconstructed` add up to `similarity`.

    Attributes:
        frame: one row a concept (of both sides: a pair of them), largest part first: latent, name, contribution (and
            other_latent, other_name).
        similarity: the cosine.
        bias: what the mean and the bias of the model contribute.
        not_reconstructed: what the MSAE does not reconstruct contributes.
    """

    frame: pd.DataFrame
    similarity: float
    bias: float
    not_reconstructed: float

    def to_pandas(self) -> pd.DataFrame:
        """A copy of `frame`."""
        return self.frame.copy()

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        sums = {name: getattr(self, name) for name in ("similarity", "bias", "not_reconstructed")}
        return {**sums, "concepts": json_records(self.frame)}

    def top(self, n: int = 10) -> pd.DataFrame:
        """The n parts that are largest in size."""
        return self.frame.head(n)

    def __str__(self) -> str:
        return self.describe()

    def describe(self, n: int = 10) -> str:
        """The sum, and the n largest parts, as text."""
        shown = self.top(n).to_string(index=False, float_format="{:+.4f}".format)
        return (
            f"cosine {self.similarity:.4f} = concepts {self.frame['contribution'].sum():+.4f}, bias and mean "
            f"{self.bias:+.4f}, not reconstructed {self.not_reconstructed:+.4f}\n{shown}"
        )

    def plot(self, image: Image.Image | None = None, n: int = 10, title: str | None = None) -> Figure:
        """Bars of the n largest parts, of all others together, of the bias and of what is not reconstructed."""
        from ..plotting import plot_contributions

        shown = self.top(n)
        labels = [" & ".join(filter(None, map(_label, _sides(row)))) for row in shown.to_dict("records")]
        values = list(shown["contribution"])
        labels += [f"{len(self.frame) - len(shown)} others", "bias and mean", "not reconstructed"]
        values += [self.frame["contribution"].sum() - sum(values), self.bias, self.not_reconstructed]
        return plot_contributions(
            labels, values, "part of the cosine", image, title or f"cosine {self.similarity:.3f}"
        )


def _sides(row: dict[str, Any]) -> list[tuple[str | None, int] | None]:
    other = (row["other_name"], row["other_latent"]) if "other_latent" in row else None
    return [(row["name"], row["latent"]), other]


def _label(side: tuple[str | None, int] | None) -> str | None:
    return None if side is None else f"{side[0] or 'latent'} · {side[1]}"


@torch.no_grad()
def explain_embedding(
    msae: MSAEModel,
    embedding: torch.Tensor,
    concepts: ConceptTable | None = None,
    top: int = 10,
    k: int | None = None,
    percentiles: ActivationPercentiles | None = None,
) -> Explanation:
    """The strongest concepts of an embedding.

    Args:
        msae: the MSAE.
        embedding: raw, (d,).
        concepts: names of its latents.
        top: how many.
        k: largest activations that the code keeps: few are the coarse picture, many the fine one. By default those of
            the MSAE's config.
        percentiles: of the latents' activations over other data.

    Returns:
        Its `level` is the smallest of the MSAE's levels whose code has the latent; `share` its part in what the code
        moves the reconstruction away from the bias, <z_j d_j, r> / <r, r> with r the sum of all z_j d_j: shares of all
        active latents sum to 1, and one may be negative.

    Raises:
        ValueError: `embedding` is no vector of the MSAE's width, or `top` is not positive.
    """
    if embedding.shape != (msae.config.d_in,):
        raise ValueError(f"an embedding has shape ({msae.config.d_in},), got {tuple(embedding.shape)}")
    if top < 1:
        raise ValueError(f"top must be positive, got {top}")
    embedding = embedding.to(msae.device)
    code = msae.encode(embedding[None], k)[0].double()
    order = code.argsort(descending=True, stable=True)
    active = order[code[order] > 0]
    dictionary = msae.dictionary.double()
    moved = code[active] @ dictionary[active]
    share = code[active] * (dictionary[active] @ moved) / (moved @ moved).clamp(min=1e-300)
    levels = np.array(sorted(msae.config.nesting_ks) or [msae.config.num_latents])
    level = levels[np.minimum(np.searchsorted(levels, np.arange(1, len(active) + 1)), len(levels) - 1)]
    residual = (embedding.double() - msae.decode(code[None].to(embedding.dtype))[0].double()).square().sum()
    distance = (embedding.double() - msae.input_mean.double()).square().sum().clamp(min=1e-300)
    shown = active[:top]
    frame = pd.DataFrame(
        {
            "latent": shown.tolist(),
            "name": names_of(concepts, shown.tolist()),
            "activation": code[shown].tolist(),
            "level": level[: len(shown)].tolist(),
            "share": share[:top].tolist(),
        }
    )
    if percentiles is not None:
        frame["percentile"] = percentiles(shown, code[shown]).tolist()
    kept = k if k is not None else msae.config.num_latents
    return Explanation(frame, kept, len(active), float(1 - residual / distance))


@torch.no_grad()
def explain_similarity(
    msae: MSAEModel,
    embedding: torch.Tensor,
    other: torch.Tensor,
    concepts: ConceptTable | None = None,
    both: bool = False,
    k: int | None = None,
) -> SimilarityExplanation:
    """Take the cosine of two embeddings apart into what the concepts of the first contribute.

    With x = sum_j z_j d_j + b + e, in raw space (b the bias and mean, e what is not reconstructed), the cosine of x
    and y is the sum of z_j <d_j, y>, <b, y> and <e, y>, each over |x| |y|: exact, y held fixed.

    Args:
        msae: of both embeddings.
        embedding: x, raw, (d,).
        other: y, (d,).
        concepts: names of the latents.
        both: take y apart too: a row for each pair of active latents; parts with a bias on either side and nothing
            that is not reconstructed go to `bias`, parts with that to `not_reconstructed`.
        k: largest activations that the codes keep.

    Raises:
        ValueError: they are no vectors of the MSAE's width, or one of them is zero.
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
    similarity = float(x @ y / lengths)
    if not both:
        frame = pd.DataFrame({"latent": latents, "name": names_of(concepts, latents)})
        frame["contribution"] = (parts @ y / lengths).tolist()
        of_bias, of_residual = float(bias @ y / lengths), float(residual @ y / lengths)
    else:
        others, other_parts, other_bias, other_residual = _taken_apart(msae, other, k)
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
) -> tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Active latents; their parts (m, d), the bias (d,) and the residual (d,), which sum to the raw embedding."""
    embedding = embedding.to(msae.device)
    code = msae.encode(embedding[None], k)[0].double()
    latents = code.nonzero().flatten()
    scale = msae.input_scale.double()
    parts = code[latents, None] * msae.dictionary[latents].double() / scale
    bias = msae.pre_bias.double() / scale + msae.input_mean.double()
    return latents.tolist(), parts, bias, embedding.double() - parts.sum(dim=0) - bias


def names_of(concepts: ConceptTable | None, latents: list[int]) -> list[str | None]:
    """The latents' names; None for all where there are none."""
    if concepts is None:
        return [None] * len(latents)
    return concepts.frame.set_index("latent").loc[latents, "name"].tolist()
