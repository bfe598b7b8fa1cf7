"""The TopK family (Gao et al. 2024, arXiv 2406.04093)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.configuration_utils import PreTrainedConfig

from .nested_topk import nested_codes
from .relu import ReLU


class TopK(ReLU):
    """The k largest of the activations of a ReLU, for each embedding."""

    name = "topk"
    needs_k = True

    def check(self, config: PreTrainedConfig) -> None:
        """Refuse levels that do not end at k."""
        if config.nesting == "topk" and config.nesting_ks[-1] != config.k:
            raise ValueError(f'with activation="topk", nesting_ks must end with k={config.k}, got {config.nesting_ks}')

    def largest_level(self, config: PreTrainedConfig) -> int:
        """Return k."""
        return config.k

    def full_code(self, config: PreTrainedConfig) -> dict[str, int | str]:
        """Describe the full code, the k largest activations."""
        return {"k": config.k, "name": str(config.k), "keeps": f"the {config.k} largest activations"}

    def fused_levels(self, config: PreTrainedConfig, k: int, loss_only: bool) -> list[int] | None:
        """Return the levels if only their loss is needed; the fused step does not compute the code of k."""
        if not loss_only or config.sparsity_coefficient:
            return None
        levels = super().fused_levels(config, k, loss_only)
        return [config.k] if levels is not None and config.nesting == "none" else levels

    def code(self, model: nn.Module, pre_activations: torch.Tensor, in_training: bool = False) -> torch.Tensor:
        """Return the k largest activations."""
        return nested_codes(F.relu(pre_activations), [model.config.k])[0]
