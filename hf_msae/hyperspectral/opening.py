"""What a source of patches is: a folder, a scene, a dataset or arrays, and what it knows beside the pixels."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import find_objects

from .._utils.paths import is_saved_dataset, refuse_missing_path
from .checks import PatchError
from .ground_truth import ID_COLUMNS, as_id
from .patches import Pair, Patches
from .sources import (
    Arrays,
    DatasetRows,
    EnviCubes,
    EnviFields,
    NpzFiles,
    envi_scale_is_known,
    envi_wavelengths,
    read_envi,
)
from .wavelengths import read_wavelengths

_WAVELENGTH_FILES = ("wavelengths.csv", "wavelengths.txt", "wavelenghts.txt")  # the last as in meteors' examples
_DATASET_COLUMNS = ("data", "mask", "shape", "wavelengths")


def open_source(source: Any, fields: Any, ids: Any, split: str) -> tuple[Sequence[Pair], list[Any], dict[str, Any]]:
    """Return the patches of a source, their names for messages, and what else it knows.

    Raises:
        FileNotFoundError: There is nothing at this path.
        PatchError: It is of another kind, or fields or ids are given of what has none.
    """
    is_path = isinstance(source, str | os.PathLike)
    where = source if is_path else "patches"
    if fields is not None and not (is_path and Path(source).suffix == ".hdr"):
        raise PatchError(
            where, "fields", "they are labels in one ENVI scene (.hdr), which this is not: leave them out"
        )
    if ids is not None and (is_path or hasattr(source, "with_format")):
        raise PatchError(
            where, "ids", "files and datasets have names: ids are those of arrays; see only and leave_out"
        )
    if is_path:
        path = Path(source).expanduser()
        refuse_missing_path(source, "dataset")
        if path.is_file() and path.suffix == ".hdr":
            return _open_scene(path, fields)
        if path.is_dir() and not is_saved_dataset(path):
            return _open_folder(path)
        if path.is_file():
            raise PatchError(path, "file", "a folder of npz files or an ENVI header (.hdr) is needed")
        return _open_dataset(_load_dataset(source, split), str(source))
    if hasattr(source, "with_format"):
        return _open_dataset(source, "dataset")
    if isinstance(source, Patches):
        raise ValueError("these are Patches already")
    return _open_arrays(source, ids)


def _open_folder(path: Path) -> tuple[Sequence[Pair], list[Any], dict[str, Any]]:
    for pattern in ("*.npz", "*.hdr"):
        places = [path, *sorted(each for each in path.iterdir() if each.is_dir())]
        places += [below for each in places[1:] for below in sorted(each.iterdir()) if below.is_dir()]
        with_files = [place for place in places if any(place.glob(pattern))]
        if len(with_files) > 1 and with_files[0] != path:
            choices = ", ".join(str(place) for place in with_files)
            raise PatchError(path, "folder", f"several folders have patches, choose one of {choices}")
        if with_files:
            break
    else:
        raise FileNotFoundError(f"there are no npz files and no ENVI headers in {path} or in the folders below")
    folder = with_files[0]
    beside = [folder, *folder.parents[:2]]
    files = sorted(folder.glob(pattern), key=lambda file: (not file.stem.isdecimal(), file.stem.zfill(20)))
    found: dict[str, Any] = {"where": folder}
    if pattern == "*.hdr":
        files = [file for file in files if not file.stem.endswith("_mask")]
        found["wavelengths"], found["wavelength_unit"] = _same_envi_wavelengths(files)
        found["wavelength_file"] = files[0]
        if all(envi_scale_is_known(file) for file in files):
            found["unit"] = "reflectance"
    found["ids"] = [as_id(file.stem) for file in files]
    if found.get("wavelengths") is None:
        file = next((place / name for place in beside for name in _WAVELENGTH_FILES if (place / name).is_file()), None)
        if file is not None:
            found["wavelengths"], found["wavelength_unit"] = read_wavelengths(file)
            found["wavelength_file"] = file
    found["table"] = next((table for place in beside for table in sorted(place.glob("*_gt.csv"))), None)
    last, above = folder.name.lower(), folder.parent.name.lower()
    of_test = last.startswith("test") or (above.startswith("test") and not last.startswith("train"))
    if of_test and found["table"] is not None and found["table"].name.startswith("train"):
        found["table"] = None
    elif not of_test and (truth := folder.parent / "truth.json").is_file():
        found["truth"] = json.loads(truth.read_text(encoding="utf-8"))
    return (NpzFiles(files) if pattern == "*.npz" else EnviCubes(files)), files, found


def _same_envi_wavelengths(files: Sequence[Path]) -> tuple[list[float] | None, str | None]:
    first, unit = envi_wavelengths(files[0])
    for file in files[1:]:
        other, its_unit = envi_wavelengths(file)
        if (first is None) != (other is None) or unit != its_unit or (first and not _close(first, other)):
            raise PatchError(file, "wavelength", f"the bands, or their unit, differ from those of {files[0]}")
    return first, unit


def _close(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and bool(np.allclose(a, b, rtol=2e-4, atol=0))


def _open_scene(path: Path, fields: Any) -> tuple[Sequence[Pair], list[Any], dict[str, Any]]:
    if fields is None:
        raise PatchError(path, "fields", "a scene needs labels of its fields: an array (h, w), .npy or .hdr")
    if isinstance(fields, str | os.PathLike):
        file = Path(fields).expanduser()
        fields = np.load(file, allow_pickle=False) if file.suffix == ".npy" else read_envi(file)[0][0]
    raster = np.asarray(fields)
    header = read_envi(path, (slice(0, 1), slice(0, 1)))[1]
    if raster.shape != (size := (int(header["lines"]), int(header["samples"]))):
        raise PatchError(path, "fields", f"its shape is {raster.shape}, but the scene's is {size}")
    raster = raster.astype(np.int64)
    labels, places = np.unique(raster, return_inverse=True)
    first = np.searchsorted(labels, 1)  # as find_objects goes through all numbers up to the largest, give it ranks
    ranks = np.maximum(places.reshape(raster.shape) - first + 1, 0)
    boxes = dict(zip(labels[first:].tolist(), find_objects(ranks), strict=True))
    if not boxes:
        raise PatchError(path, "fields", "no pixel has a label above 0")
    found = {"where": path, "ids": [str(label) for label in boxes], "wavelength_file": path, "mask_means": "outside"}
    found["wavelengths"], found["wavelength_unit"] = envi_wavelengths(path)
    if envi_scale_is_known(path):
        found["unit"] = "reflectance"
    names = [f"{path}, field {label}" for label in boxes]
    return EnviFields(path, raster, list(boxes), list(boxes.values())), names, found


def _load_dataset(source: Any, split: str) -> Any:
    from ..backbones.image_text_data import open_splits  # here, since datasets takes a second

    found = open_splits(str(source))
    if isinstance(found, dict):
        if split not in found:
            raise ValueError(f"{source} has no split {split!r}; its splits are {', '.join(found)}")
        return found[split]
    return found


def _open_dataset(dataset: Any, where: str) -> tuple[Sequence[Pair], list[Any], dict[str, Any]]:
    import datasets  # here, since it takes a second

    if "data" not in dataset.column_names:
        raise PatchError(where, "data", f"there is no such column; columns are {', '.join(dataset.column_names)}")
    column = next((name for name in ID_COLUMNS if name in dataset.column_names), None)
    names = list(dataset[column]) if column else list(range(len(dataset)))
    found: dict[str, Any] = {"where": where, "ids": [as_id(name) for name in names]}
    if "wavelengths" in dataset.column_names:
        bands = dataset["wavelengths"]
        found["wavelengths"] = bands[0]
        for name, other in zip(names, bands, strict=True):
            if not _close(bands[0], other):
                raise PatchError(f"patch {name}", "wavelengths", "the bands differ from those of the first patch")
    others = dataset.select_columns([name for name in dataset.column_names if name not in _DATASET_COLUMNS])
    table = others.to_pandas()
    values = (datasets.Value, datasets.ClassLabel)  # others are lists, pictures and the like
    simple = [name for name in table if name == column or isinstance(others.features[name], values)]
    for name in simple:
        if isinstance(feature := others.features[name], datasets.ClassLabel):  # groups go by their names
            table[name] = [None if pd.isna(each) or each < 0 else feature.names[int(each)] for each in table[name]]
    if len(set(simple) - {column}):
        # Without names, the rows are those of the patches, whatever a column looks like.
        found["table"] = table[simple] if column else table[simple].assign(**{ID_COLUMNS[0]: names})
    return DatasetRows(dataset, [f"patch {name}" for name in names]), [f"patch {name}" for name in names], found


def _open_arrays(source: Any, ids: Any) -> tuple[Sequence[Pair], list[Any], dict[str, Any]]:
    items = list(source)
    if not items:
        raise PatchError("arrays", "data", "there are no patches")
    if ids is not None and len(ids) != len(items):
        raise PatchError("arrays", "ids", f"there are {len(ids)} names for {len(items)} patches")
    numbers = [as_id(each) for each in (range(len(items)) if ids is None else ids)]
    names = [f"patch {each}" for each in numbers]
    masks = None
    if isinstance(items[0], tuple | list) and len(items[0]) == 2 and np.ndim(items[0][0]) == 3:
        items, masks = [item[0] for item in items], [item[1] for item in items]
    return Arrays(items, masks, names), names, {"where": "arrays", "ids": numbers}
