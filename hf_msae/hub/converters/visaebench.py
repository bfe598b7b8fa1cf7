"""ViSAEBench: `sae.pt`, `model.safetensors` or `model.pt` next to `config.json` or `config.yaml`.

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

from .checkpoint import ForeignCheckpoint
from .places import origin
from .reading import Settings, finite_number, only_one, state_dict
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
    """Whether there are weights next to a ViSAEBench config."""
    config = next((file for file in _CONFIGS if source.has(file)), None)
    if config is None or not any(source.has(file) for file in _WEIGHTS):
        return False
    settings = source.settings(config)
    return not any(key in settings for key in _OTHERS) and _kind(settings) in _ACTIVATIONS


def read(source: CheckpointSource) -> ForeignCheckpoint:
    """Read a ViSAEBench folder; raises as `read_checkpoint`."""
    weights = next((file for file in _WEIGHTS if source.has(file)), _WEIGHTS[0])
    settings = source.settings(next((file for file in _CONFIGS if source.has(file)), _CONFIGS[0]))
    name, kind = source.full_name(weights), _kind(settings)
    if kind not in _ACTIVATIONS:
        raise ValueError(f"{settings.name} has activation={kind!r}; hf_msae reads {', '.join(_ACTIVATIONS)}")
    simple = "encoder.weight" in source.names_in(weights)
    required, optional = (_SIMPLE, {"decoder.bias": "d"}) if simple else (_OVERCOMPLETE, {"dictionary.multiplier": ""})
    tensors, sizes = state_dict(source.read(weights), name, required, {**optional, **_THRESHOLDS[kind]})
    for key, size in (("input_dim", sizes["d"]), ("hidden_dim", sizes["n"])):
        if settings.get(key, size) != size:
            raise ValueError(f"{settings.name} says {key}={settings[key]}, but the weights of {name} have {size}")
    encoder, bias, decoder = (tensors[key] for key in required)
    config, threshold = _activation(kind, settings, tensors, source)
    place = ", ".join(f"{key} {settings[key]}" for key in ("backbone", "layer") if settings.get(key) is not None)
    config |= origin(source, name, known=f"patch tokens ({place})" if place else "patch tokens")
    why = "ViSAEBench feeds its SAEs (x - mean) / std, with the mean of each column and one std, of what it caches"
    require_statistics(source, name, why)
    return ForeignCheckpoint(
        encoder=encoder.T,
        # As it is stored: unlike overcomplete, ViSAEBench does not normalize the rows.
        decoder=decoder.double() * tensors.get("dictionary.multiplier", torch.zeros(())).double().exp(),
        latent_bias=bias,
        bias=tensors.get("decoder.bias"),
        subtracts_bias=False,
        threshold=threshold,
        config=config,
    )


def _kind(settings: Settings) -> str:
    kind = next((settings[key] for key in ("activation", "sae_type", "architecture") if key in settings), None)
    if kind is None and {"input_dim", "hidden_dim"} <= set(settings):
        return "topk"  # ViSAEBench's default
    return str(kind).lower()


def _activation(
    kind: str, settings: Settings, tensors: Mapping[str, torch.Tensor], source: CheckpointSource
) -> tuple[dict[str, Any], torch.Tensor | float | None]:
    """Fields of MSAEConfig, and thresholds."""
    threshold = tensors.get(only_one(tensors, _THRESHOLDS[kind], source.name))
    if kind == "jumprelu":  # MSAEConfig would keep k activations; theirs keeps all that exceed their thresholds
        if threshold is None:
            source.notes.append(f"It holds no thresholds: they are {_DEFAULT_JUMP_THRESHOLD}, ViSAEBench's default.")
            threshold = torch.tensor(_DEFAULT_JUMP_THRESHOLD)
        return {"activation": "jump_relu"}, threshold.double().clamp_min(0)
    config = {"activation": _ACTIVATIONS[kind], "k": settings.k("k")}
    if kind == "topk":
        return config, None
    if settings.get("threshold") is not None:  # its loader prefers it to the tensor
        threshold = settings["threshold"]
    if threshold is None:
        source.notes.append(
            "It holds no threshold: codes keep every positive activation, as in ViSAEBench; activation=topk keeps the "
            "k largest of each embedding instead."
        )
        return config, 0.0
    return config, max(0.0, finite_number(threshold, f"the threshold of {source.name}"))
