"""Where embeddings are from, and whether two things are of the same embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._utils.built_in import find_built_in

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


def refuse_other(mine: Mapping[str, Any], theirs: Mapping[str, Any], what: str, whose: str) -> None:
    """Refuse to use one thing with another if both say where they are from, and that differs.

    Two backbones are the same if their weights and image processors are or, where a hash of the weights is not known,
    if their names and revisions are. `what` is the one, such as "the MSAE", and `whose` the other with its verb, such
    as "the embeddings are".
    """
    if found := _difference(mine, theirs):
        raise ValueError(f"{what} is of {_label(mine)}, but {whose} of {_label(theirs)}: {found}")


def _difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Return what differs, in words; "" if nothing does, or if it is not known of both."""

    def both(part: str) -> tuple[Any, Any] | None:
        pair = mine.get(part), theirs.get(part)
        return None if None in pair else pair

    names, weights = both("base_model_name_or_path"), both("base_model_weights_sha256")
    revisions, processors = both("base_model_revision"), both("base_model_processor_sha256")
    same_name = names is not None and _resolved(names[0]) == _resolved(names[1])
    same_commit = same_name and revisions is not None and revisions[0] == revisions[1]
    if weights is not None:
        # Version 0.1 recorded another hash for a backbone in half precision.
        if weights[0] != weights[1] and not same_commit:
            return "other weights"
    elif names is None:
        return ""
    elif not same_name:
        return "another backbone"
    elif revisions is not None and not same_commit:
        return f"revision {revisions[0]} is not {revisions[1]}"
    if processors is not None and processors[0] != processors[1]:
        return "another image processor"
    hook_points = both("hook_point")
    return "another hook point" if hook_points is not None and hook_points[0] != hook_points[1] else ""


def _label(known: Mapping[str, Any]) -> str:
    name = known.get("base_model_name_or_path") or "a backbone without a name"
    return f"{known['hook_point']} of {name}" if known.get("hook_point") else name


def _resolved(name: str) -> str:
    """Return one name for a backbone of this package, and the absolute path of a folder; other names as they are."""
    if built_in := find_built_in(name):
        return built_in
    return str(Path(name).expanduser().resolve()) if Path(name).expanduser().is_dir() else name
