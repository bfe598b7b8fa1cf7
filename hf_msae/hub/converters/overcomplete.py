"""Overcomplete (github.com/KempnerInstitute/overcomplete): state dicts of its SAEs, or the plain file described below.

    encoder.final_block.0.weight (n, d), .bias (n,)      a linear encoder; final_block.1 is its BatchNorm, if any
    encoder.weight (n, d), encoder.bias (n,)             one of SAE.untied(); nothing, or the bias alone, where tied
    dictionary._weights (n, d), dictionary.multiplier    or W, C and Relax of an archetypal dictionary
    thresholds (n,)                                      of JumpSAE, their logarithms

The code is the activation of relu(encoder(x)), the reconstruction code @ dictionary: there is no bias to subtract or
add. A state dict has neither top_k, BatchTopKSAE's running threshold and the class, nor how the dictionary is
normalized (normalization="l2", "max_l2", "identity", ...) when it is used, and `torch.save(sae)` also stores code.
`RECIPE` makes a file with all of it and no code. Without that, only a dictionary whose rows have unit norm is read,
which l2, max_l2 and identity leave as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .checkpoint import ForeignCheckpoint
from .places import place_of
from .reading import (
    Settings,
    check_shape,
    finite_number,
    refuse_other_keys,
    require_keys,
    state_dict,
    tensors_of,
    the_one,
    whole_number,
)
from .source import CheckpointSource

RECIPE = """
    # For a module that was saved whole; this runs the file's code: only if you trust it. For a state dict, make the
    # SAE with the arguments it was trained with instead, and call its load_state_dict and .eval().
    sae = torch.load("sae.pt", weights_only=False).eval()
    extras = {name: getattr(sae, name, None) for name in ("top_k", "running_threshold")}
    torch.save({"class": type(sae).__name__, "state_dict": sae.state_dict(),
                "dictionary": sae.get_dictionary().detach(), **extras}, "plain.pt")
"""
"""To run where overcomplete is installed: makes a file that can be read."""

_PLAIN = ("class", "state_dict", "dictionary", "top_k", "running_threshold")
_WEIGHTS, _MULTIPLIER = "dictionary._weights", "dictionary.multiplier"
_ARCHETYPAL = ("dictionary.W", "dictionary.C", "dictionary.Relax")
_BLOCK = "encoder.final_block"
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_SHAPES = {
    **{_WEIGHTS: "n d", _MULTIPLIER: ""},
    **dict(zip(_ARCHETYPAL, ("n points", "points d", "n d"), strict=True)),
    **{"encoder.weight": "n d", "encoder.bias": "n", "thresholds": "n"},
    **{f"{_BLOCK}.0.weight": "n d", f"{_BLOCK}.0.bias": "n"},
    **{f"{_BLOCK}.1.{part}": "n" for part in _NORM[:4]},
}
_NORMALIZED = tuple(f"{_BLOCK}.1.{part}" for part in _NORM[:4])
_COUNTER = ".num_batches_tracked"
_DEEP_ENCODERS = {
    "mlp_blocks": "hidden layers",
    "attention_blocks": "attention",
    "resnet_blocks": "a ResNet",
}
_ACTIVATIONS = {
    "SAE": "relu",
    "TopKSAE": "topk",
    "RATopKSAE": "topk",
    "BatchTopKSAE": "batch_topk",
    "JumpSAE": "jump_relu",
    "RAJumpSAE": "jump_relu",
}
_REFUSED = {
    "MpSAE": "it encodes by matching pursuit, in steps that depend on each other, not by one matrix",
    "OMPSAE": "it encodes by orthogonal matching pursuit, in steps that depend on each other, not by one matrix",
    "QSAE": "its codes are quantized",
}
_BATCH_NORM_EPSILON = 1e-5  # default of nn.BatchNorm1d, which overcomplete keeps
_UNIT = 1e-6  # rounding error of the norm of a row in float32
_CONVEX = 1e-5  # rounding error of a sum over thousands of points
_TIED = "encoder.tied_to."


def recognizes(source: CheckpointSource) -> bool:
    """Whether the folder's only .pt, .pth or .safetensors has a dictionary of overcomplete's, or is a module of it."""
    files = _files(source)
    if len(files) != 1:
        return False
    return source.asks_for(files[0], "overcomplete") or bool(source.names_in(files[0]) & {_WEIGHTS, *_ARCHETYPAL})


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Read a state dict, or the file that `RECIPE` makes; see `read_checkpoint` for what is raised."""
    file = the_one(_files(source), source.name, ".pt, .pth or .safetensors file")
    name = source.full_name(file)
    content = _content(source, file, name)
    plain = isinstance(content, Mapping) and "state_dict" in content
    if plain:
        refuse_other_keys(content, _PLAIN, name)
    extras = Settings({key: content.get(key) for key in _PLAIN} if plain else {}, name)
    kind = extras.word("class")
    tensors, sizes = _tensors(content["state_dict"] if plain else content, kind, name)
    notes: list[str] = []
    dictionary = _dictionary(tensors, extras.get("dictionary"), name, notes)
    check_shape(dictionary, "n d", f"dictionary of {name}", sizes)
    encoder, bias = _encoder(tensors, name)
    config, threshold = _activation(tensors, kind, extras, overrides)
    return ForeignCheckpoint(
        format="overcomplete",
        encoder=(dictionary if encoder is None else encoder).T,
        decoder=None if encoder is None else dictionary,
        latent_bias=bias,
        threshold=threshold,
        config={**config, **place_of(None, None, overrides, name)},
        notes=notes,
    )


