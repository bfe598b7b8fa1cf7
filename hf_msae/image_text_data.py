"""Data sets of images and captions: opening them by name, and reading their rows ready for a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from huggingface_hub.errors import HFValidationError
from PIL import Image

from hf_msae.backbones import prepare_images
from hf_msae.images import to_rgb

_LIBRARIES = ("hf_msae", "torch", "transformers", "datasets", "pillow")
_MEDIA = datasets.Image | datasets.Audio | datasets.Video


def open_dataset(
    source: str,
    split: str | None = None,
    config_name: str | None = None,
    revision: str | None = None,
    num_proc: int | None = None,
) -> Dataset:
    """Open a data set by its name.

    Args:
        source: a data set on the Hub; a folder written by `save_to_disk`; a folder of images (with a metadata.csv or
            metadata.jsonl for captions, or a folder per class) or of parquet files; a .parquet file; or
            "scenes:SPLIT:N" or "scenes:SPLIT:N:SEED" for `load_scenes(SPLIT, N, SEED)`, e.g. "scenes:train:20000".
        split: which split, where there are several.
        config_name: which configuration of a data set on the Hub, where there are several.
        revision: branch, tag or commit of a data set on the Hub.
        num_proc: processes that render scenes.

    Raises:
        FileNotFoundError: there is no such file or folder, and no such data set that can be reached on the Hub.
        ValueError: it has several splits and none was chosen, has no such split, or cannot be read.
    """
    if source.startswith("scenes:"):
        return _open_scenes(source, split, num_proc)
    path = Path(source).expanduser()
    try:
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(str(path))
        elif path.is_file() and path.suffix.lower() == ".parquet":
            found = datasets.load_dataset("parquet", data_files={split or "train": str(path)})
        elif not path.is_dir() and (path.is_file() or path.is_absolute() or source.startswith((".", "~"))):
            raise FileNotFoundError(f"{source} is neither a folder nor a .parquet file")
        else:
            found = datasets.load_dataset(str(path) if path.is_dir() else source, config_name, revision=revision)
    except (datasets.exceptions.DatasetNotFoundError, HFValidationError, ConnectionError) as error:
        raise FileNotFoundError(
            f"data set {source!r} is neither a file or folder nor a data set that can be reached on the Hub: {error}"
        ) from error
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid) as error:
        raise ValueError(f"data set {source} cannot be read: {error.__cause__ or error}") from error
    if not isinstance(found, DatasetDict):
        if split is not None and split != str(found.split):
            raise ValueError(f"{source} is one data set without a split {split!r}: leave the split out")
        return found
    if split is None and len(found) > 1:
        raise ValueError(f"{source} has the splits {', '.join(found)}: choose one")
    if split is not None and split not in found:
        raise ValueError(f"{source} has no split {split!r}, only {', '.join(found)}")
    return found[split or next(iter(found))]


def _open_scenes(source: str, split: str | None, num_proc: int | None) -> Dataset:
    from hf_msae.scenes import load_scenes

    _, *parts = source.split(":")
    if len(parts) not in (2, 3) or not all(part.isdigit() for part in parts[1:]):
        raise ValueError(f"{source!r} is not scenes:SPLIT:N or scenes:SPLIT:N:SEED, e.g. scenes:train:20000")
    if split is not None and split != parts[0]:
        raise ValueError(f"{source!r} names the split {parts[0]!r} already, so leave out {split!r}")
    return load_scenes(parts[0], int(parts[1]), *map(int, parts[2:]), num_proc=num_proc)


@dataclass(frozen=True)
class ReadRows:
    """Rows ready for a backbone.

    Attributes:
        number: of the rows that could be read.
        pixels: the model's inputs for their images; None where none are needed, or no row could be read.
        texts: their captions; None where none are needed.
        kept: their kept columns.
        unreadable: number of a row -> why it could not be read.
    """

    number: int
    pixels: dict[str, torch.Tensor] | None
    texts: list[str] | None
    kept: dict[str, list]
    unreadable: dict[int, str]


class RowReader:
    """What a row of a data set gives: an image prepared for the backbone, a caption, and the columns to keep.

    Set `image_processor` before images are read.

    Args:
        dataset: a row per image, per caption, or per pair of them.
        image_column: images, paths or encoded bytes; None where images are not needed.
        text_column: one string per row; None where captions are not needed.
        keep_columns: columns returned as they are; None means all that hold a number, a boolean, a label or a string.
        skip_unreadable: whether rows whose image cannot be read, or whose caption is missing, are left out.

    Raises:
        TypeError: `dataset` is no `datasets.Dataset`.
        ValueError: it is empty or has a transform, or a column is not there or holds something else.
    """

    def __init__(
        self,
        dataset: Dataset,
        image_column: str | None,
        text_column: str | None,
        keep_columns: Sequence[str] | None,
        skip_unreadable: bool = False,
    ) -> None:
        if isinstance(dataset, DatasetDict):
            raise TypeError(f"choose a split of the data set: {', '.join(map(str, dataset))}")
        if not isinstance(dataset, Dataset):
            raise TypeError(f"dataset must be a datasets.Dataset, got {type(dataset).__name__}")
        if len(dataset) == 0:
            raise ValueError("the data set is empty: it has no rows")
        if dataset.format["type"] == "custom":
            raise ValueError("the data set has a transform: apply it with map(), or drop it with reset_format()")
        self.image_processor = None
        self.skip_unreadable = skip_unreadable
        self.image_column, self.text_column = image_column, text_column
        self._fingerprint = dataset._fingerprint
        self._dataset = dataset.with_format(None)
        self._images = self._texts = self._kept = None
        if image_column is not None:
            self._image_feature, self._images = self._open_images(image_column)
        if text_column is not None:
            self._texts = self._open_texts(text_column)
        self.kept_features = self._choose_kept(keep_columns)
        if self.kept_features:
            self._kept = self._dataset.select_columns(list(self.kept_features))

    def __len__(self) -> int:
        return len(self._dataset)

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

    def read(self, rows: range) -> ReadRows:
        """Consecutive rows.

        Raises:
            ValueError: an image cannot be decoded; the message names its row.
            TypeError: a caption is missing.
        """
        chosen = slice(rows.start, rows.stop)
        images = None if self._images is None else self._images[chosen][self.image_column]
        texts = None if self._texts is None else self._texts[chosen][self.text_column]
        unreadable: dict[int, str] = {}
        for place, row in enumerate(rows):
            try:
                if images is not None:
                    images[place] = self._decode(row, images[place])
                if texts is not None and texts[place] is None:
                    raise TypeError(f"row {row} of column {self.text_column!r} is no string but missing (None)")
            except (ValueError, TypeError, OSError) as error:
                if not self.skip_unreadable:
                    raise
                unreadable[row] = str(error)
        kept = {} if self._kept is None else self._kept[chosen]
        if unreadable:
            good = [place for place, row in enumerate(rows) if row not in unreadable]
            images, texts = (None if all_ is None else [all_[place] for place in good] for all_ in (images, texts))
            kept = {name: [values[place] for place in good] for name, values in kept.items()}
        pixels = prepare_images(self.image_processor, images) if images else None
        return ReadRows(len(rows) - len(unreadable), pixels, texts, kept, unreadable)

    def _decode(self, row: int, value: dict[str, Any] | None) -> Image.Image:
        name = f"row {row} of column {self.image_column!r}"
        if value is None:
            raise ValueError(f"{name} is missing (None)")
        if value["path"]:
            name += f" ({value['path']})"
        try:
            image = self._image_feature.decode_example(value)
        except Exception as error:  # Pillow raises nearly anything for a damaged file
            raise ValueError(f"{name} cannot be decoded: {type(error).__name__}: {error}") from error
        return to_rgb(image, name)

    def _open_images(self, column: str) -> tuple[datasets.Image, Dataset]:
        """The feature that decodes the column, and the column not decoded yet, so that a bad row can be named."""
        feature = self._feature("image_column", column)
        if not isinstance(feature, datasets.Image):
            # Paths, encoded bytes, or the {bytes, path} that parquet files hold.
            is_plain = isinstance(feature, Value) and feature.dtype in ("string", "large_string", "binary")
            if not is_plain and not (isinstance(feature, dict) and feature.keys() <= {"bytes", "path"}):
                raise ValueError(f"image_column {column!r} holds no images but {feature}")
            feature = datasets.Image()
        stored = self._dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        return datasets.Image(mode=feature.mode), stored

    def _open_texts(self, column: str) -> Dataset:
        feature = self._feature("text_column", column)
        if not isinstance(feature, Value) or feature.dtype not in ("string", "large_string"):
            raise ValueError(f"text_column {column!r} holds {feature}; it needs one string per row")
        return self._dataset.select_columns([column])

    def _choose_kept(self, keep_columns: Sequence[str] | None) -> Features:
        if keep_columns is None:
            scalar = {n: kind for n, kind in self._dataset.features.items() if isinstance(kind, Value | ClassLabel)}
            return Features({name: kind for name, kind in scalar.items() if "binary" not in kind.dtype})
        chosen = Features({name: self._feature("keep_columns", name) for name in keep_columns})
        for name, kind in chosen.items():
            if isinstance(kind, _MEDIA):
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
