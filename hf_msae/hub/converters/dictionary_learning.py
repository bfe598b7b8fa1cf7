"""dictionary_learning (github.com/saprmarks/dictionary_learning), and what uses it: sae-for-vlm, SAEBench.

`ae.pt` beside `config.json`, or `checkpoints/ae_STEP.pt` below it: a state dict of one of

    AutoEncoder             encoder.weight (n, d), encoder.bias (n,), decoder.weight (d, n), bias (d,)
    AutoEncoderNew          encoder.weight, encoder.bias, decoder.weight, decoder.bias (d,)
    GatedAutoEncoder        encoder.weight, r_mag, gate_bias, mag_bias (n,), decoder.weight, decoder_bias (d,)
    AutoEncoderTopK, BatchTopKSAE
                            encoder.weight, encoder.bias, decoder.weight, b_dec (d,), k, threshold
    JumpReluAutoEncoder     W_enc (d, n), b_enc (n,), W_dec (n, d), b_dec (d,), threshold (n,)
    MatryoshkaBatchTopKSAE  W_enc, b_enc, W_dec, b_dec, k, threshold, group_sizes

All subtract their last bias before encoding, except AutoEncoderNew and JumpReluAutoEncoder. The tensors determine the
class, or config.json if two classes have the same. With normalize_activations in training, biases and threshold
are scaled back before they are saved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import torch

from .checkpoint import ForeignCheckpoint
from .places import hook_point_of, place_of, tower_of
from .reading import (
    GATED_NOTE,
    Settings,
    finite_number,
    gated_as_jump_relu,
    reached,
    state_dict,
    tensors_of,
    the_one,
    whole_number,
)
from .source import CheckpointSource

_FILE = re.compile(r"(?:.*/)?ae(?:_(?P<step>\d+))?\.pt")
_LINEAR = {"encoder.weight": "n d", "encoder.bias": "n", "decoder.weight": "d n"}
_PARAMETERS = {"W_enc": "d n", "b_enc": "n", "W_dec": "n d", "b_dec": "d"}
_GATES = {"r_mag": "n", "gate_bias": "n", "mag_bias": "n"}
_CLASSES = {
    "AutoEncoder": {**_LINEAR, "bias": "d"},
    "AutoEncoderNew": {**_LINEAR, "decoder.bias": "d"},
    "GatedAutoEncoder": {"encoder.weight": "n d", "decoder.weight": "d n", **_GATES, "decoder_bias": "d"},
    "AutoEncoderTopK": {**_LINEAR, "b_dec": "d"},
    "BatchTopKSAE": {**_LINEAR, "b_dec": "d"},
    "JumpReluAutoEncoder": {**_PARAMETERS, "threshold": "n"},
    "MatryoshkaBatchTopKSAE": {**_PARAMETERS, "k": "", "threshold": "", "group_sizes": "groups"},
}
"""The tensors of each class, without those that only some versions have."""

_OUTPUT_BIAS = {
    "AutoEncoder": "bias",
    "AutoEncoderNew": "decoder.bias",
    "GatedAutoEncoder": "decoder_bias",
}
"""Name of the bias after the decoder, unless it is b_dec."""

_BIAS_NOT_SUBTRACTED = ("AutoEncoderNew", "JumpReluAutoEncoder")
_ACTIVATIONS = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "GatedAutoEncoder": "jump_relu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batch_topk",
    "JumpReluAutoEncoder": "jump_relu",
    "MatryoshkaBatchTopKSAE": "batch_topk",
}
_COUNTERS = ("k", "group_sizes")
_WITH_K = ("AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")
_OTHER_NAMES = {"MatroyshkaBatchTopKSAE": "MatryoshkaBatchTopKSAE"}  # an earlier spelling

# sae-for-vlm's folders: imagenet_train_activations_clip-vit-large-patch14-336_22_post_mlp_residual_batch_top_k_20_x8
_SAE_FOR_VLM = re.compile(r"activations_(?P<model>[^/]+?)_(?P<layer>\d+)_post_mlp_residual(?P<kind>_batch_top_k)?")
_OWNERS = {"clip-vit-large-patch14-336": "openai", "siglip-so400m-patch14-384": "google"}


def recognizes(source: CheckpointSource) -> bool:
    """Whether there is an `ae.pt` or `ae_STEP.pt`, or a single other file with the tensors of one of the classes."""
    if _candidates(source):
        return True
    files = source.matching("*.pt", "*.pth")
    if len(files) != 1:
        return False
    names = source.names_in(files[0])
    # Without the file's name, only those that no other library's files hold.
    return any(
        names >= set(_CLASSES[each]) for each in ("GatedAutoEncoder", "AutoEncoderTopK", "MatryoshkaBatchTopKSAE")
    )


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Read a state dict of dictionary_learning's; see `read_checkpoint` for what is raised."""
    file = _file(source)
    name = source.full_name(file)
    content = tensors_of(source.read(file), name, _COUNTERS)
    config, trainer = _trainer(source, file, name)
    notes: list[str] = []
    kind = _class(content, config, trainer, overrides, name, notes)
    optional = {"k": "", "threshold": ""} if kind in _WITH_K else {}
    tensors, sizes = state_dict(content, name, _CLASSES[kind], optional, _COUNTERS)
    if kind in ("AutoEncoderTopK", "BatchTopKSAE") and "k" not in tensors and trainer.get("k") is None:
        trainer["k"] = overrides.get("k")
    linear = "encoder.weight" in tensors
    bias = tensors[_OUTPUT_BIAS.get(kind, "b_dec")]
    parts: dict[str, Any] = {
        "encoder": tensors["encoder.weight"].T if linear else tensors["W_enc"],
        "decoder": tensors["decoder.weight"].T if linear else tensors["W_dec"],
        "latent_bias": tensors.get("encoder.bias" if linear else "b_enc"),
        "input_bias": None if kind in _BIAS_NOT_SUBTRACTED else bias,
        "output_bias": bias,
    }
    settings: dict[str, Any] = {"activation": _ACTIVATIONS[kind]}
    if kind in _WITH_K:
        settings["k"] = _k(tensors, trainer, name)
    if settings["activation"] == "batch_topk":
        parts["threshold"] = _threshold(tensors, name, notes)
    if kind == "JumpReluAutoEncoder":
        # Its ReLU makes thresholds below 0 act as 0. apply_b_dec_to_input is set for SAELens' checkpoints alone.
        parts["threshold"] = tensors["threshold"].double().clamp_min(0)
    elif kind == "GatedAutoEncoder":
        parts |= gated_as_jump_relu(parts["encoder"], *(tensors[key] for key in ("gate_bias", "mag_bias", "r_mag")))
        notes.append(GATED_NOTE)
    elif kind == "MatryoshkaBatchTopKSAE":
        settings |= _levels(tensors["group_sizes"], trainer, sizes["n"], name)
    elif kind == "AutoEncoder" and not _has_unit_rows(parts["decoder"]):
        notes.append(
            "The rows of its dictionary do not have unit norm. dictionary_learning's from_pretrained scales them, and "
            "the codes the other way (unless normalize_decoder=False); here they stay as stored. Reconstructions are "
            "the same."
        )
    elif kind == "AutoEncoderNew":
        notes.append(
            "Codes are those of AutoEncoderNew.encode; with output_features=True it multiplies them by the norms of "
            "the dictionary's rows."
        )
    settings |= _origin(trainer, name, overrides, notes)
    return ForeignCheckpoint("dictionary_learning", **parts, config=settings, notes=notes)


