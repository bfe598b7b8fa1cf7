"""The small backbones that come with this package."""

from __future__ import annotations

import difflib
from pathlib import Path

BUILT_IN = {"hf_msae/scenes-siglip": "rendered scenes", "hf_msae/clipart-siglip": "clip art"}
"""Names in metadata, and what each backbone was trained on."""


def find_built_in(name: str) -> str | None:
    """Return the full name of a backbone of this package: "scenes" is "hf_msae/scenes-siglip"; None for any other."""
    return next((full for full in BUILT_IN if name in (full, _world(full))), None)


def suggest_built_in(name: str) -> str:
    """Suggest the backbone of this package with the most similar name; "" if none is similar."""
    near = difflib.get_close_matches(name, [each for full in BUILT_IN for each in (_world(full), full)], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def built_in_folder(full_name: str) -> Path:
    """Return the folder of a backbone of this package, in transformers' format."""
    folder = Path(__file__).parents[1] / _world(full_name) / "siglip"
    if not folder.is_dir():
        raise FileNotFoundError(f"the backbone {full_name} is missing from {folder}: reinstall hf_msae")
    return folder


def _world(full_name: str) -> str:
    return full_name.rpartition("/")[2].removesuffix("-siglip")
