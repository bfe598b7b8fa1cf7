"""SAELens' checkpoints: `cfg.json` beside `sae_weights.safetensors`, of version 6 and of the versions before.

W_enc (d, n), W_dec (n, d), b_dec (d,) and b_enc (n,); "jumprelu" also has threshold (n,), "gated" b_gate, b_mag and
r_mag (n,) in place of b_enc. With x' = x - b_dec, or x where apply_b_dec_to_input is false, the code is
activation(x' @ W_enc + b_enc), the reconstruction code @ W_dec + b_dec. From version 6 on the model's name and hook
point are in `metadata`; before, all settings are on one level and some had other names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .checkpoint import ForeignCheckpoint
from .places import hook_point_of, place_of, tower_of
from .reading import (
    check_shapes,
    finite_number,
    flag,
    gated_as_jump_relu,
    matrix_shape,
    reached,
    settings_in,
    tensors_of,
    whole_number,
    word,
)
from .source import CheckpointSource, refuse_other_keys, require_keys

_CONFIG, _WEIGHTS, _SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
_OLD_NAMES = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
_BIASES = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc",),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "batchtopk": ("b_enc", "topk_threshold"),
    "matryoshka_batchtopk": ("b_enc", "topk_threshold"),
}
"""The architectures that are read, and what they have besides W_enc, W_dec and b_dec."""

_REFUSED = {
    "abstopk": "its codes have negative entries, which no MSAE has",
    "matching_pursuit": "it encodes in steps that depend on each other, not by one matrix",
    "temporal": "its codes depend on the tokens before",
    **dict.fromkeys(
        ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"),
        "it predicts other embeddings than it encodes",
    ),
}
_PER_SAMPLE = {
    "constant_norm_rescale": "scales each embedding to one length by itself",
    "layer_norm": "brings each embedding to mean 0 and variance 1 by itself",
}
_THRESHOLDS = ("threshold", "log_threshold")
_SCALES = ("finetuning_scaling_factor", "scaling_factor")


def recognises(source: CheckpointSource) -> bool:
    """Whether SAELens' two files are there, in this folder or in ones below."""
    return (source.has(_CONFIG) and source.has(_WEIGHTS)) or bool(source.folders_with(_CONFIG, _WEIGHTS))


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Raises:
    FileNotFoundError: one of the two files is missing.
    ValueError: several checkpoints, of which one has to be named; one that does what an MSAE cannot; one from a
        place where hf_msae cannot read, without a hook_point in `overrides`; or a damaged one.
    """
    folder = _folder(source)
    name = f"{source.name}/{folder}".rstrip("/") if folder else source.name
    settings = _settings(source.read_json(f"{folder}{_CONFIG}"), overrides, name)
    architecture = _architecture(settings, name)
    scale, notes = _input_scale(source, folder, settings, overrides, name)
    tensors = tensors_of(source.read_safetensors(f"{folder}{_WEIGHTS}"), name)
    biases = _BIASES[architecture]
    require_keys(tensors, ("W_enc", "W_dec", "b_dec", *biases), name)
    known = ("W_enc", "W_dec", "b_dec", *biases, *_SCALES)
    refuse_other_keys(tensors, (*known, *_THRESHOLDS) if architecture == "jumprelu" else known, name)
    tensors = {key: tensor.double() for key, tensor in tensors.items()}
    n = _check_shapes(tensors, settings, name)
    tensors["W_dec"] = _finetuned(tensors, settings, name)

    config = {**_origin(settings, overrides, notes, name), **_activation(architecture, settings, n, notes, name)}
    if flag(settings, "rescale_acts_by_decoder_norm", False, name):
        _fold_decoder_norms(tensors)
    encoder, latent_bias, threshold = _encoder(architecture, tensors, name)
    b_dec = tensors["b_dec"]
    return ForeignCheckpoint(
        format="saelens",
        encoder=encoder,
        decoder=tensors["W_dec"],
        latent_bias=latent_bias,
        input_bias=b_dec if flag(settings, "apply_b_dec_to_input", True, name) else None,
        output_bias=b_dec,
        input_scale=scale,
        threshold=threshold,
        config=config,
        notes=notes,
    )


def _folder(source: CheckpointSource) -> str:
    """Prefix of the two files' names: empty, or a folder and "/"."""
    if source.has(_CONFIG) and source.has(_WEIGHTS):
        return ""
    folders = source.folders_with(_CONFIG, _WEIGHTS)
    if not folders:
        missing = [each for each in (_CONFIG, _WEIGHTS) if not source.has(each)]
        raise FileNotFoundError(f"{source.name} holds no {' and no '.join(missing)}")
    if len(folders) > 1:
        raise ValueError(
            f"{source.name} holds {len(folders)} SAEs, name one as subfolder: {', '.join(folders[:20])}"
            + (", ..." if len(folders) > 20 else "")
        )
    return f"{folders[0]}/"


