"""SAELens' checkpoints: `cfg.json` next to `sae_weights.safetensors`, as version 6 and earlier versions write them.

W_enc (d, n), W_dec (n, d), b_dec (d,) and b_enc (n,); "jumprelu" also has threshold (n,), "gated" b_gate, b_mag and
r_mag (n,) in place of b_enc. With x' = x - b_dec, or x if apply_b_dec_to_input is false, the code is
activation(x' @ W_enc + b_enc), the reconstruction code @ W_dec + b_dec. From version 6 on, the model's name and hook
point are in `metadata`; before, all settings are on one level and some had other names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .checkpoint import ForeignCheckpoint
from .places import origin
from .reading import (
    GATED_NOTE,
    OTHER_OUTPUT,
    PER_SAMPLE,
    Settings,
    check_keys,
    finite_number,
    gated_as_jump_relu,
    only_one,
    reached,
    state_dict,
    whole_number,
)
from .source import CheckpointSource

_CONFIG, _WEIGHTS, _SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
_OLD_NAMES = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
_TENSORS = {"W_enc": "d n", "W_dec": "n d", "b_dec": "d"}
_BIASES = {
    "standard": {"b_enc": "n"},
    "topk": {"b_enc": "n"},
    "jumprelu": {"b_enc": "n"},
    "gated": {"b_gate": "n", "b_mag": "n", "r_mag": "n"},
    "batchtopk": {"b_enc": "n", "topk_threshold": ""},
    "matryoshka_batchtopk": {"b_enc": "n", "topk_threshold": ""},
}
"""The architectures that are read, and their tensors in addition to `_TENSORS`."""

_REFUSED = {
    "abstopk": "its codes have negative entries, which no MSAE has",
    "matching_pursuit": "it encodes in steps that depend on each other, not by one matrix",
    "temporal": "its codes depend on the tokens before",
    **dict.fromkeys(
        ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"), OTHER_OUTPUT
    ),
}
_NORMALIZED = {
    **PER_SAMPLE,
    "covariance_whitening": "its statistics are not in the files; SAELens folds them in at the end of training",
}
_HEADS = {"hook_z": "it takes the concatenated outputs of attention heads, embeddings that hf_msae does not have"}
_THRESHOLDS = {"threshold": "n", "log_threshold": "n"}
_SCALES = {"finetuning_scaling_factor": "n", "scaling_factor": "n"}


def recognizes(source: CheckpointSource) -> bool:
    """Whether SAELens' two files are in this folder or in ones below."""
    return bool(source.folders_with(_CONFIG, _WEIGHTS))


def read(source: CheckpointSource) -> ForeignCheckpoint:
    """Read a SAELens folder; raises as `read_checkpoint`."""
    folder = source.folder_of(_CONFIG, _WEIGHTS)
    name = source.full_name(f"{folder}{_WEIGHTS}")
    settings = _settings(source.settings(f"{folder}{_CONFIG}"))
    architecture = settings.choice("architecture", _BIASES, "standard", _REFUSED)
    settings.refuse_transcoder()
    settings.choice("activation_fn", ("relu", "topk"), "relu")
    scale = _input_scale(source, folder, settings)
    content = source.read(f"{folder}{_WEIGHTS}")
    optional = {**_SCALES, **(_THRESHOLDS if architecture == "jumprelu" else {})}
    said = {"d": settings.get("d_in"), "n": settings.get("d_sae")}
    said = {axis: size for axis, size in said.items() if size is not None}
    tensors, sizes = state_dict(content, name, {**_TENSORS, **_BIASES[architecture]}, optional, **said)
    tensors = {key: tensor.double() for key, tensor in tensors.items()}
    tensors["W_dec"] = _finetuned(tensors, settings, name)
    if settings.flag("rescale_acts_by_decoder_norm"):
        # Activations are multiplied by the norms of decoder rows, and divided again before decoding.
        norms = torch.linalg.vector_norm(tensors["W_dec"], dim=1)
        tensors["W_enc"], tensors["b_enc"] = tensors["W_enc"] * norms, tensors["b_enc"] * norms
        tensors["W_dec"] = tensors["W_dec"] / norms[:, None]
    config = {**_origin(source, settings), **_activation(architecture, settings, sizes["n"], source)}
    return ForeignCheckpoint(
        **_encoder(architecture, tensors, name),
        decoder=tensors["W_dec"],
        bias=tensors["b_dec"],
        subtracts_bias=settings.flag("apply_b_dec_to_input", True),
        input_scale=scale,
        config=config,
    )


