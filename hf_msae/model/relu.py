"""The ReLU family, and what every activation family consists of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.configuration_utils import PreTrainedConfig

from .nested_topk import l1_penalty


class ReLU:
    """a = relu(p), as in the MSAE paper (arXiv 2502.20578) and in plain sparse autoencoders with an L1 penalty.

    It is the base of the other families too: a family is one file with a subclass that overrides what differs, and one
    line in `activations.py`. Families hold no state. What a family learns are parameters and buffers of the model, so
    that they are saved under its names.
    """

    name = "relu"
    needs_k = False
    penalties: tuple[str, ...] = ("l1", "tanh")
    """The sparsity penalties that have a gradient, the default first."""
    statistics: tuple[str, ...] = ()
    """Buffers that stay in float32 when the model is converted to half precision."""

    def check(self, config: PreTrainedConfig) -> None:
        """Raise ValueError if the settings do not fit this family."""

    def largest_level(self, config: PreTrainedConfig) -> int:
        """Return the k of the last of the default levels."""
        return config.num_latents

    def default_k(self, config: PreTrainedConfig) -> int:
        """Return how many activations `encode` keeps if no k is given."""
        return config.nesting_ks[-1] if config.k is None else config.k

    def fused_levels(self, config: PreTrainedConfig, k: int, loss_only: bool) -> list[int] | None:
        """Return the levels for the fused step, or None if it cannot give the loss or the code for k.

        The fused step selects among the activations of a ReLU, and returns their full code.
        """
        if config.nesting == "prefix" or (config.sparsity_coefficient and config.sparsity_penalty != "l1"):
            return None
        return config.nesting_ks if loss_only or k == config.num_latents else None

    def add_state(self, model: nn.Module) -> None:
        """Register the family's own parameters and buffers."""

    def init_state(self, model: nn.Module) -> None:
        """Initialize them."""

    def rescale_(self, model: nn.Module, norms: torch.Tensor) -> None:
        """Adjust them to pre-activations that have been multiplied by `norms` `(n,)`."""

    def code(self, model: nn.Module, pre_activations: torch.Tensor, in_training: bool = False) -> torch.Tensor:
        """Return the full code a `(..., n)`, before levels are selected and before the cap."""
        return F.relu(pre_activations)

    def penalty(
        self, model: nn.Module, pre_activations: torch.Tensor, code: torch.Tensor, normalized: torch.Tensor
    ) -> torch.Tensor:
        """Return the sparsity penalty of a batch, a scalar."""
        if model.config.sparsity_penalty == "tanh":
            return tanh_penalty(code)
        return l1_penalty(code, normalized)


def tanh_penalty(code: torch.Tensor) -> torch.Tensor:
    """mean_i sum_j tanh(4 a_ij): almost a count, but with a gradient.

    It assumes decoder rows of unit norm ("Circuits Updates", January 2025, transformer-circuits.pub).
    """
    return torch.tanh(4 * code).sum(-1).mean()
