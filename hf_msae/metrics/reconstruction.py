"""How close reconstructions x' (N, d) are to embeddings x (N, d), both in raw space.

All functions raise ValueError if the shapes differ, the input is empty or a value is not finite. `mean` (d,) defaults
to the mean of the embeddings.
"""

from __future__ import annotations

import torch

from .._utils.tensors import as_tensor
from .accumulator import SumAccumulator, as_matrix, as_pair, refuse_zero


class ReconstructionAccumulator(SumAccumulator):
    """All reconstruction metrics of data that arrives batch by batch.

    Args:
        mean: Mean of x over the whole data, (d,), e.g. `EmbeddingDataset.statistics().mean`. Distances to it are
            computed directly, so a mean that is large compared with the spread costs no precision.
    """

    def __init__(self, mean: torch.Tensor) -> None:
        names = ("samples", "residual", "distance", "fvu_per_sample", "cosine", "cosine_centered", "normalized_mae")
        products = ("squared", "product", "squared_centered", "product_centered")
        super().__init__(**{name: () for name in (*names, *products)})
        self.mean = as_matrix("mean", as_tensor(mean).unsqueeze(0))[0]

    def update(self, embeddings: torch.Tensor, reconstruction: torch.Tensor, first_row: int | None = None) -> None:
        """Add a batch of x (B, d) and x' (B, d); errors count rows from `first_row`.

        Raises:
            ValueError: The shapes differ or are not (B, d), a value is not finite, or a metric is undefined for a row.
        """
        first_row = self.first_row(first_row)
        x, y = as_pair("embeddings", embeddings, "reconstruction", reconstruction, first_row)
        if x.shape[1] != len(self.mean):
            raise ValueError(f"embeddings have {x.shape[1]} columns, but the data mean has {len(self.mean)}")
        self.mean = self.mean.to(x.device)
        residual, centered, y_centered = x - y, x - self.mean, y - self.mean
        self.add(
            samples=len(x),
            residual=residual.square().sum(),
            distance=centered.square().sum(),
            fvu_per_sample=_variance_ratios(x, residual, first_row).sum(),
            cosine=_cosines(x, y).sum(),
            cosine_centered=_cosines(centered, y_centered).sum(),
            normalized_mae=_absolute_ratios(x, residual, first_row).sum(),
            squared=y.square().sum(),
            product=(x * y).sum(),
            squared_centered=y_centered.square().sum(),
            product_centered=(centered * y_centered).sum(),
        )

    def compute(self) -> dict[str, float | None]:
        """Return all reconstruction metrics of all batches so far; a bias is None if its products sum to 0."""
        self.require_samples()
        samples = self.value("samples")
        if self.value("distance") == 0:
            raise ValueError("fvu is undefined: all embeddings are equal, so there is no variance to explain")
        return {
            "fvu": self.value("residual") / self.value("distance"),
            "fvu_per_sample": self.value("fvu_per_sample") / samples,
            "cosine_similarity": self.value("cosine") / samples,
            "cosine_similarity_centered": self.value("cosine_centered") / samples,
            "normalized_mae": self.value("normalized_mae") / samples,
            "relative_reconstruction_bias": self._bias("squared", "product"),
            "relative_reconstruction_bias_centered": self._bias("squared_centered", "product_centered"),
        }

    def _bias(self, squared: str, product: str) -> float | None:
        return self.value(squared) / self.value(product) if self.value(product) else None


def fvu(embeddings: torch.Tensor, reconstruction: torch.Tensor, mean: torch.Tensor | None = None) -> float:
    """Fraction of variance unexplained: sum_i ||x_i - x'_i||^2 / sum_i ||x_i - mean||^2.

    The standard definition over a dataset: 0 is perfect, and predicting the mean scores 1. 1 - fvu is the explained
    variance of SAELens (after its issue 659) and the R^2 of a regression over all dimensions at once.

    Raises:
        ValueError: All embeddings are equal.
    """
    x = as_matrix("embeddings", embeddings)
    accumulator = ReconstructionAccumulator(x.mean(dim=0) if mean is None else mean)
    accumulator.update(x, reconstruction)
    return accumulator.compute()["fvu"]


