"""What may happen to a spectrum or a patch between two instruments, two days or two fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt

from ..patches import Pair

SMALLEST = 5
"""Edge of the smallest crop in pixels: features of images need a few, and a field of less is none."""
HAZY = 462.0
"""Wavelength in nm, the first of the HYPERVIEW challenge, at which the share of light that is haze is stated."""
_ANGSTROM = 1.3
Spectral = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Attack:
    """A perturbation of spectra (bands, ...) or of a patch, with the strengths that it is tried at, in `unit`.

    `allowed` is the strength that a model has to survive.
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    allowed: float
    spectral: Spectral | None = None
    spatial: Callable[[Pair, float, np.random.Generator], Pair] | None = None


def noise(spectra: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add independent normal noise, relative to the mean of the spectrum."""
    return spectra + strength * _level(spectra) * rng.normal(size=spectra.shape)


def gain(spectra: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply the spectrum by 1 + strength or 1 - strength."""
    return spectra * (1 + strength * rng.choice((-1, 1)))


def offset(spectra: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add a constant, up or down, relative to the mean of the spectrum."""
    return spectra + strength * _level(spectra) * rng.choice((-1, 1))


def tilt(spectra: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply by a line that runs from 1 - strength at one end of the spectrum to 1 + strength at the other."""
    line = np.linspace(-1, 1, len(spectra)) * strength * rng.choice((-1, 1))
    return spectra * (1 + line).reshape(-1, *[1] * (spectra.ndim - 1))


def shift(spectra: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Move the spectrum by a number of bands, up or down, by linear interpolation."""
    return shifted(spectra, strength * rng.choice((-1, 1)))


def shifted(spectra: np.ndarray, bands: float) -> np.ndarray:
    """Move spectra (bands, ...) by a number of bands; ends are repeated."""
    places = np.clip(np.arange(len(spectra)) - bands, 0, len(spectra) - 1)
    below = np.minimum(places.astype(np.int64), len(spectra) - 2) if len(spectra) > 1 else places.astype(np.int64)
    above = np.minimum(below + 1, len(spectra) - 1)
    weight = (places - below).reshape(-1, *[1] * (spectra.ndim - 1))
    return (1 - weight) * spectra[below] + weight * spectra[above]


def dropout(spectra: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Lose a number of bands, which are filled in from their neighbors."""
    lost = np.sort(rng.permutation(len(spectra))[: round(strength)])
    kept = np.setdiff1d(np.arange(len(spectra)), lost)
    if not len(kept) or not len(lost):
        return spectra
    right = np.clip(np.searchsorted(kept, lost), 0, len(kept) - 1)
    left = np.maximum(np.searchsorted(kept, lost) - 1, 0)
    gap = np.maximum(kept[right] - kept[left], 1)
    weight = np.clip((lost - kept[left]) / gap, 0, 1).reshape(-1, *[1] * (spectra.ndim - 1))
    filled = spectra.copy()
    filled[lost] = (1 - weight) * spectra[kept[left]] + weight * spectra[kept[right]]
    return filled


def haze(spectra: np.ndarray, strength: float, rng: np.random.Generator, *, wavelengths: np.ndarray) -> np.ndarray:
    """Put scattered light, of the mean level of the spectrum, in the place of a share of each band's light.

        share = strength (wavelength / 462 nm)^-1.3

    The exponent is that of Angstrom's law for usual aerosols. The strength is that at `HAZY` for all sensors, also for
    those that do not see this wavelength: the same air then takes a smaller share of the light of an infrared camera.
    """
    share = hazy_share(strength, wavelengths).reshape(-1, *[1] * (spectra.ndim - 1))
    return (1 - share) * spectra + share * _level(spectra)


def hazy_share(strength: float, wavelengths: np.ndarray) -> np.ndarray:
    """Return the share of the light that is haze at each wavelength in nm, 1 at most."""
    return np.minimum(1.0, strength * (np.asarray(wavelengths, dtype=np.float64) / HAZY) ** -_ANGSTROM)


def erode(patch: Pair, strength: float, rng: np.random.Generator) -> Pair:
    """Lose a number of pixels along the edge of the field; a field that would vanish keeps its innermost pixels."""
    data, mask = patch
    outside = binary_dilation(np.pad(mask, 1, constant_values=True), iterations=round(strength))[1:-1, 1:-1]
    if outside.all():
        depth = distance_transform_edt(~np.pad(mask, 1, constant_values=True))[1:-1, 1:-1]
        outside = depth < depth.max()
    return data, outside


def crop(patch: Pair, strength: float, rng: np.random.Generator) -> Pair:
    """Lose a share of height and width; of ten random windows, the one with the largest part of the field is kept.

    A window has 5x5 pixels at least, or the whole of a smaller patch.
    """
    data, mask = patch
    height, width = (max(SMALLEST, round(size * (1 - strength))) for size in mask.shape)
    height, width = min(height, mask.shape[0]), min(width, mask.shape[1])
    best: tuple[int, int, int] | None = None
    for _ in range(10):
        top = int(rng.integers(mask.shape[0] - height + 1))
        left = int(rng.integers(mask.shape[1] - width + 1))
        inside = int((~mask[top : top + height, left : left + width]).sum())
        if best is None or inside > best[0]:
            best = (inside, top, left)
    inside, top, left = best
    if not inside:
        return patch
    window = (slice(top, top + height), slice(left, left + width))
    return data[(slice(None), *window)], mask[window]


NO_HAZE = (
    "Haze is not defined: how much of it a band sees depends on its wavelength, and the bands have none. Pass the "
    "wavelengths with the patches, or in the feature table."
)
"""Why one attack is missing."""


def about_haze(wavelengths: np.ndarray | None) -> str:
    """Return the remark on what haze is for this sensor, or why there is none."""
    if wavelengths is None:
        return NO_HAZE
    first, last = hazy_share(_HAZE[1], wavelengths)[[0, -1]]
    return (
        f"Haze is stated at {HAZY:.0f} nm, and its share of the light falls with wavelength to the power "
        f"-{_ANGSTROM}: what a model has to survive, {_HAZE[1]:.0%} there, is {first:.1%} of the light in the first "
        f"band ({wavelengths[0]:.0f} nm) and {last:.1%} in the last ({wavelengths[-1]:.0f} nm)."
    )


_HAZE = (0.01, 0.02, 0.05, 0.1, 0.2)


def spectral_attacks(wavelengths: np.ndarray | None, of_pixels: bool = False) -> tuple[Attack, ...]:
    """Return what may happen to spectra, or with `of_pixels` to those of pixels, each of which has noise of its own.

    Haze is left out where wavelengths are unknown.
    """
    unit = "share of the mean, in each pixel" if of_pixels else "share of the mean reflectance"
    found = (
        Attack("noise", unit, (0.0025, 0.005, 0.01, 0.02, 0.05), 0.005, noise),
        Attack("gain", "relative change", (0.01, 0.02, 0.05, 0.1, 0.2), 0.02, gain),
        Attack("offset", "share of the mean reflectance", (0.005, 0.01, 0.02, 0.05, 0.1), 0.01, offset),
        Attack("tilt", "relative change at the ends", (0.01, 0.02, 0.05, 0.1, 0.2), 0.02, tilt),
        Attack("shift", unit_of_bands(wavelengths), (0.25, 0.5, 1.0, 2.0, 4.0), 0.5, shift),
        Attack("band dropout", "bands", (1, 2, 5, 10, 20), 1, dropout),
    )
    if wavelengths is None:
        return found
    hazy = partial(haze, wavelengths=wavelengths)
    return (*found, Attack("haze", f"share of the light at {HAZY:.0f} nm", _HAZE, _HAZE[1], hazy))


def unit_of_bands(wavelengths: np.ndarray | None) -> str:
    """Return what a number of bands is counted in, with the distance between bands in nm if it is known."""
    if wavelengths is None:
        return "bands"
    steps = np.diff(wavelengths)
    first, last = np.round((steps.min(), steps.max()), 1)
    return f"bands of {first:g} nm" if first == last else f"bands of {first:g} to {last:g} nm"


SPATIAL = (
    Attack("erosion", "pixels", (1, 2, 3, 5), 1, spatial=erode),
    Attack("crop", "share of height and width", (0.1, 0.25, 0.5, 0.75), 0.25, spatial=crop),
)

DRIFT = {"gain": 0.02, "offset": 0.01, "tilt": 0.02, "shift": 0.5}
"""The largest drift of an instrument that the worst case is searched in, as strengths of these attacks."""


def drifted(spectra: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """Apply gain, offset, tilt and shift (in the order of `DRIFT`) to spectra (bands, ...)."""
    by, added, tilted, moved = drift
    line = (1 + by + tilted * np.linspace(-1, 1, len(spectra))).reshape(-1, *[1] * (spectra.ndim - 1))
    return shifted(spectra, moved) * line + added * _level(spectra)


def _level(spectra: np.ndarray) -> np.ndarray:
    return np.abs(spectra).mean(axis=0, keepdims=True) if spectra.ndim < 3 else np.abs(spectra).mean()
