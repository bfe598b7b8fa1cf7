"""Opening datasets of images and captions by name."""

from __future__ import annotations

import copy
import glob
import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import datasets
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from datasets.data_files import FILES_TO_IGNORE, SPLIT_KEYWORDS, DataFilesList
from datasets.load import infer_module_for_data_files
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from huggingface_hub.errors import HFValidationError

from hf_msae._utils.paths import is_saved_dataset, refuse_missing_path
from hf_msae._utils.reachability import refuse_unreachable
from hf_msae.embeddings.sources import choose_split, configurations_of, data_files_of, datasets_cache

# Builders for single files or patterns of files.
_BUILDERS = {".parquet": "parquet", ".tar": "webdataset"}
_SPLIT_WORDS = {"data", *chain(*SPLIT_KEYWORDS.values())}
_MAKE_SPLITS = "extract its embeddings with --test_size 0.2, which sets a fifth of the rows aside as test"
# Shards of a saved dataset that is streamed: enough to divide it among processes.
_SAVED_SHARDS = 64


def open_dataset(
    source: str,
    split: str | None = None,
    config_name: str | None = None,
    revision: str | None = None,
    num_proc: int | None = None,
    streaming: bool = False,
    test_size: float | None = None,
) -> Dataset | IterableDataset:
    """Open a dataset by its name, or render it.

    `source` is a dataset on the Hub; a folder written by `save_to_disk`; a folder of images (with a metadata.csv or
    metadata.jsonl for captions, or a folder per class), parquet files or webdataset tar files; a .parquet or .tar
    file, or a pattern such as "shards/*.tar"; "scenes:SPLIT:N" or "scenes:SPLIT:N:SEED" for `load_scenes(SPLIT, N,
    SEED)`, which `num_proc` processes render; or "clipart:SPLIT" for `load_clipart(SPLIT)`. `test_size` is the share
    of the rows of a dataset without splits that become its split "test", always the same ones, drawn at random; the
    others become "train".
    """
    if test_size is not None and streaming:
        raise ValueError("a stream cannot be divided by test_size: leave out one of the two")
    if source.startswith(("scenes:", "clipart:")):
        if streaming:
            raise ValueError(f"{source} was rendered and cannot be streamed: leave out streaming")
        if test_size is not None:
            raise ValueError(f"{source} is a split already: leave out test_size")
        return _open_world(source, split, num_proc)
    found = open_splits(source, split, config_name, revision, streaming)
    if test_size is not None:
        found = _with_test_split(found, source, test_size)
    if not isinstance(found, DatasetDict | IterableDatasetDict):
        if split is not None and split != str(found.split):
            raise ValueError(
                f"{source} is a single dataset and has no split {split!r}: leave the split out, or {_MAKE_SPLITS}"
            )
        return found
    (*others, last) = map(str, found)
    if split is not None and not others and split != last:
        raise ValueError(f"{source} has no split {split!r}, only {last}: {_MAKE_SPLITS}")
    name = choose_split(found, split, source)
    chosen = copy.copy(found[name])
    # It is recorded of embeddings. `datasets` keeps the split that rows once came from, before train_test_split().
    chosen._split = datasets.NamedSplit(name)
    return chosen


def open_splits(
    source: str,
    split: str | None = None,
    config_name: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
) -> Dataset | DatasetDict | IterableDataset | IterableDatasetDict:
    """Open a dataset by its name with all of its splits; `split` is what files that have none are called."""
    try:
        found = _open(source, split, config_name, revision, streaming)
    except (datasets.exceptions.DatasetNotFoundError, HFValidationError, ConnectionError) as error:
        raise FileNotFoundError(
            f"dataset {source!r} is neither a file or folder nor a dataset that can be reached on the Hub: {error}"
        ) from error
    except (datasets.exceptions.DatasetGenerationError, ValueError, tarfile.TarError) as error:
        raise ValueError(f"dataset {source} cannot be read: {error.__cause__ or error}") from error
    return _without_split_labels(found)


def _with_test_split(found: Dataset | DatasetDict, source: str, test_size: float) -> DatasetDict:
    """Divide a dataset into the splits "train" and "test"."""
    if isinstance(found, DatasetDict):
        if len(found) > 1:
            raise ValueError(f"{source} has the splits {', '.join(found)}: leave out test_size")
        (found,) = found.values()
    # Row numbers are drawn in memory: `datasets` would write those of a dataset on disk into its folder.
    numbers = Dataset.from_dict({"row": range(len(found))}).train_test_split(test_size, seed=0)
    return DatasetDict({name: found.select(each["row"][:]) for name, each in numbers.items()})


