"""The JumpReLU family (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig

from .family import ActivationFamily


class JumpReLU(ActivationFamily):
    """The activations above a threshold that each latent learns, unchanged.

    The thresholds are the exponential of the model's parameter `log_threshold` `(n,)`. Their true gradient is 0 almost
    everywhere; it is estimated from the pre-activations within half a bandwidth of them.
    """

    name = "jump_relu"
    penalties = ("l0", "l1", "tanh")
    statistics = ("log_threshold",)  # rounded to bfloat16, it would move a threshold by up to 1.6%

    def check(self, config: PreTrainedConfig) -> None:
        """Refuse thresholds and bandwidths that are not positive."""
        for name in ("jump_relu_threshold", "jump_relu_bandwidth"):
            if not (math.isfinite(getattr(config, name)) and getattr(config, name) > 0):
                raise ValueError(f"{name} must be above 0, got {getattr(config, name)}")

    def full_code(self, config: PreTrainedConfig) -> dict[str, int | str]:
        """Describe the full code, the activations above the thresholds."""
        keeps = "the activations above the threshold of each latent"
        return {"k": config.num_latents, "name": "thresholds", "keeps": keeps}

    def add_state(self, model: nn.Module) -> None:
        """Register the logarithms of the thresholds."""
        dtype = torch.promote_types(torch.float32, torch.get_default_dtype())
        model.log_threshold = nn.Parameter(torch.empty(model.config.num_latents, dtype=dtype))

    def init_state(self, model: nn.Module) -> None:
        """Set all thresholds to `jump_relu_threshold`."""
        init.constant_(model.log_threshold, math.log(model.config.jump_relu_threshold))

    def rescale_(self, model: nn.Module, norms: torch.Tensor) -> None:
        """Multiply the thresholds by `norms`."""
        model.log_threshold.add_(norms.log())

    def restart_(self, model: nn.Module, latents: torch.Tensor, share: float) -> list[nn.Parameter]:
        """Set the thresholds of these latents to `jump_relu_threshold`, as small as their columns."""
        model.log_threshold[latents] = math.log(model.config.jump_relu_threshold * share)
        return [model.log_threshold]

    def code(self, model: nn.Module, pre_activations: torch.Tensor, in_training: bool = False) -> torch.Tensor:
        """Return the activations above their thresholds."""
        return jump_relu(pre_activations, model.log_threshold.exp(), model.config.jump_relu_bandwidth)

    def penalty(
        self, model: nn.Module, pre_activations: torch.Tensor, code: torch.Tensor, normalized: torch.Tensor
    ) -> torch.Tensor:
        """Return the penalty of the config: "l0", or one that all families have."""
        if model.config.sparsity_penalty == "l0":
            return l0_penalty(pre_activations, model.log_threshold.exp(), model.config.jump_relu_bandwidth)
        return super().penalty(model, pre_activations, code, normalized)


def jump_relu(pre_activations: torch.Tensor, threshold: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """Return the pre-activations `(..., n)` that exceed their latent's threshold `(n,)`, and 0 for the others.

    The gradient of a threshold t is -t / bandwidth for each pre-activation within half a bandwidth of it (equation 11
    of the paper).
    """
    return _JumpReLU.apply(pre_activations, threshold, bandwidth)


def l0_penalty(pre_activations: torch.Tensor, threshold: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """Return the mean number of latents above their thresholds.

    The gradient of a threshold is -1 / bandwidth for each pre-activation within half a bandwidth of it (equation 12 of
    the paper).
    """
    return _Step.apply(pre_activations, threshold, bandwidth).sum(-1).mean()


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
    """Return 1 within half a bandwidth of the threshold, else 0."""
    return ((pre_activations - threshold).abs() < bandwidth / 2).to(pre_activations.dtype)
