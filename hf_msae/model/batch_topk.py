"""The BatchTopK family (Bussmann et al. 2024, arXiv 2412.06410)."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig

from .family import ActivationFamily

_MOMENTUM = 0.99
"""Momentum of the running mean of the threshold."""

_DIGIT_BITS = 11
"""Non-negative floats order like their 31 bits; the search for a threshold fixes this many at a time."""


class BatchTopK(ActivationFamily):
    """In training, the k * B largest activations of a batch of B embeddings; afterwards, those above a threshold.

    The threshold, the model's scalar buffer `activation_threshold`, is a running mean over training batches of their
    smallest activation that was kept.
    """

    name = "batch_topk"
    needs_k = True
    statistics = ("activation_threshold",)

    def check(self, config: PreTrainedConfig) -> None:
        """Refuse levels of the k largest activations of each embedding."""
        if config.nesting == "topk":
            raise ValueError(
                'activation="batch_topk" keeps a different number of activations for each embedding, and '
                'nesting="topk" would cut them to the same k: use nesting="none" or "prefix", or activation="topk"'
            )

    def full_code(self, config: PreTrainedConfig) -> dict[str, int | str]:
        """Describe the full code, the activations above the threshold."""
        keeps = f"the activations above the threshold of training (k={config.k} on average there)"
        return {"k": config.num_latents, "name": "threshold", "keeps": keeps}

    def default_k(self, config: PreTrainedConfig) -> int:
        """Return the largest level: k is only the average number of activations above the threshold."""
        return config.nesting_ks[-1]

    def add_state(self, model: nn.Module) -> None:
        """Register the threshold."""
        model.register_buffer("activation_threshold", torch.empty((), dtype=model.input_scale.dtype))

    def init_state(self, model: nn.Module) -> None:
        """Set the threshold to 0, which the first training step replaces."""
        init.zeros_(model.activation_threshold)

    def code(self, model: nn.Module, pre_activations: torch.Tensor, in_training: bool = False) -> torch.Tensor:
        """Return the activations that reach the threshold of the batch in training, or the running mean."""
        code = F.relu(pre_activations)
        threshold = self._update_threshold(model, code) if in_training else model.activation_threshold
        return code * (code >= threshold)

    @torch.no_grad()
    def _update_threshold(self, model: nn.Module, code: torch.Tensor) -> torch.Tensor:
        rows = code[..., 0].numel() * (dist.get_world_size() if _distributed() else 1)  # every process has as many
        threshold = batch_top_threshold(code, model.config.k * rows)
        if model.activation_threshold == 0:
            model.activation_threshold.copy_(threshold)
        model.activation_threshold.lerp_(threshold.to(model.activation_threshold.dtype), 1 - _MOMENTUM)
        return threshold


def batch_top_threshold(code: torch.Tensor, number: int) -> torch.Tensor:
    """Find the smallest of the `number` largest activations of a batch, over all processes.

    Processes exchange histograms of the activations' bits, 11 bits at a time. The result is exact and does not depend
    on the number of processes; it is the smallest positive float if fewer activations of `code` (rows, n), this
    process's part of the batch, are positive.
    """
    bits = code.detach().float().contiguous().view(torch.int32).bitwise_and(0x7FFFFFFF).flatten()
    bits = bits[bits > 0]
    prefix, left = 0, number
    for shift in (2 * _DIGIT_BITS, _DIGIT_BITS, 0):
        counts = torch.bincount((bits >> shift) & (2**_DIGIT_BITS - 1), minlength=2**_DIGIT_BITS)
        if _distributed():
            dist.all_reduce(counts)
        from_top = counts.flip(0).cumsum(0)
        if from_top[-1] < left:  # fewer activations are positive
            return torch.tensor(1, dtype=torch.int32, device=code.device).view(torch.float32)
        place = int(torch.searchsorted(from_top, left))
        left -= int(from_top[place - 1]) if place else 0
        digit = 2**_DIGIT_BITS - 1 - place
        prefix |= digit << shift
        bits = bits[(bits >> shift) & (2**_DIGIT_BITS - 1) == digit]
    return torch.tensor(prefix, dtype=torch.int32, device=code.device).view(torch.float32)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