def _open(
    source: str, split: str | None, config_name: str | None, revision: str | None, streaming: bool
) -> Dataset | DatasetDict | IterableDataset | IterableDatasetDict:
    path = Path(source).expanduser()
    if is_saved_dataset(path):
        found = datasets.load_from_disk(str(path))
        if not streaming:
            return found
        if isinstance(found, DatasetDict):
            return IterableDatasetDict({name: _streamed(each) for name, each in found.items()})
        return _streamed(found)
    cache_dir = datasets_cache()
    if path.is_file() or ("*" in path.name and not path.exists()):
        builder = _BUILDERS.get(path.suffix.lower())
        files = [path] if path.is_file() else sorted(path.parent.glob(path.name))
        if builder is None or not files:
            problem = "is neither a folder nor a .parquet or .tar file" if files else "matches no file"
            raise FileNotFoundError(f"{source} {problem}")
        data_files = {split or "train": [glob.escape(str(file)) for file in files]}
        return datasets.load_dataset(builder, data_files=data_files, streaming=streaming, cache_dir=cache_dir)
    refuse_missing_path(source, "dataset")
    if path.is_dir() and _holds_pictures(path):
        data_files = {"train": _files_below(path.absolute())}
        return datasets.load_dataset("imagefolder", data_files=data_files, streaming=streaming, cache_dir=cache_dir)
    if path.is_dir() and glob.has_magic(str(path.resolve())):  # which datasets would take for a pattern
        data_files = data_files_of(path, config_name)
        builder, _ = infer_module_for_data_files(data_files)
        data_files = {str(name): list(map(glob.escape, files)) for name, files in data_files.items()}
        return datasets.load_dataset(builder, data_files=data_files, streaming=streaming, cache_dir=cache_dir)
    if not path.is_dir():
        refuse_unreachable(source)
    name = str(path) if path.is_dir() else source
    return datasets.load_dataset(name, config_name, revision=revision, streaming=streaming, cache_dir=cache_dir)


def _holds_pictures(folder: Path) -> bool:
    """Whether a folder is one of pictures that neither its folders nor its README.md divide into splits.

    `datasets` would take a "train" or "test" in the names of files and folders for splits, and leave out all others.
    """
    holding, endings = set(), set()
    for place, below, names in os.walk(folder):
        below[:] = (name for name in below if not name.startswith((".", "__")))
        found = {os.path.splitext(name)[1].lower() for name in names}
        endings |= found
        if not found.isdisjoint(ImageFolder.EXTENSIONS):
            holding.add(Path(place).relative_to(folder).parts)
    if not holding or not endings.isdisjoint((*_BUILDERS, ".arrow")):  # the pictures are those of a README
        return False
    return not (are_splits(holding) or configurations_of(folder))


def are_splits(folders: Iterable[tuple[str, ...]]) -> bool:
    """Whether folders of pictures, each given by the names on its path, are splits and not classes.

    They are if all lie in folders such as "train2017" or "my-test"; or if some lie in folders that are called train
    and test and nothing else, in one place. A class may be called "train" or "test tube".
    """
    folders, named = list(folders), defaultdict(set)
    for parts in folders:
        for depth, name in enumerate(parts):
            words = _words(name) - {""}
            named[parts[:depth]] |= {split for split, known in SPLIT_KEYWORDS.items() if words and words <= {*known}}
    return all(map(in_split, folders)) or any(len(splits) > 1 for splits in named.values())


def in_split(folders: Iterable[str]) -> bool:
    """Whether one of the folders on a path may be a split by its name."""
    return any(not _words(name).isdisjoint(chain(*SPLIT_KEYWORDS.values())) for name in folders)


def _files_below(folder: Path) -> DataFilesList:
    """Return the files that `datasets` finds with folder/**, in its order, and what tells it that they changed.

    `datasets` matches each file with a pattern and asks for its state by itself: 17 s of work for 100,000 files,
    whenever they are opened.
    """
    found = {}
    for place, below, names in os.walk(folder):
        below[:] = (name for name in below if not name.startswith((".", "__")))
        names = (name for name in names if not (name.startswith(".") or name in FILES_TO_IGNORE))
        paths = (f"{place}/{name}".replace(os.sep, "/") for name in names)
        found |= {path: (str(os.path.getmtime(path)),) for path in paths if os.path.isfile(path)}
    files = sorted(found)
    return DataFilesList(files, [found[file] for file in files])


def _words(name: str) -> set[str]:
    return set(re.split(r"[-._ 0-9]+", name.lower()))


def _without_split_labels(
    found: Dataset | DatasetDict | IterableDataset | IterableDatasetDict,
) -> Dataset | DatasetDict | IterableDataset | IterableDatasetDict:
    """Drop the labels that `datasets` makes of the names of folders, if these are splits, such as train and test."""
    if not isinstance(found, DatasetDict | IterableDatasetDict):
        return found
    label = (next(iter(found.values())).features or {}).get("label")
    is_of_splits = isinstance(label, datasets.ClassLabel) and all(_SPLIT_WORDS & _words(name) for name in label.names)
    return found.remove_columns("label") if is_of_splits else found


def _streamed(dataset: Dataset) -> IterableDataset:
    streamed = dataset.to_iterable_dataset(num_shards=min(_SAVED_SHARDS, len(dataset)))
    streamed.info.splits = None
    return streamed


def _open_world(source: str, split: str | None, num_proc: int | None) -> Dataset:
    from hf_msae.clipart import load_clipart
    from hf_msae.scenes import load_scenes

    world, own_split, *numbers = source.split(":")
    if world == "scenes" and (len(numbers) not in (1, 2) or not all(number.isdigit() for number in numbers)):
        raise ValueError(f"{source!r} is not scenes:SPLIT:N or scenes:SPLIT:N:SEED, such as scenes:train:20000")
    if split not in (None, own_split):
        raise ValueError(f"{source!r} already names the split {own_split!r}: leave out {split!r}")
    if world == "clipart":
        return load_clipart(":".join([own_split, *numbers]))
    return load_scenes(own_split, *map(int, numbers), num_proc=num_proc)
