"""The ReLU family (arXiv 2502.20578)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .family import ActivationFamily


class ReLU(ActivationFamily):
    """a = relu(p), as in the MSAE paper and in plain sparse autoencoders with an L1 penalty."""

    name = "relu"

    def code(self, model: nn.Module, pre_activations: torch.Tensor, in_training: bool = False) -> torch.Tensor:
        """Return all positive pre-activations."""
        return F.relu(pre_activations)
