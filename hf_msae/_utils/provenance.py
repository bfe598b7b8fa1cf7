"""Whether two things are of the same backbone, by what they say of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .built_in import find_built_in


def refuse_other(mine: Mapping[str, Any], theirs: Mapping[str, Any], what: str, whose: str) -> None:
    """Refuse to use one thing with another if both say where they are from, and that differs.

    Two backbones are the same if their weights and image processors are or, where a hash of the weights is not known,
    if their names and revisions are. `what` is the one, such as "the MSAE", and `whose` the other with its verb, such
    as "the embeddings are".
    """
    if found := difference_of(mine, theirs):
        raise ValueError(f"{what} is of {origin_label(mine)}, but {whose} of {origin_label(theirs)}: {found}")


def difference_of(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
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


def origin_label(known: Mapping[str, Any]) -> str:
    """Return the backbone that something is of, with its hook point if that is known, for messages."""
    name = known.get("base_model_name_or_path") or "a backbone without a name"
    return f"{known['hook_point']} of {name}" if known.get("hook_point") else name


def _resolved(name: str) -> str:
    """Return one name for a backbone of this package, and the absolute path of a folder; other names as they are."""
    if built_in := find_built_in(name):
        return built_in
    return str(Path(name).expanduser().resolve()) if Path(name).expanduser().is_dir() else name
