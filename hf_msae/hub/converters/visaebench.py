"""ViSAEBench: `sae.pt`, `model.safetensors` or `model.pt` beside `config.json` or `config.yaml`.

encoder.weight (n, d), encoder.bias (n,), decoder.weight (n, d) and possibly decoder.bias (d,), or overcomplete's
names. The code is relu(x @ encoder.weight.T + encoder.bias) with its k largest ("topk"), with what reaches one
threshold ("batchtopk"), or with what exceeds each latent's ("jumprelu"). No bias is subtracted. Its SAEs take
(x - mean) / std, with the mean of each column and one std of the activations it caches, which are not in the
checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import yaml

from .checkpoint import ForeignCheckpoint
from .places import place_of
from .reading import Settings, finite_number, state_dict, tensors_of
from .source import CheckpointSource
from .statistics import require_statistics

_WEIGHTS = ("sae.pt", "model.safetensors", "model.pt")
_CONFIGS = ("config.json", "config.yaml", "config.yml")
_ACTIVATIONS = {"topk": "topk", "batchtopk": "batch_topk", "jumprelu": "jump_relu"}
_OTHERS = ("model_type", "trainer", "activation_fn_str", "hook_point_layer", "d_in")
"""Keys of the config.json of an MSAE, dictionary_learning, ViT-Prisma and others."""

_SIMPLE = {"encoder.weight": "n d", "encoder.bias": "n", "decoder.weight": "n d"}
_OVERCOMPLETE = {
    "encoder.final_block.0.weight": "n d",
    "encoder.final_block.0.bias": "n",
    "dictionary._weights": "n d",
}
_THRESHOLDS = {
    "topk": {},
    "batchtopk": {"_running_threshold": ""},
    "jumprelu": {"jump_thresholds": "n", "thresholds": "n"},
}
"""What each activation may have in addition."""

_DEFAULT_JUMP_THRESHOLD = 0.01


def recognizes(source: CheckpointSource) -> bool:
    """Whether there are weights beside a config of ViSAEBench's kind."""
    config = next((file for file in _CONFIGS if source.has(file)), None)
    if config is None or not any(source.has(file) for file in _WEIGHTS):
        return False
    settings = _settings(source, config)
    return not any(key in settings for key in _OTHERS) and _kind(settings) in _ACTIVATIONS


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Read weights and config of ViSAEBench's; see `read_checkpoint` for what is raised."""
    weights, config_file = (_first(source, names) for names in (_WEIGHTS, _CONFIGS))
    name, settings = source.full_name(weights), _settings(source, config_file)
    content = tensors_of(source.read(weights), name)
    kind = _kind(settings)
    if kind not in _ACTIVATIONS:
        raise ValueError(f"{name} has activation {kind!r}; hf_msae reads {', '.join(_ACTIVATIONS)}")
    simple = "encoder.weight" in content
    required = _SIMPLE if simple else _OVERCOMPLETE
    optional = {"decoder.bias": "d"} if simple else {"dictionary.multiplier": ""}
    tensors, sizes = state_dict(content, name, required, {**optional, **_THRESHOLDS[kind]})
    for key, size in (("input_dim", sizes["d"]), ("hidden_dim", sizes["n"])):
        if settings.get(key, size) != size:
            raise ValueError(f"its config says {key}={settings[key]}, but the weights of {name} have {size}")
    encoder, bias, decoder = (tensors[key] for key in required)
    # As it is stored: unlike overcomplete, ViSAEBench does not normalize the rows.
    decoder = decoder.double() * tensors.get("dictionary.multiplier", torch.zeros(())).double().exp()
    notes: list[str] = []
    config, threshold = _activation(kind, settings, tensors, sizes["n"], overrides, name, notes)
    known = ", ".join(f"{key} {settings[key]}" for key in ("backbone", "layer") if settings.get(key) is not None)
    place = place_of(None, None, overrides, name, known=f"patch tokens{f' ({known})' if known else ''}")
    why = "ViSAEBench feeds its SAEs (x - mean) / std, with the mean of each column and one std, of what it caches"
    require_statistics(overrides, name, why)
    return ForeignCheckpoint(
        format="visaebench",
        encoder=encoder.T,
        decoder=decoder,
        latent_bias=bias,
        output_bias=tensors.get("decoder.bias"),
        threshold=threshold,
        config={**config, **place},
        notes=notes,
    )


def _first(source: CheckpointSource, names: tuple[str, ...]) -> str:
    found = next((file for file in names if source.has(file)), None)
    if found is None:
        raise FileNotFoundError(f"{source.name} holds none of {', '.join(names)}")
    return found


def _settings(source: CheckpointSource, file: str) -> Settings:
    if file.endswith(".json"):
        return source.settings(file)
    name = source.full_name(file)
    try:
        settings = yaml.safe_load(source.path(file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} holds no YAML: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{name} holds YAML that is nested too deeply to be read") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{name} holds a {type(settings).__name__}, not a mapping")
    return Settings(settings, name)


def _kind(settings: Settings) -> str | None:
    kind = next((settings[key] for key in ("activation", "sae_type", "architecture") if key in settings), None)
    if kind is None and {"input_dim", "hidden_dim"} <= set(settings):
        return "topk"  # ViSAEBench's default
    return str(kind).lower()


def _activation(
    kind: str,
    settings: Settings,
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
            raise ValueError(f"{name} has both {' and '.join(_THRESHOLDS[kind])}: it is unclear which are used")
        if not found:
            notes.append(f"It holds no thresholds: they are {_DEFAULT_JUMP_THRESHOLD}, ViSAEBench's default.")
        thresholds = found[0] if found else torch.full((n,), _DEFAULT_JUMP_THRESHOLD)
        return {"activation": "jump_relu"}, thresholds.double().clamp_min(0)
    config = {"activation": _ACTIVATIONS[kind], "k": settings.k("k", overrides)}
    if kind == "topk":
        return config, None
    threshold = settings.get("threshold")  # which its loader prefers to the tensor
    if threshold is None:
        threshold = tensors.get("_running_threshold")
    if threshold is None:
        threshold = 0.0
        notes.append(
            "It holds no threshold: codes keep every positive activation, as in ViSAEBench; activation=topk keeps the "
            "k largest of each embedding instead."
        )
    return config, max(0.0, finite_number(threshold, f"the threshold of {name}"))
