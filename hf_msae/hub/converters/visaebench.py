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
from .reading import check_shapes, matrix_shape, place_of, tensors_of, whole_number
from .source import CheckpointSource, refuse_other_keys, require_keys

_WEIGHTS = ("sae.pt", "model.safetensors", "model.pt")
_CONFIGS = ("config.json", "config.yaml", "config.yml")
_ACTIVATIONS = {"topk": "topk", "batchtopk": "batch_topk", "jumprelu": "jump_relu"}
_OTHERS = ("model_type", "trainer", "activation_fn_str", "hook_point_layer", "d_in")
"""Keys of the config.json of an MSAE, dictionary_learning, ViT-Prisma and others."""

_SIMPLE = ("encoder.weight", "encoder.bias", "decoder.weight")
_OVERCOMPLETE = ("encoder.final_block.0.weight", "encoder.final_block.0.bias", "dictionary._weights")
_OTHER_TENSORS = ("decoder.bias", "dictionary.multiplier", "_running_threshold", "jump_thresholds", "thresholds")
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
    """
    Raises:
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
    refuse_other_keys(tensors, (*keys, *_OTHER_TENSORS), name)
    n, d = matrix_shape(tensors, keys[0], name)
    check_shapes(tensors, {keys[1]: (n,), keys[2]: (n, d), "decoder.bias": (d,)}, name)
    _check_sizes(settings, d, n, name)
    decoder = tensors[keys[2]].double()
    if not simple:
        # As it is stored: ViSAEBench does not normalise the rows, which overcomplete does.
        decoder = decoder * tensors.get("dictionary.multiplier", torch.zeros(())).double().exp()
    notes: list[str] = []
    config, threshold = _activation(settings, tensors, n, overrides, name, notes)
    notes.append(
        "ViSAEBench feeds its SAEs (x - mean) / std, which are not in the checkpoint: this MSAE takes embeddings that "
        "are normalised so, until model.set_input_statistics(mean, 1 / std) makes it take raw ones."
    )
    return ForeignCheckpoint(
        format="visaebench",
        encoder=tensors[keys[0]].T,
        decoder=decoder,
        latent_bias=tensors[keys[1]],
        output_bias=tensors.get("decoder.bias") if simple else None,
        threshold=threshold,
        config={**config, **_origin(settings, overrides, notes)},
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
    settings: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    n: int,
    overrides: Mapping[str, Any],
    name: str,
    notes: list[str],
) -> tuple[dict[str, Any], torch.Tensor | float | None]:
    """Fields of MSAEConfig, and thresholds."""
    kind = _kind(settings)
    if kind not in _ACTIVATIONS:
        raise ValueError(f"{name} has activation {kind!r}; hf_msae reads {', '.join(_ACTIVATIONS)}")
    k = overrides.get("k", settings.get("k"))
    if kind != "jumprelu" and k is None:
        raise ValueError(f"the config of {name} does not tell k, the activations to keep of each embedding: say k=...")
    config = {"activation": _ACTIVATIONS[kind]} | ({} if k is None else {"k": whole_number(k, f"k of {name}")})
    if kind == "topk":
        return config, None
    if kind == "jumprelu":
        config.pop("k", None)  # MSAEConfig would keep that many; theirs keeps all that exceed their thresholds
        thresholds = tensors.get("jump_thresholds", tensors.get("thresholds"))
        if thresholds is None:
            thresholds = torch.full((n,), _DEFAULT_JUMP_THRESHOLD)
            notes.append(f"It holds no thresholds: they are {_DEFAULT_JUMP_THRESHOLD}, ViSAEBench's default.")
        check_shapes({"thresholds": thresholds}, {"thresholds": (n,)}, name)
        return config, thresholds.double().clamp_min(0)
    threshold = settings.get("threshold")
    if threshold is None and "_running_threshold" in tensors:
        threshold = float(tensors["_running_threshold"])
    if threshold is None:
        threshold = 0.0
        notes.append(
            "It holds no threshold: codes keep every positive activation, as ViSAEBench then does; activation=topk "
            "keeps the k largest of each embedding instead."
        )
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise ValueError(f"the threshold in the config of {name} is {threshold!r}, expected a number")
    return config, max(0.0, float(threshold))


def _origin(settings: Mapping[str, Any], overrides: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    told = ", ".join(f"{key} {settings[key]}" for key in ("backbone", "layer") if settings.get(key) is not None)
    notes.append(f"ViSAEBench trains on patch tokens{f' ({told})' if told else ''}.")
    return place_of(None, None, overrides, notes)
