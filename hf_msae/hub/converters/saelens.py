"""SAELens' checkpoints: `cfg.json` beside `sae_weights.safetensors`, of version 6 and of the versions before.

W_enc (d, n), W_dec (n, d), b_dec (d,) and b_enc (n,); "jumprelu" also has threshold (n,), "gated" b_gate, b_mag and
r_mag (n,) in place of b_enc. With x' = x - b_dec, or x if apply_b_dec_to_input is false, the code is
activation(x' @ W_enc + b_enc), the reconstruction code @ W_dec + b_dec. From version 6 on the model's name and hook
point are in `metadata`; before, all settings are on one level and some had other names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .checkpoint import ForeignCheckpoint
from .places import hook_point_of, place_of, tower_of
from .reading import GATED_NOTE, Settings, finite_number, gated_as_jump_relu, reached, state_dict, whole_number
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
        ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"),
        "it predicts other embeddings than it encodes",
    ),
}
_PER_SAMPLE = {
    "constant_norm_rescale": "scales each embedding to one length by itself",
    "layer_norm": "brings each embedding to mean 0 and variance 1 by itself",
}
_THRESHOLDS = {"threshold": "n", "log_threshold": "n"}
_SCALES = {"finetuning_scaling_factor": "n", "scaling_factor": "n"}


def recognizes(source: CheckpointSource) -> bool:
    """Whether SAELens' two files are in this folder or in ones below."""
    return source.has_together(_CONFIG, _WEIGHTS)


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Read a folder of SAELens'; see `read_checkpoint` for what is raised."""
    folder = source.folder_of(_CONFIG, _WEIGHTS)
    name = f"{source.name}/{folder}".rstrip("/") if folder else source.name
    settings = _settings(source.settings(f"{folder}{_CONFIG}"), overrides)
    architecture = _architecture(settings)
    scale, notes = _input_scale(source, folder, settings, overrides)
    content = source.read(f"{folder}{_WEIGHTS}")
    optional = {**_SCALES, **(_THRESHOLDS if architecture == "jumprelu" else {})}
    said = {
        axis: settings.whole(key) for axis, key in (("d", "d_in"), ("n", "d_sae")) if settings.get(key) is not None
    }
    tensors, sizes = state_dict(content, name, {**_TENSORS, **_BIASES[architecture]}, optional, **said)
    tensors = {key: tensor.double() for key, tensor in tensors.items()}
    tensors["W_dec"] = _finetuned(tensors, settings, name)
    config = {**_origin(settings, overrides, notes), **_activation(architecture, settings, sizes["n"], notes)}
    if settings.flag("rescale_acts_by_decoder_norm"):
        _fold_decoder_norms(tensors)
    b_dec = tensors["b_dec"]
    return ForeignCheckpoint(
        format="saelens",
        **_encoder(architecture, tensors, name),
        decoder=tensors["W_dec"],
        input_bias=b_dec if settings.flag("apply_b_dec_to_input", True) else None,
        output_bias=b_dec,
        input_scale=scale,
        config=config,
        notes=notes,
    )


def _settings(content: Settings, overrides: Mapping[str, Any]) -> Settings:
    """All settings on one level, by the names of version 6; with the given k, if any."""
    flat = {**content.inner("metadata"), **content}
    settings = Settings({_OLD_NAMES.get(key, key): value for key, value in flat.items()}, content.name)
    if settings.get("activation_fn") == "topk":
        settings["architecture"] = "topk"
        settings.setdefault("k", settings.inner("activation_fn_kwargs").get("k"))
    if overrides.get("k") is not None:
        settings["k"] = overrides["k"]
    normalized = settings.get("normalize_activations")
    if normalized is None or isinstance(normalized, bool):  # so before version 3
        settings["normalize_activations"] = "expected_average_only_in" if normalized else "none"
    return settings


def _architecture(settings: Settings) -> str:
    name, architecture = settings.name, settings.word("architecture", "standard")
    if architecture in _REFUSED:
        raise ValueError(f"{name} has architecture {architecture!r}: {_REFUSED[architecture]}")
    if architecture not in _BIASES:
        raise ValueError(f"{name} has architecture {architecture!r}; hf_msae reads {', '.join(_BIASES)}")
    settings.refuse_transcoder()
    reshaped = "hook_z" if "hook_z" in str(settings.get("hook_name")) else "none"
    if settings.get("reshape_activations", reshaped) not in (None, "none"):
        raise ValueError(
            f"{name} takes the concatenated outputs of attention heads (hook_z): embeddings that hf_msae does not have"
        )
    activation = settings.word("activation_fn", "relu")
    if activation not in ("relu", "topk"):
        raise ValueError(f"{name} has the activation function {activation!r}; hf_msae reads relu and topk")
    return architecture