def _settings(content: Mapping[str, Any], overrides: Mapping[str, Any], name: str) -> dict[str, Any]:
    """All settings on one level, by the names of version 6; with the k that was given, if any."""
    flat = {**settings_in(content, "metadata", name), **content}
    settings = {_OLD_NAMES.get(key, key): value for key, value in flat.items()}
    arguments = settings_in(settings, "activation_fn_kwargs", name)
    if settings.get("activation_fn") == "topk":
        settings["architecture"] = "topk"
        settings.setdefault("k", arguments.get("k"))
    if overrides.get("k") is not None:
        settings["k"] = overrides["k"]
    normalised = settings.get("normalize_activations")
    if normalised is None or isinstance(normalised, bool):  # so before version 3
        settings["normalize_activations"] = "expected_average_only_in" if normalised else "none"
    return settings


def _architecture(settings: Mapping[str, Any], name: str) -> str:
    architecture = word(settings, "architecture", "standard", name)
    if architecture in _REFUSED:
        raise ValueError(f"{name} is of architecture {architecture!r}: {_REFUSED[architecture]}")
    if architecture not in _BIASES:
        raise ValueError(f"{name} is of architecture {architecture!r}; hf_msae reads {', '.join(_BIASES)}")
    if settings.get("d_out", settings.get("d_in")) != settings.get("d_in"):
        raise ValueError(
            f"{name} turns embeddings of {settings.get('d_in')} columns into ones of {settings['d_out']}: a "
            "transcoder, not an autoencoder"
        )
    reshaped = "hook_z" if "hook_z" in str(settings.get("hook_name")) else "none"
    if settings.get("reshape_activations", reshaped) not in (None, "none"):
        raise ValueError(
            f"{name} takes the outputs of attention heads (hook_z), laid side by side: embeddings that hf_msae does "
            "not have"
        )
    activation = word(settings, "activation_fn", "relu", name)
    if activation not in ("relu", "topk"):
        raise ValueError(f"{name} has the activation function {activation!r}; hf_msae reads relu and topk")
    return architecture


def _input_scale(
    source: CheckpointSource, folder: str, settings: Mapping[str, Any], overrides: Mapping[str, Any], name: str
) -> tuple[float, list[str]]:
    """What embeddings are multiplied with, and notes."""
    kind = word(settings, "normalize_activations", "none", name)
    if kind in _PER_SAMPLE:
        raise ValueError(
            f"{name} has normalize_activations={kind!r}, which {_PER_SAMPLE[kind]}: no fixed input_mean and "
            "input_scale do that, so it cannot be converted"
        )
    if kind == "none":
        return 1.0, []
    if kind != "expected_average_only_in":
        raise ValueError(
            f"{name} has normalize_activations={kind!r}, whose statistics are not in its files; SAELens folds them in "
            "when a training ends: convert what it saved then"
        )
    if overrides.get("input_scale") is not None:
        return finite_number(overrides["input_scale"], "input_scale"), [
            "input_scale is what was given: the checkpoint does not hold it."
        ]
    if source.has(f"{folder}{_SCALER}"):
        scale = source.read_json(f"{folder}{_SCALER}").get("scaling_factor")
        if scale is not None:
            scale = finite_number(scale, f"scaling_factor in {_SCALER} of {name}")
            return scale, [f"input_scale is the scaling_factor of {_SCALER}."]
    raise ValueError(
        f"{name} has normalize_activations={kind!r}, but does not hold the factor: give it as input_scale. It is "
        "sqrt(d_in) divided by the mean length of the embeddings it was trained on; SAELens lists those of its "
        "releases as norm_scaling_factor"
    )


def _check_shapes(tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], name: str) -> int:
    """How many latents there are."""
    shape = matrix_shape(tensors, "W_enc", name)
    said = tuple(
        size if settings.get(key) is None else whole_number(settings[key], f"{key} in {_CONFIG} of {name}")
        for key, size in zip(("d_in", "d_sae"), shape, strict=True)
    )
    if shape != said:
        raise ValueError(
            f"W_enc of {name} has shape {shape}, but its {_CONFIG} says {said}: they do not belong together"
        )
    d, n = shape
    of_latents = ("b_enc", "b_gate", "b_mag", "r_mag", *_THRESHOLDS, *_SCALES)
    shapes = {"W_dec": (n, d), "b_dec": (d,), "topk_threshold": (), **dict.fromkeys(of_latents, (n,))}
    check_shapes(tensors, shapes, name)
    return n


