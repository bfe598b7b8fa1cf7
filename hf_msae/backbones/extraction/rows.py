"""Reading the rows of a dataset: images prepared for a backbone, captions, and the columns to keep."""

from __future__ import annotations

import copy
import itertools
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import ClassLabel, Dataset, Features, IterableDataset, Value
from PIL import Image, UnidentifiedImageError

from ..._utils.images import to_rgb
from ..._utils.paths import common_depth
from .. import prepare_images
from .streams import check_continuable, check_divisible, fingerprint

FILE_NAME = "file_name"
"""Column with the path of an image from the folder that all images lie in, as in metadata.csv."""
_WAY_OUT = '--on_unreadable skip (in Python, on_unreadable="skip") leaves such rows out'
_LIBRARIES = ("hf_msae", "torch", "transformers", "datasets", "pillow")
_STRINGS, _BINARIES = ((kind, f"large_{kind}", f"{kind}_view") for kind in ("string", "binary"))
_MEDIA = datasets.Image | datasets.Audio | datasets.Video


@dataclass(frozen=True)
class StoredRows:
    """Consecutive rows as they are stored."""

    numbers: range  # the row numbers
    values: dict[str, list]  # column -> one value per row; images are not decoded yet
    position: dict[str, Any] | None = None  # where a stream continues after these rows


@dataclass(frozen=True)
class ReadRows:
    """Rows that are ready for a backbone."""

    numbers: list[int]  # numbers of the rows that could be read
    # The model's inputs for their images; None if no images are needed or no row could be read.
    pixels: dict[str, torch.Tensor] | None
    texts: list[str] | None  # their captions; None if no texts are needed
    kept: dict[str, list]  # their kept columns
    unreadable: dict[int, str]  # row number -> why the row could not be read
    position: dict[str, Any] | None = None  # where a stream continues after these rows


class UnreadableRow(ValueError):
    """An image does not exist or cannot be decoded, or a caption is missing."""