def _candidates(source: CheckpointSource) -> list[str]:
    return [file for file in source.files if _FILE.fullmatch(file)]


def _file(source: CheckpointSource) -> str:
    """The final state, or else the latest of one training."""
    candidates = _candidates(source)
    final = [file for file in candidates if file.rpartition("/")[2] == "ae.pt"]
    if len(final) == 1 and len({file.rpartition("/")[0].removesuffix("checkpoints") for file in candidates}) <= 2:
        return final[0]
    if not final and candidates and len({file.rpartition("/")[0] for file in candidates}) == 1:
        return max(candidates, key=lambda file: int(_FILE.fullmatch(file)["step"]))
    return the_one(final or candidates or source.matching("*.pt", "*.pth"), source.name, "ae.pt")


def _trainer(source: CheckpointSource, file: str, name: str) -> tuple[str | None, Settings]:
    """Name and trainer settings of the config.json that belongs to a file; (None, {}) without one."""
    folder = file.rpartition("/")[0]
    for place in dict.fromkeys((folder, folder.removesuffix("checkpoints").rstrip("/"))):
        config = f"{place}/config.json".lstrip("/")
        if source.has(config):
            return source.full_name(config), source.settings(config).inner("trainer")
    return None, Settings({}, f"config.json of {name}")


