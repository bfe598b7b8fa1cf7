r"""The nested loss of an MSAE and all its gradients in one pass over the batch, on a CPU.

`nested_topk.nested_loss_reference` needs a ranking, a decoding and two more products for every level. Here a step
costs little more than that of a plain ReLU autoencoder:

- The activations of a row are ranked once for all levels, and only as far as needed to find the level of each entry.
- Levels that drop nothing are treated as one level with the sum of their weights.
- The codes of the smallest levels have few entries. They are split into rings (the entries that a level adds to the
  one before), and each entry is decoded once. Its gradient is a suffix sum of residuals over the levels that hold it.
- A level that drops only a few entries is the full code without them. Levels in between are decoded densely.
- C functions look up entries. They are compiled at first use; without a compiler, numpy and torch do the same more
  slowly.
- Gradients are computed together with the loss, in chunks of rows. The code of the batch is stored only if asked for.
- Under bfloat16 autocast, factors of dense products are rounded once, and entries are looked up in bfloat16 too.

These are the gradients of the loss only. If other outputs are differentiated too, or the loss twice, the levels are
computed again one by one.
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
from .products import autocast_dtype, multiplies_slowly

_implementation: ContextVar[str | None] = ContextVar("nested_loss_implementation", default=None)


@contextmanager
def nested_loss_implementation(name: Literal["auto", "eager"]) -> Iterator[None]:
    """Choose how models compute their loss inside the block; HF_MSAE_NESTED_LOSS does so for the whole process.

    "eager": level by level, with autograd. "auto": in one pass where [`can_fuse`] allows it.
    """
    if name not in ("auto", "eager"):
        raise ValueError(f'the nested loss has no implementation {name!r}; choose "auto" or "eager"')
    token = _implementation.set(name)
    try:
        yield
    finally:
        _implementation.reset(token)


def can_fuse(normalized: torch.Tensor, *parameters: torch.Tensor) -> bool:
    """Return whether [`fused_nested_loss`] can be used for these tensors.

    They must be on the CPU, in float32 (with dense products in bfloat16 under autocast, where that is not slower) or
    float64, and the embeddings must not require a gradient. Autocast to float16, `torch.compile`, `torch.func` and
    forward-mode differentiation are not supported.
    """
    if torch.compiler.is_compiling():
        return False
    chosen = _implementation.get() or os.environ.get("HF_MSAE_NESTED_LOSS") or "auto"
    device = normalized.device
    if chosen == "eager" or device.type != "cpu":
        return False
    if autocast_dtype(device) not in (None, torch.bfloat16) or torch._C._are_functorch_transforms_active():
        return False
    if fwAD._current_level >= 0:
        return False
    return not (normalized.requires_grad and torch.is_grad_enabled()) and all(
        tensor.device == device and tensor.dtype == normalized.dtype and tensor.dtype in (torch.float32, torch.float64)
        for tensor in (normalized, *parameters)
    )


def fused_nested_loss(
    loss: NestedLoss,
    normalized: torch.Tensor,
    pre_bias: torch.Tensor,
    encoder: torch.Tensor,
    latent_bias: torch.Tensor,
    decoder: torch.Tensor | None,
    loss_only: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Compute the training loss of normalized embeddings `(B, d)`, with gradients for the parameters of the model.

    All tensors are on the CPU and either float32 or float64; decoder=None ties it to the encoder.

    Returns:
        The loss, the unweighted losses of the levels `(L,)`, the full code `(B, n)` after the cap, and its
        reconstruction in normalized space `(B, d)`. With `loss_only`, the last two are None, and no more than a chunk
        of the code is in memory at a time.
    """
    parameters = [p for p in (pre_bias, encoder, latent_bias, decoder) if p is not None]
    with_gradients = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
    return _FusedNestedLoss.apply(loss, with_gradients, loss_only, normalized, *parameters)


def eager_nested_loss(
    loss: NestedLoss,
    normalized: torch.Tensor,
    pre_bias: torch.Tensor,
    encoder: torch.Tensor,
    latent_bias: torch.Tensor,
    decoder: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute [`fused_nested_loss`] with operations that autograd can differentiate, on any device."""
    dictionary = encoder.T if decoder is None else decoder
    code = F.relu((normalized - pre_bias) @ encoder + latent_bias)
    codes = nested_codes(code, [*loss.ks, code.shape[-1]], loss.soft_cap)
    decoded = {id(each): each @ dictionary + pre_bias for each in codes}
    reconstructions = [decoded[id(each)] for each in codes]
    value, level_losses = nested_loss(reconstructions[:-1], normalized, loss.weights, loss.kind)
    if loss.sparsity_coefficient:
        value = value + loss.sparsity_coefficient * l1_penalty(code, normalized)
    return value, level_losses, codes[-1], reconstructions[-1]


class _FusedNestedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss, with_gradients, loss_only, normalized, *parameters):
        ctx.set_materialize_grads(False)
        product_dtype = autocast_dtype(normalized.device)
        if multiplies_slowly(product_dtype, normalized.device):
            product_dtype = None
        work = NestedPass(loss, with_gradients, product_dtype, loss_only, normalized, *parameters)
        with torch.autocast(normalized.device.type, enabled=False):
            value, level_losses = work.run()
            # Not saved as tensors, so that autograd takes them over without a copy.
            ctx.gradients = work.gradients() if with_gradients else None
        if with_gradients:
            ctx.loss, ctx.autocast_dtype = loss, product_dtype
            ctx.save_for_backward(normalized, *parameters)
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
        return None, None, None, None, *gradients


def _recomputed_gradients(ctx, output_gradients) -> tuple[torch.Tensor | None, ...]:
    """Return the gradients of any outputs, by autograd through the eager computation."""
    normalized, *parameters = ctx.saved_tensors
    create_graph = torch.is_grad_enabled()
    low = ctx.autocast_dtype
    autocast = torch.autocast(normalized.device.type, low or torch.bfloat16, enabled=low is not None)
    with torch.enable_grad(), autocast:
        leaves = parameters if create_graph else [parameter.detach().requires_grad_() for parameter in parameters]
        outputs = eager_nested_loss(ctx.loss, normalized, *leaves)
    used = [(out, grad) for out, grad in zip(outputs, output_gradients, strict=True) if grad is not None]
    if not used:
        return (None,) * len(leaves)
    outputs, output_gradients = zip(*used, strict=True)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    found = torch.autograd.grad(outputs, wanted, output_gradients, create_graph=create_graph, allow_unused=True)
    found = iter(found)
    return tuple(next(found) if leaf.requires_grad else None for leaf in leaves)
