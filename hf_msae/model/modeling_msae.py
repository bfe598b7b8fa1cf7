"""MSAEModel: a Matryoshka sparse autoencoder as a transformers model. Raw embeddings in, raw embeddings out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from .activations import FAMILIES
from .auxiliary_loss import auxiliary_loss
from .checks import check_k, check_statistics, check_tensor, unused_arguments_error
from .configuration_msae import MSAEConfig
from .fused_nested_loss import NestedLoss, can_fuse, fused_nested_loss
from .loading import PreTrainedMSAE
from .nested_prefix import draw_prefixes, prefix_reconstructions
from .nested_topk import nested_codes, nested_loss, top_activations
from .relu import ReLU

_CHUNK_ELEMENTS = 2**24
"""Size of the dense code that `encode_topk` makes at a time: 64 MB in float32."""

_STATISTICS = ("input_mean", "input_scale", *(name for family in FAMILIES.values() for name in family.statistics))


@dataclass
class MSAEOutput(ModelOutput):
    """What [`MSAEModel`] returns.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*, with `return_loss=True`):
            Weighted mean of the levels' reconstruction losses, plus the sparsity penalty. In normalized space.
        reconstruction (`torch.Tensor` of shape `(..., d_in)`):
            The raw embeddings decoded from `latents`.
        latents (`torch.Tensor` of shape `(..., num_latents)`):
            The code for the requested k.
        nested_reconstructions (`tuple[torch.Tensor, ...]`, *optional*, with `output_nested=True`):
            The raw reconstruction of every level, each `(..., d_in)`.
        nested_losses (`torch.Tensor` of shape `(L,)`, *optional*, with `return_loss=True` or `output_nested=True`):
            The unweighted reconstruction loss of every level. In normalized space.
        auxiliary_loss (`torch.Tensor` of shape `()`, *optional*, with `return_loss=True` and `dead_latents`):
            How badly dead latents alone decode what the reconstruction misses. Not part of `loss`.
    """

    loss: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    nested_reconstructions: tuple[torch.Tensor, ...] | None = None
    nested_losses: torch.Tensor | None = None
    auxiliary_loss: torch.Tensor | None = None


class MSAEModel(PreTrainedMSAE):
    r"""A Matryoshka sparse autoencoder over embeddings of a vision-language model (arXiv 2502.20578).

    A raw embedding x is normalized to u = (x - input_mean) * input_scale and encoded to a = relu((u - pre_bias) @
    encoder + latent_bias). The code of level l keeps the k_l largest entries z_l of a. The reconstruction of the level
    is z_l @ decoder + pre_bias, brought back to raw space.

    Parameters: pre_bias (d,), encoder (d, n), latent_bias (n,), decoder (n, d), unless tied. Buffers: input_mean (d,),
    input_scale (). Activation families may add their own.

    All methods take any leading batch shape, including (d,) and (0, d). The products with encoder and decoder are
    computed in the parameters' dtype (or that of autocast), everything else in float32, or in float64 if embeddings or
    parameters are. Results have the dtype that embeddings and parameters promote to. The buffers stay in float32 when
    a model is loaded in, or converted to, half precision.

    Args:
        config ([`MSAEConfig`]):
            Sizes, levels and loss. A new model has random unit rows in its dictionary, the transpose as its encoder
            (scaled by 2 d_in / num_latents if that is below 1) and zero biases, and does not normalize before
            [`~MSAEModel.set_input_statistics`] is called.
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
            raise unused_arguments_error(unknown)
        super().__init__(config)
        config.validate()
        d, n = config.d_in, config.num_latents
        self.pre_bias = nn.Parameter(torch.empty(d))
        self.encoder = nn.Parameter(torch.empty(d, n))
        self.latent_bias = nn.Parameter(torch.empty(n))
        self.register_parameter("decoder", None if config.tied else nn.Parameter(torch.empty(n, d)))
        # from_pretrained(dtype=...) sets the default dtype around this; the statistics follow it up but not down.
        statistics_dtype = torch.promote_types(torch.float32, torch.get_default_dtype())
        self.register_buffer("input_mean", torch.empty(d, dtype=statistics_dtype))
        self.register_buffer("input_scale", torch.empty((), dtype=statistics_dtype))
        self.family.add_state(self)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is not self:
            return
        init.zeros_(self.pre_bias)
        init.zeros_(self.latent_bias)
        self.family.init_state(self)
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
        family = "" if config.activation == "relu" else f"{config.activation} {config.k or ''}".rstrip()
        levels = f"widths={config.nesting_widths}" if config.nesting == "prefix" else f"k={config.nesting_ks}"
        levels = f"{config.num_levels} level{'s' if config.num_levels > 1 else ''}: {levels}"
        sizes = f"d_in={config.d_in}, num_latents={config.num_latents}"
        return ", ".join(filter(None, (sizes, family, levels, config.base_model_name_or_path, config.hook_point)))

    @property
    def family(self) -> ReLU:
        """The activation family: how pre-activations become a code, and what it learns and penalizes."""
        return FAMILIES[self.config.activation]

    @property
    def dictionary(self) -> torch.Tensor:
        """The direction of every latent in normalized space, (n, d): the decoder, or encoder.T if tied."""
        return self.encoder.T if self.decoder is None else self.decoder

    def encode(self, embeddings: torch.Tensor, k: int | None = None) -> torch.Tensor:
        """Encode raw embeddings as sparse codes.

        Args:
            embeddings (`torch.Tensor` of shape `(..., d_in)`):
                Raw embeddings, floating point.
            k (`int`, *optional*):
                The most activations that a code keeps. Default: config.k, or else the k of the largest level.

        Returns:
            `torch.Tensor` of shape `(..., num_latents)`: non-negative, at most k entries above 0.

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

        Without gradients, the dense code never takes more memory than one chunk of rows.

        Args:
            embeddings (`torch.Tensor` of shape `(..., d_in)`):
                Raw embeddings, floating point.
            k (`int`):
                How many activations to return, 1 to num_latents.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: values and int64 indices of the k largest activations, both
            `(..., k)`, largest first, equal ones by ascending index. Values are 0 beyond the positive activations.

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
        """Decode codes, edited or not, to raw embeddings.

        Args:
            latents (`torch.Tensor` of shape `(..., num_latents)`):
                Codes, floating point.

        Returns:
            `torch.Tensor` of shape `(..., d_in)`: raw embeddings.

        Raises:
            TypeError: The latents are not floating point.
            ValueError: The latents have another width or hold NaN or infinite values.
        """
        check_tensor(latents, "latents", self.config)
        dtype = torch.promote_types(latents.dtype, self.encoder.dtype)
        return self.denormalize(self._reconstruct(latents, self._statistics_dtype(latents))).to(dtype)

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
            embeddings (`torch.Tensor` of shape `(..., d_in)`):
                Raw embeddings, floating point.
            k (`int`, *optional*):
                How many activations `latents` and `reconstruction` use; the loss and the levels do not depend on it.
                Default: config.k, or else the k of the largest level.
            return_loss (`bool`, *optional*, defaults to `False`):
                Whether to compute the training loss.
            output_nested (`bool`, *optional*, defaults to `False`):
                Whether to return the reconstruction of every level.
            return_dict (`bool`, *optional*):
                `False` returns a plain tuple without the missing entries. Default: config.return_dict.
            loss_only (`bool`, *optional*, defaults to `False`):
                With return_loss, leave out `reconstruction` and `latents`, which training does not need.
            dead_latents (`torch.Tensor` of shape `(num_latents,)`, bool, *optional*):
                With return_loss, also compute `auxiliary_loss` of these latents.
            auxiliary_k (`int`, *optional*, defaults to 256):
                How many dead latents may decode an embedding.

        Returns:
            [`MSAEOutput`] or `tuple`.

        Raises:
            TypeError, ValueError: As [`~MSAEModel.encode`]; also if there are no embeddings to compute a loss of. In
                training mode, the embeddings of a loss are not searched for NaN and infinite values.
        """
        k = self._resolve_k(k)
        # In training, asking whether a batch is finite would stall a GPU at every step. The trainer checks the losses.
        check_tensor(embeddings, "embeddings", self.config, finite=not (self.training and return_loss))
        dtype = torch.promote_types(embeddings.dtype, self.encoder.dtype)
        if return_loss and embeddings.numel() == 0:
            raise ValueError(f"no loss can be computed over no embeddings (shape {tuple(embeddings.shape)})")

        normalized = self.normalize(embeddings)
        loss_only = loss_only and return_loss and not output_nested
        fused_ks = self.family.fused_levels(self.config, k, loss_only) if return_loss and not output_nested else None
        levels = None
        if fused_ks is not None and can_fuse(normalized, *self.parameters()):
            loss, level_losses, code, decoded = self._fused_forward(normalized, fused_ks)
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
        """Return loss, losses of levels, code for k, what it decodes to, and reconstructions of levels."""
        config, family, wide = self.config, self.family, normalized.dtype
        pre_activations = self._pre_activations(normalized)
        activations = family.code(self, pre_activations, in_training=self.training and return_loss)
        needs_levels = return_loss or output_nested
        ks = list(dict.fromkeys([k, *config.nesting_ks] if needs_levels else [k]))
        codes = dict(zip(ks, nested_codes(activations, ks, config.soft_cap), strict=True))
        # Levels that drop nothing share one code: decode it once. (`codes` keeps the ids from being used again.)
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

    def _fused_forward(self, normalized: torch.Tensor, ks: list[int]) -> tuple[torch.Tensor, ...]:
        """Return loss, losses of levels, full code and what it decodes to, computed in one pass."""
        config = self.config
        kind, cap, coefficient = config.reconstruction_loss, config.soft_cap, config.sparsity_coefficient
        terms = NestedLoss(tuple(ks), tuple(config.level_weights), kind, cap, coefficient)
        rows = normalized.reshape(-1, config.d_in)
        parameters = (self.pre_bias, self.encoder, self.latent_bias, self.decoder)
        loss, level_losses, code, decoded = fused_nested_loss(terms, rows, *parameters)
        return loss, level_losses, code.reshape(*normalized.shape[:-1], -1), decoded.reshape(normalized.shape)

    def normalize(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return u = (x - input_mean) * input_scale in float32 or float64; does not check its input."""
        wide = self._statistics_dtype(embeddings)
        return (embeddings.to(wide) - self.input_mean.to(wide)) * self.input_scale.to(wide)

    def denormalize(self, normalized: torch.Tensor) -> torch.Tensor:
        """Return the raw embeddings of normalized ones."""
        return normalized / self.input_scale.to(normalized.dtype) + self.input_mean.to(normalized.dtype)

    def _pre_activations(self, normalized: torch.Tensor) -> torch.Tensor:
        centered = normalized - self.pre_bias.to(normalized.dtype)
        return centered.to(self.encoder.dtype) @ self.encoder + self.latent_bias

    def full_code(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the activations of raw embeddings before selection and cap; does not check its input."""
        return self.family.code(self, self._pre_activations(self.normalize(embeddings)))

    def _reconstruct(self, code: torch.Tensor, wide: torch.dtype) -> torch.Tensor:
        """Decode to normalized space, in dtype `wide`: float32 or float64."""
        return (code.to(self.encoder.dtype) @ self.dictionary).to(wide) + self.pre_bias.to(wide)

    def _resolve_k(self, k: int | None) -> int:
        return self.family.default_k(self.config) if k is None else check_k(k, self.config)

    def _statistics_dtype(self, tensor: torch.Tensor) -> torch.dtype:
        # Not self.dtype: the replicas of nn.DataParallel have no parameters to look it up from.
        return torch.float64 if torch.float64 in (tensor.dtype, self.encoder.dtype) else torch.float32

    @torch.no_grad()
    def set_input_statistics(self, mean: torch.Tensor, scale: float | torch.Tensor) -> None:
        """Set how embeddings are normalized: u = (x - mean) * scale.

        Args:
            mean (`torch.Tensor` of shape `(d_in,)`):
                Mean of the training embeddings.
            scale (`float` or `torch.Tensor` of shape `()`):
                sqrt(d) / sqrt(E||x - mean||^2) for new models, so that the mean squared entry of u is 1.

        Raises:
            ValueError: The mean has another shape or is not finite, or the scale is not a positive number.
        """
        mean = torch.as_tensor(mean, dtype=self.input_mean.dtype)
        scale = torch.as_tensor(scale, dtype=self.input_scale.dtype)
        check_statistics(mean, scale, self.config)
        self.input_mean.copy_(mean)
        self.input_scale.copy_(scale)

    @torch.no_grad()
    def remove_parallel_decoder_gradient_(self) -> None:
        """Remove from the gradient of each decoder row its component along the row; call before `optimizer.step()`.

        Rows are kept at unit norm, so this component would be undone anyway, but would enter the optimizer's moments.
        Does nothing without a gradient, or if the model is tied: the norms of an encoder's columns have a meaning.
        """
        if self.decoder is None or self.decoder.grad is None:
            return
        grad = self.decoder.grad
        squared_norm = self.decoder.square().sum(1, keepdim=True).clamp_min(torch.finfo(self.decoder.dtype).tiny)
        grad.sub_((grad * self.decoder).sum(1, keepdim=True) / squared_norm * self.decoder)

    @torch.no_grad()
    def normalize_decoder_(self) -> None:
        """Scale decoder rows to unit norm and compensate in encoder and biases; call after `optimizer.step()`.

        Activations grow by the factor by which their row shrinks, so the reconstruction from the full code stays the
        same. (Which activations are the k largest may change, and with a soft cap the reconstruction too.) Rows of
        norm 0 stay as they are. Does nothing if the model is tied.
        """
        if self.decoder is None:
            return
        norms = torch.linalg.vector_norm(self.decoder, dim=1, dtype=self._statistics_dtype(self.decoder))
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        self.decoder.copy_(self.decoder / norms[:, None])
        self.encoder.copy_(self.encoder * norms)
        self.latent_bias.copy_(self.latent_bias * norms)
        self.family.rescale_(self, norms)
