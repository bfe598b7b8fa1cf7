"""The ReLU family (arXiv 2502.20578)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.configuration_utils import PreTrainedConfig

from .family import ActivationFamily


class ReLU(ActivationFamily):
    """a = relu(p), as in the MSAE paper and in plain sparse autoencoders with an L1 penalty."""

    name = "relu"

    def fused_levels(self, config: PreTrainedConfig, k: int, loss_only: bool) -> list[int] | None:
        """Return the levels, unless they are prefixes, the penalty is another than L1 or k cuts the code."""
        if config.nesting == "prefix" or (config.sparsity_coefficient and config.sparsity_penalty != "l1"):
            return None
        return config.nesting_ks if loss_only or k == config.num_latents else None

    def code(self, model: nn.Module, pre_activations: torch.Tensor, in_training: bool = False) -> torch.Tensor:
        """Return all positive pre-activations."""
        return F.relu(pre_activations)
