"""What every foreign checkpoint is read into, and how that becomes an MSAEModel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ...configuration_msae import MSAEConfig
from ...hook_points import HookPoint
from ...modeling_msae import MSAEModel


@dataclass
class ForeignCheckpoint:
    """A sparse autoencoder in the terms of its equations, whoever wrote it.

    With u = (x - input_mean) * input_scale: pre-activations (u - input_bias) @ encoder + latent_bias, reconstruction
    code @ decoder + output_bias in the space of u.

    Attributes:
        format: name of the format it was read from.
        encoder: (d, n).
        decoder: (n, d); None where it is encoder.T.
        latent_bias: (n,); None for zeros.
        input_bias: (d,), taken off before encoding; None for zeros.
        output_bias: (d,), added after decoding; None for zeros.
        input_mean: (d,); None for zeros.
        input_scale: one number.
        threshold: of "jump_relu" (n,), of "batch_topk" one number.
        config: fields of MSAEConfig that the checkpoint tells: activation, k, base_model_name_or_path, hook_point, ...
        notes: what a person who converts it should know, a sentence each.
        revision: the commit on the Hub it was read from.
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
    revision: str | None = None

    def to_model(self, overrides: Mapping[str, Any] | None = None) -> MSAEModel:
        """The MSAEModel that computes the same.

        Our model takes off and adds one bias, the decoder's; a difference between the two moves into the latents'.

        Args:
            overrides: fields of MSAEConfig that the user gave, and input_scale; they win. Levels that are given
                without nesting are those of their kind.

        Raises:
            ValueError: shapes that do not fit, values that are not finite, or settings that MSAEConfig refuses.
        """
        if self.encoder.dim() != 2:
            raise ValueError(f"the encoder has shape {tuple(self.encoder.shape)}, expected (d, n)")
        d, n = self.encoder.shape
        given = dict(overrides or {})
        input_scale = given.pop("input_scale", None)
        settings = {"nesting": _nesting_of(given), **self.config, **given}
        for name, value in (("d_in", d), ("num_latents", n), ("tied", self.decoder is None)):
            if settings.setdefault(name, value) != value:
                raise ValueError(f"{name}={settings[name]} was given, but the checkpoint's is {value}")
        config = MSAEConfig(**settings)
        zeros = torch.zeros(d)
        taken_off, added = (_vector(each, d, what) for each, what in (
            (self.input_bias, "the bias before the encoder"), (self.output_bias, "the bias after the decoder"),
        ))  # fmt: skip
        encoder = self.encoder.double()
        latent_bias = _vector(self.latent_bias, n, "the latents' bias") + (added - taken_off) @ encoder
        tensors = {"pre_bias": added, "encoder": encoder, "latent_bias": latent_bias}
        if self.decoder is not None:
            if self.decoder.shape != (n, d):
                raise ValueError(f"the decoder has shape {tuple(self.decoder.shape)}, expected ({n}, {d})")
            tensors["decoder"] = self.decoder
        model = MSAEModel(config)
        if config.activation == "jump_relu":
            threshold = torch.as_tensor(0.0 if self.threshold is None else self.threshold).double().expand(n)
            tensors["log_threshold"] = threshold.clamp_min(torch.finfo(torch.float32).tiny).log()
        elif config.activation == "batch_topk":
            if self.threshold is None:
                raise ValueError("the checkpoint holds no threshold, without which batch top-k cannot encode")
            tensors["activation_threshold"] = torch.as_tensor(self.threshold).double().reshape(())
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} of the checkpoint holds NaN or infinite values")
        with torch.no_grad():
            for name, tensor in tensors.items():
                getattr(model, name).copy_(tensor)
        mean = zeros if self.input_mean is None else self.input_mean
        model.set_input_statistics(mean, float(self.input_scale if input_scale is None else input_scale))
        return model.eval()


def _nesting_of(given: Mapping[str, Any]) -> str:
    """What levels are meant where only their sizes are given."""
    if given.get("nesting_widths") is not None:
        return "prefix"
    return "topk" if given.get("nesting_ks") is not None else "none"


def _vector(tensor: torch.Tensor | None, size: int, what: str) -> torch.Tensor:
    if tensor is None:
        return torch.zeros(size, dtype=torch.float64)
    if tensor.numel() != size:
        raise ValueError(f"{what} has shape {tuple(tensor.shape)}, expected ({size},)")
    return tensor.detach().double().reshape(size)


_BLOCK_OUTPUT = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")
_BLOCK_MODULE = re.compile(r"(?:(?P<owner>.*)\.)?(?:layers|layer|h|blocks|resblocks)\.(?P<layer>\d+)")
_TOWERS = {"vision_model": "vision", "visual": "vision", "text_model": "text"}


def hook_point_of(name: str | None, tower: str = "vision") -> str | None:
    """Our name of a hook point of TransformerLens or of a module of a transformers model; None where there is none.

    "blocks.9.hook_resid_post" is what leaves block 9, "blocks.9.hook_resid_pre" what leaves block 8, and a module
    "vision_model.encoder.layers.9" or "layers.9" what leaves block 9. What enters the first block, and the outputs of
    attention and MLP, have no name.

    Args:
        name: the other library's; one of ours stays as it is.
        tower: "vision" or "text", where the name does not tell.
    """
    if not name:
        return None
    try:
        return HookPoint.parse(name).name
    except ValueError:  # it is another library's
        pass
    if found := _BLOCK_OUTPUT.fullmatch(name):
        layer = int(found[1]) - (found[2] == "pre")
        return f"{tower}.layers.{layer}" if layer >= 0 else None
    if found := _BLOCK_MODULE.fullmatch(name):
        owners = (found["owner"] or "").split(".")
        tower = next((_TOWERS[owner] for owner in owners if owner in _TOWERS), tower)
        return f"{tower}.layers.{int(found['layer'])}"
    return None
