"""Edits on disk: what was learned in edit.safetensors, and what it belongs to in edit.json."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load, save

from .._utils.atomic import atomic_path, make_folder
from .._utils.json_files import write_json
from .edit import METHODS, Edit

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..backbones.hook_points import Site

FORMAT_VERSION = 1
_PARAMETERS, _DESCRIPTION = "edit.safetensors", "edit.json"


def save_edit(edit: Edit, folder: str | os.PathLike) -> None:
    """Write an edit into a folder. The description comes last, so a folder that has one is whole.

    Raises:
        ValueError: The edit has not been fitted.
    """
    edit.width  # noqa: B018 - raises if the edit has not been fitted
    folder = make_folder(folder)
    content = save({name: value.contiguous() for name, value in edit.parameters.items()})
    with atomic_path(folder / _PARAMETERS) as path:
        path.write_bytes(content)
    description = {
        "format_version": FORMAT_VERSION,
        "method": edit.method,
        "settings": edit.settings(),
        "provenance": edit.provenance,
        "parameters_sha256": hashlib.sha256(content).hexdigest(),
    }
    write_json(folder / _DESCRIPTION, description)


def load_edit(folder: str | os.PathLike) -> Edit:
    """Load an edit that `Edit.save_pretrained` wrote.

    Raises:
        FileNotFoundError: The folder holds no edit.
        ValueError: A file is damaged or was changed, or the method is unknown to this version.
    """
    folder = Path(folder).expanduser()
    for name in (_DESCRIPTION, _PARAMETERS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no edit: there is no {name}")
    try:
        description = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        version, method, settings, provenance, sha256 = (
            description[key] for key in ("format_version", "method", "settings", "provenance", "parameters_sha256")
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / _DESCRIPTION} is damaged ({type(error).__name__}: {error})") from error
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{folder} has format_version {version}, newer than {FORMAT_VERSION}: install a newer hf_msae"
        )
    if method not in METHODS:
        raise ValueError(f"{folder} is an edit by {method!r}, which is none of the methods {', '.join(METHODS)}")
    content = (folder / _PARAMETERS).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{folder / _PARAMETERS} is not the file that {_DESCRIPTION} was written with")
    try:
        edit = METHODS[method](**settings)
        edit.parameters, edit.provenance = load(content), provenance
    except (TypeError, SafetensorError) as error:
        raise ValueError(f"{folder} is damaged ({type(error).__name__}: {error})") from error
    edit.check_loaded()
    return edit


def check_backbone(edit: Edit, backbone: Backbone) -> Site:
    """Return where in a backbone an edit applies.

    Raises:
        ValueError: The edit was fitted on another backbone, or it is not known on which.
    """
    from ..backbones.hook_points import HookPoint, find_site
    from ..backbones.identity import difference

    known = edit.provenance
    hook_point, width = known.get("hook_point"), edit.width
    weights, processor = (known.get(f"base_model_{part}_sha256") for part in ("weights", "processor"))
    found = difference(backbone, weights, processor)
    if found is None or hook_point is None:
        raise ValueError(
            f"this edit ({edit.method}) was fitted to an array, so its backbone is unknown: fit it to embeddings that "
            "`hf-msae extract` wrote, or apply `remove` and `add` to embeddings"
        )
    if found:
        raise ValueError(
            f"this edit ({edit.method}) was fitted on {known.get('base_model_name_or_path')}, and {backbone.label} "
            f"has {found}"
        )
    if backbone.width(hook_point) != width:
        raise ValueError(
            f"this edit is for embeddings of width {width}, but {hook_point} has {backbone.width(hook_point)}"
        )
    return find_site(backbone.model, HookPoint.parse(hook_point))
