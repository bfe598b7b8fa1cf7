"""Patches of fields: a cube of bands, a mask and what was measured in the soil, one patch at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pandas as pd

from .._utils.atomic import atomic_path, make_folder
from .._utils.json_files import write_json

if TYPE_CHECKING:
    from datasets import Dataset

Pair = tuple[np.ndarray, np.ndarray]
"""A cube (bands, h, w) and its mask (h, w), which is True outside the field."""

HYPERVIEW_WAVELENGTHS = np.linspace(462.08, 938.37, 150)
"""Centers of the 150 bands of the HYPERVIEW challenge, in nm."""
HYPERVIEW_WAVELENGTHS.flags.writeable = False
TARGETS = {
    "P": (20.3, 325.0),
    "K": (21.1, 625.0),
    "Mg": (26.8, 400.0),
    "pH": (5.6, 7.8),
}
"""The targets of the HYPERVIEW challenge and their published ranges: P (as P2O5), K and Mg in mg/kg, and pH."""
HYPERVIEW2_TARGETS = ("B", "Cu", "Zn", "Fe", "S", "Mn")
"""The targets of HYPERVIEW2, in mg/kg."""
EDGE_BINS = (0, 11, 40, 50, 100, 110, 120, 130, np.inf)
"""Ends of the classes of field sizes in the report of the challenge's winners: mean edges in pixels."""
UNITS = {"digital_numbers": 1.0, "percent": 100.0, "reflectance": 10000.0}
"""What values may be given in, and what they are multiplied by: patches hold digital numbers, reflectance * 10,000."""


@dataclass(frozen=True, eq=False, repr=False)
class Patches(Sequence):
    """Patches of fields, which are read when they are asked for.

    It is a sequence of (data, mask): data (bands, h, w) in digital numbers (reflectance * 10,000, as in the HYPERVIEW
    challenge), and mask (h, w), True outside the field. `load_patches` and `make_patches` make it. A slice, or an
    array of positions or truth values, chooses patches: `patches[:10]`, `patches[rows]`.

    Attributes:
        pairs: The patches as they are stored.
        wavelengths: Centers of the bands in nm.
        ids: One name per patch.
        sizes: One row per patch: height, width and pixels (in the field).
        known_spectra: `mean_spectra`, if they are known already.
        targets: What was measured, one row per patch; None if unknown.
        groups: Label of each patch by name: farm, date, instrument, ... (text, or numbers that were measured).
        scale: What stored values are multiplied by.
        truth: What is known of synthetic patches: `make_patches` says what it holds. None for others.
        dropped: Ids of the invalid ones that `load_patches` left out.
    """

    pairs: Sequence[Pair]
    wavelengths: np.ndarray
    ids: list[str]
    sizes: pd.DataFrame
    known_spectra: np.ndarray | None = None
    targets: pd.DataFrame | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    scale: float = 1.0
    truth: dict[str, Any] | None = None
    dropped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        bands = f"{len(self.wavelengths)} bands of {self.wavelengths[0]:.0f} to {self.wavelengths[-1]:.0f} nm"
        targets = "no targets" if self.targets is None else f"targets {', '.join(self.targets)}"
        return f"Patches({len(self)} fields, {bands}, {targets}, groups {', '.join(self.groups) or 'none'})"

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice | Sequence | np.ndarray) -> Patches: ...
    def __getitem__(self, index):
        if isinstance(index, int | np.integer):
            data, mask = self.pairs[range(len(self))[index]]
            data = data if np.issubdtype(data.dtype, np.floating) else data.astype(np.float32)
            return (data if self.scale == 1 else data * data.dtype.type(self.scale)), mask
        rows = np.arange(len(self))[index]
        spectra = self.__dict__.get("mean_spectra", self.known_spectra)
        return replace(
            self,
            pairs=Chosen(self.pairs, rows),
            ids=[self.ids[row] for row in rows],
            sizes=self.sizes.iloc[rows].reset_index(drop=True),
            known_spectra=None if spectra is None else spectra[rows],
            targets=None if self.targets is None else self.targets.iloc[rows].reset_index(drop=True),
            groups={name: np.asarray(labels)[rows] for name, labels in self.groups.items()},
            truth=None if self.truth is None else chosen_truth(self.truth, rows),
        )

    def __iter__(self) -> Iterator[Pair]:
        return (self[row] for row in range(len(self)))

    @cached_property
    def mean_spectra(self) -> np.ndarray:
        """Mean over the field (n, bands), in digital numbers; all patches are read if it is not known yet."""
        if self.known_spectra is not None:
            return self.known_spectra
        return np.array([data[:, ~mask].mean(axis=1, dtype=float) for data, mask in self])

    @property
    def edges(self) -> np.ndarray:
        """Mean of height and width of each patch in pixels."""
        return self.sizes[["height", "width"]].mean(axis=1).to_numpy()

    @property
    def size_classes(self) -> np.ndarray:
        """Class of each patch's mean edge, as in the report of the challenge's winners: "0-11", ..., "130+"."""
        return np.asarray(size_classes(self.edges)).astype(str)

    def resample(self, wavelengths: np.ndarray = HYPERVIEW_WAVELENGTHS) -> Patches:
        """Interpolate linearly to other bands.

        Args:
            wavelengths: Centers of the new bands in nm; within those of the patches.

        Raises:
            ValueError: A new band lies outside.
        """
        wavelengths = np.asarray(wavelengths, dtype=float)
        weights = interpolation(self.wavelengths, wavelengths)
        spectra = self.__dict__.get("mean_spectra", self.known_spectra)
        return replace(
            self,
            pairs=Resampled(self.pairs, weights),
            wavelengths=wavelengths,
            known_spectra=None if spectra is None else spectra @ weights.T,
        )

    def save(self, folder: str | os.PathLike) -> None:
        """Write the layout of the challenge, which `load_patches` reads.

        The folder gets train_data/ID.npz with data and mask, both (bands, h, w), wavelengths.csv, train_gt.csv if
        anything but the pixels is known (targets, then groups), and truth.json if there is a truth.

        Raises:
            FileExistsError: The folder already has patches.
            ValueError: An id cannot be the name of a file.
        """
        if odd := [name for name in self.ids if not name or Path(name).name != name]:
            raise ValueError(
                f"patch {odd[0]!r} cannot be saved as the file {odd[0]}.npz: give other ids, or use to_dataset()"
            )
        folder = Path(folder).expanduser()
        files = folder / "train_data"
        if files.is_dir() and any(files.glob("*.npz")):
            raise FileExistsError(f"{files} already has patches: choose another folder")
        make_folder(files)
        for name, (data, mask) in zip(self.ids, self, strict=True):
            rounded = np.rint(data)
            if np.array_equal(rounded, data) and np.abs(data).max() < 2**15:
                data = rounded.astype(np.int16)
            with atomic_path(files / f"{name}.npz") as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, data=data, mask=np.broadcast_to(mask, data.shape))
        bands = pd.DataFrame({"band_no": np.arange(1, len(self.wavelengths) + 1), "wavelength": self.wavelengths})
        _write_csv(folder / "wavelengths.csv", bands)
        if self.targets is not None or self.groups:
            table = pd.DataFrame({"sample_index": self.ids})
            known = [] if self.targets is None else [self.targets.reset_index(drop=True)]
            _write_csv(folder / "train_gt.csv", pd.concat([table, *known, pd.DataFrame(dict(self.groups))], axis=1))
        if self.truth is not None:
            write_json(folder / "truth.json", json.loads(json.dumps(self.truth, default=_as_list)))

    def to_dataset(self) -> Dataset:
        """Return a Hugging Face dataset in memory, which `load_patches` reads, one row per patch.

        Columns are sample_index, data and mask (flat), shape, wavelengths, the targets and the groups.
        """
        import datasets

        def rows() -> Iterator[dict[str, Any]]:
            for row, (data, mask) in enumerate(self):
                known = {} if self.targets is None else self.targets.iloc[row].to_dict()
                yield {
                    "sample_index": self.ids[row],
                    "data": data.astype(np.float32).ravel(),
                    "mask": mask.ravel(),
                    "shape": list(data.shape),
                    "wavelengths": self.wavelengths,
                    **known,
                    **{
                        name: (float if name in measured else str)(labels[row]) for name, labels in self.groups.items()
                    },
                }

        measured = [name for name, labels in self.groups.items() if np.asarray(labels).dtype.kind == "f"]
        numbers = [*([] if self.targets is None else self.targets), *measured]
        features = datasets.Features(
            {
                "sample_index": datasets.Value("string"),
                "data": datasets.List(datasets.Value("float32")),
                "mask": datasets.List(datasets.Value("bool")),
                "shape": datasets.List(datasets.Value("int32")),
                "wavelengths": datasets.List(datasets.Value("float64")),
                **{name: datasets.Value("string") for name in self.groups},
                **{name: datasets.Value("float64") for name in numbers},
            }
        )
        return datasets.Dataset.from_list(list(rows()), features=features)