def _settings(content: Settings) -> Settings:
    """All settings on one level, by the names of version 6."""
    flat = {**content.inner("metadata"), **content}
    settings = Settings({_OLD_NAMES.get(key, key): value for key, value in flat.items()}, content.name, content.given)
    if settings.get("activation_fn") == "topk":
        settings["architecture"] = "topk"
        settings.setdefault("k", settings.inner("activation_fn_kwargs").get("k"))
    normalized = settings.get("normalize_activations")
    if normalized is None or isinstance(normalized, bool):  # so before version 3
        settings["normalize_activations"] = "expected_average_only_in" if normalized else "none"
    if "hook_z" in str(settings.get("hook_name")):
        settings.setdefault("reshape_activations", "hook_z")
    settings.choice("reshape_activations", ("none", None), "none", _HEADS)
    return settings


def _input_scale(source: CheckpointSource, folder: str, settings: Settings) -> float:
    kinds = ("none", "expected_average_only_in")
    if settings.choice("normalize_activations", kinds, refused=_NORMALIZED) == "none":
        return 1.0
    if source.given.get("input_scale") is not None:
        source.notes.append("input_scale is the given one: the checkpoint does not hold it.")
        return finite_number(source.given["input_scale"], "input_scale")
    if source.has(f"{folder}{_SCALER}"):
        scaler = source.settings(f"{folder}{_SCALER}")
        if scaler.get("scaling_factor") is not None:
            source.notes.append(f"input_scale is the scaling_factor of {_SCALER}.")
            return scaler.number("scaling_factor")
    raise ValueError(
        f"{settings.name} has normalize_activations={kinds[1]!r}, but does not hold the factor: give it as "
        "input_scale. It is sqrt(d_in) divided by the mean length of the embeddings it was trained on; SAELens lists "
        "those of its releases as norm_scaling_factor"
    )


def _finetuned(tensors: Mapping[str, torch.Tensor], settings: Settings, name: str) -> torch.Tensor:
    """The decoder, with each row scaled by the factor of its latent that was tuned afterwards, if any."""
    found = only_one(tensors, _SCALES, name)
    if settings.flag("finetuning_scaling_factor"):
        if found is None:
            raise ValueError(f"{settings.name} says finetuning_scaling_factor, but {name} holds no such tensor")
        return tensors["W_dec"] * tensors[found][:, None]
    if found is not None and not torch.all(tensors[found] == 1):
        raise ValueError(f"{name} holds a {found} that is not 1, but {settings.name} does not say to use it")
    return tensors["W_dec"]


def _activation(architecture: str, settings: Settings, n: int, source: CheckpointSource) -> dict[str, Any]:
    """Fields of MSAEConfig."""
    if architecture == "standard":
        return {"activation": "relu"}
    if architecture == "topk":
        return {"activation": "topk", "k": settings.k("k")}
    if architecture in ("jumprelu", "gated"):
        source.notes.extend([GATED_NOTE] if architecture == "gated" else [])
        return {"activation": "jump_relu", **_prefixes(settings.inner("training_architecture_details"), n)}
    if source.given.get("k") is not None or settings.get("k") is None:
        k = settings.k("k")
    elif (k := settings.number("k")) <= 0:
        raise ValueError(f"k of {settings.name} is {k:g}, expected a number above 0")
    if k != int(k):
        source.notes.append(
            f"Trained with k={k}; MSAEConfig takes whole numbers, and codes depend only on the threshold."
        )
    return {"activation": "batch_topk", "k": max(1, round(k)), **_prefixes(settings, n)}


def _prefixes(training: Settings, n: int) -> dict[str, Any]:
    """The levels of a Matryoshka SAE, which in SAELens are prefixes of the dictionary."""
    widths, what = training.get("matryoshka_widths"), f"matryoshka_widths of {training.name}"
    if not widths:
        return {}
    widths = [whole_number(width, f"an entry of {what}") for width in widths]
    return {"nesting": "prefix", "nesting_widths": sorted({*widths, n})}


def _encoder(architecture: str, tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, Any]:
    """Encoder, bias of the latents and threshold."""
    if architecture == "gated":
        return gated_as_jump_relu(tensors["W_enc"], tensors["b_gate"], tensors["b_mag"], tensors["r_mag"])
    threshold = None
    if architecture == "jumprelu":
        found = only_one(tensors, _THRESHOLDS, name)
        check_keys(tensors, (found or "threshold",), tensors, name)
        threshold = tensors["log_threshold"].exp() if found == "log_threshold" else tensors["threshold"]
    elif "topk_threshold" in tensors:
        threshold = reached(tensors["topk_threshold"])
    return {"encoder": tensors["W_enc"], "latent_bias": tensors["b_enc"], "threshold": threshold}


def _origin(source: CheckpointSource, settings: Settings) -> dict[str, str]:
    model, model_class, hook, module = (
        settings.word(key) for key in ("model_name", "model_class_name", "hook_name", "hf_hook_name")
    )
    place = f"{hook or 'an unnamed place'} in {model or 'an unnamed model'}"
    return origin(source, settings.name, [module, hook], model, model_class, place=place)
