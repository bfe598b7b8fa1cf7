"""Edits on disk: what was learned in edit.safetensors, and what it belongs to in edit.json; and where they apply."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from .._utils.atomic import atomic_path, make_folder
from .._utils.json_files import write_json

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..backbones.hook_points import Site

FORMAT_VERSION = 2
"""Version 1 had no hash of the description."""

PARAMETERS, DESCRIPTION = "edit.safetensors", "edit.json"
_ROUNDED = (
    ". Weights that were rounded in memory are others: loaded with Backbone.from_pretrained(..., dtype=...), they are "
    "known by their files"
)


def write_edit(folder: str | os.PathLike, description: dict[str, Any], parameters: dict[str, torch.Tensor]) -> None:
    """Write an edit into a folder. The description comes last, so a folder that has one is whole."""
    folder = make_folder(folder)
    content = save({name: value.contiguous() for name, value in parameters.items()})
    with atomic_path(folder / PARAMETERS) as path:
        path.write_bytes(content)
    known = {"format_version": FORMAT_VERSION, **description}
    known["parameters_sha256"] = hashlib.sha256(content).hexdigest()
    write_json(folder / DESCRIPTION, {**known, "description_sha256": sha256_of(known)})


def read_edit(folder: str | os.PathLike) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the description and the parameters that `write_edit` wrote."""
    folder = Path(folder).expanduser()
    for name in (DESCRIPTION, PARAMETERS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no edit: there is no {name}")
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version, sha256 = description["format_version"], description["parameters_sha256"]
        needed = {"method", "settings", "provenance", *(("description_sha256",) if version > 1 else ())}
        missing = needed - description.keys()
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        is_newer = version > FORMAT_VERSION
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / DESCRIPTION} is damaged ({type(error).__name__}: {error})") from error
    if is_newer:
        raise ValueError(
            f"{folder} has format_version {version}, newer than {FORMAT_VERSION}: install a newer hf_msae"
        )
    noted = description.pop("description_sha256", None)
    if noted is not None and noted != sha256_of(description):
        raise ValueError(f"{folder / DESCRIPTION} was changed after it was written: save the edit again")
    content = (folder / PARAMETERS).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{folder / PARAMETERS} is not the file that {DESCRIPTION} was written with")
    try:
        return description, load(content)
    except SafetensorError as error:
        raise ValueError(f"{folder / PARAMETERS} is damaged ({error})") from error


def sha256_of(description: dict[str, Any]) -> str:
    """Return the SHA-256 of a description, whatever the order of its keys and the spaces of its file."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def site_in(backbone: Backbone, method: str, provenance: dict[str, Any]) -> Site:
    """Return where in a backbone an edit applies."""
    from ..backbones.hook_points import HookPoint, find_site
    from ..backbones.identity import difference

    hook_point, width = provenance.get("hook_point"), provenance["width"]
    weights, processor = (provenance.get(f"base_model_{part}_sha256") for part in ("weights", "processor"))
    found = difference(backbone, weights, processor)
    if found is None or hook_point is None:
        raise ValueError(
            f"this edit ({method}) was fitted to an array, so its backbone is unknown: name it, fit(X, concept, "
            "backbone=...), fit it to embeddings that `hf-msae extract` wrote, or apply `remove` and `add` to arrays"
        )
    if found:
        known = provenance.get("base_model_name_or_path")
        hint = "" if backbone.model.dtype == torch.float32 else _ROUNDED
        raise ValueError(f"this edit ({method}) was fitted on {known}, and {backbone.label} has {found}{hint}")
    if backbone.width(hook_point) != width:
        raise ValueError(
            f"this edit is for embeddings of width {width}, but {hook_point} has {backbone.width(hook_point)}"
        )
    return find_site(backbone.model, HookPoint.parse(hook_point))
