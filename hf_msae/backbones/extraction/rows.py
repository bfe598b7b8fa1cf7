"""Reading the rows of a data set ready for a backbone: images prepared, captions, and the columns to keep."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import datasets
import pyarrow as pa
import torch
from datasets import ClassLabel, Dataset, Features, IterableDataset, Value
from PIL import Image, UnidentifiedImageError

from ..._utils.images import to_rgb
from .. import prepare_images
from .streams import check_continuable, check_divisible, fingerprint

_LIBRARIES = ("hf_msae", "torch", "transformers", "datasets", "pillow")
_MEDIA = datasets.Image | datasets.Audio | datasets.Video


@dataclass(frozen=True)
class StoredRows:
    """Consecutive rows as they are stored.

    Attributes:
        numbers: of the rows.
        values: column -> one value a row; images not decoded yet.
        position: where a stream goes on behind them.
    """

    numbers: range
    values: dict[str, list]
    position: dict[str, Any] | None = None


@dataclass(frozen=True)
class ReadRows:
    """Rows ready for a backbone.

    Attributes:
        numbers: of the rows that could be read.
        pixels: the model's inputs for their images; None where none are needed, or no row could be read.
        texts: their captions; None where none are needed.
        kept: their kept columns.
        unreadable: number of a row -> why it could not be read.
        position: where a stream goes on behind them.
    """

    numbers: list[int]
    pixels: dict[str, torch.Tensor] | None
    texts: list[str] | None
    kept: dict[str, list]
    unreadable: dict[int, str]
    position: dict[str, Any] | None = None


class UnreadableRow(ValueError):
    """An image that cannot be decoded, or a caption that is missing."""


class RowReader:
    """What a row of a data set gives: an image prepared for the backbone, a caption, and the columns to keep.

    Set `image_processor` before images are read.

    Args:
        dataset: a row per image, per caption, or per pair of them; also as a stream.
        with_images: whether images are needed.
        image_column: images, paths or encoded bytes; None means "image", or else the only column of images.
        text_column: one string per row; None where captions are not needed.
        keep_columns: columns returned as they are; None means all that hold a number, a boolean, a label or a string.
        skip_unreadable: whether rows whose image cannot be read, or whose caption is missing, are left out.

    Attributes:
        num_rows: None where a stream does not know.

    Raises:
        TypeError: `dataset` is no data set, or several.
        ValueError: it is empty or has a transform, or a column is not there or holds something else.
    """

    def __init__(
        self,
        dataset: Dataset | IterableDataset,
        with_images: bool,
        image_column: str | None,
        text_column: str | None,
        keep_columns: Sequence[str] | None,
        skip_unreadable: bool = False,
    ) -> None:
        if isinstance(dataset, datasets.DatasetDict | datasets.IterableDatasetDict):
            raise TypeError(f"choose a split of the data set: {', '.join(map(str, dataset))}")
        if not isinstance(dataset, Dataset | IterableDataset):
            raise TypeError(f"dataset must be a datasets.Dataset or IterableDataset, got {type(dataset).__name__}")
        self.streams = isinstance(dataset, IterableDataset)
        self._of_part = ""
        if self.streams:
            check_continuable(dataset)
            dataset = dataset if dataset.features is not None else _with_features(dataset)
            splits = dataset.info.splits or {}
            self.num_rows = getattr(splits.get(str(dataset.split)), "num_examples", None) or None
        else:
            if len(dataset) == 0:
                raise ValueError("the data set is empty: it has no rows")
            if dataset.format["type"] == "custom":
                raise ValueError("the data set has a transform: apply it with map(), or drop it with reset_format()")
            self.num_rows = len(dataset)
        self.image_processor = None
        self.skip_unreadable = skip_unreadable
        self._fingerprint = fingerprint(dataset) if self.streams else dataset._fingerprint
        self._dataset = dataset.with_format(None)
        self.text_column = text_column
        self.image_column = self._choose_images(image_column) if with_images else None
        if text_column is not None:
            self._check_texts(text_column)
        self.kept_features = self._choose_kept(keep_columns)
        needed = [name for name in (self.image_column, text_column) if name is not None]
        self._stored = self._dataset.select_columns(list(dict.fromkeys([*needed, *self.kept_features])))
        if self.image_column is not None:
            # Not decoded yet, so that a bad row can be named.
            self._stored = self._stored.cast_column(self.image_column, datasets.Image(decode=False))

    def provenance(self) -> dict[str, Any]:
        """The data set, its columns and the library versions; JSON serialisable."""
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
        """A reader of one of several contiguous parts of a stream's files.

        Raises:
            ValueError: it has fewer files than that, or its parts would not be parts of its rows.
        """
        check_divisible(self._stored, num_parts)
        part = object.__new__(RowReader)
        part.__dict__ |= self.__dict__ | {"num_rows": None, "_of_part": f" of part {index + 1} of {num_parts}"}
        part._stored = self._stored.shard(num_parts, index, contiguous=True)
        return part

    def stream(self, first: int, batch_size: int, position: Mapping[str, Any] | None = None) -> Iterator[StoredRows]:
        """What `read` takes, for all rows of a stream from the number `first` on.

        Args:
            first: how many rows are behind us.
            batch_size: rows at a time.
            position: that of the last batch; without it `first` rows are read and left aside.
        """
        stream = self._stored
        if position is not None:
            stream.load_state_dict(dict(position))
        elif first:
            stream = stream.skip(first)
        examples = iter(stream)
        columns = list(self._stored.features)
        while rows := self._next_rows(examples, batch_size, first):
            values = {name: [row.get(name) for row in rows] for name in columns}
            numbers, first = range(first, first + len(rows)), first + len(rows)
            yield StoredRows(numbers, values, stream.state_dict() if stream is self._stored else None)

    def _next_rows(self, examples: Iterator[dict[str, Any]], number: int, first: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        try:
            rows.extend(itertools.islice(examples, number))
        except (tarfile.TarError, pa.ArrowInvalid, EOFError, OSError) as error:
            hint = (
                "; filter() and map() decode images: call decode(False) before them"
                if isinstance(error, UnidentifiedImageError)
                else ""
            )
            raise ValueError(
                f"the stream breaks off behind row {first + len(rows) - 1}{self._of_part}: {type(error).__name__}: "
                f"{error}{hint}"
            ) from error
        return rows

    def read(self, rows: range | StoredRows) -> ReadRows:
        """Consecutive rows.

        Raises:
            UnreadableRow: an image cannot be decoded, or a caption is missing; the message names its row.
        """
        if isinstance(rows, range):
            rows = StoredRows(rows, self._stored[rows.start : rows.stop])
        values, unreadable = rows.values, {}
        images = [] if self.image_column is None else list(values[self.image_column])
        for place, row in enumerate(rows.numbers):
            try:
                if self.image_column is not None:
                    images[place] = self._decode(row, images[place])
                if self.text_column is not None and values[self.text_column][place] is None:
                    name = f"row {row}{self._of_part} of column {self.text_column!r}"
                    raise UnreadableRow(f"{name} is no string but missing (None)")
            except UnreadableRow as error:
                if not self.skip_unreadable:
                    raise
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

    def _kept(self, name: str, value: Any) -> Any:
        return value["path"] if name == self.image_column and value is not None else value  # a column of paths

    def _decode(self, row: int, value: dict[str, Any] | Image.Image | None) -> Image.Image:
        name = f"row {row}{self._of_part} of column {self.image_column!r}"
        if value is None:
            raise UnreadableRow(f"{name} is missing (None)")
        if isinstance(value, Image.Image):  # filter() and map() of a stream have decoded it
            return _to_rgb(value, name)
        if value["path"]:
            name += f" ({value['path']})"
        try:
            image = self._image_feature.decode_example(value)
        except UnidentifiedImageError as error:
            raise UnreadableRow(f"{name} cannot be decoded: it is no image of a known format") from error
        except Exception as error:  # Pillow raises nearly anything for a damaged file
            raise UnreadableRow(f"{name} cannot be decoded: {type(error).__name__}: {error}") from error
        return _to_rgb(image, name)

    def _choose_images(self, column: str | None) -> str:
        if column is None:
            of_images = [name for name, kind in self._dataset.features.items() if isinstance(kind, datasets.Image)]
            only = "image" not in self._dataset.features and len(of_images) == 1
            column = of_images[0] if only else "image"
        feature = self._feature("image_column", column)
        if not isinstance(feature, datasets.Image):
            # Paths, encoded bytes, or the {bytes, path} that parquet files hold.
            is_plain = isinstance(feature, Value) and feature.dtype in ("string", "large_string", "binary")
            if not is_plain and not (isinstance(feature, dict) and feature.keys() <= {"bytes", "path"}):
                raise ValueError(f"image_column {column!r} holds no images but {feature}")
            feature = datasets.Image()
        self._image_feature = datasets.Image(mode=feature.mode)
        return column

    def _check_texts(self, column: str) -> None:
        feature = self._feature("text_column", column)
        if not isinstance(feature, Value) or feature.dtype not in ("string", "large_string"):
            raise ValueError(f"text_column {column!r} holds {feature}; it needs one string per row")

    def _choose_kept(self, keep_columns: Sequence[str] | None) -> Features:
        if keep_columns is None:
            scalar = {n: kind for n, kind in self._dataset.features.items() if isinstance(kind, Value | ClassLabel)}
            return Features({name: kind for name, kind in scalar.items() if "binary" not in kind.dtype})
        chosen = Features({name: self._feature("keep_columns", name) for name in keep_columns})
        for name, kind in chosen.items():
            if _has_media(kind):
                raise ValueError(
                    f"column {name!r} in keep_columns holds {kind}; media are not copied beside the embeddings, which "
                    "have the same rows in the same order"
                )
        return chosen

    def _feature(self, argument: str, name: str) -> Any:
        if name not in self._dataset.features:
            columns = ", ".join(self._dataset.features)
            raise ValueError(f"{argument} names {name!r}, but the data set has the columns {columns}")
        return self._dataset.features[name]


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        return to_rgb(image, name)
    except ValueError as error:
        raise UnreadableRow(str(error)) from error


def _with_features(stream: IterableDataset) -> IterableDataset:
    """The stream with the types that its first rows suggest."""
    try:
        return stream._resolve_features()
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"the types of the stream's columns are not known and cannot be guessed ({error}): give map() its "
            "features="
        ) from error


def _has_media(kind: Any) -> bool:
    if isinstance(kind, dict):
        return any(map(_has_media, kind.values()))
    inner = getattr(kind, "feature", None)
    return isinstance(kind, _MEDIA) or (inner is not None and _has_media(inner))
