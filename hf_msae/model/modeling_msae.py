"""MSAEModel: a Matryoshka sparse autoencoder as a transformers model. Raw embeddings in, raw embeddings out."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from .activation_functions import (
    batch_top_threshold,
    draw_prefixes,
    jump_relu,
    l0_penalty,
    number_of_rows,
    tanh_penalty,
)
from .auxiliary_loss import auxiliary_loss
from .configuration_msae import MSAEConfig
from .fused_nested_loss import NestedLoss, can_fuse, fused_nested_loss
from .loading import PreTrainedMSAE
from .nested_topk import l1_penalty, nested_codes, nested_loss, top_activations

_CHUNK_ELEMENTS = 2**24
"""Size of the dense code that `encode_topk` makes at a time: 64 MB in float32."""

_STATISTICS = ("input_mean", "input_scale", "activation_threshold")

_THRESHOLD_MOMENTUM = 0.99
"""Of the running mean of the threshold of "batch_topk"."""


@dataclass
class MSAEOutput(ModelOutput):
    """What [`MSAEModel`] returns.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*, with `return_loss=True`):
            Weighted mean of the levels' reconstruction losses, plus the L1 term. In normalised space.
        reconstruction (`torch.Tensor` of shape `(..., d_in)`):
            The embeddings as decoded from `latents`, raw.
        latents (`torch.Tensor` of shape `(..., num_latents)`):
            The code for the k asked for.
        nested_reconstructions (`tuple[torch.Tensor, ...]`, *optional*, with `output_nested=True`):
            The reconstruction of every level, each `(..., d_in)`, raw.
        nested_losses (`torch.Tensor` of shape `(L,)`, *optional*, with `return_loss=True` or `output_nested=True`):
            The reconstruction loss of every level, unweighted. In normalised space.
        auxiliary_loss (`torch.Tensor` of shape `()`, *optional*, with `return_loss=True` and `dead_latents`):
            How badly dead latents alone decode to what the reconstruction misses. Not part of `loss`.
    """

    loss: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    nested_reconstructions: tuple[torch.Tensor, ...] | None = None
    nested_losses: torch.Tensor | None = None
    auxiliary_loss: torch.Tensor | None = None


class MSAEModel(PreTrainedMSAE):
    r"""A Matryoshka sparse autoencoder over embeddings of a vision-language model (arXiv 2502.20578).

    A raw embedding x is normalised to u = (x - input_mean) * input_scale and encoded to a = relu((u - pre_bias) @
    encoder + latent_bias). The code of level l keeps the k_l largest entries z_l of a, and z_l @ decoder + pre_bias,
    brought back to raw space, is that level's reconstruction.

    Parameters: pre_bias (d,), encoder (d, n), latent_bias (n,), decoder (n, d); a tied model has no decoder and uses
    encoder.T; with activation="jump_relu", log_threshold (n,). Buffers: input_mean (d,), input_scale (); with
    activation="batch_topk", activation_threshold ().

    All methods take any leading batch shape, (d,) and (0, d) included. Normalisation, reconstruction and losses are
    computed in float32 (float64 if the embeddings or parameters are), the products with encoder and decoder in the
    parameters' dtype, or autocast's; results have the dtype that embeddings and parameters promote to. The buffers
    stay in float32 when a model is loaded in, or converted to, float16 or bfloat16.

    Args:
        config ([`MSAEConfig`]):
            Sizes, levels and loss. A new model has random unit rows in its dictionary, the transpose as its encoder
            (scaled by 2 d_in / num_latents where that is below 1), zero biases, and does not normalise until
            [`~MSAEModel.set_input_statistics`] says how.
    """

    config_class = MSAEConfig
    config: MSAEConfig
    base_model_prefix = "msae"
    main_input_name = "embeddings"
    input_modalities = ("image", "text")
    _no_split_modules = ("MSAEModel",)
    _keep_in_fp32_modules_strict = _STATISTICS

    def __init__(self, config: MSAEConfig, **unknown: Any):
        if unknown:  # what from_pretrained was given and neither it nor the config knows
            raise _unused_arguments_error(unknown)
        super().__init__(config)
        config.validate()
        d, n = config.d_in, config.num_latents
        self.pre_bias = nn.Parameter(torch.empty(d))
        self.encoder = nn.Parameter(torch.empty(d, n))
        self.latent_bias = nn.Parameter(torch.empty(n))
        self.register_parameter("decoder", None if config.tied else nn.Parameter(torch.empty(n, d)))
        # from_pretrained(dtype=...) sets the default dtype around this; the statistics follow it up but not down.
        statistics_dtype = torch.promote_types(torch.float32, torch.get_default_dtype())
        if config.activation == "jump_relu":
            self.log_threshold = nn.Parameter(torch.empty(n))
        self.register_buffer("input_mean", torch.empty(d, dtype=statistics_dtype))
        self.register_buffer("input_scale", torch.empty((), dtype=statistics_dtype))
        if config.activation == "batch_topk":
            self.register_buffer("activation_threshold", torch.empty((), dtype=statistics_dtype))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is not self:
            return
        init.zeros_(self.pre_bias)
        init.zeros_(self.latent_bias)
        if self.config.activation == "jump_relu":
            init.constant_(self.log_threshold, math.log(self.config.jump_relu_threshold))
        if self.config.activation == "batch_topk":
            init.zeros_(self.activation_threshold)
        init.zeros_(self.input_mean)
        init.ones_(self.input_scale)
        if self.decoder is None:
            init.normal_(self.encoder)
            init.copy_(self.encoder, F.normalize(self.encoder, dim=0))
        else:
            init.normal_(self.decoder)
            init.copy_(self.decoder, F.normalize(self.decoder, dim=1))
            # The full code of n random directions decodes to about n / 2d times the embedding: start where it is once.
            init.copy_(self.encoder, self.decoder.T * min(1.0, 2 * self.config.d_in / self.config.num_latents))

    def _apply(self, fn, recurse=True):
        # `model.half()` and `.bfloat16()` would round the statistics; undo that but keep the move to a device.
        before = {name: self._buffers[name] for name in _STATISTICS if name in self._buffers}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            if self._buffers[name].dtype in (torch.float16, torch.bfloat16):
                self._buffers[name] = buffer.to(self._buffers[name].device)
        return self

    def get_input_embeddings(self) -> None:
        """None: there are no tokens. (Accelerate asks before it shards a model.)"""

    def extra_repr(self) -> str:
        config = self.config
        of_levels = f"widths={config.nesting_widths}" if config.nesting == "prefix" else f"k={config.nesting_ks}"
        levels = f"{config.num_levels} level{'s' if config.num_levels > 1 else ''}: {of_levels}"
        if config.activation != "relu":
            levels = f"{config.activation}{'' if config.k is None else f' {config.k}'}, {levels}"
        source = f"{config.base_model_name_or_path}, " if config.base_model_name_or_path else ""
        return f"d_in={config.d_in}, num_latents={config.num_latents}, {levels}, {source}{config.hook_point}"

    @property
    def dictionary(self) -> torch.Tensor:
        """The direction of every latent in normalised space, (n, d): the decoder, or encoder.T if tied."""
        return self.encoder.T if self.decoder is None else self.decoder

    # -- encoding and decoding -----------------------------------------------------------------------------------

    def encode(self, embeddings: torch.Tensor, k: int | None = None) -> torch.Tensor:
        """The sparse code of raw embeddings.

        Args:
            embeddings (`torch.Tensor` of shape `(..., d_in)`):
                Raw embeddings, floating point.
            k (`int`, *optional*):
                How many activations each code keeps at most. Default: config.k, or else the k of the largest level.

        Returns:
            `torch.Tensor` of shape `(..., num_latents)`: non-negative, at most k entries above 0.

        Raises:
            TypeError: embeddings that are not floating point, or a k that is not an integer.
            ValueError: embeddings of another width or with NaN or infinite values, or a k out of range.
        """
        k = self._resolve_k(k)
        dtype = self._check(embeddings, self.config.d_in, "embeddings")
        activations = self._activations(self._pre_activations(self._normalise(embeddings)))
        return nested_codes(activations, [k], self.config.soft_cap)[0].to(dtype)

    def encode_topk(self, embeddings: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same code as [`~MSAEModel.encode`], sparse: what to store for a large data set.

        Rows are worked through in chunks, so that without gradients no more than one chunk of dense code exists.

        Args:
            embeddings (`torch.Tensor` of shape `(..., d_in)`):
                Raw embeddings, floating point.
            k (`int`):
                How many activations to return, 1 to num_latents.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: values and int64 indices of the k largest activations, both
            `(..., k)`, largest first, equal ones by ascending index. Values are 0 beyond the positive activations.

        Raises:
            TypeError, ValueError: as [`~MSAEModel.encode`].
        """
        if k is None:
            raise TypeError(f"encode_topk needs k, an integer between 1 and num_latents={self.config.num_latents}")
        k = self._resolve_k(k)
        dtype = self._check(embeddings, self.config.d_in, "embeddings")
        rows = embeddings.reshape(-1, self.config.d_in)
        values, indices = [], []
        for chunk in rows.split(max(1, _CHUNK_ELEMENTS // self.config.num_latents)):
            activations = self._activations(self._pre_activations(self._normalise(chunk)))
            top = top_activations(activations, k, self.config.soft_cap)
            values.append(top[0].to(dtype))
            indices.append(top[1])
        shape = (*embeddings.shape[:-1], k)
        return torch.cat(values).reshape(shape), torch.cat(indices).reshape(shape)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Raw embeddings from codes, edited or not.

        Args:
            latents (`torch.Tensor` of shape `(..., num_latents)`):
                Codes, floating point.

        Returns:
            `torch.Tensor` of shape `(..., d_in)`: raw embeddings.

        Raises:
            TypeError: latents that are not floating point.
            ValueError: latents of another width or with NaN or infinite values.
        """
        dtype = self._check(latents, self.config.num_latents, "latents")
        return self._denormalise(self._reconstruct(latents, self._statistics_dtype(latents))).to(dtype)

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
        """Encodes and decodes raw embeddings, and measures the reconstruction at every level.

        Args:
            embeddings (`torch.Tensor` of shape `(..., d_in)`):
                Raw embeddings, floating point.
            k (`int`, *optional*):
                How many activations `latents` and `reconstruction` use; changes neither the loss nor the levels.
                Default: config.k, or else the k of the largest level.
            return_loss (`bool`, *optional*, defaults to `False`):
                Whether to compute the training loss.
            output_nested (`bool`, *optional*, defaults to `False`):
                Whether to return the reconstruction of every level.
            return_dict (`bool`, *optional*):
                `False` for a plain tuple without the missing entries. Default: config.return_dict.
            loss_only (`bool`, *optional*, defaults to `False`):
                With return_loss, leave out `reconstruction` and `latents`: what training needs, and no more.
            dead_latents (`torch.Tensor` of shape `(num_latents,)`, bool, *optional*):
                With return_loss, also compute `auxiliary_loss` of these latents.
            auxiliary_k (`int`, *optional*, defaults to 256):
                How many of them may decode an embedding.

        Returns:
            [`MSAEOutput`] or `tuple`.

        Raises:
            TypeError, ValueError: as [`~MSAEModel.encode`]; also a loss over no embeddings at all.
        """
        config = self.config
        k = self._resolve_k(k)
        dtype = self._check(embeddings, config.d_in, "embeddings")
        if return_loss and embeddings.numel() == 0:
            raise ValueError(f"no loss can be computed over no embeddings (shape {tuple(embeddings.shape)})")

        normalised = self._normalise(embeddings)
        return_dict = config.return_dict if return_dict is None else return_dict
        loss_only = loss_only and return_loss and not output_nested
        # The fused computation gives the full code besides the loss; other codes are the eager one's.
        fusable = return_loss and not output_nested and self._fusable(k, loss_only)
        if fusable and can_fuse(normalised, *self.parameters()):
            output = self._fused_forward(normalised, dtype, loss_only, dead_latents, auxiliary_k)
            return output if return_dict else output.to_tuple()

        pre_activations = self._pre_activations(normalised)
        activations = self._activations(pre_activations, in_training=self.training and return_loss)
        needs_levels = return_loss or output_nested
        if loss_only:
            k = config.nesting_ks[-1]  # one of the levels: no other code is needed
        ks = list(dict.fromkeys([k, *config.nesting_ks] if needs_levels else [k]))
        codes = dict(zip(ks, nested_codes(activations, ks, config.soft_cap), strict=True))
        # Levels that drop nothing share one code: decode it once. (`codes` keeps the ids from being used again.)
        distinct = {id(code): code for code in codes.values()}
        decoded = {key: self._reconstruct(code, normalised.dtype) for key, code in distinct.items()}
        reconstructions = {k: decoded[id(code)] for k, code in codes.items()}

        loss = nested_losses = nested_reconstructions = None
        if needs_levels:
            levels, weights = [reconstructions[level_k] for level_k in config.nesting_ks], config.level_weights
            if config.nesting == "prefix":
                levels = self._prefix_reconstructions(codes[config.num_latents], normalised.dtype)
                weights = [1.0] * len(levels) if config.random_prefixes else weights
            loss, nested_losses = nested_loss(levels, normalised, weights, config.reconstruction_loss)
            if config.sparsity_coefficient:
                penalty = self._sparsity_penalty(pre_activations, activations, normalised)
                loss = loss + config.sparsity_coefficient * penalty
            if output_nested:
                nested_reconstructions = tuple(self._denormalise(level).to(dtype) for level in levels)

        output = MSAEOutput(
            loss=loss if return_loss else None,
            reconstruction=None if loss_only else self._denormalise(reconstructions[k]).to(dtype),
            latents=None if loss_only else codes[k].to(dtype),
            nested_reconstructions=nested_reconstructions,
            nested_losses=nested_losses,
        )
        if return_loss and dead_latents is not None:
            output.auxiliary_loss = self._auxiliary_loss(normalised, reconstructions[k], dead_latents, auxiliary_k)
        return output if return_dict else output.to_tuple()

    def _auxiliary_loss(self, normalised: torch.Tensor, decoded: torch.Tensor, dead: torch.Tensor, k: int):
        centred, residual = normalised - self.pre_bias.to(normalised.dtype), normalised - decoded
        return auxiliary_loss(residual, centred, self.encoder, self.latent_bias, self.dictionary, dead, k)

    def _fused_forward(
        self,
        normalised: torch.Tensor,
        dtype: torch.dtype,
        loss_only: bool,
        dead_latents: torch.Tensor | None,
        auxiliary_k: int,
    ) -> MSAEOutput:
        """Loss, full code and reconstruction, with gradients computed on the way."""
        config = self.config
        terms = NestedLoss(
            ks=(config.k,) if config.activation == "topk" and config.nesting == "none" else tuple(config.nesting_ks),
            weights=tuple(config.level_weights),
            kind=config.reconstruction_loss,
            soft_cap=config.soft_cap,
            sparsity_coefficient=config.sparsity_coefficient,
        )
        parameters = (self.pre_bias, self.encoder, self.latent_bias, self.decoder)
        rows = normalised.reshape(-1, config.d_in)
        loss, level_losses, code, decoded = fused_nested_loss(terms, rows, *parameters)
        of_dead = None
        if dead_latents is not None:
            of_dead = self._auxiliary_loss(rows, decoded, dead_latents, auxiliary_k)
        if loss_only:
            return MSAEOutput(loss=loss, nested_losses=level_losses, auxiliary_loss=of_dead)
        leading = normalised.shape[:-1]
        return MSAEOutput(
            loss=loss,
            reconstruction=self._denormalise(decoded).to(dtype).reshape(*leading, -1),
            latents=code.to(dtype).reshape(*leading, -1),
            nested_losses=level_losses,
            auxiliary_loss=of_dead,
        )

    def _normalise(self, embeddings: torch.Tensor) -> torch.Tensor:
        """U = (x - input_mean) * input_scale, in float32 or float64."""
        wide = self._statistics_dtype(embeddings)
        return (embeddings.to(wide) - self.input_mean.to(wide)) * self.input_scale.to(wide)

    def _denormalise(self, normalised: torch.Tensor) -> torch.Tensor:
        wide = normalised.dtype
        return normalised / self.input_scale.to(wide) + self.input_mean.to(wide)

    def _pre_activations(self, normalised: torch.Tensor) -> torch.Tensor:
        centred = normalised - self.pre_bias.to(normalised.dtype)
        return centred.to(self.encoder.dtype) @ self.encoder + self.latent_bias

    def _activations(self, pre_activations: torch.Tensor, in_training: bool = False) -> torch.Tensor:
        """The full code a, before any selection for levels, or cap."""
        config = self.config
        if config.activation == "jump_relu":
            return jump_relu(pre_activations, self.log_threshold.exp(), config.jump_relu_bandwidth)
        code = F.relu(pre_activations)
        if config.activation == "topk":
            return nested_codes(code, [config.k])[0]
        if config.activation == "batch_topk":
            threshold = self._batch_threshold(code) if in_training else self.activation_threshold
            return code * (code >= threshold)
        return code

    @torch.no_grad()
    def _batch_threshold(self, code: torch.Tensor) -> torch.Tensor:
        """What the largest activations of a training batch reach, k for each embedding on average; remembered."""
        threshold = batch_top_threshold(code, self.config.k * number_of_rows(code))
        if self.activation_threshold == 0:
            self.activation_threshold.copy_(threshold)
        self.activation_threshold.lerp_(threshold.to(self.activation_threshold.dtype), 1 - _THRESHOLD_MOMENTUM)
        return threshold

    def _sparsity_penalty(
        self, pre_activations: torch.Tensor, activations: torch.Tensor, normalised: torch.Tensor
    ) -> torch.Tensor:
        kind = self.config.sparsity_penalty
        if kind == "l0":
            return l0_penalty(pre_activations, self.log_threshold.exp(), self.config.jump_relu_bandwidth)
        return tanh_penalty(activations) if kind == "tanh" else l1_penalty(activations, normalised)

    def _prefix_reconstructions(self, code: torch.Tensor, wide: torch.dtype) -> list[torch.Tensor]:
        """What the first latents of the dictionary decode to, for every width of the levels."""
        config = self.config
        widths = config.nesting_widths
        if config.random_prefixes and self.training:
            widths = draw_prefixes(config.random_prefixes, config.num_latents)
        code = code.to(self.encoder.dtype)
        levels, decoded = [], self.pre_bias.to(wide)
        for begin, end in pairwise([0, *widths]):
            decoded = decoded + (code[..., begin:end] @ self.dictionary[begin:end]).to(wide)
            levels.append(decoded)
        return levels

    def _fusable(self, k: int, loss_only: bool) -> bool:
        """Whether loss, and code for k, are those of the fused computation: of a ReLU code's largest entries."""
        config = self.config
        if config.nesting == "prefix" or (config.sparsity_coefficient and config.sparsity_penalty != "l1"):
            return False
        if config.activation == "relu":
            return loss_only or k == config.num_latents
        return config.activation == "topk" and loss_only and not config.sparsity_coefficient

    def _reconstruct(self, code: torch.Tensor, wide: torch.dtype) -> torch.Tensor:
        """The normalised embeddings a code stands for, in dtype `wide`: float32 or float64."""
        return (code.to(self.encoder.dtype) @ self.dictionary).to(wide) + self.pre_bias.to(wide)

    def _statistics_dtype(self, tensor: torch.Tensor) -> torch.dtype:
        # Not self.dtype: the replicas of nn.DataParallel have no parameters to look it up from.
        return torch.float64 if torch.float64 in (tensor.dtype, self.encoder.dtype) else torch.float32

    # -- training ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def set_input_statistics(self, mean: torch.Tensor, scale: float | torch.Tensor) -> None:
        """Sets how embeddings are normalised: u = (x - mean) * scale.

        Args:
            mean (`torch.Tensor` of shape `(d_in,)`):
                Mean of the training embeddings.
            scale (`float` or `torch.Tensor` of shape `()`):
                sqrt(d) / sqrt(E||x - mean||^2) for new models, so that the mean squared entry of u is 1.

        Raises:
            ValueError: a mean of another shape or with NaN or infinite values, a scale that is not a positive number.
        """
        mean = torch.as_tensor(mean, dtype=self.input_mean.dtype)
        scale = torch.as_tensor(scale, dtype=self.input_scale.dtype)
        if mean.shape != self.input_mean.shape:
            raise ValueError(f"the input mean has shape {tuple(mean.shape)}, expected ({self.config.d_in},)")
        if not torch.isfinite(mean).all():
            raise ValueError("the input mean holds NaN or infinite values")
        if scale.dim() != 0 or not (torch.isfinite(scale) and scale > 0):
            raise ValueError(f"the input scale must be one positive number, got {scale.tolist()}")
        self.input_mean.copy_(mean)
        self.input_scale.copy_(scale)

    @torch.no_grad()
    def remove_parallel_decoder_gradient_(self) -> None:
        """Takes from the gradient of every decoder row its component along that row; call before `optimizer.step()`.

        Rows are kept at unit norm, so this component would be undone anyway, yet would fill the optimiser's moments.
        Does nothing without a gradient, or if the model is tied: its rows are the encoder's, whose norm means
        something.
        """
        if self.decoder is None or self.decoder.grad is None:
            return
        grad = self.decoder.grad
        squared_norm = self.decoder.square().sum(1, keepdim=True).clamp_min(torch.finfo(self.decoder.dtype).tiny)
        grad.sub_((grad * self.decoder).sum(1, keepdim=True) / squared_norm * self.decoder)

    @torch.no_grad()
    def normalize_decoder_(self) -> None:
        """Scales decoder rows to unit norm, and encoder columns and latent biases by what the rows lost; call after
        `optimizer.step()`.

        The reconstruction from the full code stays the same: activations grow by the factor by which their row
        shrinks. (Which activations are the k largest may change, and with a soft cap so does the reconstruction.)
        Rows of norm 0 stay as they are. Does nothing if the model is tied.
        """
        if self.decoder is None:
            return
        norms = torch.linalg.vector_norm(self.decoder, dim=1, dtype=self._statistics_dtype(self.decoder))
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        self.decoder.copy_(self.decoder / norms[:, None])
        self.encoder.copy_(self.encoder * norms)
        self.latent_bias.copy_(self.latent_bias * norms)
        if self.config.activation == "jump_relu":
            self.log_threshold.add_(norms.log())

    # -- what may go wrong ---------------------------------------------------------------------------------------

    def _resolve_k(self, k: int | None) -> int:
        if k is None:
            # Batch top-k leaves each embedding as many activations as exceed the threshold.
            all_of_them = self.config.k is None or self.config.activation == "batch_topk"
            return self.config.nesting_ks[-1] if all_of_them else self.config.k
        if isinstance(k, bool):
            raise TypeError(f"k must be an integer, got {k}")
        try:
            k = operator.index(k)
        except TypeError:
            raise TypeError(f"k must be an integer, got {k!r}") from None
        if not 1 <= k <= self.config.num_latents:
            raise ValueError(f"k must be between 1 and num_latents={self.config.num_latents}, got {k}")
        return k

    def _check(self, tensor: torch.Tensor, width: int, what: str) -> torch.dtype:
        """Refuses what cannot be `what` ("embeddings" or "latents"); returns the dtype of results."""
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{what} must be a torch.Tensor, got {type(tensor).__name__}; use torch.as_tensor(...)")
        if not tensor.is_floating_point():
            raise TypeError(f"{what} must be floating point, got {tensor.dtype}; use {what}.float() if that is meant")
        if tensor.dim() == 0:
            raise ValueError(f"{what} must have shape (..., {width}), got a single number")
        if tensor.shape[-1] != width:
            config = self.config
            source = ", ".join(filter(None, (config.base_model_name_or_path, config.hook_point)))
            expected = f"was trained on {width} ({source})" if what == "embeddings" else f"has {width} latents"
            raise ValueError(f"{what} have {tensor.shape[-1]} columns, but this MSAE {expected}")
        # A sum is one pass without a copy, and not finite if any term is not. It may also overflow: then look closely.
        if not torch.compiler.is_compiling() and not torch.isfinite(tensor.detach().sum()):
            bad = (~torch.isfinite(tensor)).nonzero()
            if len(bad):
                row = bad[0, :-1].tolist()
                where = f", first in row {row[0] if len(row) == 1 else tuple(row)}" if row else ""
                raise ValueError(f"{what} hold NaN or infinite values{where}")
        return torch.promote_types(tensor.dtype, self.encoder.dtype)


def _unused_arguments_error(arguments: dict[str, Any]) -> ValueError:
    fields = [name for name in arguments if name in MSAEConfig.own_fields()]
    if fields:
        return ValueError(f"{', '.join(fields)} given beside a config; set the config's own fields instead")
    return MSAEConfig.unknown_keys_error(arguments)
