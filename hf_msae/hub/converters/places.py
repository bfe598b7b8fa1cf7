"""Translation of the place in a backbone that a checkpoint was trained on to our hook points."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...backbones.hook_points import HookPoint

_BLOCK_OUTPUT = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")
_BLOCK_MODULE = re.compile(r"(?:(?P<owner>.*)\.)?(?:layers|layer|h|blocks|resblocks)\.(?P<layer>\d+)")
_TOWERS = {"vision_model": "vision", "visual": "vision", "text_model": "text"}
_IMAGE_ENCODERS = frozenset(
    ("clip", "siglip", "vit", "dino", "dinov", "deit", "beit", "mae", "vision", "visual", "perception")
)
_KINDS = (
    "hook_point=image_embeds or text_embeds (one of each input), vision.layers.9 or text.layers.9 (one of each token)"
)


def hook_point_of(name: str | None, tower: str | None = "vision") -> str | None:
    """Return our name of a hook point of TransformerLens or of a module of a transformers model, None if it has none.

    "blocks.9.hook_resid_post" is the output of block 9, "blocks.9.hook_resid_pre" that of block 8, and a module
    "vision_model.encoder.layers.9" or "layers.9" that of block 9. The input of the first block and the outputs of
    attention and MLP have no name.

    Args:
        name: The other library's name; one of ours stays as it is.
        tower: "vision" or "text" if the name does not say which; None if it is unknown.
    """
    if not name:
        return None
    try:
        return HookPoint.parse(name).name
    except ValueError:  # another library's name
        pass
    layer = None
    if found := _BLOCK_OUTPUT.fullmatch(name):
        layer = int(found[1]) - (found[2] == "pre")
    elif found := _BLOCK_MODULE.fullmatch(name):
        owners = (found["owner"] or "").split(".")
        tower = next((_TOWERS[owner] for owner in owners if owner in _TOWERS), tower)
        layer = int(found["layer"])
    return None if tower is None or layer is None or layer < 0 else f"{tower}.layers.{layer}"


def tower_of(*names: Any, notes: list[str] | None = None) -> str | None:
    """Return the tower of a model of which only the name is known: "vision", "text", or None without a name.

    The name of an image encoder has a word such as "clip", "siglip" or "vit".

    Args:
        *names: Names of the model and its class, if known; the first is shown in the note.
        notes: Gets a note if the model was taken for a language model.
    """
    known = [str(name) for name in names if name]
    if not known:
        return None
    # As written, and with CamelCase split: SigLIP, HookedVisionTransformer.
    spellings = [*known, *(re.sub("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", each) for each in known)]
    if any(word in _IMAGE_ENCODERS for each in spellings for word in re.findall("[a-z]+", each.lower())):
        return "vision"
    if notes is not None:
        notes.append(
            f"{known[0]} was taken for a language model, because its name does not say that it is an image encoder; "
            "if it is one, give hook_point=vision.layers.LAYER."
        )
    return "text"


def place_of(
    hook_point: str | None, place: str | None, given: Mapping[str, Any], name: str, known: str = ""
) -> dict[str, str]:
    """Return the field hook_point of MSAEConfig, or {} if the user gave one, which takes precedence.

    Args:
        hook_point: Our name; None if there is none.
        place: Description of the place; None if it is unknown.
        given: The user's overrides.
        name: Name of the checkpoint in messages.
        known: Description of the embeddings as far as they are known.

    Raises:
        ValueError: The place is unknown or has no name, and no hook_point was given.
    """
    if given.get("hook_point") is not None:
        return {}
    if hook_point is not None:
        return {"hook_point": hook_point}
    if place:
        raise ValueError(
            f"{name} was trained on {place}, which hf_msae cannot extract. To use it with your own embeddings from "
            f"there, say which kind they are: {_KINDS}"
        )
    beyond = f", only that they are {known}" if known else ""
    raise ValueError(
        f"{name} does not say which embeddings it was trained on{beyond}: say which kind they are: {_KINDS}"
    )
