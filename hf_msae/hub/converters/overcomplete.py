"""Overcomplete (github.com/KempnerInstitute/overcomplete): state dicts of its SAEs, or the plain file described below.

    encoder.final_block.0.weight (n, d), .bias (n,)      a linear encoder; final_block.1 is its BatchNorm, if any
    encoder.weight (n, d), encoder.bias (n,)             one of SAE.untied(); nothing, or the bias alone, where tied
    dictionary._weights (n, d), dictionary.multiplier    or W, C and Relax of an archetypal dictionary
    thresholds (n,)                                      of JumpSAE, their logarithms

The code is the activation of relu(encoder(x)), the reconstruction code @ dictionary: there is no bias to take off or
to add. A state dict does not tell top_k, BatchTopKSAE's running threshold, the class, nor how the dictionary is
normalised (normalization="l2", "max_l2", "identity", ...) when it is used, and `torch.save(sae)` stores code besides.
A file with all of it and no code is made by `RECIPE`. Without that, a dictionary is read whose rows have unit norm,
which l2, max_l2 and identity leave as they are; any other is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .checkpoint import ForeignCheckpoint
from .places import place_of
from .reading import (
    check_shapes,
    finite_number,
    holds_class_of,
    matrix_shape,
    names_in_torch_file,
    tensors_of,
    the_one,
    whole_number,
    word,
)
from .source import CheckpointSource, refuse_other_keys, require_keys

RECIPE = """
    # A module that was saved whole; this runs the file's code: only where you trust it. Of a state dict, make the SAE
    # with the arguments that it was trained with instead, call its load_state_dict and then .eval().
    sae = torch.load("sae.pt", weights_only=False).eval()
    extras = {name: getattr(sae, name, None) for name in ("top_k", "running_threshold")}
    torch.save({"class": type(sae).__name__, "state_dict": sae.state_dict(),
                "dictionary": sae.get_dictionary().detach(), **extras}, "plain.pt")
"""
"""Run where overcomplete is installed: makes a file that can be read."""

_PLAIN = ("class", "state_dict", "dictionary", "top_k", "running_threshold")
_WEIGHTS, _MULTIPLIER = "dictionary._weights", "dictionary.multiplier"
_ARCHETYPAL = ("dictionary.W", "dictionary.C", "dictionary.Relax")
_BLOCK = "encoder.final_block"
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_KNOWN = {
    *(_WEIGHTS, _MULTIPLIER, *_ARCHETYPAL, "thresholds", "encoder.weight", "encoder.bias"),
    *(f"{_BLOCK}.0.weight", f"{_BLOCK}.0.bias", *(f"{_BLOCK}.1.{part}" for part in _NORM)),
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
    "QSAE": "its codes are quantised",
}
_BATCH_NORM_EPSILON = 1e-5  # of nn.BatchNorm1d, which overcomplete does not change
_UNIT = 1e-6  # how far from 1 rounding takes the norm of a row in float32
_CONVEX = 1e-5  # the same of a sum over thousands of points
_TIED = "encoder.tied_to."


def recognises(source: CheckpointSource) -> bool:
    """Whether the folder's only .pt, .pth or .safetensors has a dictionary of overcomplete's, or is a module of it."""
    files = _files(source)
    if len(files) != 1:
        return False
    if files[0].endswith(".safetensors"):
        return any(key in source.read_safetensors(files[0]) for key in (_WEIGHTS, *_ARCHETYPAL))
    names = names_in_torch_file(source.path(files[0]))
    return bool(names & {_WEIGHTS, *_ARCHETYPAL}) or holds_class_of(names, "overcomplete")


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Raises:
    ValueError: a module saved whole, which is code; several files; one that does what an MSAE cannot; one of
        which nothing tells the activation; or a damaged one.
    """
    file = the_one(_files(source), source.name, ".pt, .pth or .safetensors file")
    name = source.full_name(file)
    content = _content(source, file, name)
    plain = isinstance(content, Mapping) and "state_dict" in content
    if plain:
        refuse_other_keys(content, _PLAIN, name)
    state = content["state_dict"] if plain else content
    counters = (
        [key for key in state if str(key).endswith(".num_batches_tracked")] if isinstance(state, Mapping) else ()
    )
    tensors = tensors_of(state, name, counters)
    extras = {key: content.get(key) for key in _PLAIN} if plain else {}
    return read_tensors(tensors, extras, overrides, name)


