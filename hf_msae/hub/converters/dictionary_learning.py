"""dictionary_learning (github.com/saprmarks/dictionary_learning), and what uses it: sae-for-vlm, SAEBench.

`ae.pt` next to `config.json`, or `checkpoints/ae_STEP.pt` below it: a state dict of one of

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
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from .checkpoint import ForeignCheckpoint
from .places import origin
from .reading import (
    GATED_NOTE,
    PARAMETERS,
    Settings,
    finite_number,
    gated_as_jump_relu,
    reached,
    state_dict,
    the_one,
    whole_number,
)
from .source import CheckpointSource

_FILE = re.compile(r"(?:.*/)?ae(?:_(?P<step>\d+))?\.pt")
_LINEAR = {"encoder.weight": "n d", "encoder.bias": "n", "decoder.weight": "d n"}
_GATED = {"encoder.weight": "n d", "decoder.weight": "d n", "r_mag": "n", "gate_bias": "n", "mag_bias": "n"}
_COUNTERS = ("k", "group_sizes")
_BATCH = {"k": "", "threshold": ""}


class _Class(NamedTuple):
    """A class of theirs: our activation, its tensors and those of some versions, and its last bias."""

    activation: str
    tensors: dict[str, str]
    optional: Mapping[str, str] = MappingProxyType({})
    bias: str = "b_dec"
    subtracts_bias: bool = True


_CLASSES = {
    "AutoEncoder": _Class("relu", {**_LINEAR, "bias": "d"}, bias="bias"),
    "AutoEncoderNew": _Class("relu", {**_LINEAR, "decoder.bias": "d"}, bias="decoder.bias", subtracts_bias=False),
    "GatedAutoEncoder": _Class("jump_relu", {**_GATED, "decoder_bias": "d"}, bias="decoder_bias"),
    "AutoEncoderTopK": _Class("topk", {**_LINEAR, "b_dec": "d"}, _BATCH),
    "BatchTopKSAE": _Class("batch_topk", {**_LINEAR, "b_dec": "d"}, _BATCH),
    "JumpReluAutoEncoder": _Class("jump_relu", {**PARAMETERS, "threshold": "n"}, subtracts_bias=False),
    "MatryoshkaBatchTopKSAE": _Class("batch_topk", {**PARAMETERS, **_BATCH, "group_sizes": "groups"}),
}
_OTHER_NAMES = {"MatroyshkaBatchTopKSAE": "MatryoshkaBatchTopKSAE"}  # an earlier spelling
_TELLING = ("GatedAutoEncoder", "AutoEncoderTopK", "MatryoshkaBatchTopKSAE")
"""Classes whose tensors no other library's files hold."""

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
    return any(names >= set(_CLASSES[each].tensors) for each in _TELLING)


def read(source: CheckpointSource) -> ForeignCheckpoint:
    """Read a dictionary_learning file; raises as `read_checkpoint`."""
    file = _file(source)
    name, trainer = source.full_name(file), _trainer(source, file)
    kind = _class(source.names_in(file), trainer, source, name)
    found = _CLASSES[kind]
    tensors, sizes = state_dict(source.read(file), name, found.tensors, found.optional, _COUNTERS)
    linear = "encoder.weight" in tensors
    parts: dict[str, Any] = {
        "encoder": tensors["encoder.weight"].T if linear else tensors["W_enc"],
        "decoder": tensors["decoder.weight"].T if linear else tensors["W_dec"],
        "latent_bias": tensors.get("encoder.bias" if linear else "b_enc"),
        "bias": tensors[found.bias],
        "subtracts_bias": found.subtracts_bias,
    }
    config: dict[str, Any] = {"activation": found.activation}
    if found.activation in ("topk", "batch_topk"):
        config["k"] = _k(tensors, trainer, name)
    if found.activation == "batch_topk" and "threshold" in tensors:
        parts["threshold"] = _threshold(tensors, source, name)
    if kind == "JumpReluAutoEncoder":
        # Its ReLU makes thresholds below 0 act as 0. apply_b_dec_to_input is set only for SAELens' checkpoints.
        parts["threshold"] = tensors["threshold"].double().clamp_min(0)
    elif kind == "GatedAutoEncoder":
        parts |= gated_as_jump_relu(parts["encoder"], *(tensors[key] for key in ("gate_bias", "mag_bias", "r_mag")))
        source.notes.append(GATED_NOTE)
    elif kind == "MatryoshkaBatchTopKSAE":
        config |= _levels(tensors["group_sizes"], trainer, sizes["n"], name)
    elif kind == "AutoEncoder" and not _has_unit_rows(parts["decoder"]):
        source.notes.append(
            "The rows of its dictionary do not have unit norm. dictionary_learning's from_pretrained scales them, and "
            "the codes the other way (unless normalize_decoder=False); here they stay as stored. Reconstructions are "
            "the same."
        )
    elif kind == "AutoEncoderNew":
        source.notes.append(
            "Codes are those of AutoEncoderNew.encode; with output_features=True it multiplies them by the norms of "
            "the dictionary's rows."
        )
    return ForeignCheckpoint(**parts, config=config | _origin(trainer, source, name))


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


