r"""The numeric core of the MSAE: one ranking of a ReLU code serves every level (arXiv 2502.20578, section 3).

The code of level l keeps the k_l largest of the n activations. The levels nest: sorted by size, the code of a level is
a prefix of the code of the next, so one top-k for the largest level that drops anything gives all of them. Since
activations come from a ReLU, a level with k_l at or above the number of positive activations drops nothing: all such
levels are the full code, which is decoded once.

At ties, exactly k_l entries stay, lowest index first.

The model uses `nested_codes` and `nested_loss`. `nested_codes_reference` and `nested_loss_reference` compute the same
level by level, in the most literal way, for readers and tests.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

NMSE_EPSILON = 1e-8
"""Lower bound of the squared norms that losses divide by."""


def rank(code: torch.Tensor, k: int) -> torch.Tensor:
    """Return the indices `(..., k)` of the k largest entries of each row, largest first, ties by ascending index.

    Args:
        code: Non-negative activations, (..., n).
        k: Number of entries, 1 to n.
    """
    n = code.shape[-1]
    if code.dtype == torch.float64:
        return code.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    # topk breaks ties arbitrarily. Non-negative floats order like their bits, so value and index fit into one unique
    # integer that orders by value, then by descending index. Its top-k is exact on any device, and cheaper than a
    # stable sort.
    keys = code.float().view(torch.int32).bitwise_and(0x7FFFFFFF).to(torch.int64)  # without the sign of NaN
    keys.mul_(n).add_(torch.arange(n - 1, -1, -1, device=code.device))
    return n - 1 - keys.topk(k, dim=-1, sorted=True).values.remainder_(n)


def soft_capped(activations: torch.Tensor, soft_cap: float | None) -> torch.Tensor:
    """Return cap * tanh(activations / cap), or the activations themselves if there is no cap."""
    return activations if soft_cap is None else soft_cap * torch.tanh(activations / soft_cap)


def nested_codes(code: torch.Tensor, ks: Sequence[int], soft_cap: float | None = None) -> list[torch.Tensor]:
    """Return the code of every level: its k largest activations in their places, and 0 elsewhere.

    Gradients flow to the activations that stay. They are selected before the cap, which makes large ones equal. Levels
    that drop nothing share one tensor, which is `code` itself without a cap.
    """
    n = code.shape[-1]
    most_active = n  # counting positive activations on the host would break a compiled graph
    if not torch.compiler.is_compiling():
        most_active = int((code > 0).sum(-1).max()) if code.numel() else 0
    partial = [k for k in ks if k < most_active]
    if partial:
        indices = rank(code.detach(), max(partial))
        values = soft_capped(code.gather(-1, indices), soft_cap)
    full = soft_capped(code, soft_cap) if len(partial) < len(ks) else None
    return [
        torch.zeros_like(code).scatter(-1, indices[..., :k], values[..., :k]) if k < most_active else full for k in ks
    ]


def nested_codes_reference(code: torch.Tensor, ks: Sequence[int], soft_cap: float | None = None) -> list[torch.Tensor]:
    """Compute [`nested_codes`] by one stable sort per level."""
    codes = []
    for k in ks:
        kept = code.argsort(dim=-1, descending=True, stable=True)[..., :k]
        mask = torch.zeros_like(code).scatter(-1, kept, 1.0)
        codes.append(soft_capped(code * mask, soft_cap))
    return codes


def top_activations(code: torch.Tensor, k: int, soft_cap: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values and indices `(..., k)` of the k largest activations of each row, in the order of [`rank`].

    Rows with fewer positive activations are filled up with zeros, lowest index first.
    """
    indices = rank(code.detach(), k)
    return soft_capped(code.gather(-1, indices), soft_cap), indices


def reconstruction_loss(residual: torch.Tensor, target: torch.Tensor, kind: str) -> torch.Tensor:
    """Measure the error of a reconstruction u - `residual` of `target` u, both (..., d) in normalized space: a scalar.

    "mse" is the mean of r^2 over all entries, "nmse" the mean over embeddings of ||r_i||^2 / max(||u_i||^2, 1e-8), and
    "cosine" the mean over embeddings of 1 - the cosine of u_i - r_i and u_i, with norms of at least 1e-4. Accumulated
    in float32 or better.
    """
    residual, target = _at_least_float32(residual), _at_least_float32(target)
    if kind == "mse":
        return residual.square().mean()
    if kind == "nmse":
        return (residual.square().sum(-1) / target.square().sum(-1).clamp_min(NMSE_EPSILON)).mean()
    if kind == "cosine":
        reconstruction = target - residual
        squares = [each.square().sum(-1).clamp_min(NMSE_EPSILON) for each in (reconstruction, target)]
        return (1 - (reconstruction * target).sum(-1) / (squares[0] * squares[1]).sqrt()).mean()
    raise ValueError(f'reconstruction_loss={kind!r} is none of "mse", "nmse" and "cosine"')


def l1_penalty(code: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return mean_i ||a_i||_1 / ||u_i||_2 of the code a `(..., n)` and the normalized embeddings u `(..., d)`."""
    code, target = _at_least_float32(code), _at_least_float32(target)
    return (code.abs().sum(-1) / target.square().sum(-1).clamp_min(NMSE_EPSILON).sqrt()).mean()


def nested_loss(
    reconstructions: Sequence[torch.Tensor], target: torch.Tensor, weights: Sequence[float], kind: str = "mse"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighted mean of the reconstruction losses of the levels: sum_l w_l rec(r_l, u) / sum_l w_l.

    `reconstructions` holds one (..., d) tensor per level, in normalized space like `target`; the loss of a tensor that
    several levels share is computed once. Also returns the unweighted loss of every level, (L,).
    """
    distinct = {id(reconstruction): reconstruction for reconstruction in reconstructions}
    losses = {key: reconstruction_loss(target - tensor, target, kind) for key, tensor in distinct.items()}
    level_losses = torch.stack([losses[id(reconstruction)] for reconstruction in reconstructions])
    weights = level_losses.new_tensor(weights)
    return (level_losses * weights).sum() / weights.sum(), level_losses


def nested_loss_reference(
    pre_activations: torch.Tensor,
    target: torch.Tensor,
    decoder: torch.Tensor,
    pre_bias: torch.Tensor,
    ks: Sequence[int],
    weights: Sequence[float],
    kind: str = "mse",
    soft_cap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the loss from pre-activations as in the equations, with every level ranked and decoded by itself."""
    level_losses = [
        reconstruction_loss(target - (code @ decoder + pre_bias), target, kind)
        for code in nested_codes_reference(F.relu(pre_activations), ks, soft_cap)
    ]
    loss = sum(weight * level for weight, level in zip(weights, level_losses, strict=True)) / sum(weights)
    return loss, torch.stack(level_losses)


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
