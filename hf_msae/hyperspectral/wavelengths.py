"""Wavelengths of bands: read from files, and converted to nm where their unit is known."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .checks import PatchError

LENGTHS = {"nm": 1.0, "um": 1e3, "angstrom": 0.1, "m": 1e9}
"""Units of wavelengths, and how many nm each is."""
_SPELLINGS = {
    "nm": "nm", "nanometer": "nm", "nanometre": "nm",
    "um": "um", "µm": "um", "μm": "um", "micron": "um", "micrometer": "um", "micrometre": "um",
    "angstrom": "angstrom", "ångström": "angstrom", "å": "angstrom",
    "m": "m", "meter": "m", "metre": "m",
}  # fmt: skip
_UNKNOWN = ("", "unknown", "index")
_LEAST, _MOST = 200, 20000  # nm: of sensors of light
_ANGSTROM_FROM = 2600  # nm: sensors of reflected sunlight begin below, and visible light in angstrom does not


def in_nanometers(wavelengths: Sequence[float] | np.ndarray, unit: str | None, source: object) -> np.ndarray:
    """Return wavelengths in nm, given their unit as files write it (nm, Nanometers, um, microns, ...).

    Where the unit is unknown, numbers that can be of one unit only, such as 0.4 to 2.5, are converted with a warning.
    """
    found, word = np.asarray(wavelengths, dtype=np.float64), str(unit or "").strip().lower()
    if word not in _UNKNOWN:
        name = _SPELLINGS.get(word, _SPELLINGS.get(word.removesuffix("s")))
        if name is None:
            known = ", ".join(LENGTHS)
            raise PatchError(source, "wavelengths", f"they are in {unit}, but must be in one of {known}: convert them")
        return found * LENGTHS[name]
    if not found.size or not np.isfinite(found).all():
        return found  # which is for `check_wavelengths` to refuse
    low, high = float(found.min()), float(found.max())
    fitting = [name for name, nm in LENGTHS.items() if low * nm >= _LEAST and high * nm <= _MOST]
    span = f"{low:g} to {high:g}"
    if not fitting:
        raise PatchError(source, "wavelengths", f"{span} are no wavelengths of light in any of {', '.join(LENGTHS)}")
    if fitting[0] == "nm" and low < _ANGSTROM_FROM:
        return found
    if len(fitting) > 1:
        choices = f"{low / 10:g} to {high / 10:g} nm in angstrom, or thermal infrared in nm"
        raise PatchError(source, "wavelengths", f"{span} could be {choices}: pass wavelength_unit='angstrom' or 'nm'")
    warnings.warn(f"{source}: wavelengths: {span} are taken as {fitting[0]}, and converted to nm", stacklevel=3)
    return found * LENGTHS[fitting[0]]


def read_wavelengths(path: str | os.PathLike) -> tuple[np.ndarray, str | None]:
    """Read centers of bands: a CSV with a column wavelength, or numbers separated by commas, spaces or lines.

    Returns the numbers, and their unit as the column names it (wavelength_um, "wavelength (nm)"), None if it does not.
    """
    file = Path(path).expanduser()
    text = file.read_text(encoding="utf-8")
    try:
        if not any(letter.isalpha() for letter in text.partition("\n")[0]):
            return np.array(text.replace(",", " ").split(), dtype=float), None
        table = pd.read_csv(file)
        column = next((name for name in table if str(name).strip().lower().startswith("wavelength")), None)
        if column is None:
            raise ValueError(f"columns are {', '.join(map(str, table))}")
        numbers = table[column].to_numpy(dtype=float)
    except ValueError as error:
        raise PatchError(file, "wavelength", f"there is no such column of numbers: {error}") from error
    return numbers, re.sub(r"wavelengths?|[\s_()\[\]]", "", str(column).lower()) or None
