"""Opening the places embeddings can come from, with an error for each way that can go wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets.data_files import DataFilesDict, get_data_patterns
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

from .metadata import METADATA_FILE, EmbeddingMetadata
from .statistics import RunningMoments
from .stored_statistics import load_moments

_SUPPORTED = (
    "a folder written by `hf-msae extract`, EmbeddingWriter or datasets.save_to_disk, a .parquet file or a folder of "
    "them, a 2-D .npy file, or the id of a data set on the Hub"
)


@dataclass
class Source:
    """An opened source: a Hugging Face data set or a matrix, never both.

    Attributes:
        name: for messages.
        dataset: the data set, before a column is chosen.
        array: the matrix (N, width) of floats.
        path: the .npy file behind `array`, so that another process can map it again.
        files: (file, rows) in row order, as far as known.
        moments: of every embedding column, where they are stored.
    """

    name: str
    dataset: datasets.Dataset | None = None
    array: np.ndarray | None = None
    path: Path | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    files: list[tuple[str, int]] = field(default_factory=list)
    moments: dict[str, RunningMoments] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "array": None if self.path else self.array}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.path:
            self.array = np.load(self.path, mmap_mode="r", allow_pickle=False)


def open_source(source: Any, split: str | None = None, revision: str | None = None) -> Source:
    """Open whatever `load_embeddings` accepts; see there."""
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu()
        source = (source.float() if source.dtype == torch.bfloat16 else source).numpy()
    if isinstance(source, np.ndarray):
        return Source("the given array", array=_checked_matrix(source, "the given array"))
    if isinstance(source, datasets.Dataset | datasets.DatasetDict):
        return _from_dataset(source, "the given data set", split)
    if isinstance(source, datasets.IterableDataset | datasets.IterableDatasetDict):
        raise TypeError("a streaming data set has no random access: load it without streaming=True")
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"cannot read embeddings from {type(source).__name__}; pass {_SUPPORTED}, a Dataset or an array"
        )
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path, split)
    if path.suffix.lower() == ".npy":
        return _open_npy(path)
    if path.suffix.lower() == ".parquet":
        return _open_parquet(path, {"train": [str(path)]}, split=None)
    if path.exists():
        raise ValueError(f"{path} is not a kind of file embeddings are read from; pass {_SUPPORTED}")
    return _open_hub(str(source), split, revision)


def _open_folder(folder: Path, split: str | None) -> Source:
    metadata = EmbeddingMetadata.load(folder)
    if metadata is not None and not metadata.complete:
        raise ValueError(
            f"the extraction into {folder} is unfinished ({metadata.num_rows} rows in complete shards): run it again "
            "with the same settings to continue it"
        )
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        try:
            dataset = datasets.load_from_disk(str(folder))
        except (pa.ArrowInvalid, OSError, ValueError, KeyError) as error:
            raise ValueError(f"{_damaged_file(folder) or folder} cannot be read: {error}") from error
        opened = _from_dataset(dataset, str(folder), split)
        if metadata is not None and len(opened.dataset) != metadata.num_rows:
            raise ValueError(
                f"{folder} has {len(opened.dataset)} rows, but its {METADATA_FILE} counts {metadata.num_rows}: "
                "a shard is damaged or was exchanged; extract the embeddings again"
            )
        if metadata is not None:
            opened.moments = load_moments(folder, metadata)
        return opened
    try:
        files = DataFilesDict.from_patterns(get_data_patterns(str(folder)), base_path=str(folder))
    except FileNotFoundError:  # how datasets says that nothing in the folder looks like data
        files = {}
    parquet = {str(name): [f for f in paths if f.lower().endswith(".parquet")] for name, paths in files.items()}
    parquet = {name: paths for name, paths in parquet.items() if paths}
    if not parquet:
        raise ValueError(f"{folder} holds neither a saved data set (state.json) nor parquet files; pass {_SUPPORTED}")
    return _open_parquet(folder, parquet, split)


def _open_parquet(path: Path, files: dict[str, list[str]], split: str | None) -> Source:
    split = _pick_split(files, split, str(path))
    counted = []
    for file in files[split]:
        if not Path(file).is_file():
            raise FileNotFoundError(f"there is no file {file}")
        try:
            counted.append((file, pq.ParquetFile(file).metadata.num_rows))
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{file} is not a complete parquet file: {error}") from error
    if sum(rows for _, rows in counted) == 0:
        raise ValueError(f"{path} is empty: it has no rows")
    try:  # converted once into datasets' Arrow cache, and memory-mapped from then on
        dataset = datasets.load_dataset("parquet", data_files={split: files[split]}, split=split)
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {error.__cause__ or error}") from error
    return Source(str(path), dataset=dataset, files=counted)


def _open_npy(path: Path) -> Source:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a .npy file of numbers: {error}") from error
    return Source(str(path), array=_checked_matrix(array, str(path)), path=path.absolute())


def _open_hub(name: str, split: str | None, revision: str | None) -> Source:
    missing = f"{name} is neither a local file or folder nor a data set that can be reached on the Hub"
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(missing)
    folder = _pushed_folder(name, revision)
    if folder is not None:
        opened = _open_folder(folder, split)
        opened.name = name if revision is None else f"{name}@{revision}"
        return opened
    try:
        dataset = datasets.load_dataset(name, split=split, revision=revision)
    except (datasets.exceptions.DatasetNotFoundError, HFValidationError, OSError) as error:
        raise FileNotFoundError(f"{missing} ({error})") from error
    return _from_dataset(dataset, name if revision is None else f"{name}@{revision}", None)


def _pushed_folder(name: str, revision: str | None) -> Path | None:
    """A copy of what `push_embeddings` has pushed; None where it was not that."""
    try:
        hf_hub_download(name, METADATA_FILE, repo_type="dataset", revision=revision)
        return Path(snapshot_download(name, repo_type="dataset", revision=revision))
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):
        return None  # `datasets` knows more kinds, and says so if it is none


def _from_dataset(dataset: datasets.Dataset | datasets.DatasetDict, name: str, split: str | None) -> Source:
    if isinstance(dataset, datasets.DatasetDict):
        split = _pick_split(dataset, split, name)
        dataset = dataset[split]
    elif split is not None and split != str(dataset.split):
        raise ValueError(f"{name} is one data set without a split {split!r}: leave split out")
    return Source(name, dataset=dataset, provenance=_provenance(dataset), files=_arrow_files(dataset))


def _pick_split(splits: Iterable[str], split: str | None, name: str) -> str:
    splits = [str(each) for each in splits]
    if split is None and len(splits) == 1:
        return splits[0]
    if split is None:
        raise ValueError(f"{name} has the splits {', '.join(splits)}: name the one to use as its split")
    if split not in splits:
        raise ValueError(f"{name} has no split {split!r}, only {', '.join(splits)}")
    return split


def _arrow_files(dataset: datasets.Dataset) -> list[tuple[str, int]]:
    """The memory-mapped files of a data set and the rows it uses of each; [] where parts are in memory."""
    blocks = getattr(dataset.data, "blocks", [[dataset.data]])
    tables = [row_of_blocks[0] for row_of_blocks in blocks]
    if not all(hasattr(table, "path") for table in tables):
        return []
    return [(str(table.path), table.num_rows) for table in tables]


def _provenance(dataset: datasets.Dataset) -> dict[str, Any]:
    """What the extraction recorded beside the data set's files, if all of them tell the same story."""
    folders = {Path(file["filename"]).parent for file in dataset.cache_files}
    stories = [EmbeddingMetadata.load(folder) for folder in folders]
    if not stories or any(story is None or story.provenance != stories[0].provenance for story in stories):
        return {}
    return stories[0].provenance


def _damaged_file(folder: Path) -> Path | None:
    for file in sorted(folder.rglob("*.arrow")):
        try:
            with pa.memory_map(str(file)) as mapped:
                pa.ipc.open_stream(mapped).read_all()
        except (pa.ArrowInvalid, OSError):
            return file
    return None


def _checked_matrix(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim != 2:
        raise ValueError(f"{name} must be 2-D (embeddings, width), got shape {array.shape}")
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} must hold floating point numbers, got {array.dtype}")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: it has shape {array.shape}")
    return array
