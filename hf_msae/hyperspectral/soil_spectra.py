"""Spectra of libraries: real soils of eight farms (LimeSoDa), and surfaces of many kinds (earthlib)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

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
    # The names are an array of objects, which numpy reads with pickle: the file is part of an installed package.
    with np.load(io.BytesIO(content), allow_pickle=True) as stored:
        return [str(name) for name in stored["dataset_columns"]], stored["dataset_data"].astype(float)


_GROUPS = {"cover": "LEVEL_2", "material": "LEVEL_3", "source": "SOURCE"}


def load_earth_library(wavelengths: Sequence[float] | np.ndarray = HYPERVIEW_WAVELENGTHS) -> Patches:
    """Load 7,261 spectra of the package earthlib as patches of one pixel: `pip install earthlib`.

    4,168 soils of the ICRAF-ISRIC world library and 1,093 further spectra were measured, and 2,000 of vegetation are
    simulated (PROSAIL). The package is under the MIT licence; under which the soils of ICRAF-ISRIC are, it does not
    say. Reflectance, every 10 nm, is interpolated linearly to the bands.

    Nearly all bare soil is of one source and all vegetation of another, so that a classifier of the cover that reads
    the source is as good as one that knows surfaces, until a source is left out.

    Args:
        wavelengths: Centers of bands in nm, within 400 and 2450.

    Returns:
        Patches with the groups cover (bare, vegetation, built, npv or burned), material and source, without targets.
        `mean_spectra / 10000` is reflectance, as `make_patches` takes it.

    Raises:
        ImportError: earthlib is not installed.
        ValueError: A band lies outside its range.
    """
    wavelengths = check_wavelengths(wavelengths)
    try:
        folder = resources.files("earthlib") / "data"
        from spectral.io import envi
    except ImportError as error:
        raise ImportError("the library of spectra comes with a package: pip install earthlib spectral") from error
    library = envi.open(str(Path(str(folder)) / "spectra.sli.hdr"))
    table = pd.read_csv(Path(str(folder)) / "spectra.csv")
    centers = np.round(np.array(library.bands.centers) * 1000, 6)  # micrometers
    means = library.spectra.astype(float) @ interpolation(centers, wavelengths).T * UNITS["reflectance"]
    ids = [str(name) for name in library.names]
    groups = {name: table[column].to_numpy(dtype=str) for name, column in _GROUPS.items()}
    return patches_of_spectra(means, wavelengths, ids, groups)
