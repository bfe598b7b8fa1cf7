"""Loading edits, with checks that nothing was changed since they were saved."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from .artifact import DESCRIPTION, FORMAT_VERSION, PARAMETERS, sha256_of
from .edit import METHODS, Edit


def load_edit(folder: str | os.PathLike, **options: Any) -> Edit:
    """Load an edit that `Edit.save_pretrained` wrote.

    Args:
        folder: The folder.
        **options: Options of the method in place of those that were saved, such as msae="elsewhere/msae".

    Raises:
        FileNotFoundError: The folder holds no edit.
        ValueError: A file is damaged or was changed, the method is unknown to this version, or the edit needs an MSAE
            that is not there.
    """
    description, parameters = read_edit(folder)
    if (method := description["method"]) not in METHODS:
        raise ValueError(f"{folder} is an edit by {method!r}, which is none of the methods {', '.join(METHODS)}")
    try:
        saved = METHODS[method].loaded_settings(description["settings"], folder)
        edit = METHODS[method](**{**saved, **options})
    except TypeError as error:
        raise ValueError(f"{method} does not take these options: {error}") from error
    edit.parameters, edit.provenance = parameters, description["provenance"]
    edit.check_loaded()
    return edit


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
