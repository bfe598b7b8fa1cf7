"""Saved edits that visitors can apply to pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..backbones import Backbone
from ..steering import Edit, load_edit
from ..steering.artifact import DESCRIPTION, site_in


def read_edits(folder: str | os.PathLike) -> dict[str, Edit]:
    """Load the edit in a folder, or those in its folders, by the names of their folders.

    Raises:
        FileNotFoundError: There is none.
        ValueError: One is damaged, or the MSAE that it needs is missing; the message begins with its folder.
    """
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
    """Check that edits are of the image embeddings of a backbone.

    Args:
        edits: Edits by name.
        backbone: The backbone.

    Raises:
        ValueError: One was fitted on another backbone, hook point or width, or on an unknown one; the message begins
            with its name.
    """
    for name, edit in edits.items():
        try:
            edit.width  # noqa: B018 - raises if the edit has not been fitted
            site_in(backbone, edit.method, edit.provenance)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if (hook_point := edit.provenance["hook_point"]) != "image_embeds":
            raise ValueError(
                f"{name}: this edit ({edit.method}) was fitted to {hook_point}, but the explorer edits image_embeds"
            )