def _finetuned(tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], name: str) -> torch.Tensor:
    """The decoder; a factor for each latent that was tuned afterwards scales its row."""
    found = [key for key in _SCALES if key in tensors]
    if len(found) > 1:
        raise ValueError(f"{name} holds both {' and '.join(found)}: nothing tells which is meant")
    if flag(settings, "finetuning_scaling_factor", False, name):
        if not found:
            raise ValueError(f"{name} says finetuning_scaling_factor, but holds no such tensor")
        return tensors["W_dec"] * tensors[found[0]][:, None]
    if found and not torch.all(tensors[found[0]] == 1):
        raise ValueError(f"{name} holds a {found[0]} that is not 1, but its {_CONFIG} does not say to use it")
    return tensors["W_dec"]


def _activation(architecture: str, settings: Mapping[str, Any], n: int, notes: list[str], name: str) -> dict[str, Any]:
    """Fields of MSAEConfig."""
    if architecture == "standard":
        return {"activation": "relu"}
    if architecture in ("jumprelu", "gated"):
        if architecture == "gated":
            notes.append("A gated SAE: it computes what JumpReLU does with other thresholds, and becomes that.")
        details = settings_in(settings, "training_architecture_details", name)
        return {"activation": "jump_relu", **_prefixes(details, n, name)}
    k = settings.get("k")
    if k is None:
        raise ValueError(f"{name} is of architecture {architecture!r}, but does not tell its k: say k=...")
    if architecture == "topk":
        return {"activation": "topk", "k": whole_number(k, f"k of {name}")}
    k = finite_number(k, f"k of {name}")
    if k <= 0:
        raise ValueError(f"k of {name} is {k:g}, expected a number above 0")
    if k != int(k):
        notes.append(f"Trained with k={k}; MSAEConfig takes whole numbers, and codes depend on the threshold alone.")
    return {"activation": "batch_topk", "k": max(1, round(k)), **_prefixes(settings, n, name)}


def _prefixes(training: Mapping[str, Any], n: int, name: str) -> dict[str, Any]:
    """The levels of a Matryoshka SAE, which in SAELens are prefixes of the dictionary."""
    widths = training.get("matryoshka_widths")
    if not widths:
        return {}
    if not isinstance(widths, list):
        raise ValueError(f"matryoshka_widths of {name} is {widths!r}, expected a list of whole numbers")
    widths = [whole_number(width, f"an entry of matryoshka_widths of {name}") for width in widths]
    return {"nesting": "prefix", "nesting_widths": sorted({*widths, n})}


def _fold_decoder_norms(tensors: dict[str, torch.Tensor]) -> None:
    """Activations that are multiplied with their decoder rows' norms, and divided again before decoding."""
    norms = torch.linalg.vector_norm(tensors["W_dec"], dim=1)
    if not torch.all(norms > 0):
        raise ValueError("rescale_acts_by_decoder_norm divides by the norms of decoder rows, of which some are 0")
    tensors["W_enc"], tensors["b_enc"] = tensors["W_enc"] * norms, tensors["b_enc"] * norms
    tensors["W_dec"] = tensors["W_dec"] / norms[:, None]


def _encoder(
    architecture: str, tensors: Mapping[str, torch.Tensor], name: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | float | None]:
    """Encoder, bias of the latents, and threshold."""
    encoder = tensors["W_enc"]
    if architecture == "gated":
        return gated_as_jump_relu(encoder, tensors["b_gate"], tensors["b_mag"], tensors["r_mag"])
    if architecture == "jumprelu":
        found = [key for key in _THRESHOLDS if key in tensors]
        if len(found) != 1:
            raise ValueError(f"{name} holds {' and '.join(found) or 'no threshold'}, expected one of {_THRESHOLDS}")
        threshold = tensors[found[0]]
        return encoder, tensors["b_enc"], threshold.exp() if found[0] == "log_threshold" else threshold
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        return encoder, tensors["b_enc"], reached(tensors["topk_threshold"])
    return encoder, tensors["b_enc"], None


def _origin(settings: Mapping[str, Any], overrides: Mapping[str, Any], notes: list[str], name: str) -> dict[str, Any]:
    """Backbone and hook point.

    Raises:
        ValueError: the embeddings are ones that hf_msae has no name for, and no hook_point was given.
    """
    model, kind, hook, module = (
        word(settings, key, None, name) for key in ("model_name", "model_class_name", "hook_name", "hf_hook_name")
    )
    config = {} if model is None else {"base_model_name_or_path": model}
    if overrides.get("hook_point") is not None:
        return config
    point, guessed = hook_point_of(module, None) or hook_point_of(hook, None), []
    if point is None:
        tower = tower_of(model, kind, notes=guessed)
        point = hook_point_of(module, tower) or hook_point_of(hook, tower)
        notes += guessed if point is not None else []
    place = f"{hook or 'a place that it does not tell'} in {model or 'a model that it does not tell'}"
    return config | place_of(point, place, overrides, name)
