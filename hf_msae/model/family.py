"""The base of the activation families."""

from __future__ import annotations

import torch
from torch import nn
from transformers.configuration_utils import PreTrainedConfig

from .nested_topk import l1_penalty


class ActivationFamily:
    """How latents become active, with defaults for all but the code.

    A new family is a file with a subclass that has a name and a code and overrides what else differs, and a line in
    `activations.py`. Families hold no state: what they learn are parameters and buffers of the model, which are saved
    with it.
    """

    name: str
    needs_k = False
    penalties: tuple[str, ...] = ("l1", "tanh")
    """The sparsity penalties that have a gradient, the default first."""
    statistics: tuple[str, ...] = ()
    """Buffers and parameters that stay in float32 when the model is converted to half precision."""

    def check(self, config: PreTrainedConfig) -> None:
        """Raise ValueError if the settings do not suit this family."""

    def largest_level(self, config: PreTrainedConfig) -> int:
        """Return the k of the largest default level."""
        return config.num_latents

    def full_code(self, config: PreTrainedConfig) -> dict[str, int | str]:
        """Describe the full code: the smallest k that drops nothing of it, its name in tables, and what it keeps."""
        n = config.num_latents
        return {"k": n, "name": f"{n} (all)", "keeps": "all active latents"}

    def default_k(self, config: PreTrainedConfig) -> int:
        """Return how many activations `encode` keeps if no k is given."""
        return config.nesting_ks[-1] if config.k is None else config.k

    def fused_levels(self, config: PreTrainedConfig, k: int, loss_only: bool) -> list[int] | None:
        """Return the levels for the fused step, or None if it cannot compute the loss or the code for k.

        The fused step selects from the activations of a ReLU, and returns their full code. So by default it is not
        used.
        """
        return None

    def add_state(self, model: nn.Module) -> None:
        """Register the family's own parameters and buffers."""

    def init_state(self, model: nn.Module) -> None:
        """Initialize the family's own parameters and buffers."""

    def rescale_(self, model: nn.Module, norms: torch.Tensor) -> None:
        """Adjust the family's own parameters to pre-activations that were multiplied by `norms` `(n,)`."""

    def restart_(self, model: nn.Module, latents: torch.Tensor, share: float) -> list[nn.Parameter]:
        """Start the family's own parameters of these latents, bool `(n,)`, anew, and return the parameters.

        The latents' encoder columns are new as well, with `share` of the norm that others have.
        """
        return []

    def code(self, model: nn.Module, pre_activations: torch.Tensor, in_training: bool = False) -> torch.Tensor:
        """Return the full code `(..., n)`, before levels are selected and activations are capped."""
        raise NotImplementedError

    def penalty(
        self, model: nn.Module, pre_activations: torch.Tensor, code: torch.Tensor, normalized: torch.Tensor
    ) -> torch.Tensor:
        """Return the sparsity penalty of a batch, a scalar."""
        if model.config.sparsity_penalty == "tanh":
            return tanh_penalty(code)
        return l1_penalty(code, normalized)


def tanh_penalty(code: torch.Tensor) -> torch.Tensor:
    """Return mean_i sum_j tanh(4 a_ij), a differentiable approximation of L0 for decoder rows of unit norm.

    Source: "Circuits Updates", January 2025, transformer-circuits.pub.
    """
    return torch.tanh(4 * code).sum(-1).mean()
