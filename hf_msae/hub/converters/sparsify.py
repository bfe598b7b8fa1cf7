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
from .reading import Settings, state_dict
from .source import CheckpointSource

_CONFIG, _WEIGHTS = "cfg.json", "sae.safetensors"
_TENSORS = {"encoder.weight": "n d", "encoder.bias": "n", "W_dec": "n d", "b_dec": "d"}
_REFUSED = {
    "transcode": "it predicts other embeddings than it encodes",
    "skip_connection": "it adds a linear map of its input to the reconstruction",
    "signed": "its codes have negative entries, which no MSAE has",
}


def recognizes(source: CheckpointSource) -> bool:
    """Whether sparsify's two files are in this folder or in ones below."""
    return source.has_together(_CONFIG, _WEIGHTS)


def read(source: CheckpointSource, overrides: Mapping[str, Any]) -> ForeignCheckpoint:
    """Read a folder of sparsify's; see `read_checkpoint` for what is raised."""
    folder = source.folder_of(_CONFIG, _WEIGHTS)
    settings = source.settings(f"{folder}{_CONFIG}")
    _check_kind(settings)
    sizes = settings.sizes("d_in", "num_latents", "expansion_factor")
    name = f"{source.name}/{folder}".rstrip("/")
    tensors, _ = state_dict(source.read(f"{folder}{_WEIGHTS}"), name, _TENSORS, **sizes)
    notes: list[str] = []
    return ForeignCheckpoint(
        format="sparsify",
        encoder=tensors["encoder.weight"].T,
        decoder=tensors["W_dec"],
        latent_bias=tensors["encoder.bias"],
        input_bias=tensors["b_dec"],
        output_bias=tensors["b_dec"],
        config={"activation": "topk", "k": settings.k("k", overrides), **_place(name, overrides, notes)},
        notes=notes,
    )


def _check_kind(settings: Settings) -> None:
    settings.refuse(_REFUSED)
    activation = settings.word("activation", "topk")  # older files do not have it
    if activation == "groupmax":
        raise ValueError(
            f"{settings.name} has activation='groupmax', which keeps the largest activation of each of k groups of "
            "latents, not the k largest of all, so it cannot be converted"
        )
    if activation != "topk":
        raise ValueError(f"{settings.name} has activation={activation!r}; hf_msae reads topk")


def _place(name: str, overrides: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The hook point, from the folder's name, which is that of a module of a transformers model."""
    module = name.removesuffix(f"/{_WEIGHTS}").removesuffix(f"/{_CONFIG}").rpartition("/")[2].partition("_seed")[0]
    # sparsify trains on language models; modules of an image encoder have names that say so.
    point = hook_point_of(module, tower_of(module))
    if point is not None and overrides.get("hook_point") is None:
        notes.append(f"The folder's name, {module}, was taken for the module whose output it was trained on.")
    return place_of(point, f"the output of the module that its folder, {module}, is named after", overrides, name)
