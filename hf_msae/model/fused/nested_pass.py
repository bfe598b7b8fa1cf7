"""One pass over a batch that computes the nested loss and all its gradients; see `fused_nested_loss`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..nested_topk import NMSE_EPSILON, soft_capped
from .compiled_entries import WORKSPACE, CompiledEntries, Workspace
from .compiler import compiled_library
from .torch_entries import TorchEntries

_CHUNK_ELEMENTS = 2**22
"""Number of entries of a scratch matrix: 16 MB in float32."""


@dataclass(frozen=True)
class NestedLoss:
    """The fields of an MSAE's config that define its loss, with the weights as numbers."""

    ks: tuple[int, ...]
    weights: tuple[float, ...]
    kind: str
    soft_cap: float | None = None
    sparsity_coefficient: float = 0.0


def entries_for(
    dictionary: torch.Tensor, rows: int, workspace: Workspace = WORKSPACE, dtype: torch.dtype | None = None
) -> CompiledEntries | TorchEntries:
    """Make the object that ranks and looks up the entries of chunks of at most `rows` codes.

    Tensors that it returns may lie in `workspace`, until the next chunk. `dtype` bfloat16 allows it to round what it
    looks up, where that is faster.
    """
    library = compiled_library() if dictionary.dtype == torch.float32 else None
    if library is None:
        return TorchEntries(dictionary, rows)
    return CompiledEntries(library, dictionary, workspace, dtype or torch.float32)


