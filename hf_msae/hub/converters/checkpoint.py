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

_WITH_K = ("topk", "batch_topk")
"""Activations with a k, which means the same for both."""

_LEVELS = ("nesting_ks", "nesting_widths", "nesting_weights")


@dataclass
class ForeignCheckpoint:
    """A sparse autoencoder in terms of its equations, whichever library wrote it.

    With u = (x - input_mean) * input_scale: pre-activations (u - bias) @ encoder + latent_bias, reconstruction
    code @ decoder + bias in the space of u.
    """

    encoder: torch.Tensor  # (d, n)
    decoder: torch.Tensor | None  # (n, d); None if it is encoder.T
    latent_bias: torch.Tensor | None = None  # (n,); None for zeros
    bias: torch.Tensor | None = None  # (d,), added after decoding; None for zeros
    subtracts_bias: bool = True  # whether the bias is also subtracted before encoding
    input_mean: torch.Tensor | None = None  # (d,); None for zeros
    input_scale: float = 1.0  # factor of embeddings after the mean is subtracted
    threshold: torch.Tensor | float | None = None  # (n,) for "jump_relu", one number for "batch_topk"
    # Known fields of MSAEConfig: activation, k, base_model_name_or_path, hook_point and others.
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # sentences about the conversion for the user
    format: str = ""  # name of the format it was read from
    name: str = "the checkpoint"  # name in messages
    revision: str | None = None  # commit on the Hub it was read from

    def to_model(self, overrides: Mapping[str, Any] | None = None) -> MSAEModel:
        """Return the MSAEModel that computes the same.

        An MSAE always subtracts its bias before encoding; if the checkpoint does not, the difference moves into the
        bias of the latents. `overrides` are fields of MSAEConfig, input_mean and input_scale that the user gave; they
        take precedence. Given levels imply their kind of nesting, and replace the checkpoint's. The checkpoint's k is
        dropped if another kind of activation is given.

        Raises:
            ValueError: Shapes do not fit, values are not finite (also as float32), or MSAEConfig refuses a setting.
        """
        sizes: dict[str, int] = {}
        for name, axes in (("encoder", "d n"), ("decoder", "n d"), ("latent_bias", "n"), ("bias", "d")):
            if getattr(self, name) is not None:
                check_shape(getattr(self, name), axes, f"{name} of {self.name}", sizes)
        d, n = sizes["d"], sizes["n"]
        given = dict(overrides or {})
        mean, scale = given.pop("input_mean", None), given.pop("input_scale", None)
        mean = self.input_mean if mean is None else input_mean_of(mean, d)
        config = MSAEConfig(**self._settings(given, d, n))
        bias = torch.zeros(d).double() if self.bias is None else self.bias.double()
        latent_bias = torch.zeros(n).double() if self.latent_bias is None else self.latent_bias.double()
        if not self.subtracts_bias:
            latent_bias = latent_bias + bias @ self.encoder.double()
        tensors = {"pre_bias": bias, "encoder": self.encoder, "latent_bias": latent_bias}
        if self.decoder is not None:
            tensors["decoder"] = self.decoder
        tensors |= self._thresholds(config.activation, n)
        model = MSAEModel(config)
        with torch.no_grad():
            for name, tensor in tensors.items():
                getattr(model, name).copy_(tensor)
        scale = finite_number(self.input_scale if scale is None else scale, "input_scale")
        model.set_input_statistics(torch.zeros(d) if mean is None else mean, scale)
        for name, tensor in model.state_dict().items():
            check_tensor(tensor, f"{name} of {self.name}, turned into float32,")
        return model.eval()

    def _settings(self, given: dict[str, Any], d: int, n: int) -> dict[str, Any]:
        """Fields of MSAEConfig."""
        config = dict(self.config)
        if given.get("activation", config.get("activation")) not in _WITH_K and config.get("activation") in _WITH_K:
            config.pop("k", None)
        stored = config.get("nesting", "none")
        nesting = "topk" if given.get("nesting_ks") is not None else stored
        nesting = "prefix" if given.get("nesting_widths") is not None else nesting
        nesting = given.get("nesting") or nesting
        if nesting != stored:  # its levels are of another kind
            config = {name: value for name, value in config.items() if name not in _LEVELS}
        elif any(given.get(name) is not None for name in _LEVELS) and isinstance(config.get("nesting_weights"), list):
            del config["nesting_weights"]  # they are those of its own levels
        settings = {**config, **given, "nesting": nesting}
        for name, value in (("d_in", d), ("num_latents", n), ("tied", self.decoder is None)):
            if settings.setdefault(name, value) != value:
                raise ValueError(f"{name}={settings[name]} was given, but the checkpoint has {value}")
        return settings

    def _thresholds(self, activation: str, n: int) -> dict[str, torch.Tensor]:
        """The parameter or buffer of the activation's thresholds."""
        if activation not in ("jump_relu", "batch_topk"):
            return {}
        if self.threshold is None:
            raise ValueError(f"{self.name} holds no threshold, without which activation={activation} cannot encode")
        threshold = torch.as_tensor(self.threshold).double()
        if activation == "batch_topk":
            check_shape(threshold, "", "the threshold of batch_topk", {})
            return {"activation_threshold": threshold}
        threshold = threshold.expand(n) if threshold.dim() == 0 else threshold
        check_shape(threshold, "n", "the threshold of jump_relu", {"n": n})
        return {"log_threshold": threshold.clamp_min(torch.finfo(torch.float32).tiny).log()}
