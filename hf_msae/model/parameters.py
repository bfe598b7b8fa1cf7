"""The parameters and buffers of an MSAE: initialization, normalization, and the steps that keep decoder rows unit."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from .activations import FAMILIES
from .checks import check_size, check_statistics
from .configuration_msae import MSAEConfig
from .family import ActivationFamily
from .loading import PreTrainedMSAE

_STATISTICS = ("input_mean", "input_scale", *(name for family in FAMILIES.values() for name in family.statistics))


class MSAEParameters(PreTrainedMSAE):
    """The part of [`MSAEModel`] that holds its parameters and buffers."""

    config_class = MSAEConfig
    config: MSAEConfig
    _keep_in_fp32_modules_strict = _STATISTICS

    def __init__(self, config: MSAEConfig, **unknown: Any):
        if unknown:  # arguments of from_pretrained that neither it nor the config used
            if fields := [name for name in unknown if name in config.own_fields()]:
                raise ValueError(f"{', '.join(fields)} given together with a config: set its fields instead")
            raise config.unknown_keys_error(unknown)
        super().__init__(config)
        config.validate()
        check_size(config)
        d, n = config.d_in, config.num_latents
        self.pre_bias = nn.Parameter(torch.empty(d))
        self.encoder = nn.Parameter(torch.empty(d, n))
        self.latent_bias = nn.Parameter(torch.empty(n))
        self.register_parameter("decoder", None if config.tied else nn.Parameter(torch.empty(n, d)))
        # from_pretrained(dtype=...) sets the default dtype here; the statistics never have less than float32.
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
            # The full code of n random directions decodes to about n / 2d times the embedding.
            init.copy_(self.encoder, self.decoder.T * min(1.0, 2 * self.config.d_in / self.config.num_latents))

    def _apply(self, fn, recurse=True):
        # `model.half()` and `.bfloat16()` would round the statistics; undo that but keep the move to a device.
        before = {name: getattr(self, name).data for name in _STATISTICS if hasattr(self, name)}
        super()._apply(fn, recurse)
        for name, exact in before.items():
            tensor = getattr(self, name)
            if tensor.dtype in (torch.float16, torch.bfloat16):
                tensor.data = exact.to(tensor.device)
        return self

    @property
    def family(self) -> ActivationFamily:
        """The activation family, which turns pre-activations into a code."""
        return FAMILIES[self.config.activation]

    @property
    def dictionary(self) -> torch.Tensor:
        """The direction of every latent in normalized space, (n, d): the decoder, or encoder.T if tied."""
        return self.encoder.T if self.decoder is None else self.decoder

    def normalize(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return u = (x - input_mean) * input_scale in float32 or float64, without checks."""
        wide = self._statistics_dtype(embeddings)
        return (embeddings.to(wide) - self.input_mean.to(wide)) * self.input_scale.to(wide)

    def denormalize(self, normalized: torch.Tensor) -> torch.Tensor:
        """Return the raw embeddings of normalized ones."""
        return normalized / self.input_scale.to(normalized.dtype) + self.input_mean.to(normalized.dtype)

    def _statistics_dtype(self, tensor: torch.Tensor) -> torch.dtype:
        # Not self.dtype, which replicas of nn.DataParallel do not have.
        return torch.float64 if torch.float64 in (tensor.dtype, self.encoder.dtype) else torch.float32

    @torch.no_grad()
    def set_input_statistics(self, mean: torch.Tensor, scale: float | torch.Tensor) -> None:
        """Set how embeddings are normalized: u = (x - mean) * scale.

        Args:
            mean: Mean of the training embeddings, (d_in,).
            scale: sqrt(d) / sqrt(E||x - mean||^2) in new models, so that the mean squared entry of u is 1.

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
        """Remove the component along each decoder row from its gradient; call before `optimizer.step()`.

        Rows keep unit norm, so this component has no effect on them, but it would enter the optimizer's moments. Does
        nothing without a gradient, or if the model is tied, since the norms of encoder columns have a meaning.
        """
        if self.decoder is None or self.decoder.grad is None:
            return
        grad = self.decoder.grad
        squared_norm = self.decoder.square().sum(1, keepdim=True).clamp_min(torch.finfo(self.decoder.dtype).tiny)
        grad.sub_((grad * self.decoder).sum(1, keepdim=True) / squared_norm * self.decoder)

    @torch.no_grad()
    def normalize_decoder_(self) -> None:
        """Scale decoder rows to unit norm and compensate in encoder and biases; call after `optimizer.step()`.

        Activations grow by the factor by which their rows shrink, so the reconstruction from the full code does not
        change. (Which activations are the k largest may change, as may the reconstruction with a soft cap.) Rows of
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