def read_tensors(
    tensors: Mapping[str, torch.Tensor], extras: Mapping[str, Any], overrides: Mapping[str, Any], name: str
) -> ForeignCheckpoint:
    """Args:
        tensors: a state dict.
        extras: what it lacks, as in the file that `RECIPE` makes; {} where nothing is known.
        overrides: what the user said.
        name: for messages.

    Raises:
        ValueError: as `read`.
    """
    kind = word(extras, "class", None, name)
    _refuse(tensors, kind, name)
    notes: list[str] = []
    dictionary = _dictionary(tensors, extras.get("dictionary"), name, notes)
    n, d = dictionary.shape
    encoder, bias = _encoder(tensors, name)
    check_shapes({"the encoder": encoder if encoder is not None else dictionary}, {"the encoder": (n, d)}, name)
    check_shapes({"its bias": bias} if bias is not None else {}, {"its bias": (n,)}, name)
    config, threshold = _activation(tensors, n, kind, extras, overrides, name)
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
    if file.endswith(".safetensors"):
        return source.read_safetensors(file)
    try:
        return source.read_torch(file)
    except ValueError as error:
        if not holds_class_of(names_in_torch_file(source.path(file)), "overcomplete"):
            raise
        raise ValueError(
            f"{name} holds a whole module of overcomplete, as torch.save(sae) writes it: reading it runs code, which "
            f"hf_msae never does. Where overcomplete is installed, make a plain file of it and convert that:\n{RECIPE}"
        ) from error


def _refuse(tensors: Mapping[str, torch.Tensor], kind: str | None, name: str) -> None:
    if kind is None and "Q" in tensors:
        kind = "QSAE"
    if kind in _REFUSED:
        raise ValueError(f"{name} is a {kind}: {_REFUSED[kind]}, so it cannot be converted")
    if kind is not None and kind not in _ACTIVATIONS:
        raise ValueError(f"{name} is a {kind!r}; hf_msae reads {', '.join(_ACTIVATIONS)}")
    for part, layers in (
        ("mlp_blocks", "hidden layers"),
        ("attention_blocks", "attention"),
        ("resnet_blocks", "a ResNet"),
    ):
        if any(key.startswith(f"encoder.{part}.") for key in tensors):
            raise ValueError(
                f"the encoder of {name} has {layers}: that of an MSAE is one matrix, so it cannot be converted"
            )
    if f"{_BLOCK}.1.weight" in tensors and f"{_BLOCK}.1.running_mean" not in tensors:
        raise ValueError(
            f"the encoder of {name} ends in LayerNorm, which normalises each code by itself, so it cannot be converted"
        )
    refuse_other_keys([key for key in tensors if not key.startswith(_TIED)], _KNOWN, name)
    # A tied encoder names the dictionary's tensors a second time.
    for key in (key for key in tensors if key.startswith(_TIED)):
        same = tensors.get(f"dictionary.{key.removeprefix(_TIED)}")
        if same is None or not torch.equal(same, tensors[key]):
            raise ValueError(f"{key} of {name} is not what the dictionary holds, which it should be tied to")
    for one, other in ((_WEIGHTS, _ARCHETYPAL[0]), ("encoder.weight", f"{_BLOCK}.0.weight")):
        if one in tensors and other in tensors:
            raise ValueError(f"{name} holds both {one} and {other}: nothing tells which is used")


def _dictionary(tensors: Mapping[str, torch.Tensor], fused: Any, name: str, notes: list[str]) -> torch.Tensor:
    """The dictionary as codes are multiplied with it, (n, d) float64."""
    if fused is not None:
        tensors_of({"dictionary": fused}, name)
        matrix_shape({"dictionary": fused}, "dictionary", name)
        return fused.double()
    if _ARCHETYPAL[0] in tensors:
        dictionary = _archetypal(tensors, name)
        notes.append("Its archetypal dictionary becomes one matrix; the points that it combines are not kept.")
    else:
        require_keys(dict(tensors), (_WEIGHTS,), name)
        matrix_shape(tensors, _WEIGHTS, name)
        dictionary = tensors[_WEIGHTS].double()
        norms = torch.linalg.vector_norm(dictionary, dim=1)
        if (norms - 1).abs().max() > _UNIT:
            raise ValueError(
                f"the rows of the dictionary of {name} have norms from {norms.min():.6g} to {norms.max():.6g}. What "
                "overcomplete makes of them depends on the SAE's normalization, which a state dict does not tell: "
                f"make a file that holds the dictionary as it is used:\n{RECIPE}"
            )
    check_shapes(tensors, {_MULTIPLIER: ()}, name)
    return dictionary * tensors.get(_MULTIPLIER, torch.zeros(())).double().exp()


