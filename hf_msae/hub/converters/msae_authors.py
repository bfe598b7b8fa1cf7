"""The MSAE paper's authors' checkpoints (github.com/WolodjaZ/MSAE): one `.pth`, whose name holds what it is.

    {n_latents}_{n_inputs}_{activation}[_{number}][_{UW|RW}]_{tied}_{normalize}_{soft_cap}_{dataset}.pth

The number is the smallest k of the levels (UW, RW), the k of a top-k autoencoder, or the digits of a ReLU
autoencoder's sparsity coefficient after "0.". The file holds `model` (pre_bias (d,), encoder (d, n), decoder (n, d),
latent_bias (n,)), `mean_center` and `scaling_factor`, which become input_mean and input_scale as they are: they are
what the weights were trained with, however they were computed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .checkpoint import ForeignCheckpoint
from .reading import check_shape, check_tensor, finite_number, refuse_other_keys, require_keys, state_dict
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
"""Name of a CLIP in their data sets' names: its name on the Hub, and the width of its embeddings."""

_WEIGHTS = {"UW": "uniform", "RW": "reverse"}
_UNKNOWN_MODALITY = "The file's name says neither image nor text; taken to be of images (image_embeds)."


@dataclass(frozen=True)
class _Name:
    """The settings in a file's name."""

    n: int
    d: int
    activation: str
    number: str | None
    weights: str | None
    tied: bool
    soft_cap: float | None
    dataset: str

    @classmethod
    def parse(cls, name: str) -> _Name | None:
        """Parse a name, None if it is not one of theirs; raise ValueError for what an MSAE cannot do."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        if found["normalize"] == "True":
            raise ValueError(
                f"{name} was trained with normalize=True: each embedding was standardized by itself, which no fixed "
                "input_mean and input_scale can do, so it cannot be converted"
            )
        cap = float(found["soft_cap"]) or None
        sizes = int(found["n"]), int(found["d"])
        number, weights, tied = found["number"], found["weights"], found["tied"] == "True"
        return cls(*sizes, found["activation"], number, weights, tied, cap, found["dataset"] or "")


def recognizes(source: CheckpointSource) -> bool:
    """Whether a file has one of their names, or a single `.pth` holds what theirs do."""
    if _named(source):
        return True
    files = source.matching("*.pth")
    if len(files) != 1:
        return False
    return source.names_in(files[0]) >= set(_TOP_LEVEL[:3])


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Read one of the authors' files; see `read_checkpoint` for what is raised."""
    file = _file(source)
    name = _Name.parse(file)
    content = source.read(file)
    if not isinstance(content, Mapping):
        raise ValueError(f"{source.name} holds a {type(content).__name__}, not the mapping that theirs do")
    require_keys(content, _TOP_LEVEL[:3], source.name)
    refuse_other_keys(content, _TOP_LEVEL, source.name)
    state, sizes = state_dict(content["model"], f"model of {source.name}", _PARAMETERS, _OPTIONAL, _COUNTERS)
    d, n, decoder, log_threshold = sizes["d"], sizes["n"], state.get("decoder"), state.get(_LOG_THRESHOLD)
    if _SAME_THRESHOLD in state and not (
        log_threshold is not None and torch.equal(state[_SAME_THRESHOLD], log_threshold)
    ):
        raise ValueError(
            f"{_SAME_THRESHOLD} of {source.name} is not its {_LOG_THRESHOLD}, but the two are one parameter of theirs"
        )
    if name is not None and (n, d, decoder is None) != (name.n, name.d, name.tied):
        raise ValueError(
            f"the name {file} says {name.n} latents of {name.d} inputs, tied={name.tied}, but the file holds "
            f"{n} of {d}, tied={decoder is None}: one of them belongs to another model"
        )
    config, notes = _settings(file, name, log_threshold is not None, n, overrides)
    if name is not None:
        config |= _origin(name, overrides, notes)
    elif overrides.get("hook_point") is None:
        notes.append(_UNKNOWN_MODALITY)
    return ForeignCheckpoint(
        format="msae_authors",
        encoder=state["encoder"],
        decoder=decoder,
        latent_bias=state["latent_bias"],
        input_bias=state["pre_bias"],
        output_bias=state["pre_bias"],
        input_mean=_mean(content["mean_center"], d, source.name),
        input_scale=finite_number(content["scaling_factor"], f"scaling_factor of {source.name}"),
        threshold=None if log_threshold is None else log_threshold.double().exp(),
        config=config,
        notes=notes,
    )


def _mean(value: Any, d: int, name: str) -> torch.Tensor:
    """mean_center as (d,); a single number is that of every column."""
    if isinstance(value, torch.Tensor) and value.dim() > 0:
        check_tensor(value, f"mean_center of {name}")
        check_shape(value, "d", f"mean_center of {name}", {"d": d})
        return value.double()
    return torch.full((d,), finite_number(value, f"mean_center of {name}"), dtype=torch.float64)


def _named(source: CheckpointSource) -> list[str]:
    """Files with one of their names, in this folder or below."""
    return [file for file in source.files if _NAME.fullmatch(file.rpartition("/")[2])]


