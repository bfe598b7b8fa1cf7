"""What the commands check before they load a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._utils.atomic import check_writable, make_folder
from .._utils.paths import did_you_mean, refuse_missing_path

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset

_FILES = (".npy", ".parquet", ".csv", ".txt", ".safetensors")
"""Endings that no name on the Hub has."""


def check_least(arguments: Any, **least: int) -> None:
    """Raise ValueError if a field of some arguments is less than it has to be."""
    for name, value in least.items():
        if getattr(arguments, name) < value:
            raise ValueError(f"{name} must be at least {value}, got {getattr(arguments, name)}")


def changed(arguments: Any, names: Iterable[str]) -> list[str]:
    """Return the fields of some arguments that are not as they are by default."""
    defaults = {
        each.name: each.default_factory() if each.default is MISSING else each.default
        for each in fields(arguments)
        if each.name in names
    }
    return [name for name in names if getattr(arguments, name) != defaults[name]]


def refuse_without(arguments: Any, needed: str, *names: str) -> None:
    """Raise ValueError if a field is given that has no effect without another: `needed`, or "one_of or others"."""
    if any(getattr(arguments, name) for name in needed.split(" or ")):
        return
    for name in changed(arguments, names):
        if getattr(arguments, name) in (0, "none"):  # also False: it turns off what is off anyway
            continue
        flags = " or ".join(f"--{each}" for each in needed.split(" or "))
        raise ValueError(f"--{name} has no effect without {flags}: give that too, or leave --{name} out")


def check_text(name: str, text: str | None, instead: str) -> None:
    """Raise ValueError if a flag for a text names a picture, with the flag to use instead."""
    if text is None:
        return
    from .._utils.images import is_picture

    if is_picture(text):
        raise ValueError(f"--{name} {text!r} is the name of a file, not a text: give a picture with --{instead}")


def check_inputs(*paths: str | None) -> None:
    """Raise FileNotFoundError if there is no such file or folder, unless it may be a dataset on the Hub."""
    for path in filter(None, paths):
        if Path(path).suffix.lower() in _FILES and not Path(path).expanduser().exists():
            raise FileNotFoundError(f"there is no such file: {path}{did_you_mean(Path(path).expanduser())}")
        refuse_missing_path(path, "dataset")


def check_outputs(figures: Sequence[str | None], *files: str | None) -> None:
    """Check before any work that the results can be written, and create the folders they go to."""
    for figure in filter(None, figures):
        from ..plotting import check_figure_path

        check_figure_path(figure)
    for file in filter(None, (*figures, *files)):
        path = Path(file).expanduser()
        if path.is_dir():
            raise ValueError(f"{file} is a folder; name a file in it")
        make_folder(path.parent)
        check_writable(path)


def check_json(output: str | None) -> None:
    """Raise ValueError if a file for JSON is called a table."""
    if output is not None and Path(output).suffix.lower() in (".csv", ".tsv", ".parquet"):
        raise ValueError(f"the results are written as JSON, so --output must end in .json, got {output}")


def check_target(
    train: EmbeddingDataset, test: EmbeddingDataset, column: str, positive: str | None, choice: str
) -> None:
    """Raise ValueError unless a probe of a column can be trained and has the class that the flag `choice` chooses."""
    from ..metrics.label_columns import column_labels

    classes = column_labels(test, column)[1]
    if positive is not None and positive not in classes:
        raise ValueError(f"{column} has no class {positive!r}, only {', '.join(classes)}")
    if positive is None and len(classes) > 2:
        some = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
        raise ValueError(f"{column} has {len(classes)} classes: choose one with {choice}: {some}")
    column_labels(test, column, column_labels(train, column)[1])  # the probe has to know the classes
