"""What turns pre-activations into a code besides ReLU and its top k: batch top-k and JumpReLU; and their penalties."""

from __future__ import annotations

import torch
import torch.distributed as dist

_DIGIT_BITS = 11
"""Non-negative floats order like their bits; the search for a threshold finds so many of the 31 at a time."""


def batch_top_threshold(code: torch.Tensor, number: int) -> torch.Tensor:
    """The entry of rank `number` among all entries of all processes: what a batch's largest `number` entries reach.

    Found from histograms of the entries' bits, 11 at a time, whose sums over processes are all that is communicated:
    exact, without sorting, and the same in any number of processes.

    Args:
        code (`torch.Tensor` of shape `(rows, n)`):
            Non-negative activations of this process' part of the batch.
        number (`int`):
            How many entries of the whole batch are to stay, over all processes.

    Returns:
        `torch.Tensor` of shape `()`: the threshold; the smallest positive number, where fewer entries are positive.
    """
    bits = code.detach().float().contiguous().view(torch.int32).bitwise_and(0x7FFFFFFF).flatten()
    bits = bits[bits > 0]
    prefix, left = 0, number
    for shift in (2 * _DIGIT_BITS, _DIGIT_BITS, 0):
        counts = torch.bincount((bits >> shift) & (2**_DIGIT_BITS - 1), minlength=2**_DIGIT_BITS)
        if _distributed():
            dist.all_reduce(counts)
        from_top = counts.flip(0).cumsum(0)
        if from_top[-1] < left:  # fewer entries are positive
            return torch.tensor(1, dtype=torch.int32, device=code.device).view(torch.float32)
        place = int(torch.searchsorted(from_top, left))
        left -= int(from_top[place - 1]) if place else 0
        digit = 2**_DIGIT_BITS - 1 - place
        prefix |= digit << shift
        bits = bits[(bits >> shift) & (2**_DIGIT_BITS - 1) == digit]
    return torch.tensor(prefix, dtype=torch.int32, device=code.device).view(torch.float32)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pre_activations, threshold, bandwidth):
        ctx.save_for_backward(pre_activations, threshold)
        ctx.bandwidth = bandwidth
        return pre_activations * (pre_activations > threshold)

    @staticmethod
    def backward(ctx, gradient):
        pre_activations, threshold = ctx.saved_tensors
        near = _near(pre_activations, threshold, ctx.bandwidth)
        of_threshold = -(threshold / ctx.bandwidth) * (near * gradient).reshape(-1, len(threshold)).sum(0)
        return gradient * (pre_activations > threshold), of_threshold, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pre_activations, threshold, bandwidth):
        ctx.save_for_backward(pre_activations, threshold)
        ctx.bandwidth = bandwidth
        return (pre_activations > threshold).to(pre_activations.dtype)

    @staticmethod
    def backward(ctx, gradient):
        pre_activations, threshold = ctx.saved_tensors
        near = _near(pre_activations, threshold, ctx.bandwidth)
        return None, -(near * gradient).reshape(-1, len(threshold)).sum(0) / ctx.bandwidth, None


def _near(pre_activations: torch.Tensor, threshold: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """The rectangle kernel: 1 within half a bandwidth of the threshold, else 0."""
    return ((pre_activations - threshold).abs() < bandwidth / 2).to(pre_activations.dtype)


def jump_relu(pre_activations: torch.Tensor, threshold: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """What exceeds its latent's threshold, unchanged, else 0 (Rajamanoharan et al. 2024, arXiv 2407.14435).

    The threshold's gradient, which is 0 almost everywhere, is estimated straight through from the entries within half
    a bandwidth of it: d/dt = -t / bandwidth there (their equation 11).

    Args:
        pre_activations (`torch.Tensor` of shape `(..., n)`):
            Before any activation function.
        threshold (`torch.Tensor` of shape `(n,)`):
            Positive.
        bandwidth (`float`):
            Width of the estimator's kernel.
    """
    return _JumpReLU.apply(pre_activations, threshold, bandwidth)


def l0_penalty(pre_activations: torch.Tensor, threshold: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """The mean number of latents above their threshold, whose gradient by the threshold is estimated straight through:
    d/dt = -1 / bandwidth for each entry within half a bandwidth (arXiv 2407.14435, equation 12).
    """
    return _Step.apply(pre_activations, threshold, bandwidth).sum(-1).mean()


def tanh_penalty(code: torch.Tensor) -> torch.Tensor:
    """mean_i sum_j tanh(4 a_ij): nearly a count, with a gradient. (For decoder rows of norm 1; "Circuits Updates" of
    January 2025, transformer-circuits.pub.)
    """
    return torch.tanh(4 * code).sum(-1).mean()


def number_of_rows(code: torch.Tensor) -> int:
    """Rows of the batch, over all processes, each of which has as many."""
    return code[..., 0].numel() * (dist.get_world_size() if _distributed() else 1)


def draw_prefixes(number: int, n: int) -> list[int]:
    """Widths of nested dictionaries for one step, ascending, n the last; fewer, where some are drawn twice.

    From a Pareto distribution with exponent 1/2 between 1 and n: small ones are drawn most often. By torch's generator
    of the CPU, which all processes have seeded alike.
    """
    uniform = torch.rand(number - 1, dtype=torch.float64)
    widths = (1 - uniform * (1 - n**-0.5)) ** -2.0
    return sorted({n, *(min(n, int(width)) for width in widths.tolist())})