def _file(source: CheckpointSource) -> str:
    files = source.matching("*.pth", "*.pt")
    candidates = [file for file in files if _NAME.fullmatch(file)] or files or _named(source)
    if len(candidates) == 1 and "/" not in candidates[0]:
        return candidates[0]
    if not candidates:
        raise ValueError(f"{source.name} holds no .pth file")
    raise ValueError(f"{source.name} holds several checkpoints, name one as subfolder: {', '.join(candidates)}")


def _settings(
    file: str, name: _Name | None, has_threshold: bool, n: int, overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Fields of MSAEConfig, and notes."""
    if name is None:
        if has_threshold:
            return {"activation": "jump_relu"}, []
        if overrides.get("activation") is None:
            raise ValueError(
                f"{file} is not named like the authors' own files (e.g. {_EXAMPLE}), and only the name says what the "
                "model is. Say it: activation=relu with nesting_ks (an MSAE), activation=relu without (a ReLU "
                "autoencoder) or activation=topk with k; and soft_cap, if it has one. If it was trained with "
                "normalize=True, it cannot be converted"
            )
        return {}, ["The file's name says nothing, so all settings are the given ones."]
    if has_threshold != (name.activation == "JumpReLU"):
        raise ValueError(
            f"the name {file} says {name.activation}, but there is {'a' if has_threshold else 'no'} threshold"
        )
    config: dict[str, Any] = {"soft_cap": name.soft_cap}
    given = overrides.get("activation")
    if name.activation == "JumpReLU":
        return config | {"activation": "jump_relu"}, []
    if name.activation == "ReLU":
        coefficient = float(f"0.{name.number}") if name.number else 0.0
        return config | {"activation": "relu", "sparsity_coefficient": coefficient}, []
    if name.activation not in ("TopKReLU", "BatchTopKReLU") and given is None:
        keeps_negative = name.activation in ("Identity", "TopK", "BatchTopK")
        raise ValueError(
            f"the name {file} says {name.activation}, "
            + ("which keeps negative activations" if keeps_negative else "an activation that hf_msae does not know")
            + ", as no MSAE does; activation=relu or activation=topk reads it with its pre-activations cut at 0, "
            "which is another function"
        )
    if name.number is None:
        raise ValueError(f"the name {file} says {name.activation}, but not the k")
    k = int(name.number)
    if name.weights is not None:
        return config | _levels(k, n, name), _notes_on_levels(k, name)
    if given == "relu":
        note = (
            f"Trained as {name.activation} with k={k}; the full ReLU code is decoded, as the authors' SAE class does."
        )
        return config | {"activation": "relu"}, [note]
    if name.activation.startswith("Batch") and given is None:
        raise ValueError(
            f"the name {file} says {name.activation}, but the file does not hold the threshold that replaces the k "
            f"largest of a batch. activation=topk takes the {k} largest of each embedding instead, activation=relu "
            "the full code, which is what the authors' SAE class decodes"
        )
    note = f"The {k} largest activations are kept, as in training; the authors' SAE class decodes the full ReLU code."
    return config | {"activation": "topk", "k": k}, [note]


def _levels(smallest: int, n: int, name: _Name) -> dict[str, Any]:
    """Doubling from the smallest k, then n, like the list that their train.py makes."""
    ks = [smallest]
    while ks[-1] * 2 < n:
        ks.append(ks[-1] * 2)
    ks = [k for k in ks if k < n] + [n]
    return {"activation": "relu", "nesting": "topk", "nesting_ks": ks, "nesting_weights": _WEIGHTS[name.weights]}


def _notes_on_levels(smallest: int, name: _Name) -> list[str]:
    notes = [
        f"The file only says the smallest level, {smallest}: the others are taken to double up to num_latents, as in "
        "the authors' train.py."
    ]
    if name.activation.startswith("Batch"):
        notes.append(
            "Trained with levels that keep k activations per embedding on average over a batch; here a level keeps "
            "the k largest of each."
        )
    return notes


def _origin(name: _Name, overrides: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Backbone and hook point from the name of the data set."""
    words = name.dataset.split("_")
    modality = next((word for word in words if word in ("image", "text")), None)
    if modality is None and overrides.get("hook_point") is None:
        notes.append(_UNKNOWN_MODALITY)
    config: dict[str, Any] = {"hook_point": f"{modality or 'image'}_embeds"}
    if overrides.get("base_model_name_or_path") is not None:
        return config
    backbone, width = next((_BACKBONES[word] for word in words if word in _BACKBONES), (None, None))
    if backbone is not None and width != name.d:
        notes.append(
            f"The data set's name suggests {backbone}, whose embeddings are {width} wide, but these {name.d}."
        )
    elif backbone is not None:
        config["base_model_name_or_path"] = backbone
    elif "RN50" in words:
        notes.append("Trained on CLIP RN50, which transformers does not have: there is no backbone to load with it.")
    else:
        notes.append("The name does not say which backbone: give base_model_name_or_path.")
    return config
