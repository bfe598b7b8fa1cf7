"""Loading an MSAE, whether a backbone belongs to it, and which names lie beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.utils import logging

if TYPE_CHECKING:
    from .backbones import Backbone
    from .concepts import ConceptTable
    from .modeling_msae import MSAEModel

logger = logging.get_logger(__name__)


def load_msae(name: str | os.PathLike, revision: str | None = None) -> MSAEModel:
    """An MSAE in float32, with a message for people where there is none.

    Raises:
        OSError: there is none.
    """
    import torch

    from .modeling_msae import MSAEModel

    try:
        return MSAEModel.from_pretrained(name, revision=revision, dtype=torch.float32)
    except OSError as error:
        where = "" if Path(name).expanduser().exists() else "there is no such folder, and as a Hub id: "
        raise OSError(f"no MSAE could be loaded from {str(name)!r}: {where}{error}") from error


def check_fit(backbone: Backbone, msae: MSAEModel, strict: bool = True) -> None:
    """
    Raises:
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


def concepts_beside(folder: str | os.PathLike) -> ConceptTable | None:
    """The concept table in a local folder of an MSAE, if there is exactly one."""
    from .concepts import ConceptTable

    tables = sorted(Path(folder).glob("concepts/*.parquet")) if Path(folder).is_dir() else []
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        logger.warning(
            f"{folder} has several concept tables ({names}): set .concepts = ConceptTable.load(...) for names, or "
            "name one by --concepts"
        )
    return ConceptTable.load(tables[0]) if len(tables) == 1 else None
