"""Real soils of eight farms: visible and near-infrared spectra of LimeSoDa, resampled to given bands."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import resources

import numpy as np
import pandas as pd

from .checks import check_wavelengths
from .mean_spectrum import patches_of_spectra
from .patches import HYPERVIEW_WAVELENGTHS, UNITS, Patches, interpolation

SOIL_SETS = ("CV.98", "SL.125", "UL.120", "SSP.460", "SP.231", "SC.93", "MG.44", "SSP.58")
"""Sets of LimeSoDa with spectra of 462 to 938 nm: one farm each, the number of samples in the name."""
_CLAY_IN_G_PER_KG = ("MG.44", "SSP.58")


def load_soil_spectra(
    sets: Sequence[str] = SOIL_SETS, wavelengths: Sequence[float] | np.ndarray = HYPERVIEW_WAVELENGTHS
) -> Patches:
    """Load real soil spectra, measured in laboratories or on the go, as patches of one pixel.

    They come with the package limesoda (Schmidinger et al., LimeSoDa; CC BY-SA 4.0): `pip install "hf_msae[soil]"`.
    The farms are in Brazil, Japan, Sweden and Switzerland. Reflectance is interpolated linearly to the bands. Clay is
    converted to %; how pH was measured differs between farms, and that is part of what a model can read off the farm.

    Args:
        sets: Names of sets.
        wavelengths: Centers of bands in nm.

    Returns:
        Patches with targets pH and Clay (%), and the group farm. `MeanSpectrum` makes (n, bands) of them.

    Raises:
        ImportError: limesoda is not installed.
        ValueError: There is no such set, or a band lies outside its range.
    """
    wavelengths = check_wavelengths(wavelengths)
    if unknown := [name for name in sets if name not in SOIL_SETS]:
        raise ValueError(f"there is no set {unknown[0]!r} of soil spectra; there are {', '.join(SOIL_SETS)}")
    try:
        folder = resources.files("LimeSoDa") / "data"
    except ImportError as error:
        raise ImportError('soil spectra come with a package: pip install "hf_msae[soil]"') from error
    spectra, targets, farms, ids = [], [], [], []
    for name in sets:
        columns, values = _read((folder / f"{name}.npz").read_bytes())
        bands = [column for column in columns if column.startswith("wl_")]
        centers = np.array([float(column.removeprefix("wl_")) for column in bands])
        order = np.argsort(centers)
        reflectance = values[:, [columns.index(bands[place]) for place in order]]
        spectra.append(reflectance @ interpolation(centers[order], wavelengths).T * UNITS["percent"])
        known = pd.DataFrame({key: values[:, columns.index(f"{key}_target")] for key in ("pH", "Clay")})
        known["Clay"] /= 10 if name in _CLAY_IN_G_PER_KG else 1
        targets.append(known)
        farms += [name] * len(values)
        ids += [f"{name}-{row}" for row in range(len(values))]
    known = pd.concat(targets, ignore_index=True)
    return patches_of_spectra(np.concatenate(spectra), wavelengths, ids, {"farm": np.array(farms)}, known)


def _read(content: bytes) -> tuple[list[str], np.ndarray]:
    """Return the names of columns and the numbers (n, columns) of a set."""
    # The names are an array of objects, which numpy reads with pickle: the file is part of an installed package.
    with np.load(io.BytesIO(content), allow_pickle=True) as stored:
        return [str(name) for name in stored["dataset_columns"]], stored["dataset_data"].astype(float)