def _input_scale(
    source: CheckpointSource, folder: str, settings: Settings, overrides: Mapping[str, Any]
) -> tuple[float, list[str]]:
    """The factor of embeddings, and notes."""
    name, kind = settings.name, settings.word("normalize_activations", "none")
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
            "at the end of training: convert what it saved then"
        )
    if overrides.get("input_scale") is not None:
        scale = finite_number(overrides["input_scale"], "input_scale")
        return scale, ["input_scale is the given one: the checkpoint does not hold it."]
    if source.has(f"{folder}{_SCALER}"):
        scaler = source.settings(f"{folder}{_SCALER}")
        if scaler.get("scaling_factor") is not None:
            return scaler.number("scaling_factor"), [f"input_scale is the scaling_factor of {_SCALER}."]
    raise ValueError(
        f"{name} has normalize_activations={kind!r}, but does not hold the factor: give it as input_scale. It is "
        "sqrt(d_in) divided by the mean length of the embeddings it was trained on; SAELens lists those of its "
        "releases as norm_scaling_factor"
    )


def _finetuned(tensors: Mapping[str, torch.Tensor], settings: Settings, name: str) -> torch.Tensor:
    """The decoder, with each row scaled by the factor of its latent that was tuned afterwards, if any."""
    found = [key for key in _SCALES if key in tensors]
    if len(found) > 1:
        raise ValueError(f"{name} holds both {' and '.join(found)}: it is unclear which is used")
    if settings.flag("finetuning_scaling_factor"):
        if not found:
            raise ValueError(f"{name} says finetuning_scaling_factor, but holds no such tensor")
        return tensors["W_dec"] * tensors[found[0]][:, None]
    if found and not torch.all(tensors[found[0]] == 1):
        raise ValueError(f"{name} holds a {found[0]} that is not 1, but its {_CONFIG} does not say to use it")
    return tensors["W_dec"]


def _activation(architecture: str, settings: Settings, n: int, notes: list[str]) -> dict[str, Any]:
    """Fields of MSAEConfig."""
    if architecture == "standard":
        return {"activation": "relu"}
    if architecture in ("jumprelu", "gated"):
        notes += [GATED_NOTE] if architecture == "gated" else []
        return {"activation": "jump_relu", **_prefixes(settings.inner("training_architecture_details"), n)}
    if settings.get("k") is None:
        raise ValueError(f"{settings.name} has architecture {architecture!r}, but no k: say k=...")
    if architecture == "topk":
        return {"activation": "topk", "k": settings.whole("k")}
    k = settings.number("k")
    if k <= 0:
        raise ValueError(f"k of {settings.name} is {k:g}, expected a number above 0")
    if k != int(k):
        notes.append(f"Trained with k={k}; MSAEConfig takes whole numbers, and codes depend only on the threshold.")
    return {"activation": "batch_topk", "k": max(1, round(k)), **_prefixes(settings, n)}


def _prefixes(training: Settings, n: int) -> dict[str, Any]:
    """The levels of a Matryoshka SAE, which in SAELens are prefixes of the dictionary."""
    widths, what = training.get("matryoshka_widths"), f"matryoshka_widths of {training.name}"
    if not widths:
        return {}
    if not isinstance(widths, list):
        raise ValueError(f"{what} is {widths!r}, expected a list of whole numbers")
    widths = [whole_number(width, f"an entry of {what}") for width in widths]
    return {"nesting": "prefix", "nesting_widths": sorted({*widths, n})}


def _fold_decoder_norms(tensors: dict[str, torch.Tensor]) -> None:
    """Fold in that activations are multiplied by the norms of decoder rows, and divided again before decoding."""
    norms = torch.linalg.vector_norm(tensors["W_dec"], dim=1)
    if not torch.all(norms > 0):
        raise ValueError("rescale_acts_by_decoder_norm divides by the norms of decoder rows, some of which are 0")
    tensors["W_enc"], tensors["b_enc"] = tensors["W_enc"] * norms, tensors["b_enc"] * norms
    tensors["W_dec"] = tensors["W_dec"] / norms[:, None]


def _encoder(architecture: str, tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, Any]:
    """Encoder, bias of the latents and threshold."""
    encoder = tensors["W_enc"]
    if architecture == "gated":
        return gated_as_jump_relu(encoder, tensors["b_gate"], tensors["b_mag"], tensors["r_mag"])
    threshold = None
    if architecture == "jumprelu":
        found = [key for key in _THRESHOLDS if key in tensors]
        if len(found) != 1:
            raise ValueError(
                f"{name} holds {' and '.join(found) or 'no threshold'}, expected one of {', '.join(_THRESHOLDS)}"
            )
        threshold = tensors["log_threshold"].exp() if found[0] == "log_threshold" else tensors["threshold"]
    elif "topk_threshold" in tensors:
        threshold = reached(tensors["topk_threshold"])
    return {"encoder": encoder, "latent_bias": tensors["b_enc"], "threshold": threshold}


def _origin(settings: Settings, overrides: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Backbone and hook point."""
    names = ("model_name", "model_class_name", "hook_name", "hf_hook_name")
    model, kind, hook, module = (settings.word(key) for key in names)
    config = {} if model is None else {"base_model_name_or_path": model}
    if overrides.get("hook_point") is not None:
        return config
    point, guessed = hook_point_of(module, None) or hook_point_of(hook, None), []
    if point is None:
        tower = tower_of(model, kind, notes=guessed)
        point = hook_point_of(module, tower) or hook_point_of(hook, tower)
        notes += guessed if point is not None else []
    place = f"{hook or 'an unnamed place'} in {model or 'an unnamed model'}"
    return config | place_of(point, place, overrides, settings.name)
