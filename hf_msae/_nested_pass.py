"""One pass over a batch that gives the nested loss and all of its gradients; see `fused_nested_loss`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from ._row_sorter import RowSorter
from ._sparse_rows import SparseRows, column_slices
from .nested_topk import NMSE_EPSILON, soft_capped

_SPARSE_SHARE = 1 / 9
"""A ring with fewer entries than this share of the latents is faster decoded entry by entry: benchmarks/RESULTS.md."""

_CHUNK_ELEMENTS = 2**21
"""Size of the scratch matrices: 8 MB in float32."""

_CACHE_ELEMENTS = 2**19
"""What is looked up again and again in random order: 2 MB in float32."""


@dataclass(frozen=True)
class NestedLoss:
    """What the loss of an MSAE is made of: the fields of its config, `weights` as numbers."""

    ks: tuple[int, ...]
    weights: tuple[float, ...]
    kind: str
    soft_cap: float | None = None
    sparsity_coefficient: float = 0.0


class NestedPass:
    """One pass over a batch. Everything is detached here."""

    def __init__(self, loss, with_gradients, normalised, pre_bias, encoder, latent_bias, decoder=None):
        self.loss, self.with_gradients = loss, with_gradients
        self.u, self.pre_bias, self.encoder, self.latent_bias = normalised, pre_bias, encoder, latent_bias
        self.tied = decoder is None
        self.dictionary = encoder.T.contiguous() if self.tied else decoder.contiguous()
        self.rows, self.n = len(normalised), encoder.shape[1]
        self.shares = [weight / sum(loss.weights) for weight in loss.weights]
        self.slices: list[torch.Tensor] | None = None  # made when needed
        self.level_losses = torch.zeros(len(loss.ks), dtype=torch.float64)
        self.l1 = 0.0
        if with_gradients:
            self.grad_encoder = torch.zeros_like(encoder)
            self.grad_dictionary = torch.zeros_like(self.dictionary)
            self.grad_latent_bias = torch.zeros_like(latent_bias)
            self.grad_pre_bias = torch.zeros_like(pre_bias)

    def run(self) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.u - self.pre_bias
        code = torch.addmm(self.latent_bias, x, self.encoder).relu_()
        self.latents = code if self.loss.soft_cap is None else soft_capped(code, self.loss.soft_cap)
        self.reconstruction = self.latents @ self.dictionary
        step = min(self.rows, max(1, _CHUNK_ELEMENTS // self.n))
        self.scratch = [torch.empty(step, self.n, dtype=code.dtype) for _ in range(3 if self.with_gradients else 1)]
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as self.threads:
            self.sorter = RowSorter(step, self.n, code.dtype, self.threads, threads)
            for start in range(0, self.rows, step):
                chunk = slice(start, start + step)
                self._chunk(x[chunk], self.u[chunk], code[chunk], self.latents[chunk], self.reconstruction[chunk])
        del self.scratch, self.sorter, self.threads
        self.reconstruction += self.pre_bias
        level_losses = self.level_losses.to(self.u.dtype)
        value = sum(share * level for share, level in zip(self.shares, self.level_losses, strict=True))
        value = value + self.loss.sparsity_coefficient * self.l1
        return torch.as_tensor(value, dtype=self.u.dtype), level_losses

    def gradients(self) -> tuple[torch.Tensor, ...]:
        """Of the parameters, in their order."""
        # What the bias before the encoder takes away: the gradient of its input, summed over rows.
        pre_bias = self.grad_pre_bias.sub_(self.encoder @ self.grad_latent_bias)
        if self.tied:
            return pre_bias, self.grad_encoder.add_(self.grad_dictionary.T), self.grad_latent_bias
        return pre_bias, self.grad_encoder, self.grad_latent_bias, self.grad_dictionary

    def _chunk(self, x, u, code, latents, full) -> None:
        ranking = self.sorter(code)
        self.scratch_rows = [each[: len(x)] for each in self.scratch]
        grad = self.scratch_rows[0].zero_() if self.with_gradients else None
        sparse, short, dense, complete = self._sort_levels(code)

        if sparse:
            self._sparse_levels(sparse, x, u, latents, ranking, grad)
        full_gradient = None
        for level in complete:
            full_gradient = _plus(full_gradient, self._level(level, x, u, full))
        for level in short:
            full_gradient = _plus(full_gradient, self._short_level(level, x, u, latents, full, ranking, grad))
        for level in dense:
            self._dense_level(level, x, u, code, latents, ranking, grad)
        if self.loss.sparsity_coefficient:
            norms = u.square().sum(-1, keepdim=True).clamp_min(NMSE_EPSILON).sqrt()
            self.l1 += float((code.sum(-1, keepdim=True) / norms).sum(dtype=torch.float64)) / self.rows
        if not self.with_gradients:
            return

        if full_gradient is not None:
            grad.addmm_(full_gradient, self.dictionary.T)
            self.grad_dictionary.addmm_(latents.T, full_gradient)
        if self.loss.soft_cap is not None:  # d tanh
            grad.mul_(1 - (latents / self.loss.soft_cap).square())
        if self.loss.sparsity_coefficient:
            grad.add_(self.loss.sparsity_coefficient / self.rows / norms)
        grad.mul_(torch.gt(code, 0, out=self.scratch_rows[1]))
        self.grad_latent_bias.add_(grad.sum(0))
        self.grad_encoder.addmm_(x.T, grad)

    def _sort_levels(self, code: torch.Tensor) -> tuple[list[int], ...]:
        """The levels to take apart into rings, those short of but few entries, those in between, and the full ones."""
        few = max(1.0, self.n * _SPARSE_SHARE)
        ks = self.loss.ks
        self.active = np.count_nonzero(code.numpy(), axis=1)
        most, mean = self.active.max(), self.active.mean()
        sparse, short, dense, complete = [], [], [], []
        for level, k in enumerate(ks):
            before = ks[level - 1] if level else 0
            if k >= most:
                complete.append(level)
            elif len(sparse) == level and k - before <= few:
                sparse.append(level)
            elif mean - k <= few:
                short.append(level)
            else:
                dense.append(level)
        return sparse, short, dense, complete

    # -- the kinds of levels ---------------------------------------------------------------------------------------

    def _sparse_levels(self, levels, x, u, latents, ranking, grad) -> None:
        borders = [0, *(self.loss.ks[level] for level in levels)]
        # So few rows that a row of d numbers for each level and embedding fits in a core's cache.
        few = max(1, _CACHE_ELEMENTS // (len(levels) * x.shape[1]))
        parts = [slice(start, start + few) for start in range(0, len(x), few)]

        def rings_of(part: slice) -> SparseRows:
            columns, dense = ranking.columns(part, 0, borders[-1]), latents[part]
            rings = np.concatenate([columns[:, begin:end].ravel() for begin, end in pairwise(borders)])
            number = len(levels) * len(dense)
            sizes = np.repeat(np.diff(borders), len(dense))
            return SparseRows(np.repeat(np.arange(number, dtype=np.int32), sizes), rings, number, dense)

        # All of them before the first is used: torch's own threads would wait for ours.
        for part, rings in zip(parts, list(self.threads.map(rings_of, parts)), strict=True):
            decoded = rings.decode(self._slices()).view(len(levels), -1, x.shape[1])
            gradients = []
            for place, level in enumerate(levels):
                if place:
                    decoded[place] += decoded[place - 1]
                gradients.append(self._level(level, x[part], u[part], decoded[place]))
            if not self.with_gradients:
                continue
            # An entry counts in its own level and all above: suffix sums.
            for place in reversed(range(len(levels) - 1)):
                gradients[place] += gradients[place + 1]
            suffix_sums = torch.cat(gradients)
            rings.add_products_(grad[part], suffix_sums, self.dictionary)
            rings.add_outer_(self.grad_dictionary, suffix_sums)

    def _short_level(self, level, x, u, latents, full, ranking, grad) -> torch.Tensor | None:
        k = self.loss.ks[level]
        columns = ranking.columns(slice(0, len(x)), k, int(self.active.max()))
        rows, places = np.nonzero(np.arange(k, k + columns.shape[1]) < self.active[:, None])
        missing = SparseRows(rows.astype(np.int32), columns[rows, places], len(x), latents)
        gradient = self._level(level, x, u, full - missing.decode(self._slices()))
        if self.with_gradients:
            missing.add_products_(grad, -gradient, self.dictionary)
            missing.add_outer_(self.grad_dictionary, -gradient)
        return gradient

    def _dense_level(self, level, x, u, code, latents, ranking, grad) -> None:
        kept, *rest = self.scratch_rows[::-1]
        k = self.loss.ks[level]
        last, following = ranking.values([k - 1, k]).unbind(1)
        torch.gt(code, following[:, None], out=kept)
        tied = ((last == following) & (last > 0)).nonzero()[:, 0]
        if len(tied):
            columns = torch.from_numpy(ranking.columns(tied.numpy(), 0, k).astype(np.int64))
            kept[tied] = torch.zeros_like(kept[tied]).scatter(1, columns, 1.0)
        if not self.with_gradients:
            self._level(level, x, u, kept.mul_(latents) @ self.dictionary)
            return
        chosen = torch.mul(latents, kept, out=rest[0])
        gradient = self._level(level, x, u, chosen @ self.dictionary)
        self.grad_dictionary.addmm_(chosen.T, gradient)
        grad.addcmul_(torch.mm(gradient, self.dictionary.T, out=chosen), kept)

    def _level(self, level: int, x: torch.Tensor, u: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor | None:
        """Adds a level's loss; returns the gradient of the whole loss by what the level decodes to, `(rows, d)`."""
        share, kind = self.shares[level], self.loss.kind
        if kind == "cosine":
            losses, gradient = _cosine(decoded + self.pre_bias, u)
            gradient.mul_(share / self.rows)
            self.level_losses[level] += float(losses.sum(dtype=torch.float64)) / self.rows
        else:
            residual = x - decoded
            per_row = residual.square().sum(-1, keepdim=True)
            if kind == "mse":
                factor = torch.full_like(per_row, 1 / (self.rows * x.shape[1]))
            else:
                factor = u.square().sum(-1, keepdim=True).clamp_min(NMSE_EPSILON).mul(self.rows).reciprocal()
            self.level_losses[level] += float((per_row * factor).sum(dtype=torch.float64))
            gradient = residual.mul_(factor * (-2 * share))
        if not self.with_gradients:
            return None
        self.grad_pre_bias.add_(gradient.sum(0))
        return gradient

    def _slices(self) -> list[torch.Tensor]:
        if self.slices is None:
            self.slices = column_slices(self.dictionary)
        return self.slices


def _plus(left: torch.Tensor | None, right: torch.Tensor | None) -> torch.Tensor | None:
    return left if right is None else right if left is None else left.add_(right)


def _cosine(decoded: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """1 - cosine of every row, `(rows, 1)`, and its gradient by `decoded`."""
    squared = decoded.square().sum(-1, keepdim=True)
    norm = squared.clamp_min(NMSE_EPSILON).sqrt()
    other = u.square().sum(-1, keepdim=True).clamp_min(NMSE_EPSILON).sqrt()
    similarity = (decoded * u).sum(-1, keepdim=True) / (norm * other)
    radial = decoded * (similarity / norm.square()) * (squared > NMSE_EPSILON)
    return 1 - similarity, radial - u / (norm * other)