def _archetypal(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """W @ C + Relax, where W is as it is after .eval(): convex combinations of the points in C."""
    require_keys(dict(tensors), _ARCHETYPAL, name)
    for key in _ARCHETYPAL:
        matrix_shape(tensors, key, name)
    weights, points, relaxation = (tensors[key].double() for key in _ARCHETYPAL)
    shape = len(weights), points.shape[1]
    check_shapes(tensors, {_ARCHETYPAL[0]: (shape[0], len(points)), _ARCHETYPAL[2]: shape}, name)
    if weights.min() < 0 or (weights.sum(-1) - 1).abs().max() > _CONVEX:
        raise ValueError(
            f"the rows of {_ARCHETYPAL[0]} of {name} are not positive numbers of sum 1, so it was saved in training "
            "mode, where overcomplete changes its archetypal dictionary before it is used; how far depends on "
            f"settings that a state dict does not tell. Make a file that holds the dictionary as it is used:\n{RECIPE}"
        )
    return weights @ points + relaxation


def _encoder(tensors: Mapping[str, torch.Tensor], name: str) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Matrix (n, d), None where it is the dictionary, and bias (n,), None for zeros."""
    if f"{_BLOCK}.0.weight" not in tensors:
        if not any(key.startswith("encoder.") for key in tensors):
            raise ValueError(f"{name} has no encoder: an MpSAE or OMPSAE, of which {_REFUSED['MpSAE']}")
        return tensors.get("encoder.weight"), tensors.get("encoder.bias")
    require_keys(dict(tensors), (f"{_BLOCK}.0.bias",), name)
    n, _ = matrix_shape(tensors, f"{_BLOCK}.0.weight", name)
    check_shapes(
        tensors, dict.fromkeys((f"{_BLOCK}.0.bias", *(f"{_BLOCK}.1.{part}" for part in _NORM[:4])), (n,)), name
    )
    weight, bias = (tensors[f"{_BLOCK}.0.{part}"].double() for part in ("weight", "bias"))
    if f"{_BLOCK}.1.running_mean" in tensors:
        require_keys(dict(tensors), [f"{_BLOCK}.1.{part}" for part in _NORM[:4]], name)
        scale, shift, mean, variance = (tensors[f"{_BLOCK}.1.{part}"].double() for part in _NORM[:4])
        factor = scale / (variance + _BATCH_NORM_EPSILON).sqrt()
        weight, bias = weight * factor[:, None], (bias - mean) * factor + shift
    return weight, bias


def _activation(
    tensors: Mapping[str, torch.Tensor],
    n: int,
    kind: str | None,
    extras: Mapping[str, Any],
    overrides: Mapping[str, Any],
    name: str,
) -> tuple[dict[str, Any], torch.Tensor | float | None]:
    """Fields of MSAEConfig, and thresholds."""
    known = _ACTIVATIONS[kind] if kind else None
    if "thresholds" in tensors:
        if known not in (None, "jump_relu"):
            raise ValueError(f"{name} is a {kind}, which has no thresholds, but holds some")
        check_shapes(tensors, {"thresholds": (n,)}, name)
        # Theirs has to be reached, ours exceeded: they differ where an activation equals its threshold.
        return {"activation": "jump_relu"}, tensors["thresholds"].double().exp()
    k = extras.get("top_k") if overrides.get("k") is None else overrides["k"]
    activation = overrides.get("activation") or known or (None if k is None else "topk")
    if activation is None:
        raise ValueError(
            f"{name} does not tell what it does with its activations, as no state dict of overcomplete does: say "
            "k=... (a TopKSAE's top_k) or activation=relu (a plain SAE); of a BatchTopKSAE make a file that holds its "
            f"threshold:\n{RECIPE}"
        )
    if activation == "relu":
        return {"activation": "relu"}, None
    if activation == "topk":
        if known == "batch_topk" and overrides.get("k") is None:
            raise ValueError(_of_a_batch(extras, name))
        if k is None:
            raise ValueError(f"{name} does not tell how many activations it keeps: say k=... (the TopKSAE's top_k)")
        return {"activation": "topk", "k": whole_number(k, f"k of {name}")}, None
    threshold = extras.get("running_threshold")
    if activation == "jump_relu" or threshold is None:
        raise ValueError(
            f"{name} holds no threshold, which activation={activation} needs. BatchTopKSAE keeps it outside of its "
            f"state dict: with the SAE as it was trained, make a file that has it:\n{RECIPE}"
        )
    if overrides.get("k") is None:
        raise ValueError(f"{_of_a_batch(extras, name)}. Codes depend on the threshold alone")
    return {"activation": "batch_topk"}, finite_number(threshold, f"running_threshold of {name}")


def _of_a_batch(extras: Mapping[str, Any], name: str) -> str:
    return (
        f"{name} keeps top_k={extras.get('top_k')} activations of a whole batch: say k=..., which is that divided by "
        "the size of the batches it was trained on"
    )
