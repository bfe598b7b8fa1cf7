"""The MSAE paper's authors' checkpoints (github.com/WolodjaZ/MSAE): one `.pth` whose name says what it is.

    {n_latents}_{n_inputs}_{activation}[_{number}][_{UW|RW}]_{tied}_{normalize}_{soft_cap}_{dataset}.pth

The number is the smallest k of the levels (UW, RW), the k of a top-k autoencoder, or the digits of a ReLU
autoencoder's sparsity coefficient after "0.". The file holds `model` (pre_bias (d,), encoder (d, n), decoder (n, d),
latent_bias (n,)), `mean_center` and `scaling_factor`, which become input_mean and input_scale as they are: they are
what the weights were trained with, however they were computed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from .checkpoint import ForeignCheckpoint
from .reading import check_keys, check_shape, check_tensor, finite_number, state_dict, the_one
from .source import CheckpointSource

_NAME = re.compile(
    r"(?P<n>\d+)_(?P<d>\d+)_(?P<activation>[A-Za-z]+)(?:_(?P<number>\d+))?(?:_(?P<weights>UW|RW))?"
    r"_(?P<tied>True|False)_(?P<normalize>True|False)_(?P<soft_cap>\d+(?:\.\d+)?)(?:_(?P<dataset>.+))?\.pth?"
)
_EXAMPLE = "6144_768_TopKReLU_64_RW_False_False_0.0_cc3m_ViT-L~14_train_image_2905936_768.pth"
_TOP_LEVEL = ("model", "mean_center", "scaling_factor", "target_norm")
_PARAMETERS = {"encoder": "d n", "pre_bias": "d", "latent_bias": "n"}
_COUNTERS = ("latents_activation_frequency",)
_LOG_THRESHOLD = "activation.log_threshold"
_SAME_THRESHOLD = "dead_activations.log_threshold"  # a second name of the same parameter
_OPTIONAL = {"decoder": "n d", _LOG_THRESHOLD: "n", _SAME_THRESHOLD: "n"}

_BACKBONES = {
    "ViT-B~32": ("openai/clip-vit-base-patch32", 512),
    "ViT-B~16": ("openai/clip-vit-base-patch16", 512),
    "ViT-L~14": ("openai/clip-vit-large-patch14", 768),
    "ViT-L~14@336px": ("openai/clip-vit-large-patch14-336", 768),
}
"""Name of a CLIP in their datasets' names: its name on the Hub, and the width of its embeddings."""

_UNKNOWN_MODALITY = "The file's name says neither image nor text; assumed to be of images (image_embeds)."


def recognizes(source: CheckpointSource) -> bool:
    """Whether a file is named like theirs, or a single `.pth` holds what theirs do."""
    files = source.matching("*.pth")
    return bool(_named(source)) or (len(files) == 1 and source.names_in(files[0]) >= set(_TOP_LEVEL[:3]))


def read(source: CheckpointSource) -> ForeignCheckpoint:
    """Read a file of the authors; raises as `read_checkpoint`."""
    files = source.matching("*.pth", "*.pt")
    candidates = [file for file in files if _NAME.fullmatch(file)] or files or _named(source)
    file = the_one(candidates, source.name, ".pth file")
    path = source.full_name(file)
    name = _NAME.fullmatch(file.rpartition("/")[2])
    if name is not None and name["normalize"] == "True":
        raise ValueError(
            f"{file} was trained with normalize=True: each embedding was standardized by itself, which no fixed "
            "input_mean and input_scale can do, so it cannot be converted"
        )
    content = source.read(file)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not names and values")
    check_keys(content, _TOP_LEVEL[:3], _TOP_LEVEL, path)
    state, sizes = state_dict(content["model"], f"model of {path}", _PARAMETERS, _OPTIONAL, _COUNTERS)
    decoder, log_threshold = state.get("decoder"), state.get(_LOG_THRESHOLD)
    same = state.get(_SAME_THRESHOLD)
    if same is not None and (log_threshold is None or not torch.equal(same, log_threshold)):
        raise ValueError(f"{_SAME_THRESHOLD} of {path} is not its {_LOG_THRESHOLD}, but the two are one parameter")
    mean, what = content["mean_center"], f"mean_center of {path}"
    if not isinstance(mean, torch.Tensor) or mean.dim() == 0:  # one number for every column
        mean = torch.full((sizes["d"],), finite_number(mean, what), dtype=torch.float64)
    check_tensor(mean, what)
    check_shape(mean, "d", what, sizes)
    if name is None:
        config = _unnamed(source, file, log_threshold is not None)
    else:
        said = int(name["n"]), int(name["d"]), name["tied"] == "True"
        held = sizes["n"], sizes["d"], decoder is None
        if said != held:
            raise ValueError(
                f"the name {file} says {said[0]} latents of {said[1]} inputs, tied={said[2]}, but the file holds "
                f"{held[0]} of {held[1]}, tied={held[2]}: one of them belongs to another model"
            )
        config = _settings(source, file, name, log_threshold is not None) | _origin(source, name)
    return ForeignCheckpoint(
        encoder=state["encoder"],
        decoder=decoder,
        latent_bias=state["latent_bias"],
        bias=state["pre_bias"],
        input_mean=mean.double(),
        input_scale=finite_number(content["scaling_factor"], f"scaling_factor of {path}"),
        threshold=None if log_threshold is None else log_threshold.double().exp(),
        config=config,
    )