class RowReader:
    """Reads a dataset or stream row by row; raises TypeError or ValueError for what does not fit before the first row.

    The columns are as in `extract_activations`; a text column is checked but not read unless captions are needed. Rows
    that cannot be read are left out, with `skip_unreadable`, or raise an error.
    """

    def __init__(
        self,
        dataset: Dataset | IterableDataset,
        with_images: bool,
        image_column: str | None,
        text_column: str | None,
        keep_columns: Sequence[str] | None,
        skip_unreadable: bool = False,
        with_texts: bool = True,
    ) -> None:
        if isinstance(dataset, datasets.DatasetDict | datasets.IterableDatasetDict):
            raise TypeError(f"choose a split of the dataset: {', '.join(map(str, dataset))}")
        if not isinstance(dataset, Dataset | IterableDataset):
            raise TypeError(f"dataset must be a datasets.Dataset or IterableDataset, got {type(dataset).__name__}")
        self.streams = isinstance(dataset, IterableDataset)
        self._of_part = ""
        if self.streams:
            check_continuable(dataset)
            dataset = dataset if dataset.features is not None else _with_features(dataset)
            splits = dataset.info.splits or {}
            self.num_rows = getattr(splits.get(str(dataset.split)), "num_examples", None) or None
            self._fingerprint = fingerprint(dataset)
        else:
            if len(dataset) == 0:
                raise ValueError("the dataset is empty: it has no rows")
            if dataset.format["type"] == "custom":
                raise ValueError("the dataset has a transform: apply it with map(), or drop it with reset_format()")
            self.num_rows = len(dataset)
            self._fingerprint = dataset._fingerprint
        self.image_processor = None
        self.skip_unreadable = skip_unreadable
        self._dataset = dataset.with_format(None)
        for argument, column in (("image_column", image_column), ("text_column", text_column)):
            if column is not None:
                self._feature(argument, column)  # a typo is refused, even where the column would not be read
        self.text_column = text_column = text_column if with_texts else None
        self.image_column = self._choose_images(image_column) if with_images else None
        if text_column is not None:
            feature = self._feature("text_column", text_column)
            if not isinstance(feature, Value) or feature.dtype not in _STRINGS:
                raise ValueError(f"text_column {text_column!r} holds {feature}; it needs one string per row")
        self.kept_features = self._choose_kept(keep_columns)
        needed = [name for name in (self.image_column, text_column) if name is not None]
        self._stored = self._dataset.select_columns(list(dict.fromkeys([*needed, *self.kept_features])))
        if self.image_column is not None and isinstance(self._feature("image_column", self.image_column), _MEDIA):
            # Decoded in `read`, so that an unreadable row can be named.
            self._stored = self._stored.cast_column(self.image_column, datasets.Image(decode=False))
            if keep_columns is None and self._has_files():
                self.kept_features[FILE_NAME] = Value("string")
                stored = self._stored.select_columns([self.image_column]).with_format("arrow").iter(10_000)
                paths = (pc.struct_field(batch[self.image_column], "path").to_pylist() for batch in stored)
                self._depth = common_depth(itertools.chain.from_iterable(paths))

    def provenance(self) -> dict[str, Any]:
        """The dataset, its columns and the library versions, as JSON."""
        info = self._dataset.info
        return {
            "dataset": info.dataset_name or info.builder_name,
            "dataset_split": None if self._dataset.split is None else str(self._dataset.split),
            "dataset_fingerprint": self._fingerprint,
            "image_column": self.image_column,
            "text_column": self.text_column,
            "library_versions": {library: version(library) for library in _LIBRARIES},
        }

    def part(self, index: int, num_parts: int) -> RowReader:
        """Return a reader of one of several contiguous parts of a stream's files; there must be as many files."""
        check_divisible(self._stored, num_parts)
        part = copy.copy(self)
        part.num_rows, part._of_part = None, f" of part {index + 1} of {num_parts}"
        part._stored = self._stored.shard(num_parts, index, contiguous=True)
        return part

    def stream(self, first: int, batch_size: int, position: Mapping[str, Any] | None = None) -> Iterator[StoredRows]:
        """Yield the rows of a stream from row `first` on, `batch_size` at a time, to be passed to `read`.

        `position` is that of the last batch; without it, the rows before `first` are read and dropped. Raises
        ValueError if the stream breaks off.
        """
        stream = self._stored
        if position is not None:
            stream.load_state_dict(dict(position))
        elif first:
            stream = stream.skip(first)
        examples = iter(stream)
        while True:
            rows: list[dict[str, Any]] = []
            try:
                rows.extend(itertools.islice(examples, batch_size))
            except (tarfile.TarError, pa.ArrowInvalid, EOFError, OSError) as error:
                hint = "; filter() and map() decode images, so call decode(False) before them"
                raise ValueError(
                    f"the stream breaks off after row {first + len(rows) - 1}{self._of_part}: "
                    f"{type(error).__name__}: {error}{hint if isinstance(error, UnidentifiedImageError) else ''}"
                ) from error
            if not rows:
                return
            values = {name: [row.get(name) for row in rows] for name in self._stored.features}
            numbers, first = range(first, first + len(rows)), first + len(rows)
            yield StoredRows(numbers, values, stream.state_dict() if stream is self._stored else None)

    def read(self, rows: range | StoredRows) -> ReadRows:
        """Read consecutive rows; raise UnreadableRow, with the row, unless such rows are skipped."""
        if isinstance(rows, range):
            rows = StoredRows(rows, self._stored[rows.start : rows.stop])
        values, unreadable = dict(rows.values), {}
        images = [] if self.image_column is None else list(values[self.image_column])
        if FILE_NAME in self.kept_features and FILE_NAME not in values:
            paths = [each and each["path"] for each in images]  # an image may be missing, or bytes without a path
            values[FILE_NAME] = [path and "/".join(Path(path).parts[self._depth :]) for path in paths]
        for place, row in enumerate(rows.numbers):
            try:
                if self.image_column is not None:
                    images[place] = self._decode(row, images[place])
                if self.text_column is not None and values[self.text_column][place] is None:
                    raise UnreadableRow(f"{self._name(row, self.text_column)} is missing (None)")
            except UnreadableRow as error:
                if not self.skip_unreadable:
                    raise UnreadableRow(f"{error}; {_WAY_OUT}") from error
                unreadable[row] = str(error)
        good = [place for place, row in enumerate(rows.numbers) if row not in unreadable]
        pixels = prepare_images(self.image_processor, [images[place] for place in good]) if images and good else None
        return ReadRows(
            numbers=[rows.numbers[place] for place in good],
            pixels=pixels,
            texts=None if self.text_column is None else [values[self.text_column][place] for place in good],
            kept={name: [self._kept(name, values[name][place]) for place in good] for name in self.kept_features},
            unreadable=unreadable,
            position=rows.position,
        )

    def _has_files(self) -> bool:
        """Whether the images are files of a folder, which captions next to them know by their names."""
        if self.streams or FILE_NAME in self._dataset.features:
            return False
        first = self._stored[0][self.image_column]
        return first is not None and first["bytes"] is None and first["path"] is not None

    def _name(self, row: int, column: str) -> str:
        return f"row {row}{self._of_part} of column {column!r}"

    def _kept(self, name: str, value: Any) -> Any:
        is_path = name == self.image_column and isinstance(value, dict)
        return value["path"] if is_path else value

    def _decode(self, row: int, value: dict[str, Any] | Image.Image | None) -> Image.Image:
        name = self._name(row, self.image_column)
        if value is None:
            raise UnreadableRow(f"{name} is missing (None)")
        if isinstance(value, bytes | str):
            value = {"bytes": value} if isinstance(value, bytes) else {"path": value}
        try:
            return to_rgb(value, name, self._image_mode)
        except (OSError, ValueError) as error:
            raise UnreadableRow(str(error)) from error

    def _choose_images(self, column: str | None) -> str:
        if column is None:
            of_images = [name for name, kind in self._dataset.features.items() if isinstance(kind, datasets.Image)]
            only = "image" not in self._dataset.features and len(of_images) == 1
            column = of_images[0] if only else "image"
        feature = self._feature("image_column", column)
        if not isinstance(feature, datasets.Image):
            # Paths, encoded bytes, or the {bytes, path} that parquet files hold.
            is_plain = isinstance(feature, Value) and feature.dtype in (*_STRINGS, *_BINARIES)
            if not is_plain and not (isinstance(feature, dict) and feature.keys() <= {"bytes", "path"}):
                raise ValueError(f"image_column {column!r} does not hold images but {feature}")
            feature = datasets.Image()
        self._image_mode = feature.mode
        return column

    def _choose_kept(self, keep_columns: Sequence[str] | None) -> Features:
        if keep_columns is None:
            scalar = {n: kind for n, kind in self._dataset.features.items() if isinstance(kind, Value | ClassLabel)}
            return Features({name: kind for name, kind in scalar.items() if "binary" not in kind.dtype})
        chosen = Features({name: self._feature("keep_columns", name) for name in keep_columns})
        for name, kind in chosen.items():
            if _has_media(kind):
                raise ValueError(
                    f"column {name!r} in keep_columns holds {kind}; images, audio and video are not copied: the "
                    "embeddings have the same rows in the same order as the dataset"
                )
        return chosen

    def _feature(self, argument: str, name: str) -> Any:
        if name not in self._dataset.features:
            columns = ", ".join(self._dataset.features)
            raise ValueError(f"{argument} is {name!r}, but the dataset has the columns {columns}")
        return self._dataset.features[name]


def _with_features(stream: IterableDataset) -> IterableDataset:
    """The stream with the types that its first rows suggest."""
    try:
        return stream._resolve_features()
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"the column types of the stream are unknown and cannot be inferred ({error}): pass features= to map()"
        ) from error


def _has_media(kind: Any) -> bool:
    if isinstance(kind, dict):
        return any(map(_has_media, kind.values()))
    inner = getattr(kind, "feature", None)
    return isinstance(kind, _MEDIA) or (inner is not None and _has_media(inner))