def _trainer(source: CheckpointSource, file: str) -> Settings:
    """Trainer settings in the config.json that belongs to a file, empty without one."""
    folder = file.rpartition("/")[0]
    for place in dict.fromkeys((folder, folder.removesuffix("checkpoints").rstrip("/"))):
        config = f"{place}/config.json".lstrip("/")
        if source.has(config):
            return source.settings(config).inner("trainer")
    return Settings({}, f"the missing config.json of {source.full_name(file)}", source.given)


def _class(keys: set[str], trainer: Settings, source: CheckpointSource, name: str) -> str:
    fitting = [kind for kind, each in _CLASSES.items() if set(each.tensors) <= keys <= {*each.tensors, *each.optional}]
    if not fitting:
        raise ValueError(f"{name} holds {', '.join(sorted(keys))}, which are not the tensors of {', '.join(_CLASSES)}")
    said = trainer.word("dict_class")
    if said is not None:
        said = _OTHER_NAMES.get(said, said)
        if said not in fitting:
            raise ValueError(
                f"dict_class of {trainer.name} is {said!r}, but {name} holds the tensors of {' or '.join(fitting)}: "
                "they do not belong together, or hf_msae does not know that class"
            )
        return said
    if len(fitting) == 1:
        return fitting[0]
    given = source.given.get("activation")
    if given == "topk" or "threshold" not in keys:  # versions before there was one had no batch top-k
        return "AutoEncoderTopK"
    if given == "batch_topk":
        return "BatchTopKSAE"
    if (found := _SAE_FOR_VLM.search(name)) and found["kind"]:
        source.notes.append("Taken for a BatchTopKSAE because of its folder's name: no config.json says its class.")
        return "BatchTopKSAE"
    raise ValueError(
        f"dict_class of {trainer.name} is missing, and the tensors of {name} are those of {' and '.join(fitting)}: "
        "give activation=topk or activation=batch_topk"
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
    weights = [finite_number(weight, f"an entry of {what}") for weight in weights]
    if min(weights) > 0:
        levels["nesting_weights"] = "uniform" if len(set(weights)) == 1 else weights
    return levels


def _k(tensors: Mapping[str, torch.Tensor], trainer: Settings, name: str) -> int:
    if "k" not in tensors:
        return trainer.k("k")
    k = whole_number(tensors["k"], f"k of {name}")
    if trainer.get("k") is not None and trainer.whole("k") != k:
        raise ValueError(f"{name} holds k={k}, but k of {trainer.name} is {trainer['k']}: they do not belong together")
    return k


def _threshold(tensors: Mapping[str, torch.Tensor], source: CheckpointSource, name: str) -> float:
    threshold = finite_number(tensors["threshold"], f"threshold of {name}")
    if threshold >= 0:
        return reached(threshold)
    source.notes.append(
        f"Its threshold is {threshold:g}: training ended before it was set. Codes keep every positive activation, as "
        "in BatchTopKSAE.encode; activation=topk keeps the k largest of each embedding instead."
    )
    return 0.0


def _origin(trainer: Settings, source: CheckpointSource, name: str) -> dict[str, str]:
    """Backbone and hook point, from config.json or from the names of sae-for-vlm's folders."""
    if found := _SAE_FOR_VLM.search(name):
        model = f"{_OWNERS[found['model']]}/{found['model']}" if found["model"] in _OWNERS else None
        return origin(source, name, [f"vision.layers.{found['layer']}"], model)
    model, module = (trainer.word(key) for key in ("lm_name", "submodule_name"))
    place = None
    if model or module:
        where = f"layer {trainer.get('layer')} of {model or 'an unnamed model'}"
        place = f"{module or 'an unnamed module'} in {where}"
    return origin(source, name, [module], model, place=place)
