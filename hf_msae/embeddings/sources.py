"""Opening the places that embeddings can come from."""

from __future__ import annotations

import glob
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
from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData, hf_hub_download, metadata_load, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError
from yaml import YAMLError

from .._utils.cache import cache_folder, make_writable
from .._utils.paths import is_saved_dataset, refuse_missing_path
from .._utils.reachability import refuse_unreachable
from .._utils.walking import files_below
from .metadata import METADATA_FILE, EmbeddingMetadata
from .npy import PART_FOLDERS, Numbered, checked_matrix, find_parts, join_parts, numbered, open_npy
from .statistics import RunningMoments
from .stored_statistics import load_moments
from .verification import check_shards

_SUPPORTED = (
    "a folder written by `hf-msae extract`, EmbeddingWriter or datasets.save_to_disk, a .parquet file or a folder of "
    "them, a 2-D .npy file or a folder of its numbered parts, or the id of a dataset on the Hub"
)


@dataclass
class Source:
    """An opened source: either a Hugging Face dataset or a matrix (N, width).

    `path` is the .npy file or the folder of .npy files, so that another process can map them again; `files` are (file,
    rows) in the order of the rows, if known; `moments` those stored for every embedding column; `skipped` the data's
    rows that the extraction left out.
    """

    name: str
    dataset: datasets.Dataset | None = None
    array: np.ndarray | None = None
    path: Path | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    files: list[tuple[str, int]] = field(default_factory=list)
    moments: dict[str, RunningMoments] | None = None
    skipped: list[int] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "array": None, "dataset": None} if self.path else self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.path and self.path.is_dir():
            self.dataset = _open_parts(self.path, find_parts(self.path)).dataset
        elif self.path:
            self.array = open_npy(self.path)


def open_source(source: Any, split: str | None = None, revision: str | None = None, verify: bool = True) -> Source:
    """Open a source; arguments and errors are those of `load_embeddings`."""
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu()
        source = (source.float() if source.dtype == torch.bfloat16 else source).numpy()
    if isinstance(source, np.ndarray):
        return Source("the given array", array=checked_matrix(source, "the given array"))
    if isinstance(source, datasets.Dataset | datasets.DatasetDict):
        return _from_dataset(source, "the given dataset", split)
    if isinstance(source, datasets.IterableDataset | datasets.IterableDatasetDict):
        raise TypeError("a streaming dataset has no random access: load it without streaming=True")
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"cannot read embeddings from {type(source).__name__}; pass {_SUPPORTED}, a Dataset or an array"
        )
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path, split, verify)
    if path.suffix.lower() == ".npy":
        _refuse_split(split, path)
        return Source(str(path), array=open_npy(path), path=path.absolute())
    if path.suffix.lower() == ".parquet":
        return _open_parquet(path, {"train": [str(path)]}, split)
    if path.exists():
        raise ValueError(f"{path} is not a supported type of file; pass {_SUPPORTED}")
    return _open_hub(str(source), split, revision, verify)


def data_files_of(folder: Path, config_name: str | None = None) -> DataFilesDict:
    """Return the files of each split of a folder, as `datasets` finds them by its README.md or else by their names.

    `datasets` takes the folder for a pattern, in which brackets and asterisks have a meaning.
    """
    literal, patterns = glob.escape(str(folder.absolute())), None
    if configs := configurations_of(folder):
        name = config_name or configs.get_default_config_name()
        if name not in configs:
            problem = f"no configuration {name!r}" if name else "several configurations and no default"
            raise ValueError(
                f"{folder / 'README.md'} has {problem}: choose one of {', '.join(configs)}, or name a file"
            )
        patterns = configs[name].get("data_files")
    patterns = get_data_patterns(literal) if patterns is None else sanitize_patterns(patterns)
    return DataFilesDict.from_patterns(patterns, base_path=literal)


def configurations_of(folder: Path) -> MetadataConfigs:
    """Return the configurations that the README.md of a folder declares for `datasets`; there may be none."""
    readme = folder / "README.md"
    if not readme.is_file():
        return MetadataConfigs()
    try:
        configs = MetadataConfigs.from_dataset_card_data(DatasetCardData(**(metadata_load(readme) or {})))
        configs.get_default_config_name()
    except (ValueError, YAMLError) as error:
        raise ValueError(f"the front matter of {readme} cannot be read: {error}") from error
    return configs


