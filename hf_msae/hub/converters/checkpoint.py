"""The common form of all foreign checkpoints, and its conversion to an MSAEModel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ...model.configuration_msae import MSAEConfig
from ...model.modeling_msae import MSAEModel
from .reading import check_shape, check_tensor, finite_number
from .statistics import input_mean_of


@dataclass
class ForeignCheckpoint:
    """A sparse autoencoder in terms of its equations, whichever library wrote it.

    With u = (x - input_mean) * input_scale: pre-activations (u - input_bias) @ encoder + latent_bias, reconstruction
    code @ decoder + output_bias in the space of u.

    Attributes:
        format: Name of the format it was read from.
        encoder: (d, n).
        decoder: (n, d); None if it is encoder.T.
        latent_bias: (n,); None for zeros.
        input_bias: (d,), subtracted before encoding; None for zeros.
        output_bias: (d,), added after decoding; None for zeros.
        input_mean: (d,); None for zeros.
        input_scale: Factor of embeddings after the mean is subtracted.
        threshold: (n,) for "jump_relu", one number for "batch_topk".
        config: Known fields of MSAEConfig: activation, k, base_model_name_or_path, hook_point, ...
        notes: Sentences that whoever converts it should read.
        name: Name in messages.
        revision: Commit on the Hub it was read from.
    """

    format: str
    encoder: torch.Tensor
    decoder: torch.Tensor | None
    latent_bias: torch.Tensor | None = None
    input_bias: torch.Tensor | None = None
    output_bias: torch.Tensor | None = None
    input_mean: torch.Tensor | None = None
    input_scale: float = 1.0
    threshold: torch.Tensor | float | None = None
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    name: str = "the checkpoint"
    revision: str | None = None

    def to_model(self, overrides: Mapping[str, Any] | None = None) -> MSAEModel:
        """Return the MSAEModel that computes the same.

        An MSAE subtracts and adds one bias, the decoder's; the difference of the two moves into that of the latents.

        Args:
            overrides: Fields of MSAEConfig that the user gave, input_mean and input_scale; they take precedence. Given
                levels imply their kind of nesting. The checkpoint's k is dropped if another kind of activation is
                given.

        Raises:
            ValueError: Shapes do not fit, values are not finite (also as float32), or MSAEConfig refuses a setting.
        """
        sizes: dict[str, int] = {}
        check_shape(self.encoder, "d n", "the encoder", sizes)
        d, n = sizes["d"], sizes["n"]
        given = dict(overrides or {})
        mean, scale = given.pop("input_mean", None), given.pop("input_scale", None)
        mean = self.input_mean if mean is None else input_mean_of(mean, d)
        scale = finite_number(self.input_scale if scale is None else scale, "input_scale")
        config = MSAEConfig(**self._settings(given, d, n))
        subtracted = _vector(self.input_bias, d, "the bias before the encoder")
        added = _vector(self.output_bias, d, "the bias after the decoder")
        encoder = self.encoder.double()
        latent_bias = _vector(self.latent_bias, n, "the latents' bias") + (added - subtracted) @ encoder
        tensors = {"pre_bias": added, "encoder": encoder, "latent_bias": latent_bias}
        if self.decoder is not None:
            check_shape(self.decoder, "n d", "the decoder", sizes)
            tensors["decoder"] = self.decoder
        tensors |= self._thresholds(config.activation, n)
        for name, tensor in tensors.items():
            check_tensor(tensor, f"{name} of the checkpoint")
        model = MSAEModel(config)
        with torch.no_grad():
            for name, tensor in tensors.items():
                getattr(model, name).copy_(tensor)
        model.set_input_statistics(torch.zeros(d) if mean is None else mean, scale)
        for name, tensor in model.state_dict().items():
            check_tensor(tensor, f"{name} of the checkpoint, turned into float32,")
        return model.eval()

    def _settings(self, given: dict[str, Any], d: int, n: int) -> dict[str, Any]:
        """Fields of MSAEConfig."""
        config = dict(self.config)
        if given.get("activation", config.get("activation")) not in _WITH_K and config.get("activation") in _WITH_K:
            config.pop("k", None)
        settings = {"nesting": _nesting_of(given), **config, **given}
        for name, value in (("d_in", d), ("num_latents", n), ("tied", self.decoder is None)):
            if settings.setdefault(name, value) != value:
                raise ValueError(f"{name}={settings[name]} was given, but the checkpoint has {value}")
        return settings

    def _thresholds(self, activation: str, n: int) -> dict[str, torch.Tensor]:
        """The parameter or buffer of the activation's thresholds."""
        if activation not in ("jump_relu", "batch_topk"):
            return {}
        if self.threshold is None:
            raise ValueError(f"the checkpoint holds no threshold, without which activation={activation} cannot encode")
        threshold = torch.as_tensor(self.threshold).double()
        if activation == "batch_topk":
            check_shape(threshold, "", "the threshold of batch_topk", {})
            return {"activation_threshold": threshold}
        if threshold.dim() == 0:
            threshold = threshold.expand(n)
        check_shape(threshold, "n", "the threshold of jump_relu", {"n": n})
        return {"log_threshold": threshold.clamp_min(torch.finfo(torch.float32).tiny).log()}


_WITH_K = ("topk", "batch_topk")
"""Activations with a k, which has the same meaning in both."""


def _nesting_of(given: Mapping[str, Any]) -> str:
    """The kind of nesting that is meant if only sizes of levels are given."""
    if given.get("nesting_widths") is not None:
        return "prefix"
    return "topk" if given.get("nesting_ks") is not None else "none"


def _vector(tensor: torch.Tensor | None, size: int, what: str) -> torch.Tensor:
    if tensor is None:
        return torch.zeros(size, dtype=torch.float64)
    check_shape(tensor, "size", what, {"size": size})
    return tensor.detach().double()
