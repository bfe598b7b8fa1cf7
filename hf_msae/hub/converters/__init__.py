"""Checkpoints of other libraries, read into MSAEModels that compute the same.

A format is a module of this package with two functions: `recognises(source) -> bool` says whether a checkpoint is its,
and may raise ValueError where it has to read a file for that and cannot; `read(source, overrides)` reads it into a
`ForeignCheckpoint`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from .checkpoint import ForeignCheckpoint
from .source import CheckpointSource

if TYPE_CHECKING:
    from ...model.modeling_msae import MSAEModel

logger = logging.get_logger(__name__)

# In the order in which they are asked whether a checkpoint is theirs: the surest signs come first.
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
"""Formats that `convert_checkpoint` reads; the modules of this package of the same names say more of each."""


def convert_checkpoint(
    source: str | os.PathLike,
    format: str | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    **overrides: Any,
) -> MSAEModel:
    """Read a checkpoint of another library: the MSAEModel that computes the same.

    No code in the file is run: tensors and plain numbers are all that is read. What a person should know of the
    conversion is logged as warnings; `read_checkpoint(...).notes` has it as text.

    Args:
        source: a file, a folder, or "user/name" on the Hub.
        format: one of `FORMATS`; None finds out.
        subfolder: a folder or file inside `source`.
        revision: branch, tag or commit on the Hub.
        token: for the Hub; by default the one that is logged in.
        overrides: fields of MSAEConfig that the checkpoint does not tell, or tells wrongly, e.g.
            base_model_name_or_path, hook_point, nesting_ks; and where the checkpoint does not hold them, input_mean
            (a tensor, a list, or the path of a .npy or .safetensors file), which is taken off embeddings, and
            input_scale, which they are multiplied with then.

    Raises:
        FileNotFoundError: there is nothing there.
        OSError: the Hub cannot be reached.
        ValueError: no format fits; or the checkpoint does what an MSAE cannot, or does not tell what has to be known
            of it, or is damaged, or would run code.
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
    """What `convert_checkpoint` makes its model of, with notes on what was found; arguments and errors as there.

    `overrides` are for what the reader has to know; `ForeignCheckpoint.to_model` is to be given them as well.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"there is no format {format!r}; known are {', '.join(FORMATS)}")
    place = CheckpointSource.open(source, subfolder, revision, token)
    if {"config.json", "model.safetensors"} <= set(place.files):
        if place.read_json("config.json").get("model_type") == "msae":
            raise ValueError(f"{place.name} is an MSAE already: MSAEModel.from_pretrained loads it as it is")
    unreadable: ValueError | None = None
    for name in FORMATS if format is None else (format,):
        reader = import_module(f".{name}", __name__)
        try:
            with _as_value_errors(place.name, name):
                found = format is not None or reader.recognises(place)
        except ValueError as error:  # no file for this reader; another may know what to do with it
            unreadable, found = unreadable or error, False
        if found:
            with _as_value_errors(place.name, name):
                checkpoint = reader.read(place, overrides)
            checkpoint.name, checkpoint.revision = place.name, place.revision
            return checkpoint
    if unreadable is not None:
        raise unreadable
    shown = ", ".join(place.files[:20]) + (", ..." if len(place.files) > 20 else "")
    raise ValueError(
        f"{place.name} is no checkpoint of a known format ({', '.join(FORMATS)}); it holds {shown or 'no files'}"
    )


@contextmanager
def _as_value_errors(name: str, format: str) -> Iterator[None]:
    """What a file raises that nobody thought of, in words that say which file it was."""
    try:
        yield
    except (TypeError, RuntimeError, AttributeError, LookupError, ArithmeticError, MemoryError) as error:
        lines = str(error).strip().splitlines()
        raise ValueError(
            f"{name} is no readable checkpoint of format {format}: {type(error).__name__}"
            + (f": {lines[0]}" if lines else "")
        ) from error
