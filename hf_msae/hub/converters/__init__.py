"""Checkpoints of other libraries, read into MSAEModels that compute the same.

A format is a module of this package with two functions: `recognizes(source) -> bool` says whether a checkpoint has it,
and may raise ValueError if it cannot read a file it needs for that; `read(source)` returns a `ForeignCheckpoint`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

if TYPE_CHECKING:
    from ...model.modeling_msae import MSAEModel
    from .checkpoint import ForeignCheckpoint

logger = logging.get_logger(__name__)

FORMATS = (
    "msae_authors",
    "saelens",
    "sparsify",
    "visaebench",
    "overcomplete",
    "dictionary_learning",
    "prisma",
    "saev",
)
"""Formats that `convert_checkpoint` reads, in the order in which they are tried: the most specific come first."""


def convert_checkpoint(
    source: str | os.PathLike,
    format: str | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    **overrides: Any,
) -> MSAEModel:
    """Convert a checkpoint of another library to an MSAEModel that computes the same.

    No code in the file is run: only tensors and plain numbers are read. Notes on the conversion are logged as
    warnings; `read_checkpoint(...).notes` returns them.

    Args:
        source: A file, a folder or "user/name" on the Hub.
        format: One of `FORMATS`. Defaults to the one that its files have.
        subfolder: A folder or file inside `source`.
        revision: Branch, tag or commit on the Hub.
        token: Token for the Hub. Defaults to the one that is logged in.
        **overrides: Fields of MSAEConfig that the checkpoint lacks or has wrong, e.g. base_model_name_or_path,
            hook_point or nesting_ks. Also input_mean (a tensor, a list, or the path of a .npy or .safetensors file),
            which is subtracted from embeddings, and input_scale, by which they are multiplied then.

    Raises:
        FileNotFoundError: There is nothing there.
        OSError: The Hub cannot be reached.
        ValueError: No format fits; or the checkpoint does what an MSAE cannot, lacks something that has to be known,
            is damaged, or would run code.
    """
    checkpoint = read_checkpoint(source, format, subfolder, revision, token, **overrides)
    model = checkpoint.to_model(overrides)
    for note in dict.fromkeys(checkpoint.notes):
        logger.warning("%s: %s", checkpoint.name, note)
    return model


def read_checkpoint(
    source: str | os.PathLike,
    format: str | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    **overrides: Any,
) -> ForeignCheckpoint:
    """Read a checkpoint, with notes on what was found; arguments and errors are those of `convert_checkpoint`.

    Pass `overrides` to `ForeignCheckpoint.to_model` as well.
    """
    from .source import CheckpointSource

    if format is not None and format not in FORMATS:
        raise ValueError(f"there is no format {format!r}; known are {', '.join(FORMATS)}")
    place = CheckpointSource.open(source, subfolder, revision, token, overrides)
    if {"config.json", "model.safetensors"} <= set(place.files):
        if place.settings("config.json").get("model_type") == "msae":
            raise ValueError(f"{place.name} is an MSAE already: load it with MSAEModel.from_pretrained")
    unreadable: ValueError | None = None
    for name in FORMATS if format is None else (format,):
        reader = import_module(f".{name}", __name__)
        try:
            with _as_value_errors(place.name, name):
                found = format is not None or reader.recognizes(place)
        except ValueError as error:  # this reader cannot read it; another may
            unreadable, found = unreadable or error, False
        if found:
            with _as_value_errors(place.name, name):
                checkpoint = reader.read(place)
            checkpoint.format, checkpoint.notes = name, place.notes
            checkpoint.name, checkpoint.revision = place.name, place.revision
            return checkpoint
    if unreadable is not None:
        raise unreadable
    shown = ", ".join(place.files[:20]) + (", ..." if len(place.files) > 20 else "")
    raise ValueError(
        f"{place.name} is not a checkpoint of a known format ({', '.join(FORMATS)}); it holds {shown or 'no files'}"
    )


@contextmanager
def _as_value_errors(name: str, format: str) -> Iterator[None]:
    """Turn unforeseen errors while reading a file into ValueErrors that name the file."""
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as error:  # of any kind: a reader takes what a stranger's file holds
        first = next(iter(str(error).strip().splitlines()), "")
        raise ValueError(f"{name} is no readable file of {format}: {type(error).__name__}: {first}") from error
