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
from .places import origin
from .reading import Settings, check_keys, check_shape, finite_number, only_one, state_dict, tensors_of, the_one
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
_LINEAR, _NORM = "encoder.final_block.0", "encoder.final_block.1"
_NORMALIZED = tuple(f"{_NORM}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))
_COUNTER = f"{_NORM}.num_batches_tracked"
_TIED = "encoder.tied_to."
_SHAPES = {
    **{_WEIGHTS: "n d", _MULTIPLIER: ""},
    **dict(zip(_ARCHETYPAL, ("n points", "points d", "n d"), strict=True)),
    **{"encoder.weight": "n d", "encoder.bias": "n", "thresholds": "n"},
    **{f"{_LINEAR}.weight": "n d", f"{_LINEAR}.bias": "n"},
    **dict.fromkeys(_NORMALIZED, "n"),
}
_ACTIVATIONS = {
    "SAE": "relu",
    "TopKSAE": "topk",
    "RATopKSAE": "topk",
    "BatchTopKSAE": "batch_topk",
    "JumpSAE": "jump_relu",
    "RAJumpSAE": "jump_relu",
}
_PURSUIT = "it encodes by matching pursuit, in steps that depend on each other, not by one matrix"
_REFUSED = {"MpSAE": _PURSUIT, "OMPSAE": _PURSUIT, "QSAE": "its codes are quantized"}
_BATCH_NORM_EPSILON = 1e-5  # default of nn.BatchNorm1d, which overcomplete keeps
_UNIT = 1e-6  # rounding error of the norm of a row in float32
_CONVEX = 1e-5  # rounding error of a sum over thousands of points


def recognizes(source: CheckpointSource) -> bool:
    """Whether the folder's only .pt, .pth or .safetensors holds an overcomplete dictionary or module."""
    files = _files(source)
    if len(files) != 1:
        return False
    return source.asks_for(files[0], "overcomplete") or bool(source.names_in(files[0]) & {_WEIGHTS, *_ARCHETYPAL})


def read(source: CheckpointSource) -> ForeignCheckpoint:
    """Read a state dict, or the file that `RECIPE` makes; raises as `read_checkpoint`."""
    file = the_one(_files(source), source.name, ".pt, .pth or .safetensors file")
    name = source.full_name(file)
    content, extras = source.read_data(file, "overcomplete", RECIPE), Settings({}, name, source.given)
    if isinstance(content, Mapping) and "state_dict" in content:
        check_keys(content, (), _PLAIN, name)
        extras, content = Settings(content, name, source.given), content["state_dict"]
    kind = extras.choice("class", (*_ACTIVATIONS, None), refused=_REFUSED)
    tensors, sizes = _tensors(content, name)
    dictionary = _dictionary(tensors, extras.get("dictionary"), source, name)
    check_shape(dictionary, "n d", f"dictionary of {name}", sizes)
    encoder, bias = _encoder(tensors, name)
    config, threshold = _activation(tensors, kind, extras)
    return ForeignCheckpoint(
        encoder=(dictionary if encoder is None else encoder).T,
        decoder=None if encoder is None else dictionary,
        latent_bias=bias,
        threshold=threshold,
        config=config | origin(source, name),
    )


def _files(source: CheckpointSource) -> list[str]:
    return source.matching("*.pt", "*.pth", "*.safetensors")


def _tensors(content: Any, name: str) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """The state dict and its sizes, after checking that an MSAE can compute what it is for."""
    counters = [key for key in content if key.endswith("num_batches_tracked")] if isinstance(content, Mapping) else ()
    tensors = tensors_of(content, name, counters)
    if "Q" in tensors:
        raise ValueError(f"{name} is a QSAE: {_REFUSED['QSAE']}, so it cannot be converted")
    if deep := [key for key in tensors if key.startswith("encoder.") and "_blocks." in key]:
        raise ValueError(f"the encoder of {name} has {deep[0]}: it is not one matrix, so it cannot be converted")
    if f"{_NORM}.weight" in tensors and _NORMALIZED[2] not in tensors:
        raise ValueError(f"the encoder of {name} ends in LayerNorm, so it cannot be converted")
    # A tied encoder has the dictionary's tensors under a second name.
    for key in [key for key in tensors if key.startswith(_TIED)]:
        same, tied = tensors.get(f"dictionary.{key.removeprefix(_TIED)}"), tensors.pop(key)
        if same is None or not torch.equal(same, tied):
            raise ValueError(f"{key} of {name} differs from the dictionary that it should be tied to")
    for names in ((_WEIGHTS, _ARCHETYPAL[0]), ("encoder.weight", f"{_LINEAR}.weight")):
        only_one(tensors, names, name)
    needed = _NORMALIZED if _NORMALIZED[2] in tensors else ()
    needed += (f"{_LINEAR}.bias",) if f"{_LINEAR}.weight" in tensors else ()
    return state_dict(tensors, name, {key: _SHAPES[key] for key in needed}, _SHAPES, (_COUNTER,))


def _dictionary(tensors: Mapping[str, torch.Tensor], fused: Any, source: CheckpointSource, name: str) -> torch.Tensor:
    """The dictionary that codes are multiplied by, (n, d) float64."""
    if fused is not None:
        return tensors_of({"dictionary": fused}, name)["dictionary"].double()
    if _ARCHETYPAL[0] in tensors:
        dictionary = _archetypal(tensors, name)
        source.notes.append("Its archetypal dictionary becomes one matrix; the points that it combines are not kept.")
    else:
        check_keys(tensors, (_WEIGHTS,), tensors, name)
        dictionary = tensors[_WEIGHTS].double()
        norms = torch.linalg.vector_norm(dictionary, dim=1)
        if (norms - 1).abs().max() > _UNIT:
            raise ValueError(
                f"the rows of the dictionary of {name} have norms from {norms.min():.6g} to {norms.max():.6g}. How "
                "overcomplete scales them depends on the SAE's normalization, which a state dict does not hold: "
                f"make a file with the dictionary as it is used:\n{RECIPE}"
            )
    return dictionary * tensors.get(_MULTIPLIER, torch.zeros(())).double().exp()


def _archetypal(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """W @ C + Relax, with W as it is after .eval(): convex combinations of the points in C."""
    check_keys(tensors, _ARCHETYPAL, tensors, name)
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
    if f"{_LINEAR}.weight" not in tensors:
        if not any(key.startswith("encoder.") for key in tensors):
            raise ValueError(f"{name} has no encoder, as an MpSAE or OMPSAE: {_PURSUIT}")
        return tensors.get("encoder.weight"), tensors.get("encoder.bias")
    weight, bias = (tensors[f"{_LINEAR}.{part}"].double() for part in ("weight", "bias"))
    if _NORMALIZED[2] in tensors:
        scale, shift, mean, variance = (tensors[key].double() for key in _NORMALIZED)
        factor = scale / (variance + _BATCH_NORM_EPSILON).sqrt()
        weight, bias = weight * factor[:, None], (bias - mean) * factor + shift
    return weight, bias


def _activation(
    tensors: Mapping[str, torch.Tensor], kind: str | None, extras: Settings
) -> tuple[dict[str, Any], torch.Tensor | float | None]:
    """Fields of MSAEConfig, and thresholds."""
    name, given, known = extras.name, extras.given, _ACTIVATIONS.get(kind)
    if "thresholds" in tensors:
        if known not in (None, "jump_relu"):
            raise ValueError(f"{name} is a {kind}, which has no thresholds, but holds some")
        # Theirs has to be reached, ours exceeded: they only differ if an activation equals its threshold.
        return {"activation": "jump_relu"}, tensors["thresholds"].double().exp()
    has_k = given.get("k") is not None or extras.get("top_k") is not None
    activation = given.get("activation") or known or ("topk" if has_k else None)
    if activation is None:
        raise ValueError(
            f"{name} does not say which activation it has, as no state dict of overcomplete does: give k (a TopKSAE's "
            "top_k) or activation=relu (a plain SAE); for a BatchTopKSAE make a file with its threshold:\n"
            f"{RECIPE}"
        )
    if activation == "relu":
        return {"activation": "relu"}, None
    if activation == "jump_relu" or (activation != "topk" and extras.get("running_threshold") is None):
        raise ValueError(
            f"{name} holds no threshold, which activation={activation} needs. BatchTopKSAE keeps it outside its state "
            f"dict: make a file that has it from the SAE as it was trained:\n{RECIPE}"
        )
    if known == "batch_topk" and given.get("k") is None:
        raise ValueError(
            f"{name} keeps top_k={extras.get('top_k')} activations of a whole batch: give k, which is that divided by "
            "the size of the batches it was trained on"
        )
    config = {"activation": activation, "k": extras.k("top_k")}
    if activation == "topk":
        return config, None
    return config, finite_number(extras["running_threshold"], f"running_threshold of {name}")
