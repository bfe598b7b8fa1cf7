r"""The nested loss of an MSAE and all of its gradients in one pass over the batch, on a CPU.

What `nested_topk.nested_loss_reference` says level by level costs one ranking, one decoding and two more products for
every level. Here a step costs little more than that of a plain ReLU autoencoder:

- A row's activations are ranked once for all levels, and no further than to tell which level an entry belongs to.
- Levels that drop nothing are one level, whose weight is the sum of theirs.
- The codes of the smallest levels are few entries. They are taken apart into rings (what a level adds to the one
  before), and every entry is decoded once; its gradient is a sum over the levels that hold it, which is a suffix sum
  of the levels' residuals.
- A level that drops but few entries is the full code without them.
- Levels in between are decoded densely.
- Entries are looked up by C functions, compiled at their first use where the machine has a compiler. Without one,
  numpy and torch do the same, about half as fast.
- Gradients are computed together with the loss, since everything they need is at hand then, a chunk of rows at a
  time: the code of a batch is the only thing of its size that is held.

The gradients are those of the loss alone. Where somebody differentiates other outputs as well, or twice, the levels
are computed again one by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F

from .fused.nested_pass import NestedLoss, NestedPass
from .nested_topk import l1_penalty, nested_codes, nested_loss

_IMPLEMENTATIONS = ("auto", "eager", "fused")
_implementation: ContextVar[str | None] = ContextVar("nested_loss_implementation", default=None)


@contextmanager
def nested_loss_implementation(name: Literal["auto", "eager", "fused"]) -> Iterator[None]:
    """How models compute their loss inside the block: "eager" (level by level, by operations that autograd
    differentiates), "fused" (in one pass, wherever it can be), or "auto" (fused on CPUs, eager elsewhere: which is
    faster there has not been measured). The environment variable HF_MSAE_NESTED_LOSS sets it for a process.
    """
    if name not in _IMPLEMENTATIONS:
        raise ValueError(f'the nested loss has no implementation {name!r}; choose "auto", "eager" or "fused"')
    token = _implementation.set(name)
    try:
        yield
    finally:
        _implementation.reset(token)


def can_fuse(normalised: torch.Tensor, *parameters: torch.Tensor) -> bool:
    """Whether [`fused_nested_loss`] computes this.

    It does on a CPU, or on one GPU where "fused" is asked for, in float32 (dense products in bfloat16 under
    autocast to it) or float64, with no gradient for embeddings; not under autocast to
    float16, `torch.compile`, `torch.func` or forward-mode differentiation, nor where "eager" is asked for.
    """
    if torch.compiler.is_compiling():
        return False
    asked_for = _implementation.get() or os.environ.get("HF_MSAE_NESTED_LOSS") or "auto"
    device = normalised.device
    if asked_for == "eager" or device.type == "meta" or (asked_for != "fused" and device.type != "cpu"):
        return False
    if _autocast_dtype(device) not in (None, torch.bfloat16) or torch._C._are_functorch_transforms_active():
        return False
    if fwAD._current_level >= 0:
        return False
    return not (normalised.requires_grad and torch.is_grad_enabled()) and all(
        tensor.device == device and tensor.dtype == normalised.dtype and tensor.dtype in (torch.float32, torch.float64)
        for tensor in (normalised, *parameters)
    )


def _autocast_dtype(device: torch.device) -> torch.dtype | None:
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def fused_nested_loss(
    loss: NestedLoss,
    normalised: torch.Tensor,
    pre_bias: torch.Tensor,
    encoder: torch.Tensor,
    latent_bias: torch.Tensor,
    decoder: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The training loss of normalised embeddings, with gradients for the parameters.

    Args:
        loss ([`NestedLoss`]):
            Levels, weights and terms.
        normalised (`torch.Tensor` of shape `(B, d)`):
            u; takes no gradient.
        pre_bias, encoder, latent_bias, decoder:
            The parameters of [`MSAEModel`], on the CPU, of one dtype: float32 or float64. No decoder: tied.

    Returns:
        The loss; the unweighted loss of every level `(L,)`; the full code `(B, n)`, capped; and what it decodes to,
        in normalised space, `(B, d)`.
    """
    parameters = [p for p in (pre_bias, encoder, latent_bias, decoder) if p is not None]
    with_gradients = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
    return _FusedNestedLoss.apply(loss, with_gradients, normalised, *parameters)


def eager_nested_loss(
    loss: NestedLoss,
    normalised: torch.Tensor,
    pre_bias: torch.Tensor,
    encoder: torch.Tensor,
    latent_bias: torch.Tensor,
    decoder: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """[`fused_nested_loss`] in plain operations that autograd differentiates: on any device, as often as one likes."""
    dictionary = encoder.T if decoder is None else decoder
    code = F.relu((normalised - pre_bias) @ encoder + latent_bias)
    codes = nested_codes(code, [*loss.ks, code.shape[-1]], loss.soft_cap)
    decoded = {id(each): each @ dictionary + pre_bias for each in codes}
    reconstructions = [decoded[id(each)] for each in codes]
    value, level_losses = nested_loss(reconstructions[:-1], normalised, loss.weights, loss.kind)
    if loss.sparsity_coefficient:
        value = value + loss.sparsity_coefficient * l1_penalty(code, normalised)
    return value, level_losses, codes[-1], reconstructions[-1]


class _FusedNestedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss, with_gradients, normalised, *parameters):
        ctx.set_materialize_grads(False)
        product_dtype = _autocast_dtype(normalised.device)
        work = NestedPass(loss, with_gradients, product_dtype, normalised, *parameters)
        with torch.autocast(normalised.device.type, enabled=False):
            value, level_losses = work.run()
        if with_gradients:
            ctx.loss, ctx.autocast_dtype = loss, product_dtype
            ctx.save_for_backward(normalised, *parameters)
            # Not saved as tensors: handed over once, so that autograd can keep them without a copy.
            ctx.gradients = work.gradients()
        return value, level_losses, work.latents, work.reconstruction

    @staticmethod
    def backward(ctx, *output_gradients):
        gradients, ctx.gradients = ctx.gradients, None
        of_loss, *of_others = output_gradients
        differentiated_again = torch.is_grad_enabled()  # create_graph=True
        if gradients is None or differentiated_again or of_loss is None or any(g is not None for g in of_others):
            gradients = _recomputed_gradients(ctx, output_gradients)
        elif of_loss != 1:
            for gradient in gradients:
                gradient.mul_(of_loss)
        return None, None, None, *gradients


def _recomputed_gradients(ctx, output_gradients) -> tuple[torch.Tensor | None, ...]:
    """The rare case: the gradients of any outputs, by autograd through the eager computation."""
    normalised, *parameters = ctx.saved_tensors
    create_graph = torch.is_grad_enabled()
    low = ctx.autocast_dtype
    autocast = torch.autocast(normalised.device.type, low or torch.bfloat16, enabled=low is not None)
    with torch.enable_grad(), autocast:
        leaves = parameters if create_graph else [parameter.detach().requires_grad_() for parameter in parameters]
        outputs = eager_nested_loss(ctx.loss, normalised, *leaves)
    used = [(out, grad) for out, grad in zip(outputs, output_gradients, strict=True) if grad is not None]
    if not used:
        return (None,) * len(leaves)
    outputs, output_gradients = zip(*used, strict=True)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    found = torch.autograd.grad(outputs, wanted, output_gradients, create_graph=create_graph, allow_unused=True)
    found = iter(found)
    return tuple(next(found) if leaf.requires_grad else None for leaf in leaves)
