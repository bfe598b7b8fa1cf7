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

from .checkpoint import ForeignCheckpoint, hook_point_of
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
_SCALES = ("finetuning_scaling_factor", "scaling_factor")


def recognises(source: CheckpointSource) -> bool:
    """Whether SAELens' two files are there, in this folder or in ones below."""
    return (source.has(_CONFIG) and source.has(_WEIGHTS)) or bool(source.folders_with(_CONFIG, _WEIGHTS))


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """
    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: several checkpoints, of which one has to be named; one that does what an MSAE cannot; one from a
            place where hf_msae cannot read, without a hook_point in `overrides`; or a damaged one.
    """
    folder = _folder(source)
    settings = _settings(source.read_json(f"{folder}{_CONFIG}"))
    name = f"{source.name}/{folder}".rstrip("/") if folder else source.name
    architecture = _architecture(settings, name)
    scale, notes = _input_scale(source, folder, settings, overrides, name)
    tensors = source.read_safetensors(f"{folder}{_WEIGHTS}")
    biases = _BIASES[architecture]
    require_keys(tensors, ("W_enc", "W_dec", "b_dec", *biases), name)
    known = ("W_enc", "W_dec", "b_dec", *biases, *_SCALES)
    refuse_other_keys(tensors, (*known, "threshold", "log_threshold") if architecture == "jumprelu" else known, name)
    tensors = {key: tensor.double() for key, tensor in tensors.items()}
    _check_shapes(tensors, settings, name)
    tensors["W_dec"] = _finetuned(tensors, settings, name)

    config = {**_origin(settings, overrides, name), **_activation(architecture, settings, notes, name)}
    if settings.get("rescale_acts_by_decoder_norm"):
        _fold_decoder_norms(tensors)
    encoder, latent_bias, threshold = _encoder(architecture, tensors)
    b_dec = tensors["b_dec"]
    return ForeignCheckpoint(
        format="saelens",
        encoder=encoder,
        decoder=tensors["W_dec"],
        latent_bias=latent_bias,
        input_bias=b_dec if settings.get("apply_b_dec_to_input", True) else None,
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


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    """All settings on one level, by the names of version 6."""
    metadata = content.get("metadata")
    flat = {**(metadata if isinstance(metadata, dict) else {}), **content}
    settings = {_OLD_NAMES.get(key, key): value for key, value in flat.items()}
    arguments = settings.get("activation_fn_kwargs") or {}
    if settings.get("activation_fn") == "topk":
        settings["architecture"] = "topk"
        settings.setdefault("k", arguments.get("k"))
    normalised = settings.get("normalize_activations")
    if normalised is None or isinstance(normalised, bool):  # so before version 3
        settings["normalize_activations"] = "expected_average_only_in" if normalised else "none"
    return settings


def _architecture(settings: Mapping[str, Any], name: str) -> str:
    architecture = settings.get("architecture", "standard")
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
    activation = settings.get("activation_fn", "relu")
    if activation not in ("relu", "topk"):
        raise ValueError(f"{name} has the activation function {activation!r}; hf_msae reads relu and topk")
    return architecture


def _input_scale(
    source: CheckpointSource, folder: str, settings: Mapping[str, Any], overrides: Mapping[str, Any], name: str
) -> tuple[float, list[str]]:
    """What embeddings are multiplied with, and notes."""
    kind = settings["normalize_activations"]
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
        return float(overrides["input_scale"]), ["input_scale is what was given: the checkpoint does not hold it."]
    if source.has(f"{folder}{_SCALER}"):
        scale = source.read_json(f"{folder}{_SCALER}").get("scaling_factor")
        if scale is not None:
            return float(scale), [f"input_scale is the scaling_factor of {_SCALER}."]
    raise ValueError(
        f"{name} has normalize_activations={kind!r}, but does not hold the factor: give it as input_scale. It is "
        "sqrt(d_in) divided by the mean length of the embeddings it was trained on; SAELens lists those of its "
        "releases as norm_scaling_factor"
    )


def _check_shapes(tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], name: str) -> None:
    d, n = settings.get("d_in"), settings.get("d_sae")
    shape = tuple(tensors["W_enc"].shape)
    if d is not None and n is not None and shape != (d, n):
        raise ValueError(
            f"W_enc of {name} has shape {shape}, but its {_CONFIG} says ({d}, {n}): they do not belong together"
        )