def _files(source: CheckpointSource) -> list[str]:
    return source.matching("*.pt", "*.pth", "*.safetensors")


def _content(source: CheckpointSource, file: str, name: str) -> Any:
    if source.asks_for(file, "overcomplete"):
        raise ValueError(
            f"{name} holds a whole module of overcomplete, as torch.save(sae) writes it: reading it runs code, which "
            f"hf_msae never does. Where overcomplete is installed, make a plain file of it and convert that:\n{RECIPE}"
        )
    return source.read(file)


def _tensors(content: Any, kind: str | None, name: str) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """The state dict and its sizes, after checking that an MSAE can compute what it is for."""
    counters = [key for key in content if str(key).endswith(_COUNTER)] if isinstance(content, Mapping) else ()
    tensors = tensors_of(content, name, counters)
    kind = "QSAE" if kind is None and "Q" in tensors else kind
    if kind in _REFUSED:
        raise ValueError(f"{name} is a {kind}: {_REFUSED[kind]}, so it cannot be converted")
    if kind is not None and kind not in _ACTIVATIONS:
        raise ValueError(f"{name} is a {kind!r}; hf_msae reads {', '.join(_ACTIVATIONS)}")
    for part, layers in _DEEP_ENCODERS.items():
        if any(key.startswith(f"encoder.{part}.") for key in tensors):
            raise ValueError(f"the encoder of {name} has {layers}, not one matrix, so it cannot be converted")
    if f"{_BLOCK}.1.weight" in tensors and f"{_BLOCK}.1.running_mean" not in tensors:
        raise ValueError(
            f"the encoder of {name} ends in LayerNorm, which normalizes each code by itself, so it cannot be converted"
        )
    # A tied encoder has the dictionary's tensors under a second name.
    for key in [key for key in tensors if key.startswith(_TIED)]:
        same, tied = tensors.get(f"dictionary.{key.removeprefix(_TIED)}"), tensors.pop(key)
        if same is None or not torch.equal(same, tied):
            raise ValueError(f"{key} of {name} differs from the dictionary that it should be tied to")
    for one, other in ((_WEIGHTS, _ARCHETYPAL[0]), ("encoder.weight", f"{_BLOCK}.0.weight")):
        if one in tensors and other in tensors:
            raise ValueError(f"{name} holds both {one} and {other}: it is unclear which is used")
    needed = _NORMALIZED if f"{_BLOCK}.1.running_mean" in tensors else ()
    needed = (*needed, *((f"{_BLOCK}.0.bias",) if f"{_BLOCK}.0.weight" in tensors else ()))
    optional = {key: axes for key, axes in _SHAPES.items() if key not in needed}
    return state_dict(tensors, name, {key: _SHAPES[key] for key in needed}, optional, (f"{_BLOCK}.1{_COUNTER}",))