def _class(
    tensors: Mapping[str, torch.Tensor],
    config: str | None,
    trainer: Settings,
    overrides: Mapping[str, Any],
    name: str,
    notes: list[str],
) -> str:
    keys = set(tensors)
    optional = {kind: {"k", "threshold"} if kind in _WITH_K else set() for kind in _CLASSES}
    fitting = [kind for kind, shapes in _CLASSES.items() if set(shapes) <= keys <= {*shapes, *optional[kind]}]
    if not fitting:
        raise ValueError(f"{name} holds {', '.join(sorted(keys))}, which are not the tensors of {', '.join(_CLASSES)}")
    said = trainer.word("dict_class")
    if said is not None:
        said = _OTHER_NAMES.get(said, said)
        if said not in fitting:
            raise ValueError(
                f"config.json of {name} says {trainer['dict_class']!r}, but the file holds the tensors of "
                f"{' or '.join(fitting)}: they do not belong together, or hf_msae does not know that class"
            )
        return said
    if len(fitting) == 1:
        return fitting[0]
    if "threshold" not in keys:  # versions before there was one had no batch top-k
        return "AutoEncoderTopK"
    if overrides.get("activation") in ("topk", "batch_topk"):
        return "AutoEncoderTopK" if overrides["activation"] == "topk" else "BatchTopKSAE"
    if (found := _SAE_FOR_VLM.search(name)) and found["kind"]:
        notes.append("Taken for a BatchTopKSAE because of the name of its folder: no config.json says its class.")
        return "BatchTopKSAE"
    unsaid = f"{config} has no trainer.dict_class" if config else f"{name} has no config.json beside it"
    raise ValueError(
        f"{unsaid}, and the tensors are those of both AutoEncoderTopK and BatchTopKSAE: say activation=topk or "
        "activation=batch_topk"
    )


def _has_unit_rows(decoder: torch.Tensor) -> bool:
    norms = torch.linalg.vector_norm(decoder.double(), dim=1)
    return torch.allclose(norms, torch.ones_like(norms), atol=1e-4)


def _levels(group_sizes: torch.Tensor, trainer: Settings, n: int, name: str) -> dict[str, Any]:
    """The levels of a Matryoshka SAE, which are prefixes of the dictionary."""
    sizes = [whole_number(size, f"an entry of group_sizes of {name}") for size in group_sizes.tolist()]
    if sum(sizes) != n:
        raise ValueError(f"group_sizes of {name} are {sizes}, {sum(sizes)} together, but there are {n} latents")
    levels = {"nesting": "prefix", "nesting_widths": list(accumulate(sizes))}
    weights, what = trainer.get("group_weights"), f"group_weights of {trainer.name}"
    if weights is None:
        return levels
    if not isinstance(weights, list) or len(weights) != len(sizes):
        raise ValueError(f"{what} is {weights!r}, expected {len(sizes)} numbers, one per group")
    weights = [finite_number(weight, f"an entry of {what}") for weight in weights]
    if min(weights) > 0:
        levels["nesting_weights"] = "uniform" if len(set(weights)) == 1 else weights
    return levels


def _k(tensors: Mapping[str, torch.Tensor], trainer: Settings, name: str) -> int:
    if "k" not in tensors:
        return trainer.k("k", {})
    k = whole_number(tensors["k"], f"k of {name}")
    if trainer.get("k") is not None and trainer.whole("k") != k:
        raise ValueError(f"{name} holds k={k}, but its config.json says k={trainer['k']}: they do not belong together")
    return k


def _threshold(tensors: Mapping[str, torch.Tensor], name: str, notes: list[str]) -> float:
    if "threshold" not in tensors:
        raise ValueError(f"{name} does not hold a threshold, without which batch top-k cannot encode")
    threshold = finite_number(tensors["threshold"], f"threshold of {name}")
    if threshold >= 0:
        return reached(threshold)
    notes.append(
        f"Its threshold is {threshold:g}: training ended before it was set. Codes keep every positive activation, as "
        "in BatchTopKSAE.encode; activation=topk keeps the k largest of each embedding instead."
    )
    return 0.0


def _origin(trainer: Settings, name: str, overrides: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Backbone and hook point, from config.json or from the names of sae-for-vlm's folders."""
    if found := _SAE_FOR_VLM.search(name):
        model = found["model"]
        config = {"base_model_name_or_path": f"{_OWNERS[model]}/{model}"} if model in _OWNERS else {}
        return config | place_of(f"vision.layers.{found['layer']}", None, overrides, name)
    model, module = (trainer.word(key) for key in ("lm_name", "submodule_name"))
    layer = trainer.get("layer")
    config = {"base_model_name_or_path": model} if model else {}
    if overrides.get("hook_point") is not None:
        return config
    # Notes are kept only if the tower comes from the model's name.
    point, guessed = hook_point_of(module, None), []
    if point is None:
        tower = tower_of(model, notes=guessed)
        point = hook_point_of(module, tower)
        if point is None and tower and (found := re.fullmatch(r"resid_post_layer_(\d+)", module or "")):
            point = f"{tower}.layers.{found[1]}"
        notes += guessed if point is not None else []
    place = None
    if model or module:
        place = f"{module or 'an unnamed module'} in layer {layer} of {model or 'an unnamed model'}"
    return config | place_of(point, place, overrides, name)
