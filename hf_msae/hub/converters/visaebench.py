"""ViSAEBench: `sae.pt`, `model.safetensors` or `model.pt` beside `config.json` or `config.yaml`.

encoder.weight (n, d), encoder.bias (n,), decoder.weight (n, d) and perhaps decoder.bias (d,), or overcomplete's names.
The code is relu(x @ encoder.weight.T + encoder.bias) with its k largest ("topk"), with what reaches one threshold
("batchtopk"), or with what exceeds each latent's ("jumprelu"). No bias is taken off. Its SAEs take (x - mean) / std,
where the mean of each column and the one std are of the activations it caches, and not in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import yaml

from .checkpoint import ForeignCheckpoint
from .places import place_of
from .reading import check_shapes, finite_number, k_of, matrix_shape, tensors_of
from .source import CheckpointSource, refuse_other_keys, require_keys
from .statistics import require_statistics

_WEIGHTS = ("sae.pt", "model.safetensors", "model.pt")
_CONFIGS = ("config.json", "config.yaml", "config.yml")
_ACTIVATIONS = {"topk": "topk", "batchtopk": "batch_topk", "jumprelu": "jump_relu"}
_OTHERS = ("model_type", "trainer", "activation_fn_str", "hook_point_layer", "d_in")
"""Keys of the config.json of an MSAE, dictionary_learning, ViT-Prisma and others."""

_SIMPLE = ("encoder.weight", "encoder.bias", "decoder.weight")
_OVERCOMPLETE = ("encoder.final_block.0.weight", "encoder.final_block.0.bias", "dictionary._weights")
_THRESHOLDS = {
    "topk": (),
    "batchtopk": ("_running_threshold",),
    "jumprelu": ("jump_thresholds", "thresholds"),
}
"""What each activation may have besides."""

_DEFAULT_JUMP_THRESHOLD = 0.01


def recognises(source: CheckpointSource) -> bool:
    """Whether there are weights beside a config of ViSAEBench's kind."""
    if not any(source.has(file) for file in _WEIGHTS):
        return False
    config = next((file for file in _CONFIGS if source.has(file)), None)
    if config is None:
        return False
    settings = _settings(source, config)
    return not any(key in settings for key in _OTHERS) and _kind(settings) in _ACTIVATIONS


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Raises:
    FileNotFoundError: weights or config are missing.
    ValueError: an activation that an MSAE has not, or a damaged checkpoint.
    """
    files = [next((file for file in kind if source.has(file)), None) for kind in (_WEIGHTS, _CONFIGS)]
    for file, kind in zip(files, (_WEIGHTS, _CONFIGS), strict=True):
        if file is None:
            raise FileNotFoundError(f"{source.name} holds none of {', '.join(kind)}")
    weights, config_file = files
    name = source.full_name(weights)
    settings = _settings(source, config_file)
    content = source.read_safetensors(weights) if weights.endswith(".safetensors") else source.read_torch(weights)
    tensors = tensors_of(content, name)
    simple = _SIMPLE[0] in tensors
    keys = _SIMPLE if simple else _OVERCOMPLETE
    require_keys(tensors, keys, name)
    kind = _kind(settings)
    if kind not in _ACTIVATIONS:
        raise ValueError(f"{name} has activation {kind!r}; hf_msae reads {', '.join(_ACTIVATIONS)}")
    known = (*keys, "decoder.bias" if simple else "dictionary.multiplier", *_THRESHOLDS[kind])
    refuse_other_keys(tensors, known, name)
    n, d = matrix_shape(tensors, keys[0], name)
    check_shapes(tensors, {keys[1]: (n,), keys[2]: (n, d), "decoder.bias": (d,), "dictionary.multiplier": ()}, name)
    _check_sizes(settings, d, n, name)
    decoder = tensors[keys[2]].double()
    if not simple:
        # As it is stored: ViSAEBench does not normalise the rows, which overcomplete does.
        decoder = decoder * tensors.get("dictionary.multiplier", torch.zeros(())).double().exp()
    notes: list[str] = []
    config, threshold = _activation(kind, settings, tensors, n, overrides, name, notes)
    place = _place(settings, overrides, name)
    why = "ViSAEBench feeds its SAEs (x - mean) / std, with the mean of each column and one std, of what it caches"
    require_statistics(overrides, name, why)
    return ForeignCheckpoint(
        format="visaebench",
        encoder=tensors[keys[0]].T,
        decoder=decoder,
        latent_bias=tensors[keys[1]],
        output_bias=tensors.get("decoder.bias") if simple else None,
        threshold=threshold,
        config={**config, **place},
        notes=notes,
    )


def _settings(source: CheckpointSource, file: str) -> dict[str, Any]:
    if file.endswith(".json"):
        return source.read_json(file)
    name = source.full_name(file)
    try:
        settings = yaml.safe_load(source.path(file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} holds no YAML: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{name} holds YAML that is nested too deeply to be read") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{name} holds a {type(settings).__name__}, not a mapping")
    return settings


def _kind(settings: Mapping[str, Any]) -> str | None:
    kind = next((settings[key] for key in ("activation", "sae_type", "architecture") if key in settings), None)
    if kind is None and {"input_dim", "hidden_dim"} <= set(settings):
        return "topk"  # ViSAEBench's default
    return str(kind).lower()


def _check_sizes(settings: Mapping[str, Any], d: int, n: int, name: str) -> None:
    for key, size in (("input_dim", d), ("hidden_dim", n)):
        if settings.get(key, size) != size:
            raise ValueError(f"its config says {key}={settings[key]}, but the weights of {name} have {size}")


def _activation(
    kind: str,
    settings: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    n: int,
    overrides: Mapping[str, Any],
    name: str,
    notes: list[str],
) -> tuple[dict[str, Any], torch.Tensor | float | None]:
    """Fields of MSAEConfig, and thresholds."""
    if kind == "jumprelu":  # MSAEConfig would keep k activations; theirs keeps all that exceed their thresholds
        found = [tensors[key] for key in _THRESHOLDS[kind] if key in tensors]
        if len(found) > 1:
            raise ValueError(f"{name} has both {' and '.join(_THRESHOLDS[kind])}: nothing tells which are used")
        if not found:
            notes.append(f"It holds no thresholds: they are {_DEFAULT_JUMP_THRESHOLD}, ViSAEBench's default.")
        thresholds = found[0] if found else torch.full((n,), _DEFAULT_JUMP_THRESHOLD)
        check_shapes({"thresholds": thresholds}, {"thresholds": (n,)}, name)
        return {"activation": "jump_relu"}, thresholds.double().clamp_min(0)
    config = {"activation": _ACTIVATIONS[kind], "k": k_of(settings.get("k"), overrides, f"k in the config of {name}")}
    if kind == "topk":
        return config, None
    threshold = settings.get("threshold")  # which its loader prefers to the tensor
    if threshold is None:
        threshold = tensors.get("_running_threshold")
    if threshold is None:
        threshold = 0.0
        notes.append(
            "It holds no threshold: codes keep every positive activation, as ViSAEBench then does; activation=topk "
            "keeps the k largest of each embedding instead."
        )
    return config, max(0.0, finite_number(threshold, f"the threshold of {name}"))


def _place(settings: Mapping[str, Any], overrides: Mapping[str, Any], name: str) -> dict[str, Any]:
    told = ", ".join(f"{key} {settings[key]}" for key in ("backbone", "layer") if settings.get(key) is not None)
    return place_of(None, None, overrides, name, known=f"patch tokens{f' ({told})' if told else ''}")
