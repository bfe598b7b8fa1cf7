"""Where in a backbone a checkpoint's embeddings come from, by our names."""

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
    """Our name of a hook point of TransformerLens or of a module of a transformers model; None where there is none.

    "blocks.9.hook_resid_post" is what leaves block 9, "blocks.9.hook_resid_pre" what leaves block 8, and a module
    "vision_model.encoder.layers.9" or "layers.9" what leaves block 9. What enters the first block, and the outputs of
    attention and MLP, have no name.

    Args:
        name: the other library's; one of ours stays as it is.
        tower: "vision" or "text", where the name does not tell; None where nothing does.
    """
    if not name:
        return None
    try:
        return HookPoint.parse(name).name
    except ValueError:  # it is another library's
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
    """The tower that is meant where a checkpoint names a model and a layer alone: "vision", "text", or None.

    Image encoders are told by a word of the name, between whatever is no letter: "clip", "siglip", "vit", ...

    Args:
        names: what the checkpoint tells: of a model, its class; the first that is there is the model's.
        notes: gets one where a name without any of these words was taken for a language model's.
    """
    told = [str(name) for name in names if name]
    if not told:
        return None
    # As written, and with CamelCase taken apart: SigLIP, HookedVisionTransformer.
    spellings = [*told, *(re.sub("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", each) for each in told)]
    if any(word in _IMAGE_ENCODERS for each in spellings for word in re.findall("[a-z]+", each.lower())):
        return "vision"
    if notes is not None:
        notes.append(
            f"{told[0]} was taken for a language model, since its name does not say that it is an image encoder; if "
            "it is one, say hook_point=vision.layers.LAYER."
        )
    return "text"


def place_of(
    hook_point: str | None, place: str | None, given: Mapping[str, Any], name: str, known: str = ""
) -> dict[str, str]:
    """The field hook_point of MSAEConfig: {} where the user gave one, which then counts.

    Args:
        hook_point: ours; None where hf_msae has no name for it.
        place: what the checkpoint says, for people; None where it says nothing.
        given: what the user said.
        name: of the checkpoint, for messages.
        known: what is known of the embeddings all the same, for people.

    Raises:
        ValueError: the embeddings are of a place that hf_msae has no name for, or that nothing tells, and no
            hook_point was given.
    """
    if given.get("hook_point") is not None:
        return {}
    if hook_point is not None:
        return {"hook_point": hook_point}
    if place:
        raise ValueError(
            f"{name} was trained on {place}, where hf_msae cannot read by itself. To use it with embeddings from "
            f"there that you bring along, say which kind they are: {_KINDS}"
        )
    beyond = f", beyond that they are {known}" if known else ""
    raise ValueError(
        f"{name} does not tell which embeddings it was trained on{beyond}: say which kind they are: {_KINDS}"
    )
