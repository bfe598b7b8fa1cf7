"""Saved edits that visitors can apply to pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..backbones import Backbone
from ..steering import Edit, load_edit
from ..steering.artifact import DESCRIPTION, site_in


def read_edits(folder: str | os.PathLike) -> dict[str, Edit]:
    """Load the edit in a folder, or those in its folders, by the names of their folders."""
    place = Path(folder).expanduser().absolute()
    found = [place] if (place / DESCRIPTION).is_file() else [each.parent for each in place.glob(f"*/{DESCRIPTION}")]
    if not found:
        raise FileNotFoundError(f"{folder} holds no edits: neither it nor a folder in it has an {DESCRIPTION}")
    edits = {}
    for each in sorted(found):
        try:
            edits[each.name] = load_edit(each)
        except ValueError as error:
            raise ValueError(f"{each}: {error}") from error
    return edits


def check_edits(edits: Mapping[str, Edit], backbone: Backbone) -> None:
    """Check that edits, by name, are of the image embeddings of a backbone."""
    for name, edit in edits.items():
        try:
            edit.width  # noqa: B018 - raises if the edit has not been fitted
            site_in(backbone, edit.method, edit.provenance)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if (hook_point := edit.provenance["hook_point"]) != "image_embeds":
            raise ValueError(f"{name} ({edit.method}) was fitted to {hook_point}, but the explorer edits image_embeds")
