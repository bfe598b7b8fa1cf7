"""Spectra of soils, plants and buildings from earthlib: surfaces of fields, and classes that are sources."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from .checks import check_wavelengths
from .mean_spectrum import patches_of_spectra
from .patches import HYPERVIEW_WAVELENGTHS, UNITS, Patches, interpolation

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