def fvu_per_sample(embeddings: torch.Tensor, reconstruction: torch.Tensor) -> float:
    """Mean over samples of Var_j(x_ij - x'_ij) / Var_j(x_ij), with variances over the d features of one sample.

    What the MSAE authors report as FVU (arXiv 2502.20578; `explained_variance` in their code returns the unexplained
    part). It ignores a constant offset of a sample and weighs all samples equally; use it to compare with papers, not
    to compare models.

    Raises:
        ValueError: All entries of an embedding are equal.
    """
    x, y = as_pair("embeddings", embeddings, "reconstruction", reconstruction)
    return float(_variance_ratios(x, x - y).mean())


def cosine_similarity(embeddings: torch.Tensor, reconstruction: torch.Tensor) -> float:
    """Mean cosine, mean_i x_i . x'_i / (||x_i|| ||x'_i||); a zero vector counts as 0.

    In raw space a common mean makes it high for any prediction: read it together with `cosine_similarity_centered`.
    """
    return float(_cosines(*as_pair("embeddings", embeddings, "reconstruction", reconstruction)).mean())


def cosine_similarity_centered(
    embeddings: torch.Tensor, reconstruction: torch.Tensor, mean: torch.Tensor | None = None
) -> float:
    """`cosine_similarity` of x_i - mean and x'_i - mean; predicting the mean scores 0."""
    x, y = as_pair("embeddings", embeddings, "reconstruction", reconstruction)
    mean = x.mean(dim=0) if mean is None else as_tensor(mean).to(x)
    return float(_cosines(x - mean, y - mean).mean())


def normalized_mae(embeddings: torch.Tensor, reconstruction: torch.Tensor) -> float:
    """Normalized mean absolute error, mean_i sum_j |x_ij - x'_ij| / sum_j |x_ij| (arXiv 2502.20578).

    Raises:
        ValueError: An embedding is zero.
    """
    x, y = as_pair("embeddings", embeddings, "reconstruction", reconstruction)
    return float(_absolute_ratios(x, x - y).mean())


def relative_reconstruction_bias(
    embeddings: torch.Tensor, reconstruction: torch.Tensor, mean: torch.Tensor | None = None
) -> float | None:
    """Whether reconstructions are too short or too long: sum_i ||x'_i||^2 / sum_i x_i . x'_i.

    The factor by which x' would have to be divided to fit x best ("Improving Dictionary Learning with Gated Sparse
    Autoencoders", arXiv 2404.16014, equation 10): 1 is unbiased; below 1, reconstructions have shrunk, as they do
    under an L1 penalty.

    Args:
        embeddings: x, (N, d).
        reconstruction: x', (N, d).
        mean: (d,), subtracted from both sides. By default nothing is, as in the paper. A mean that all embeddings
            share hides the bias in raw space; without it, the bias shows.

    Returns:
        The ratio, or None if the products sum to 0.
    """
    x, y = as_pair("embeddings", embeddings, "reconstruction", reconstruction)
    if mean is not None:
        mean = as_tensor(mean).to(x)
        x, y = x - mean, y - mean
    product = float((x * y).sum())
    return float(y.square().sum()) / product if product else None


def _variance_ratios(x: torch.Tensor, residual: torch.Tensor, first_row: int = 0) -> torch.Tensor:
    variance = x.var(dim=1, correction=0)
    refuse_zero(variance, "has the same value in every column", "fvu_per_sample", first_row)
    return residual.var(dim=1, correction=0) / variance


def _absolute_ratios(x: torch.Tensor, residual: torch.Tensor, first_row: int = 0) -> torch.Tensor:
    total = x.abs().sum(dim=1)
    refuse_zero(total, "is zero", "normalized_mae", first_row)
    return residual.abs().sum(dim=1) / total


def _cosines(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    norms = x.norm(dim=1) * y.norm(dim=1)
    return (x * y).sum(dim=1) / norms.masked_fill(norms == 0, 1.0)
