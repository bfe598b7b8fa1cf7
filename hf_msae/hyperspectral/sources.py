"""Where patches are read from, each when it is asked for: npz files, ENVI cubes, fields of a scene, dataset rows."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, is_zipfile

import numpy as np

from .checks import PatchError, as_mask
from .patches import Pair

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class NpzFiles(Sequence):
    """Files of the challenge: each has data (bands, h, w) and mask, (bands, h, w) or (h, w)."""

    files: Sequence[Path]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Pair:
        file = self.files[index]
        try:
            with np.load(file, allow_pickle=False) as content:
                for key in ("data", "mask"):
                    if key not in content:
                        raise PatchError(file, key, f"it is missing; the file has {', '.join(content) or 'nothing'}")
                data, mask = content["data"], content["mask"]
        except PatchError:
            raise
        except (BadZipFile, OSError, ValueError, TypeError, EOFError, zlib.error) as error:
            problem = "it is damaged, or no npz file"  # where numpy's message is about pickles, or about `with`
            if isinstance(error, OSError):
                problem = f"it cannot be read: {error}"
            elif isinstance(error, ValueError) and is_zipfile(file):
                problem = "it is damaged, or holds objects instead of numbers"
            raise PatchError(file, "file", problem) from error
        return _cube(data, file), as_mask(mask, data.shape, file)


@dataclass(frozen=True)
class Arrays(Sequence):
    """Patches in memory: cubes (bands, h, w), with masks or without; what a masked array masks is outside, too."""

    cubes: Sequence[np.ndarray]
    masks: Sequence[np.ndarray] | None
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.cubes)

    def __getitem__(self, index: int) -> Pair:
        cube, name = self.cubes[index], self.names[index]
        data = _cube(np.asarray(cube), name)
        # Masked arrays are what the challenge's own example and readers of rasters make: asarray drops the mask.
        mask = as_mask(np.ma.getmaskarray(cube), data.shape, name) if isinstance(cube, np.ma.MaskedArray) else False
        given = np.zeros(data.shape[1:], bool) if self.masks is None else as_mask(self.masks[index], data.shape, name)
        return data, given | mask


@dataclass(frozen=True)
class DatasetRows(Sequence):
    """Rows of a Hugging Face dataset: data and mask as nested lists or arrays, or flat with a column shape."""

    dataset: Dataset
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Pair:
        row = self.dataset.with_format("numpy")[index]
        shape = tuple(int(size) for size in row["shape"]) if "shape" in row else None
        data = np.asarray(row["data"])
        if shape is not None and data.ndim == 1:
            if data.size != np.prod(shape):
                raise PatchError(self.names[index], "data", f"{data.size} values do not fill the shape {shape}")
            data = data.reshape(shape)
        data = _cube(data, self.names[index])
        if "mask" not in row:
            return data, np.zeros(data.shape[1:], dtype=bool)
        mask = np.asarray(row["mask"])
        if mask.ndim == 1 and mask.size in (data.size, data[0].size):
            mask = mask.reshape(data.shape if mask.size == data.size else data.shape[1:])
        return data, as_mask(mask, data.shape, self.names[index])


@dataclass(frozen=True)
class EnviCubes(Sequence):
    """One ENVI cube per patch; outside is where all bands have the data ignore value, or where NAME_mask is 1."""

    files: Sequence[Path]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Pair:
        file = self.files[index]
        data, header = read_envi(file)
        mask = _ignored(data, header)
        with_mask = file.with_name(f"{file.stem}_mask.hdr")
        if with_mask.is_file():
            mask = mask | as_mask(read_envi(with_mask)[0][0], data.shape, with_mask)
        return data, mask


@dataclass(frozen=True)
class EnviFields(Sequence):
    """Fields of one ENVI scene, each cut out with its label in a raster of fields.

    Outside is where another label is, or all bands have the data ignore value.
    """

    file: Path
    raster: np.ndarray
    labels: Sequence[int]
    boxes: Sequence[tuple[slice, slice]]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Pair:
        box = self.boxes[index]
        data, header = read_envi(self.file, box)
        return data, (self.raster[box] != self.labels[index]) | _ignored(data, header)


def read_envi(file: Path, box: tuple[slice, slice] = (slice(None), slice(None))) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a part of an ENVI cube (bands, h, w), and its header.

    Bands that the header's bbl calls bad are left out. Values are divided by its reflectance scale factor.
    """
    image = _open_envi(file)
    cube = image.open_memmap(interleave="bip")
    if cube is None:
        raise PatchError(file, "file", "its pixels cannot be mapped; write it uncompressed")
    data = np.moveaxis(np.array(cube[box]), -1, 0)[good_bands(image.metadata, file)]
    return (data if image.scale_factor == 1 else data / image.scale_factor), image.metadata


def _ignored(data: np.ndarray, header: dict[str, Any]) -> np.ndarray:
    """Return where all bands of an ENVI cube have the data ignore value of its header, bool (h, w)."""
    ignored = header.get("data ignore value")
    if ignored is None:
        return np.zeros(data.shape[1:], dtype=bool)
    if np.isnan(float(ignored)):
        return np.isnan(data).all(axis=0)
    try:
        value = data.dtype.type(float(ignored))
    except OverflowError:  # no pixel has what the type cannot hold, such as -9999 of unsigned numbers
        return np.zeros(data.shape[1:], dtype=bool)
    if "reflectance scale factor" in header:  # which the data was divided by, and the value was not
        value /= float(header["reflectance scale factor"])
    return (data == value).all(axis=0)


def envi_wavelengths(file: Path) -> tuple[list[float] | None, str | None]:
    """Return the wavelengths of an ENVI header without its bad bands, None if it has none, and the unit it names."""
    header = _open_envi(file).metadata
    if "wavelength" not in header:
        return None, None
    found = np.array([float(value) for value in header["wavelength"]])[good_bands(header, file)]
    return list(found), header.get("wavelength units")


def good_bands(header: dict[str, Any], file: Path) -> np.ndarray:
    """Return the positions of the bands that an ENVI header does not call bad."""
    bands = int(header["bands"])
    bbl = header.get("bbl")
    if bbl is None:
        return np.arange(bands)
    if len(bbl) != bands:
        raise PatchError(file, "bbl", f"it has {len(bbl)} values for {bands} bands")
    return np.flatnonzero([float(value) != 0 for value in bbl])


def envi_scale_is_known(file: Path) -> bool:
    """Say whether an ENVI header has a reflectance scale factor, so that values become reflectance from 0 to 1."""
    return "reflectance scale factor" in _open_envi(file).metadata


def _open_envi(file: Path) -> Any:
    try:
        from spectral.io import envi
    except ImportError as error:
        raise ImportError('ENVI cubes need a package: pip install "hf_msae[hyperspectral]"') from error
    try:
        return envi.open(str(file))
    except (envi.EnviException, OSError, ValueError, KeyError) as error:
        raise PatchError(file, "header", str(error) or type(error).__name__) from error


def _cube(data: np.ndarray, name: object) -> np.ndarray:
    if data.ndim != 3 or not (np.issubdtype(data.dtype, np.number) and not np.iscomplexobj(data)):
        raise PatchError(name, "data", f"numbers (bands, h, w) are needed, but it has {data.shape} of {data.dtype}")
    if 0 in data.shape:
        raise PatchError(name, "data", f"its shape is {data.shape}: it has no pixels")
    return data
