"""Where embeddings are from, and whether two things are of the same embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._utils.provenance import refuse_other

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..vision_text import VisionTextMSAE


def provenance_of(X: object) -> dict[str, Any]:
    """Return what opened embeddings, or a task, say of their backbone; {} for arrays."""
    known = getattr(X, "provenance", {})
    return {key: value for key, value in known.items() if key.startswith("base_model_") or key == "hook_point"}


def backbone_of(model: Backbone | VisionTextMSAE) -> Backbone:
    """Return a backbone, or that of a `VisionTextMSAE`."""
    from ..backbones import Backbone

    found = getattr(model, "backbone", model)
    if not isinstance(found, Backbone):
        raise TypeError(f"a backbone is a Backbone or a VisionTextMSAE, but got {model!r:.100}")
    return found


def provenance_at(model: Backbone | VisionTextMSAE, hook_point: str) -> dict[str, Any]:
    """Return what embeddings at a hook point of a backbone say of it."""
    return {**backbone_of(model).provenance(), "hook_point": hook_point}


def origin_of(
    X: object, width: int, model: Backbone | VisionTextMSAE | None = None, hook_point: str | None = None
) -> dict[str, Any]:
    """Return where embeddings are from: what they say of it, or what the caller says.

    The hook point defaults to what the embeddings or the MSAE of the model say, else "image_embeds".
    """
    known = provenance_of(X)
    if model is None:
        if hook_point is not None:
            raise ValueError(f"hook_point={hook_point!r} is a place in a backbone: pass the backbone too")
        return known
    backbone = backbone_of(model)
    of_model = getattr(getattr(model, "hook_point", None), "name", None)
    hook_point = hook_point or known.get("hook_point") or of_model or "image_embeds"
    backbone.require(hook_point)
    check_width(width, backbone, hook_point)
    given = provenance_at(backbone, hook_point)
    refuse_other(given, known, "the backbone", "the embeddings are")
    return given


def check_width(width: int, backbone: Backbone, hook_point: str) -> None:
    """Raise ValueError unless embeddings are as wide as those of a backbone."""
    if width != (expected := backbone.width(hook_point)):
        raise ValueError(f"embeddings have {width} columns, but {hook_point} of {backbone.label} has {expected}")