def _finetuned(tensors: dict[str, torch.Tensor], settings: Mapping[str, Any], name: str) -> torch.Tensor:
    """The decoder; a factor for each latent that was tuned afterwards scales its row."""
    key = next((key for key in _SCALES if key in tensors), None)
    if settings.get("finetuning_scaling_factor"):
        if key is None:
            raise ValueError(f"{name} says finetuning_scaling_factor, but holds no such tensor")
        return tensors["W_dec"] * tensors[key][:, None]
    if key is not None and not torch.all(tensors[key] == 1):
        raise ValueError(f"{name} holds a {key} that is not 1, but its {_CONFIG} does not say to use it")
    return tensors["W_dec"]


def _activation(architecture: str, settings: Mapping[str, Any], notes: list[str], name: str) -> dict[str, Any]:
    """Fields of MSAEConfig."""
    if architecture == "standard":
        return {"activation": "relu"}
    if architecture in ("jumprelu", "gated"):
        if architecture == "gated":
            notes.append("A gated SAE: it computes what JumpReLU does with other thresholds, and becomes that.")
        details = settings.get("training_architecture_details")
        return {"activation": "jump_relu", **_prefixes(details if isinstance(details, dict) else {}, settings)}
    k = settings.get("k")
    if not isinstance(k, (int, float)) or k < 1:
        raise ValueError(f"{name} is of architecture {architecture!r}, but its k is {k!r}")
    if architecture == "topk":
        return {"activation": "topk", "k": int(k)}
    if k != int(k):
        notes.append(f"Trained with k={k}; MSAEConfig takes whole numbers, and codes depend on the threshold alone.")
    return {"activation": "batch_topk", "k": max(1, round(k)), **_prefixes(settings, settings)}


def _prefixes(training: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The levels of a Matryoshka SAE, which in SAELens are prefixes of the dictionary."""
    widths = training.get("matryoshka_widths")
    return {"nesting": "prefix", "nesting_widths": sorted({*widths, settings["d_sae"]})} if widths else {}


def _fold_decoder_norms(tensors: dict[str, torch.Tensor]) -> None:
    """Activations that are multiplied with their decoder rows' norms, and divided again before decoding."""
    norms = torch.linalg.vector_norm(tensors["W_dec"], dim=1)
    if not torch.all(norms > 0):
        raise ValueError("rescale_acts_by_decoder_norm divides by the norms of decoder rows, of which some are 0")
    tensors["W_enc"], tensors["b_enc"] = tensors["W_enc"] * norms, tensors["b_enc"] * norms
    tensors["W_dec"] = tensors["W_dec"] / norms[:, None]


def _encoder(
    architecture: str, tensors: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | float | None]:
    """Encoder, bias of the latents, and threshold."""
    encoder = tensors["W_enc"]
    if architecture == "gated":
        # On where x' @ W_enc + b_gate > 0, with the value relu(x' @ W_enc exp(r_mag) + b_mag) there.
        growth = tensors["r_mag"].exp()
        threshold = (tensors["b_mag"] - tensors["b_gate"] * growth).clamp_min(0)
        return encoder * growth, tensors["b_mag"], threshold
    if architecture == "jumprelu":
        if "log_threshold" in tensors:
            return encoder, tensors["b_enc"], tensors["log_threshold"].exp()
        require_keys(tensors, ("threshold",), "a jumprelu SAE")
        return encoder, tensors["b_enc"], tensors["threshold"]
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        # Theirs has to be exceeded, ours reached.
        reached = torch.nextafter(tensors["topk_threshold"].float(), torch.tensor(torch.inf))
        return encoder, tensors["b_enc"], float(reached)
    return encoder, tensors["b_enc"], None


def _origin(settings: Mapping[str, Any], overrides: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Backbone and hook point.

    Raises:
        ValueError: the embeddings are ones that hf_msae has no name for, and no hook_point was given.
    """
    model, hook = settings.get("model_name"), settings.get("hook_name")
    config = {} if model is None else {"base_model_name_or_path": str(model)}
    if overrides.get("hook_point") is not None:
        return config
    tower = "vision" if any(word in str(model).lower() for word in ("clip", "vit", "siglip", "dino")) else "text"
    point = hook_point_of(settings.get("hf_hook_name") or hook, tower) or hook_point_of(hook, tower)
    if point is None:
        raise ValueError(
            f"{name} is of {hook or 'a place that it does not tell'} in {model or 'a model that it does not tell'}, "
            "where hf_msae cannot read embeddings itself. To use it on embeddings from there that you have, say of "
            "which kind they are: hook_point=image_embeds or text_embeds (one of each input), vision.layers.9 or "
            "text.layers.9 (one of each token)"
        )
    return {**config, "hook_point": point}
