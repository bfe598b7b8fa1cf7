"""MSAEModel: a Matryoshka sparse autoencoder as a transformers model. Raw embeddings in, raw embeddings out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import embedding_bag
from transformers.utils import ModelOutput

from .auxiliary_loss import auxiliary_loss
from .checks import check_entries, check_k, check_tensor
from .fused_nested_loss import NestedLoss, can_fuse, fused_nested_loss
from .nested_prefix import draw_prefixes, prefix_reconstructions
from .nested_topk import nested_codes, nested_loss, top_activations
from .parameters import MSAEParameters
from .products import product

_CHUNK_ELEMENTS = 2**24
"""Entries of the dense code that `encode_topk` computes at a time: 64 MB in float32."""
_LOOKUP_COST = 12
"""Looking up a row of the dictionary takes as long as this many rows of a dense product (measured on a CPU)."""


@dataclass
class MSAEOutput(ModelOutput):
    """Output of [`MSAEModel`].

    Args:
        loss: Weighted mean of the reconstruction losses of the levels, plus the sparsity penalty, in normalized space;
            with `return_loss=True`.
        reconstruction: Raw embeddings decoded from `latents`, (..., d_in).
        latents: Code for the requested k, (..., num_latents).
        nested_reconstructions: Raw reconstruction `(..., d_in)` of every level; with `output_nested=True`.
        nested_losses: Reconstruction loss of every level, not weighted, in normalized space, (L,); with
            `return_loss=True` or `output_nested=True`.
        auxiliary_loss: Error with which dead latents decode the residual, with `return_loss=True` and `dead_latents`;
            not part of `loss`.
    """

    loss: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    nested_reconstructions: tuple[torch.Tensor, ...] | None = None
    nested_losses: torch.Tensor | None = None
    auxiliary_loss: torch.Tensor | None = None


class MSAEModel(MSAEParameters):
    r"""A Matryoshka sparse autoencoder over embeddings of a vision-language model (arXiv 2502.20578).

    A raw embedding x is normalized to u = (x - input_mean) * input_scale and encoded to a = relu((u - pre_bias) @
    encoder + latent_bias). The code z_l of level l keeps the k_l largest entries of a. The reconstruction of the level
    is z_l @ decoder + pre_bias, converted back to raw space.

    Parameters: pre_bias (d,), encoder (d, n), latent_bias (n,), and decoder (n, d) unless tied. Buffers:
    input_mean (d,), input_scale (). Activation families may add their own.

    All methods accept any leading batch shape, including (d,) and (0, d). Products with the encoder and decoder are
    computed in the parameters' dtype or that of autocast (in float32 if the processor is slow in it), and everything
    else in float32, or in float64 if the embeddings or parameters are. Results have the dtype that embeddings and
    parameters promote to. Buffers stay in float32 if a model is loaded in or converted to half precision.

    Args:
        config: Sizes, levels and loss. A new model has random unit rows in its dictionary, the transpose as its
            encoder (scaled by 2 d_in / num_latents if that is below 1) and zero biases. It does not normalize
            embeddings until [`~MSAEModel.set_input_statistics`] is called.
    """

    base_model_prefix = "msae"
    main_input_name = "embeddings"
    input_modalities = ("image", "text")
    _no_split_modules = ("MSAEModel",)

    def get_input_embeddings(self) -> None:
        """Return None, since there are no tokens; Accelerate calls this before it shards a model."""

    def extra_repr(self) -> str:
        """Describe sizes, levels and backbone in one line."""
        config = self.config
        family = "" if config.activation == "relu" else f"{config.activation} {config.k or ''}".rstrip()
        levels = f"widths={config.nesting_widths}" if config.nesting == "prefix" else f"k={config.nesting_ks}"
        levels = f"{config.num_levels} level{'s' if config.num_levels > 1 else ''}: {levels}"
        sizes = f"d_in={config.d_in}, num_latents={config.num_latents}"
        return ", ".join(filter(None, (sizes, family, levels, config.base_model_name_or_path, config.hook_point)))

    def encode(self, embeddings: torch.Tensor, k: int | None = None) -> torch.Tensor:
        """Encode raw embeddings as sparse codes.

        Args:
            embeddings: Raw embeddings, floating point, (..., d_in).
            k: Number of activations to keep. Defaults to config.k, or else the k of the largest level.

        Returns:
            `torch.Tensor` of shape `(..., num_latents)`: codes of non-negative entries, at most k of them positive.

        Raises:
            TypeError: The embeddings are not floating point, or k is not an integer.
            ValueError: The embeddings have another width or hold NaN or infinite values, or k is out of range.
        """
        k = self._resolve_k(k)
        check_tensor(embeddings, "embeddings", self.config)
        code = nested_codes(self.full_code(embeddings), [k], self.config.soft_cap)[0]
        return code.to(torch.promote_types(embeddings.dtype, self.encoder.dtype))

    def encode_topk(self, embeddings: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode raw embeddings as [`~MSAEModel.encode`] does, and return the codes in sparse form.

        Without gradients, the dense code of only one chunk of rows is in memory.

        Args:
            embeddings: Raw embeddings, floating point, (..., d_in).
            k: How many activations to return, 1 to num_latents.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: values and int64 indices of the k largest activations, both
            `(..., k)`, largest first, ties by ascending index. Values beyond the positive activations are 0.

        Raises:
            TypeError, ValueError: As [`~MSAEModel.encode`].
        """
        k = check_k(k, self.config)
        check_tensor(embeddings, "embeddings", self.config)
        dtype = torch.promote_types(embeddings.dtype, self.encoder.dtype)
        values, indices = [], []
        rows = max(1, _CHUNK_ELEMENTS // self.config.num_latents)
        for chunk in embeddings.reshape(-1, self.config.d_in).split(rows):
            found, where = top_activations(self.full_code(chunk), k, self.config.soft_cap)
            values.append(found.to(dtype))
            indices.append(where)
        shape = (*embeddings.shape[:-1], k)
        return torch.cat(values).reshape(shape), torch.cat(indices).reshape(shape)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode codes `(..., num_latents)`, edited or not, to raw embeddings `(..., d_in)`.

        Raises:
            TypeError: The latents are not floating point.
            ValueError: The latents have another width or hold NaN or infinite values.
        """
        check_tensor(latents, "latents", self.config)
        dtype = torch.promote_types(latents.dtype, self.encoder.dtype)
        return self.denormalize(self._reconstruct(latents, self._statistics_dtype(latents))).to(dtype)

    def decode_topk(self, values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Decode codes in the sparse form that [`~MSAEModel.encode_topk`] returns, as `decode` does their dense form.

        Args:
            values: Activations, edited or not, (..., k).
            indices: The latent of each, int64, (..., k). Activations of the same latent add up.

        Returns:
            `torch.Tensor` of shape `(..., d_in)`: raw embeddings.

        Raises:
            TypeError: The values are not floating point.
            ValueError: The shapes differ, a latent is out of range, or a value is NaN or infinite.
        """
        check_entries(values, indices, self.config.num_latents)
        n, k = self.config.num_latents, values.shape[-1]
        if k > n / _LOOKUP_COST:
            return self.decode(values.new_zeros(*values.shape[:-1], n).scatter_add(-1, indices, values))
        dtype, wide = torch.promote_types(values.dtype, self.encoder.dtype), self._statistics_dtype(values)
        weights = values.reshape(-1, k).to(self.encoder.dtype)
        sums = embedding_bag(indices.reshape(-1, k), self.dictionary, per_sample_weights=weights, mode="sum")
        decoded = self.denormalize(sums.to(wide) + self.pre_bias.to(wide)).to(dtype)
        return decoded.reshape(*values.shape[:-1], self.config.d_in)

    def forward(
        self,
        embeddings: torch.Tensor,
        k: int | None = None,
        return_loss: bool = False,
        output_nested: bool = False,
        return_dict: bool | None = None,
        loss_only: bool = False,
        dead_latents: torch.Tensor | None = None,
        auxiliary_k: int = 256,
    ) -> MSAEOutput | tuple:
        """Encode and decode raw embeddings, and measure the reconstruction at every level.

        Args:
            embeddings: Raw embeddings, floating point, (..., d_in).
            k: Number of activations in `latents` and `reconstruction`; the loss and the levels do not depend on it.
                Defaults to config.k, or else the k of the largest level.
            return_loss: Whether to compute the training loss.
            output_nested: Whether to return the reconstruction of every level.
            return_dict: Whether to return an [`MSAEOutput`] or a tuple of its entries that are not None. Defaults to
                config.return_dict.
            loss_only: Whether to leave out `reconstruction` and `latents`, which training does not need, with
                return_loss.
            dead_latents: Latents to compute `auxiliary_loss` of, with return_loss, bool (num_latents,).
            auxiliary_k: How many dead latents may decode an embedding.

        Returns:
            [`MSAEOutput`] or `tuple`.

        Raises:
            TypeError, ValueError: As [`~MSAEModel.encode`], or there are no embeddings to compute a loss of. In
                training mode, a loss does not check embeddings for NaN and infinite values.
        """
        k = self._resolve_k(k)
        # Checking whether a batch is finite would stall a GPU at every training step. The trainer checks the losses.
        check_tensor(embeddings, "embeddings", self.config, finite=not (self.training and return_loss))
        dtype = torch.promote_types(embeddings.dtype, self.encoder.dtype)
        if return_loss and embeddings.numel() == 0:
            raise ValueError(f"a loss needs at least one embedding, got shape {tuple(embeddings.shape)}")

        normalized = self.normalize(embeddings)
        loss_only = loss_only and return_loss and not output_nested
        fused_ks = self.family.fused_levels(self.config, k, loss_only) if return_loss and not output_nested else None
        levels = None
        if fused_ks is not None and can_fuse(normalized, *self.parameters()):
            without_code = loss_only and dead_latents is None
            loss, level_losses, code, decoded = self._fused_forward(normalized, fused_ks, without_code)
        else:
            if loss_only:
                k = self.config.nesting_ks[-1]  # one of the levels: no other code is needed
            loss, level_losses, code, decoded, levels = self._eager_forward(normalized, k, return_loss, output_nested)
        output = MSAEOutput(
            loss=loss,
            reconstruction=None if loss_only else self.denormalize(decoded).to(dtype),
            latents=None if loss_only else code.to(dtype),
            nested_reconstructions=tuple(self.denormalize(level).to(dtype) for level in levels) if levels else None,
            nested_losses=level_losses,
        )
        if return_loss and dead_latents is not None:
            output.auxiliary_loss = auxiliary_loss(self, normalized, decoded, dead_latents, auxiliary_k)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()

    def _eager_forward(self, normalized: torch.Tensor, k: int, return_loss: bool, output_nested: bool) -> tuple:
        """Return loss, losses of levels, code for k, its reconstruction, and reconstructions of levels."""
        config, family, wide = self.config, self.family, normalized.dtype
        pre_activations = self._pre_activations(normalized)
        activations = family.code(self, pre_activations, in_training=self.training and return_loss)
        needs_levels = return_loss or output_nested
        ks = list(dict.fromkeys([k, *config.nesting_ks] if needs_levels else [k]))
        codes = dict(zip(ks, nested_codes(activations, ks, config.soft_cap), strict=True))
        # Levels that drop nothing share one code, which is decoded once.
        distinct = {id(code): code for code in codes.values()}
        decoded = {key: self._reconstruct(code, wide) for key, code in distinct.items()}
        code, reconstruction = codes[k], decoded[id(codes[k])]
        if not needs_levels:
            return None, None, code, reconstruction, None

        levels, weights = [decoded[id(codes[level_k])] for level_k in config.nesting_ks], config.level_weights
        if config.nesting == "prefix":
            widths = config.nesting_widths
            if config.random_prefixes and self.training:
                widths = draw_prefixes(config.random_prefixes, config.num_latents)
                weights = [1.0] * len(widths)
            levels = prefix_reconstructions(codes[config.num_latents], widths, self.dictionary, self.pre_bias, wide)
        loss, level_losses = nested_loss(levels, normalized, weights, config.reconstruction_loss)
        if config.sparsity_coefficient:
            penalty = family.penalty(self, pre_activations, activations, normalized)
            loss = loss + config.sparsity_coefficient * penalty
        return loss if return_loss else None, level_losses, code, reconstruction, levels if output_nested else None

    def _fused_forward(
        self, normalized: torch.Tensor, ks: list[int], loss_only: bool
    ) -> tuple[torch.Tensor | None, ...]:
        """Return loss, losses of levels, and the full code and its reconstruction or None, computed in one pass."""
        config = self.config
        kind, cap, coefficient = config.reconstruction_loss, config.soft_cap, config.sparsity_coefficient
        terms = NestedLoss(tuple(ks), tuple(config.level_weights), kind, cap, coefficient)
        rows = normalized.reshape(-1, config.d_in)
        parameters = (self.pre_bias, self.encoder, self.latent_bias, self.decoder)
        loss, level_losses, code, decoded = fused_nested_loss(terms, rows, *parameters, loss_only=loss_only)
        if loss_only:
            return loss, level_losses, None, None
        return loss, level_losses, code.reshape(*normalized.shape[:-1], -1), decoded.reshape(normalized.shape)

    def _pre_activations(self, normalized: torch.Tensor) -> torch.Tensor:
        centered = normalized - self.pre_bias.to(normalized.dtype)
        return product(centered.to(self.encoder.dtype), self.encoder) + self.latent_bias

    def full_code(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the activations of raw embeddings before selection and cap, without checks."""
        return self.family.code(self, self._pre_activations(self.normalize(embeddings)))

    def _reconstruct(self, code: torch.Tensor, wide: torch.dtype) -> torch.Tensor:
        """Decode to normalized space in float32 or float64, as `wide` says."""
        return product(code.to(self.encoder.dtype), self.dictionary).to(wide) + self.pre_bias.to(wide)

    def _resolve_k(self, k: int | None) -> int:
        return self.family.default_k(self.config) if k is None else check_k(k, self.config)