def size_classes(edges: np.ndarray) -> pd.Categorical:
    """Return the class of each mean edge, in the order of `EDGE_BINS`."""
    labels = [f"{low}-{high}" if np.isfinite(high) else f"{low}+" for low, high in pairwise(EDGE_BINS)]
    return pd.cut(edges, EDGE_BINS, labels=labels)


def interpolation(wavelengths: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the matrix (new bands, bands) of linear interpolation."""
    if new.min() < wavelengths[0] - 1e-6 or new.max() > wavelengths[-1] + 1e-6:
        raise ValueError(
            f"bands from {new.min():g} to {new.max():g} nm cannot be interpolated from bands between "
            f"{wavelengths[0]:g} and {wavelengths[-1]:g} nm"
        )
    right = np.clip(np.searchsorted(wavelengths, new), 1, len(wavelengths) - 1)
    share = np.clip((new - wavelengths[right - 1]) / (wavelengths[right] - wavelengths[right - 1]), 0, 1)
    weights = np.zeros((len(new), len(wavelengths)))
    rows = np.arange(len(new))
    weights[rows, right - 1] = 1 - share
    weights[rows, right] += share
    return weights


class TakesPatches:
    """What scikit-learn has to know of an estimator whose X are patches; the first of its base classes."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.no_validation = True
        tags.target_tags.multi_output = tags.regressor_tags is not None
        return tags


@dataclass(frozen=True)
class Chosen(Sequence):
    """Some patches of others."""

    pairs: Sequence[Pair]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[int(self.rows[index])]


@dataclass(frozen=True)
class Resampled(Sequence):
    """Patches whose bands are mixed."""

    pairs: Sequence[Pair]
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        data, mask = self.pairs[index]
        return np.tensordot(self.weights, data, axes=1), mask


def chosen_truth(truth: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Return the truth of some patches: only what is there once per patch is chosen from."""
    of_patches = set(truth.get("per_patch", ()))
    return {key: np.asarray(value)[rows] if key in of_patches else value for key, value in truth.items()}


def _as_list(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written to truth.json")


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