class NestedPass:
    """One pass over a batch of detached tensors, with dense products in `product_dtype` if given.

    With `loss_only`, it keeps neither the code of the batch nor its reconstruction.
    """

    def __init__(
        self, loss, with_gradients, product_dtype, loss_only, normalized, pre_bias, encoder, latent_bias, decoder=None
    ):
        self.loss, self.with_gradients = loss, with_gradients
        self.product_dtype = product_dtype if normalized.dtype == torch.float32 else None
        self.u, self.pre_bias, self.encoder, self.latent_bias = normalized, pre_bias, encoder, latent_bias
        self.tied = decoder is None
        self.dictionary = encoder.T.contiguous() if self.tied else decoder.contiguous()
        self.rows, self.n = len(normalized), encoder.shape[1]
        shares = [weight / sum(loss.weights) for weight in loss.weights]
        # The device is given because the default may be another one.
        self.shares = torch.tensor(shares, dtype=normalized.dtype, device="cpu")
        self.level_losses = torch.zeros(len(loss.ks), dtype=torch.float64, device="cpu")
        self.l1 = torch.zeros((), dtype=torch.float64, device="cpu")
        self.latents = None if loss_only else normalized.new_empty(self.rows, self.n)
        self.reconstruction = None if loss_only else torch.empty_like(normalized)
        if with_gradients:
            self.grad_encoder = torch.zeros_like(encoder)
            self.grad_dictionary = torch.zeros_like(self.dictionary)
            self.grad_latent_bias = torch.zeros_like(latent_bias)
            self.grad_pre_bias = torch.zeros_like(pre_bias)

    def run(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss and the losses of the levels, and set `latents` and `reconstruction`."""
        x = self.u - self.pre_bias
        step = min(self.rows, max(1, _CHUNK_ELEMENTS // self.n))
        self.entries = entries_for(self.dictionary, step, dtype=self.product_dtype)
        self.encoder_factor = self._factor("encoder", self.encoder)
        self.dictionary_factor = self._factor("dictionary", self.dictionary)
        for start in range(0, self.rows, step):
            self._chunk(slice(start, start + step), x[start : start + step])
        self.entries.close()
        del self.entries
        if self.reconstruction is not None:
            self.reconstruction += self.pre_bias
        level_losses = self.level_losses.to(self.u.dtype)
        value = self.shares.double() @ self.level_losses + self.loss.sparsity_coefficient * self.l1
        return value.to(self.u.dtype), level_losses

    def gradients(self) -> tuple[torch.Tensor, ...]:
        """Return the gradients of the parameters, in their order."""
        # The encoder's input is u - pre_bias, so its gradient, summed over rows, is subtracted.
        pre_bias = self.grad_pre_bias.sub_(self.encoder @ self.grad_latent_bias)
        if self.tied:
            return pre_bias, self.grad_encoder.add_(self.grad_dictionary.T), self.grad_latent_bias
        return pre_bias, self.grad_encoder, self.grad_latent_bias, self.grad_dictionary

    def _chunk(self, chunk: slice, x: torch.Tensor) -> None:
        u = self.u[chunk]
        x_factor = self._factor("x", x)
        code, latents = self._encode(chunk, x_factor)
        active, most = self.entries.rank(code, latents, self.loss.ks), self.loss.ks[-1]
        self.active = np.minimum(active, most)  # in the largest level
        sparse, short, dense, complete = self._sort_levels()

        has_more, whole = active.max() > most, None if self.reconstruction is None else self.reconstruction[chunk]
        if has_more and whole is not None:
            self._product(self._factor("latents", latents), self.dictionary_factor, out=whole)
            whole = None  # no level decodes to it
        grad = _scratch("gradient", code) if self.with_gradients else None
        if complete:
            kept = self.entries.top(most, out=_scratch("kept", code)) if has_more else latents
            full = _scratch("full", x) if whole is None else whole
            self._nearly_full_levels(complete, short, x, u, kept, grad, full)
            if has_more and grad is not None:  # in no level, so exactly 0: a rounding error would be taken for firing
                torch.ops.aten.threshold_backward.grad_input(grad, kept, 0, grad_input=grad)
        elif grad is not None:
            grad.zero_()
        if sparse:
            self._sparse_levels(sparse, x, u, grad, None if complete else whole)
        for level in dense:
            self._dense_level(level, x, u, code, grad)
        if self.loss.sparsity_coefficient:
            norms = u.square().sum(-1, keepdim=True).clamp_min(NMSE_EPSILON).sqrt()
            self.l1 += (code.sum(-1, keepdim=True) / norms).sum(dtype=torch.float64) / self.rows
        if not self.with_gradients:
            return

        if self.loss.soft_cap is not None:  # d tanh
            share = latents / self.loss.soft_cap
            grad.mul_((1 - share) * (1 + share))
        if self.loss.sparsity_coefficient:
            grad.add_(self.loss.sparsity_coefficient / self.rows / norms)
        torch.ops.aten.threshold_backward.grad_input(grad, code, 0, grad_input=grad)  # of relu
        self.grad_latent_bias.add_(grad.sum(0))
        self._add_product_(self.grad_encoder, x_factor.T, self._factor("gradient", grad))

    def _encode(self, chunk: slice, x_factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the code of a chunk before and after the cap."""
        like = self.u[chunk]
        kept = _scratch("latents", like, self.n) if self.latents is None else self.latents[chunk]
        capped = self.loss.soft_cap is not None
        code = _scratch("code", kept) if capped else kept
        self._product(x_factor, self.encoder_factor, out=code).add_(self.latent_bias).relu_()
        return code, kept.copy_(soft_capped(code, self.loss.soft_cap)) if capped else code

    def _sort_levels(self) -> tuple[list[int], ...]:
        """Return the levels to divide into rings, those that lack few entries, those in between, and the full ones.

        The last one is full unless all are divided into rings.
        """
        few = max(1.0, self.n * self.entries.sparse_share)
        most, mean = self.active.max(), self.active.mean()
        sparse, short, dense, complete = [], [], [], []
        before = 0
        for level, k in enumerate(self.loss.ks):
            if len(sparse) == level and min(k, mean) - before <= few:
                sparse.append(level)
            elif k >= most:
                complete.append(level)
            elif mean - k <= few:
                short.append(level)
            else:
                dense.append(level)
            before = k
        return sparse, short, dense, complete

    def _factor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor as dense products take it, until the name is taken again."""
        if self.product_dtype is None:
            return tensor
        return WORKSPACE.take(f"{name}_factor", *tensor.shape, dtype=self.product_dtype).copy_(tensor)

    def _product(self, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Write the product of two factors to `out`."""
        if self.product_dtype is None:
            return torch.mm(left, right, out=out)
        low = WORKSPACE.take("product", len(left), right.shape[1], dtype=self.product_dtype)
        return out.copy_(torch.mm(left, right, out=low))

    def _add_product_(self, out: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
        if self.product_dtype is None:
            out.addmm_(left, right)
        else:
            out.add_(self._product(left, right, out=_scratch("product", out)))

    # -- the kinds of levels ---------------------------------------------------------------------------------------

    def _sparse_levels(self, levels, x, u, grad, full=None) -> None:
        """Add levels divided into rings, and write the reconstruction of the last one to `full`."""
        rings = self.entries.rings([0, *(self.loss.ks[level] for level in levels)])
        decoded = rings.decode()
        if full is not None:
            full.copy_(decoded[-1])
        gradients = self._levels(levels, x, u, decoded)
        if self.with_gradients:
            # An entry is in its own level and all larger ones: suffix sums.
            for place in reversed(range(len(levels) - 1)):
                gradients[place] += gradients[place + 1]
            rings.add_gradients_(gradients, grad, self.grad_dictionary)

    def _nearly_full_levels(self, complete, short, x, u, kept, grad, full) -> None:
        """Add levels that lack few entries of `kept`, or none, and write their gradient; decode it to `full`."""
        factor = self._factor("latents", kept)
        self._product(factor, self.dictionary_factor, out=full)
        full_gradient = self._levels(complete[:1], x, u, full[None].clone())[0]
        for level in complete[1:]:
            full_gradient += self._levels([level], x, u, full[None].clone())[0]
        lacking = []
        for level in short:
            missing = self.entries.rings([self.loss.ks[level], self.loss.ks[-1]])
            gradient = self._levels([level], x, u, full - missing.decode())
            full_gradient += gradient[0]
            lacking.append((missing, -gradient))
        if grad is None:
            return
        gradient_factor = self._factor("full_gradient", full_gradient)
        self._product(gradient_factor, self.dictionary_factor.T, out=grad)
        self._add_product_(self.grad_dictionary, factor.T, gradient_factor)
        for missing, gradient in lacking:
            missing.add_gradients_(gradient, grad, self.grad_dictionary)

    def _dense_level(self, level, x, u, code, grad) -> None:
        chosen = self.entries.top(self.loss.ks[level], out=_scratch("chosen", code))
        factor = self._factor("chosen", chosen)
        decoded = self._product(factor, self.dictionary_factor, out=_scratch("level", x))
        gradient = self._levels([level], x, u, decoded[None])[0]
        if not self.with_gradients:
            return
        gradient = self._factor("level", gradient)
        self._add_product_(self.grad_dictionary, factor.T, gradient)
        products = self._product(gradient, self.dictionary_factor.T, out=_scratch("unmasked", code))
        grad.addcmul_(products, torch.ne(chosen, 0, out=chosen))

    def _levels(self, levels: list[int], x, u, decoded: torch.Tensor) -> torch.Tensor:
        """Add the losses of levels, and return the gradient of the loss by the decoded codes `(levels, rows, d)`.

        The gradient may overwrite `decoded`, and has no meaning in a pass without gradients.
        """
        kind, shares = self.loss.kind, self.shares[levels][:, None, None]
        if kind == "cosine":
            losses, gradient = _cosine(decoded + self.pre_bias, u)
            gradient *= shares / self.rows
            losses = losses / self.rows
        else:
            residual = decoded.sub_(x)
            if kind == "mse":
                factor = torch.full_like(u[:, :1], 1 / (self.rows * x.shape[1]))
            else:
                factor = u.square().sum(-1, keepdim=True).clamp_min(NMSE_EPSILON).mul(self.rows).reciprocal()
            losses = torch.linalg.vecdot(residual, residual)[..., None] * factor
            gradient = residual.mul_(factor * (2 * shares))
        self.level_losses[levels] += losses.sum((1, 2), dtype=torch.float64)
        if self.with_gradients:
            self.grad_pre_bias.add_(gradient.sum((0, 1)))
        return gradient


def _scratch(name: str, like: torch.Tensor, columns: int | None = None) -> torch.Tensor:
    return WORKSPACE.take(name, len(like), columns or like.shape[1], dtype=like.dtype)


def _cosine(decoded: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return 1 - cosine of every row `(rows, 1)`, and its gradient by `decoded`."""
    squared = decoded.square().sum(-1, keepdim=True)
    norm = squared.clamp_min(NMSE_EPSILON).sqrt()
    other = u.square().sum(-1, keepdim=True).clamp_min(NMSE_EPSILON).sqrt()
    similarity = (decoded * u).sum(-1, keepdim=True) / (norm * other)
    radial = decoded * (similarity / norm.square()) * (squared > NMSE_EPSILON)
    return 1 - similarity, radial - u / (norm * other)
