"""EleutherAI's sparsify: a folder per hook point, with `cfg.json` and `sae.safetensors`.

encoder.weight (n, d), encoder.bias (n,), W_dec (n, d), b_dec (d,). The code is the k largest of
relu((x - b_dec) @ encoder.weight.T + encoder.bias), the reconstruction code @ W_dec + b_dec. multi_topk is a second
term of the training loss and changes neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .checkpoint import ForeignCheckpoint
from .places import hook_point_of, place_of, tower_of
from .reading import check_shapes, flag, k_of, tensors_of, the_one, whole_number, word
from .source import CheckpointSource, refuse_other_keys, require_keys

_CONFIG, _WEIGHTS = "cfg.json", "sae.safetensors"
_TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
_REFUSED = {
    "transcode": "it predicts other embeddings than it encodes",
    "skip_connection": "it adds a linear map of its input to the reconstruction",
    "signed": "its codes have negative entries, which no MSAE has",
}


def recognises(source: CheckpointSource) -> bool:
    """Whether sparsify's two files are there, in this folder or in ones below."""
    return (source.has(_CONFIG) and source.has(_WEIGHTS)) or bool(source.folders_with(_CONFIG, _WEIGHTS))


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Raises:
    FileNotFoundError: one of the two files is missing.
    ValueError: several hook points, of which one has to be named; one that does what an MSAE cannot; or damage.
    """
    folder = ""
    if not (source.has(_CONFIG) and source.has(_WEIGHTS)):
        folders = source.folders_with(_CONFIG, _WEIGHTS)
        if not folders:
            missing = [file for file in (_CONFIG, _WEIGHTS) if not source.has(file)]
            raise FileNotFoundError(f"{source.name} holds no {' and no '.join(missing)}")
        folder = f"{the_one(folders, source.name, _WEIGHTS)}/"
    name = f"{source.name}/{folder}".rstrip("/")
    settings = source.read_json(f"{folder}{_CONFIG}")
    _refuse(settings, name)
    tensors = tensors_of(source.read_safetensors(f"{folder}{_WEIGHTS}"), name)
    require_keys(tensors, _TENSORS, name)
    refuse_other_keys(tensors, _TENSORS, name)
    d, n = _sizes(settings, name)
    check_shapes(tensors, dict(zip(_TENSORS, ((n, d), (n,), (n, d), (d,)), strict=True)), name)
    notes: list[str] = []
    k = k_of(settings.get("k"), overrides, f"k in {_CONFIG} of {name}")
    bias = tensors["b_dec"]
    return ForeignCheckpoint(
        format="sparsify",
        encoder=tensors["encoder.weight"].T,
        decoder=tensors["W_dec"],
        latent_bias=tensors["encoder.bias"],
        input_bias=bias,
        output_bias=bias,
        config={"activation": "topk", "k": k, **_place(name, overrides, notes)},
        notes=notes,
    )


def _refuse(settings: Mapping[str, Any], name: str) -> None:
    for key, reason in _REFUSED.items():
        if flag(settings, key, False, name):
            raise ValueError(f"{name} has {key}={settings[key]}: {reason}, so it cannot be converted")
    activation = word(settings, "activation", "topk", name)  # older files do not say
    if activation == "groupmax":
        raise ValueError(
            f"{name} has activation='groupmax', which keeps the largest activation of each of k groups of latents, "
            "not the k largest of all, so it cannot be converted"
        )
    if activation != "topk":
        raise ValueError(f"{name} has activation={activation!r}; hf_msae reads topk")


def _sizes(settings: Mapping[str, Any], name: str) -> tuple[int, int]:
    d = whole_number(settings.get("d_in"), f"d_in in {_CONFIG} of {name}")
    if settings.get("num_latents"):
        return d, whole_number(settings["num_latents"], f"num_latents in {_CONFIG} of {name}")
    return d, d * whole_number(settings.get("expansion_factor"), f"expansion_factor in {_CONFIG} of {name}")


def _place(name: str, overrides: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The hook point, which is the folder's name: that of a module of a transformers model."""
    module = name.removesuffix(f"/{_WEIGHTS}").removesuffix(f"/{_CONFIG}").rpartition("/")[2].partition("_seed")[0]
    # sparsify trains on language models; modules of an image encoder say so.
    point = hook_point_of(module, tower_of(module))
    if point is not None and overrides.get("hook_point") is None:
        notes.append(f"The folder's name, {module}, was taken for the module whose output it was trained on.")
    return place_of(point, f"the output of the module that its folder, {module}, is named after", overrides, name)