def datasets_cache() -> str | None:
    """Return where `datasets` converts files to: its own cache, given as None, if that can be written to."""
    try:
        make_writable(Path(datasets.config.HF_DATASETS_CACHE))
    except OSError:  # it is read-only, as on shared machines
        return str(cache_folder("datasets"))
    return None


def choose_split(splits: Iterable[str], split: str | None, name: str) -> str:
    """Return `split`, or the only split there is."""
    splits = [str(each) for each in splits]
    if split is None and len(splits) > 1:
        raise ValueError(f"{name} has the splits {', '.join(splits)}: choose one")
    if split is not None and split not in splits:
        raise ValueError(f"{name} has no split {split!r}, only {', '.join(splits)}")
    return splits[0] if split is None else split


def _refuse_split(split: str | None, name: str | Path) -> None:
    if split is not None:
        raise ValueError(f"{name} is a single dataset and has no split {split!r}: leave the split out")


def _open_folder(folder: Path, split: str | None, verify: bool) -> Source:
    metadata = EmbeddingMetadata.load(folder)
    if metadata is not None and not metadata.complete:
        raise ValueError(
            f"the extraction into {folder} is unfinished ({metadata.num_rows} rows in complete shards): run it again "
            "with the same settings to continue it"
        )
    if is_saved_dataset(folder):
        try:
            dataset = datasets.load_from_disk(str(folder))
        except (
            pa.ArrowInvalid,
            OSError,
            ArithmeticError,
            LookupError,
            AttributeError,
            TypeError,
            ValueError,
        ) as error:
            problem = " ".join(str(error).split())
            raise ValueError(f"{_damaged_file(folder)} cannot be read: {problem}") from error
        opened = _from_dataset(dataset, str(folder), split)
        if metadata is not None:
            if len(opened.dataset) != metadata.num_rows:
                raise ValueError(
                    f"{folder} has {len(opened.dataset)} rows, but its {METADATA_FILE} lists {metadata.num_rows}: "
                    "a shard was damaged or replaced; extract the embeddings again"
                )
            for name, width in metadata.columns.items():
                feature = opened.dataset.features.get(name)
                feature = feature.feature if name in metadata.token_columns else feature
                if getattr(feature, "length", None) != width:
                    raise ValueError(
                        f"{folder / METADATA_FILE} lists a column {name} of width {width} not in the data"
                    )
            if verify:
                check_shards(folder, metadata)
            opened.moments, opened.skipped = load_moments(folder, metadata), metadata.skipped
        return opened
    if any((folder / name).is_dir() for name in PART_FOLDERS) and (parts := find_parts(folder)):
        _refuse_split(split, folder)
        return _open_parts(folder, parts)
    files_below(folder, "the embeddings")  # refuses one that datasets would search for minutes
    try:
        files = data_files_of(folder)
    except FileNotFoundError:  # datasets' way of saying that nothing in the folder looks like data
        files = {}
    parquet = {str(name): [f for f in paths if f.lower().endswith(".parquet")] for name, paths in files.items()}
    parquet = {name: paths for name, paths in parquet.items() if paths}
    if not parquet and (parts := find_parts(folder)):
        _refuse_split(split, folder)
        return _open_parts(folder, parts)
    if not parquet:
        raise ValueError(f"{folder} holds neither a saved dataset (state.json) nor parquet files; pass {_SUPPORTED}")
    return _open_parquet(folder, parquet, split)


def _open_parquet(path: Path, files: dict[str, list[str]], split: str | None) -> Source:
    split = choose_split(files, split, str(path))
    counted = []
    for file in files[split]:
        if not Path(file).is_file():
            raise FileNotFoundError(f"{file} does not exist")
        try:
            counted.append((file, pq.ParquetFile(file).metadata.num_rows))
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{file} is not a complete parquet file: {error}") from error
    if sum(rows for _, rows in counted) == 0:
        raise ValueError(f"{path} is empty: it has no rows")
    try:  # converted once into the Arrow cache of datasets, and memory-mapped from then on
        dataset = datasets.load_dataset(
            "parquet",
            data_files={split: list(map(glob.escape, files[split]))},
            split=split,
            cache_dir=datasets_cache(),
        )
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {error.__cause__ or error}") from error
    return Source(str(path), dataset=dataset, files=counted)


