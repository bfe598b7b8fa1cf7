"""Loading an MSAE, whether a backbone belongs to it, and which names lie beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.utils import logging

if TYPE_CHECKING:
    import torch

    from ...backbones import Backbone
    from ...concepts import ConceptTable
    from ...model.modeling_msae import MSAEModel

logger = logging.get_logger(__name__)


def load_msae(
    name: str | os.PathLike,
    revision: str | None = None,
    subfolder: str | None = None,
    dtype: torch.dtype | str | None = None,
) -> MSAEModel:
    """An MSAE, with a message for people where there is none.

    Args:
        name: a folder, "user/name" on the Hub, or a name that `hf_msae.list_released()` lists.
        revision: branch, tag or commit on the Hub.
        subfolder: where in the folder or repository it lies.
        dtype: of the weights; None for float32.

    Raises:
        OSError: there is none.
        ValueError: it is damaged, or of a newer hf_msae.
    """
    import torch

    from ...model.modeling_msae import MSAEModel
    from .registry import find_released, hint_at_released

    dtype = torch.float32 if dtype is None else dtype
    released = find_released(name)
    if released is not None:
        return released.load(dtype=dtype) if released.place else released.load().to(_as_dtype(dtype))
    where = "" if Path(name).expanduser().exists() else "there is no such folder, and as a Hub id: "
    if where and "/" not in str(name):  # no Hub id either, so no Hub is asked
        raise OSError(f"{str(name)!r} is no folder and no released model; {hint_at_released(str(name))}")
    if where and (str(name).count("/") != 1 or str(name).startswith((".", "~"))):
        raise OSError(f"no MSAE could be loaded from {str(name)!r}: there is no such folder")
    try:
        return MSAEModel.from_pretrained(name, revision=revision, subfolder=subfolder or "", dtype=dtype)
    except OSError as error:
        raise OSError(f"no MSAE could be loaded from {str(name)!r}: {where}{error}") from error


def _as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """ "auto" is what converted weights have: float32."""
    import torch

    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def check_fit(backbone: Backbone, msae: MSAEModel, strict: bool = True) -> None:
    """Raises:
    ValueError: the MSAE was not trained on what this backbone gives; says what was trained on what.
    """
    config = msae.config
    trained = (
        f"the MSAE was trained on {config.hook_point} of {config.base_model_name_or_path or 'an unknown backbone'}"
    )
    trained += f" at revision {config.base_model_revision}" if config.base_model_revision else ""
    try:
        backbone.require(config.hook_point)
    except ValueError as error:
        raise ValueError(f"{trained}, but {error}") from None
    width = backbone.width(config.hook_point)
    if width != config.d_in:
        raise ValueError(f"{trained}, {config.d_in} wide, but that of {backbone.name_or_path} is {width} wide")
    if not strict:
        return
    for mine, its in (
        tuple(map(_resolved, (config.base_model_name_or_path, backbone.name_or_path))),
        (config.base_model_revision, backbone.revision),
    ):
        if mine and its and mine != its:
            raise ValueError(f"{trained}, not on {its}: strict=False uses them together all the same")


def _resolved(name: str | None) -> str | None:
    """A local folder by whatever path by one and the same name; others as they are."""
    return str(Path(name).expanduser().resolve()) if name and Path(name).expanduser().is_dir() else name


def concept_files(name: str | os.PathLike, revision: str | None = None, subfolder: str | None = None) -> list[Path]:
    """The tables of names beside an MSAE, wherever `load_msae` finds it; downloaded where needed.

    Raises:
        huggingface_hub.errors.HfHubHTTPError: there is no such repository or revision.
    """
    from ...model.repository import concept_tables
    from .registry import find_released

    released = find_released(name)
    if released is not None:
        if released.place is None:
            return []
        name, subfolder, revision = released.place
    return concept_tables(name, revision, subfolder)


def concepts_beside(
    name: str | os.PathLike, revision: str | None = None, subfolder: str | None = None
) -> ConceptTable | None:
    """The table of names beside an MSAE, if there is exactly one; arguments and errors as `concept_files`."""
    from ...concepts import ConceptTable

    tables = concept_files(name, revision, subfolder)
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        logger.warning(
            f"{name} has several concept tables ({names}): set .concepts = ConceptTable.load(...) for names, or "
            "name one by --concepts"
        )
    return ConceptTable.load(tables[0]) if len(tables) == 1 else None
