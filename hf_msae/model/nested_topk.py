r"""The numeric core of the MSAE: one ranking of a ReLU code serves every level (arXiv 2502.20578, section 3).

The code of level l keeps the k_l largest of the n activations. The levels nest: sorted by size, the code of a level is
a prefix of the next one's, so a single top-k for the largest level that drops anything gives them all. And since the
code is a ReLU's, a level with k_l at or above the number of positive activations drops nothing: it is the full code,
however many levels say so, and is decoded once.

Ties have one rule everywhere: exactly k_l entries stay, lowest index first. Activations of 0 need no rule, dropped or
not.

`nested_codes` and `nested_loss` are what the model uses. `nested_codes_reference` and `nested_loss_reference` say the
same in the most literal way, level by level, for people and for tests.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

NMSE_EPSILON = 1e-8
"""Smallest squared norm of an embedding that the normalized losses divide by."""


def rank(code: torch.Tensor, k: int) -> torch.Tensor:
    """The indices of the k largest entries of each row, largest first, equal ones by ascending index.

    Args:
        code (`torch.Tensor` of shape `(..., n)`):
            Non-negative activations.
        k (`int`):
            How many, 1 to n.

    Returns:
        `torch.Tensor` of shape `(..., k)`: int64 indices, distinct within a row.
    """
    n = code.shape[-1]
    if code.dtype == torch.float64:
        return code.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    # topk breaks ties as it likes. Non-negative floats order like their bits, so value and index fit into one integer
    # that orders by value, then by descending index, and has no equal: its top-k is exact, on any device, and cheaper
    # than a stable sort.
    keys = code.float().view(torch.int32).bitwise_and(0x7FFFFFFF).to(torch.int64)  # no sign: NaN may have one
    keys.mul_(n).add_(torch.arange(n - 1, -1, -1, device=code.device))
    return n - 1 - keys.topk(k, dim=-1, sorted=True).values.remainder_(n)


def soft_capped(activations: torch.Tensor, soft_cap: float | None) -> torch.Tensor:
    """Cap * tanh(activations / cap), or `activations` if there is no cap. Keeps zeros."""
    return activations if soft_cap is None else soft_cap * torch.tanh(activations / soft_cap)


def nested_codes(code: torch.Tensor, ks: Sequence[int], soft_cap: float | None = None) -> list[torch.Tensor]:
    """The code of every level: its k largest activations at their places, 0 elsewhere.

    Gradients flow to the activations that stay. The selection is made before the cap, which makes large activations
    equal.

    Args:
        code (`torch.Tensor` of shape `(..., n)`):
            The full code, relu(pre-activations).
        ks (`Sequence[int]`):
            k of each level, 1 to n, in any order.
        soft_cap (`float`, *optional*):
            Cap for the selected activations; see [`soft_capped`].

    Returns:
        `list[torch.Tensor]`: one `(..., n)` tensor per level. Levels that drop nothing share one tensor, which is
        `code` itself where there is no cap.
    """
    n = code.shape[-1]
    # Counting positives needs their number on the host, which would break a compiled graph: there, only n is full.
    most_active = n if torch.compiler.is_compiling() else _most_active(code)
    partial = [k for k in ks if k < most_active]
    if partial:
        indices = rank(code.detach(), max(partial))
        values = soft_capped(code.gather(-1, indices), soft_cap)
    full = soft_capped(code, soft_cap) if len(partial) < len(ks) else None
    return [
        torch.zeros_like(code).scatter(-1, indices[..., :k], values[..., :k]) if k < most_active else full for k in ks
    ]


def _most_active(code: torch.Tensor) -> int:
    """The largest number of positive entries in a row."""
    return int((code > 0).sum(-1).max()) if code.numel() else 0


def nested_codes_reference(code: torch.Tensor, ks: Sequence[int], soft_cap: float | None = None) -> list[torch.Tensor]:
    """What [`nested_codes`] computes, by one stable sort per level."""
    codes = []
    for k in ks:
        kept = code.argsort(dim=-1, descending=True, stable=True)[..., :k]
        mask = torch.zeros_like(code).scatter(-1, kept, 1.0)
        codes.append(soft_capped(code * mask, soft_cap))
    return codes


def top_activations(code: torch.Tensor, k: int, soft_cap: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest activations of each row and where they are, largest first, equal ones by ascending index.

    Args:
        code (`torch.Tensor` of shape `(..., n)`):
            The full code, relu(pre-activations).
        k (`int`):
            How many, 1 to n. Rows with fewer positive activations are filled up with zeros, lowest index first.
        soft_cap (`float`, *optional*):
            Cap for the selected activations; see [`soft_capped`].

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: values and int64 indices, both `(..., k)`.
    """
    indices = rank(code.detach(), k)
    return soft_capped(code.gather(-1, indices), soft_cap), indices


def reconstruction_loss(residual: torch.Tensor, target: torch.Tensor, kind: str) -> torch.Tensor:
    """How far a reconstruction is off, in normalized space.

    Args:
        residual (`torch.Tensor` of shape `(..., d)`):
            r = u - reconstruction.
        target (`torch.Tensor` of shape `(..., d)`):
            The normalized embeddings u.
        kind (`str`):
            "mse": the mean of r^2 over all entries. "nmse": the mean over embeddings of
            ||r_i||^2 / max(||u_i||^2, 1e-8). "cosine": the mean over embeddings of 1 - the cosine of the
            reconstruction u_i - r_i and u_i, both norms at least 1e-4.

    Returns:
        `torch.Tensor`: a scalar, accumulated in float32 or better.
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
    """mean_i ||a_i||_1 / ||u_i||_2 of the full code a `(..., n)` and the normalized embeddings u `(..., d)`."""
    code, target = _at_least_float32(code), _at_least_float32(target)
    return (code.abs().sum(-1) / target.square().sum(-1).clamp_min(NMSE_EPSILON).sqrt()).mean()


def nested_loss(
    reconstructions: Sequence[torch.Tensor], target: torch.Tensor, weights: Sequence[float], kind: str = "mse"
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted mean over levels of the reconstruction loss: sum_l w_l rec(r_l, u) / sum_l w_l.

    Args:
        reconstructions (`Sequence[torch.Tensor]`):
            One `(..., d)` tensor per level, in normalized space. Levels may share one tensor: its loss is then
            computed once, and its gradient is the sum of theirs.
        target (`torch.Tensor` of shape `(..., d)`):
            The normalized embeddings u.
        weights (`Sequence[float]`):
            w_l, positive, one per level.
        kind (`str`, *optional*, defaults to `"mse"`):
            See [`reconstruction_loss`].

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: the loss, a scalar, and the unweighted loss of every level, `(L,)`.
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
    """The loss from the pre-activations on, as the equations say it: every level ranked and decoded by itself."""
    level_losses = [
        reconstruction_loss(target - (code @ decoder + pre_bias), target, kind)
        for code in nested_codes_reference(F.relu(pre_activations), ks, soft_cap)
    ]
    loss = sum(weight * level for weight, level in zip(weights, level_losses, strict=True)) / sum(weights)
    return loss, torch.stack(level_losses)


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