def _dictionary(tensors: Mapping[str, torch.Tensor], fused: Any, name: str, notes: list[str]) -> torch.Tensor:
    """The dictionary as codes are multiplied by it, (n, d) float64."""
    if fused is not None:
        return tensors_of({"dictionary": fused}, name)["dictionary"].double()
    if _ARCHETYPAL[0] in tensors:
        dictionary = _archetypal(tensors, name)
        notes.append("Its archetypal dictionary becomes one matrix; the points that it combines are not kept.")
    else:
        require_keys(tensors, (_WEIGHTS,), name)
        dictionary = tensors[_WEIGHTS].double()
        norms = torch.linalg.vector_norm(dictionary, dim=1)
        if (norms - 1).abs().max() > _UNIT:
            raise ValueError(
                f"the rows of the dictionary of {name} have norms from {norms.min():.6g} to {norms.max():.6g}. What "
                "overcomplete makes of them depends on the SAE's normalization, which a state dict does not hold: "
                f"make a file with the dictionary as it is used:\n{RECIPE}"
            )
    return dictionary * tensors.get(_MULTIPLIER, torch.zeros(())).double().exp()


def _archetypal(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """W @ C + Relax, with W as it is after .eval(): convex combinations of the points in C."""
    require_keys(tensors, _ARCHETYPAL, name)
    weights, points, relaxation = (tensors[key].double() for key in _ARCHETYPAL)
    if weights.min() < 0 or (weights.sum(-1) - 1).abs().max() > _CONVEX:
        raise ValueError(
            f"the rows of {_ARCHETYPAL[0]} of {name} are not positive numbers of sum 1, so it was saved in training "
            "mode, where overcomplete changes its archetypal dictionary before it is used, depending on settings that "
            f"a state dict does not hold. Make a file with the dictionary as it is used:\n{RECIPE}"
        )
    return weights @ points + relaxation


def _encoder(tensors: Mapping[str, torch.Tensor], name: str) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Matrix (n, d), None if it is the dictionary, and bias (n,), None for zeros."""
    if f"{_BLOCK}.0.weight" not in tensors:
        if not any(key.startswith("encoder.") for key in tensors):
            raise ValueError(f"{name} has no encoder: an MpSAE or OMPSAE, of which {_REFUSED['MpSAE']}")
        return tensors.get("encoder.weight"), tensors.get("encoder.bias")
    weight, bias = (tensors[f"{_BLOCK}.0.{part}"].double() for part in ("weight", "bias"))
    if f"{_BLOCK}.1.running_mean" in tensors:
        scale, shift, mean, variance = (tensors[key].double() for key in _NORMALIZED)
        factor = scale / (variance + _BATCH_NORM_EPSILON).sqrt()
        weight, bias = weight * factor[:, None], (bias - mean) * factor + shift
    return weight, bias


def _activation(
    tensors: Mapping[str, torch.Tensor], kind: str | None, extras: Settings, overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], torch.Tensor | float | None]:
    """Fields of MSAEConfig, and thresholds."""
    name, known = extras.name, _ACTIVATIONS[kind] if kind else None
    if "thresholds" in tensors:
        if known not in (None, "jump_relu"):
            raise ValueError(f"{name} is a {kind}, which has no thresholds, but holds some")
        # Theirs has to be reached, ours exceeded: they only differ if an activation equals its threshold.
        return {"activation": "jump_relu"}, tensors["thresholds"].double().exp()
    k = extras.get("top_k") if overrides.get("k") is None else overrides["k"]
    activation = overrides.get("activation") or known or (None if k is None else "topk")
    if activation is None:
        raise ValueError(
            f"{name} does not say which activation it has, as no state dict of overcomplete does: say k=... (a "
            "TopKSAE's top_k) or activation=relu (a plain SAE); for a BatchTopKSAE make a file with its threshold:\n"
            f"{RECIPE}"
        )
    if activation == "relu":
        return {"activation": "relu"}, None
    if activation == "topk":
        if known == "batch_topk" and overrides.get("k") is None:
            raise ValueError(_of_a_batch(extras))
        if k is None:
            raise ValueError(f"{name} does not say how many activations it keeps: say k=... (the TopKSAE's top_k)")
        return {"activation": "topk", "k": whole_number(k, f"k of {name}")}, None
    threshold = extras.get("running_threshold")
    if activation == "jump_relu" or threshold is None:
        raise ValueError(
            f"{name} holds no threshold, which activation={activation} needs. BatchTopKSAE keeps it outside its state "
            f"dict: make a file that has it from the SAE as it was trained:\n{RECIPE}"
        )
    if overrides.get("k") is None:
        raise ValueError(f"{_of_a_batch(extras)}. Codes only depend on the threshold")
    return {"activation": "batch_topk"}, finite_number(threshold, f"running_threshold of {name}")


def _of_a_batch(extras: Settings) -> str:
    return (
        f"{extras.name} keeps top_k={extras.get('top_k')} activations of a whole batch: say k=..., which is that "
        "divided by the size of the batches it was trained on"
    )
