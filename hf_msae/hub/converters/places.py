"""Where in a backbone a checkpoint was trained: other libraries' names, translated to our hook points."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...backbones.hook_points import HookPoint
from .source import CheckpointSource

_BLOCK_OUTPUT = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)|resid_post_layer_(\d+)")
_BLOCK_MODULE = re.compile(r"(?:(?P<owner>.*)\.)?(?:layers|layer|h|blocks|resblocks)\.(?P<layer>\d+)")
_TOWERS = {"vision_model": "vision", "visual": "vision", "text_model": "text"}
_IMAGE_ENCODERS = frozenset(
    ("clip", "siglip", "vit", "dino", "dinov", "deit", "beit", "mae", "vision", "visual", "perception")
)


def hook_point_of(name: str | None, tower: str | None = "vision") -> str | None:
    """Return our name of a hook point of TransformerLens or of a module of a transformers model, None if it has none.

    "blocks.9.hook_resid_post" is the output of block 9, "blocks.9.hook_resid_pre" that of block 8, and a module
    "vision_model.encoder.layers.9" or "layers.9" that of block 9. The input of the first block and the outputs of
    attention and MLP have no name. `tower` is "vision" or "text" where the name does not say which, or None.
    """
    try:
        return HookPoint.parse(name).name
    except ValueError:  # another library's name
        name = name or ""
    if found := _BLOCK_OUTPUT.fullmatch(name):
        layer = int(found[1] or found[3]) - (found[2] == "pre")
    elif found := _BLOCK_MODULE.fullmatch(name):
        owners = (found["owner"] or "").split(".")
        tower = next((_TOWERS[owner] for owner in owners if owner in _TOWERS), tower)
        layer = int(found["layer"])
    else:
        return None
    return None if tower is None or layer < 0 else f"{tower}.layers.{layer}"


def tower_of(*names: Any) -> str | None:
    """Return the tower of a model known only by name: "vision", "text", or None without a name.

    The name of an image encoder, or of its class, has a word such as "clip", "siglip" or "vit".
    """
    known = [str(name) for name in names if name]
    # As written, and with CamelCase split: SigLIP, HookedVisionTransformer.
    spellings = [*known, *(re.sub("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", each) for each in known)]
    if any(word in _IMAGE_ENCODERS for each in spellings for word in re.findall("[a-z]+", each.lower())):
        return "vision"
    return "text" if known else None


def origin(
    source: CheckpointSource,
    name: str,
    hooks: Sequence[str | None] = (),
    model: str | None = None,
    model_class: str | None = None,
    tower: str | None = None,
    place: str | None = None,
    known: str = "",
) -> dict[str, str]:
    """Return the fields of MSAEConfig that say where embeddings come from, without a hook_point if one was given.

    The first of `hooks`, the other library's names of the place, that can be translated counts. `tower` is "vision" or
    "text", if known without the names of the model and its class; otherwise a note says so if the model is taken for a
    language model. `place` describes the place for the error message; `known` describes the embeddings if only their
    kind is known.
    """
    config = {"base_model_name_or_path": model} if model else {}
    if source.given.get("hook_point") is not None:
        return config
    guessed = tower or tower_of(model, model_class)
    for hook in hooks:
        if point := hook_point_of(hook, None):
            return config | {"hook_point": point}
        if point := hook_point_of(hook, guessed):
            if tower is None and guessed == "text":
                source.notes.append(
                    f"{model or model_class} was taken for a language model, because its name does not say that it "
                    "is an image encoder; if it is one, give hook_point=vision.layers.LAYER."
                )
            return config | {"hook_point": point}
    if place:
        problem = f"{name} was trained on {place}, which hf_msae cannot extract"
    else:
        problem = f"{name} does not say which embeddings it was trained on"
        problem += f", only that they are {known}" if known else ""
    raise ValueError(
        f"{problem}. Say which kind they are: hook_point=image_embeds or text_embeds (one of each input), "
        "vision.layers.9 or text.layers.9 (one of each token)"
    )