def _named(source: CheckpointSource) -> list[str]:
    """Files that are named like theirs, in this folder or below."""
    return [file for file in source.files if _NAME.fullmatch(file.rpartition("/")[2])]


def _unnamed(source: CheckpointSource, file: str, has_threshold: bool) -> dict[str, Any]:
    """Fields of MSAEConfig of a file that is not named like theirs."""
    if source.given.get("hook_point") is None:
        source.notes.append(_UNKNOWN_MODALITY)
    if has_threshold:
        return {"activation": "jump_relu"}
    if source.given.get("activation") is None:
        raise ValueError(
            f"{file} is not named like the authors' own files (e.g. {_EXAMPLE}), and only the name says what the "
            "model is. Give activation=relu with nesting_ks (an MSAE), activation=relu without (a ReLU autoencoder) "
            "or activation=topk with k; and soft_cap, if it has one. If it was trained with normalize=True, it "
            "cannot be converted"
        )
    source.notes.append("The file's name says nothing about the model, so all settings are the given ones.")
    return {}


def _settings(source: CheckpointSource, file: str, name: re.Match, has_threshold: bool) -> dict[str, Any]:
    """Fields of MSAEConfig that the name gives, except for the origin of the embeddings."""
    activation, number, given = name["activation"], name["number"], source.given.get("activation")
    config: dict[str, Any] = {"soft_cap": float(name["soft_cap"]) or None}
    if has_threshold != (activation == "JumpReLU"):
        raise ValueError(f"the name {file} says {activation}, but there is {'a' if has_threshold else 'no'} threshold")
    if activation == "JumpReLU":
        return config | {"activation": "jump_relu"}
    if activation == "ReLU":
        return config | {"activation": "relu", "sparsity_coefficient": float(f"0.{number or 0}")}
    if activation not in ("TopKReLU", "BatchTopKReLU") and given is None:
        raise ValueError(
            f"the name {file} says {activation}, which may keep negative activations, as no MSAE does; "
            "activation=relu or activation=topk cuts them off at 0, which is another function"
        )
    if number is None:
        raise ValueError(f"the name {file} says {activation}, but not the k")
    k, of_batch = int(number), activation.startswith("Batch")
    if name["weights"] is not None:
        source.notes.append(
            f"The file only says the smallest level, {k}: the others are taken to double up to num_latents, as in "
            "the authors' train.py."
        )
        if of_batch:
            source.notes.append(
                "Trained with levels that keep k activations per embedding on average over a batch; here a level "
                "keeps the k largest of each."
            )
        weights = {"UW": "uniform", "RW": "reverse"}[name["weights"]]
        levels = {"nesting": "topk", "nesting_ks": level_ks(k, int(name["n"])), "nesting_weights": weights}
        return config | {"activation": "relu", **levels}
    if given == "relu":
        source.notes.append(
            f"Trained as {activation} with k={k}; the full ReLU code is decoded, as the authors' SAE class does."
        )
        return config | {"activation": "relu"}
    if of_batch and given is None:
        raise ValueError(
            f"the name {file} says {activation}, but the file does not hold the threshold that replaces the k "
            f"largest of a batch. activation=topk takes the {k} largest of each embedding instead, activation=relu "
            "the full code, which is what the authors' SAE class decodes"
        )
    source.notes.append(
        f"The {k} largest activations are kept, as in training; the authors' SAE class decodes the full ReLU code."
    )
    return config | {"activation": "topk", "k": k}


def level_ks(smallest: int, n: int) -> list[int]:
    """Return the levels as the authors' train.py makes them: doubling from the smallest k, then n."""
    ks = [smallest]
    while ks[-1] * 2 < n:
        ks.append(ks[-1] * 2)
    return [k for k in ks if k < n] + [n]


def _origin(source: CheckpointSource, name: re.Match) -> dict[str, str]:
    """Backbone and hook point from the name of the dataset."""
    words = (name["dataset"] or "").split("_")
    modality = next((word for word in words if word in ("image", "text")), None)
    if modality is None and source.given.get("hook_point") is None:
        source.notes.append(_UNKNOWN_MODALITY)
    config = {"hook_point": f"{modality or 'image'}_embeds"}
    if source.given.get("base_model_name_or_path") is not None:
        return config
    backbone, width = next((_BACKBONES[word] for word in words if word in _BACKBONES), (None, int(name["d"])))
    if width != int(name["d"]):
        source.notes.append(
            f"The dataset's name suggests {backbone}, whose embeddings are {width} wide, but these {name['d']}."
        )
    elif backbone is not None:
        config["base_model_name_or_path"] = backbone
    elif "RN50" in words:
        source.notes.append("Trained on CLIP RN50, which transformers does not have: no backbone loads with it.")
    else:
        source.notes.append("The name does not say which backbone: give base_model_name_or_path.")
    return config