def _open_parts(folder: Path, columns: dict[str, Numbered]) -> Source:
    """Open numbered .npy files with the metadata that clip-retrieval writes next to their folder."""
    dataset, files = join_parts(columns)
    place = (folder.parent if folder.name in PART_FOLDERS else folder) / "metadata"
    if metadata := numbered(place, ".parquet"):
        numbers = list(next(iter(columns.values())))
        if missing := [number for number in numbers if number not in metadata]:
            raise ValueError(f"{place} has no part {missing[0]}, which the embeddings have: copy the folder again")
        named = _open_parquet(place, {"train": [str(metadata[number]) for number in numbers]}, None)
        for (file, rows), (of, expected) in zip(named.files, files, strict=True):
            if rows != expected:
                raise ValueError(f"{file} has {rows} rows, but {of} has {expected}: they do not belong together")
        if both := sorted(set(columns) & set(named.dataset.column_names)):
            raise ValueError(f"{place} has a column {both[0]!r}, which is the name of the embeddings: rename it")
        dataset = datasets.concatenate_datasets([dataset, named.dataset], axis=1)
    return Source(str(folder), dataset=dataset, files=files, path=folder.absolute())


def _open_hub(name: str, split: str | None, revision: str | None, verify: bool) -> Source:
    missing = f"{name} is neither a local file or folder nor a dataset that can be reached on the Hub"
    refuse_missing_path(name, "dataset")
    refuse_unreachable(name)
    label = name if revision is None else f"{name}@{revision}"
    try:  # a folder pushed by `push_embeddings` is read like a local one
        hf_hub_download(name, METADATA_FILE, repo_type="dataset", revision=revision)
        opened = _open_folder(Path(snapshot_download(name, repo_type="dataset", revision=revision)), split, verify)
        opened.name = label
        return opened
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):
        pass  # another kind of dataset, or none; datasets knows
    try:
        dataset = datasets.load_dataset(name, split=split, revision=revision)
    except (datasets.exceptions.DatasetNotFoundError, HFValidationError, OSError) as error:
        raise FileNotFoundError(f"{missing} ({error})") from error
    return _from_dataset(dataset, label, None)


def _from_dataset(dataset: datasets.Dataset | datasets.DatasetDict, name: str, split: str | None) -> Source:
    if isinstance(dataset, datasets.DatasetDict):
        dataset = dataset[choose_split(dataset, split, name)]
    elif split != str(dataset.split):
        _refuse_split(split, name)
    return Source(name, dataset=dataset, provenance=_provenance(dataset), files=_arrow_files(dataset))


def _arrow_files(dataset: datasets.Dataset) -> list[tuple[str, int]]:
    """The memory-mapped files of a dataset and the rows it uses of each; [] if some rows are in memory."""
    tables = [row_of_blocks[0] for row_of_blocks in getattr(dataset.data, "blocks", [[dataset.data]])]
    if not all(hasattr(table, "path") for table in tables):
        return []
    return [(str(table.path), table.num_rows) for table in tables]


def _provenance(dataset: datasets.Dataset) -> dict[str, Any]:
    """What the extraction recorded in the dataset's folders, if it is the same in all of them."""
    folders = {Path(file["filename"]).parent for file in dataset.cache_files}
    recorded = [metadata and metadata.provenance for metadata in map(EmbeddingMetadata.load, folders)]
    return recorded[0] or {} if recorded and all(each == recorded[0] for each in recorded) else {}


def _damaged_file(folder: Path) -> Path | str:
    """Find the file because of which a saved data set cannot be read."""
    for file in sorted(folder.rglob("*.arrow")):
        try:
            with pa.memory_map(str(file)) as mapped:
                pa.ipc.open_stream(mapped).read_all()
        except (pa.ArrowInvalid, OSError):  # what is looked for
            return file
    try:
        features = datasets.DatasetInfo.from_directory(str(folder)).features
        _ = features and features.arrow_schema
    except Exception:  # whatever datasets makes of another form
        return folder / "dataset_info.json"
    return f"{folder} (its state.json or dataset_info.json)"
