"""What soils, plants and sensors do to light between 400 and 1000 nm, in simple published shapes.

Soils brighten towards the infrared (Stoner and Baumgardner 1981, Characteristic variations in reflectance of surface
soils); organic matter darkens the visible more than the infrared; water darkens everything exponentially (Lobell and
Asner 2002, Moisture effects on soil reflectance) and absorbs around 970 nm; iron oxides absorb around 490, 550, 660
and 870 nm, bands of goethite and hematite (Sherman and Waite 1985, Electronic spectra of Fe3+ oxides); leaves absorb
blue and red light and reflect the infrared beyond the red edge near 715 nm.
"""

from __future__ import annotations

import numpy as np


def soil(wavelengths: np.ndarray, brightness: float, organic: float, iron: float) -> np.ndarray:
    """Return the reflectance of dry soil (bands,), which is `brightness` in the infrared, 0.15 to 0.45.

    Organic matter goes from 0 (mineral) to 1 (dark humus), and `iron`, the depth of the broad absorption of iron
    oxides in the blue, from 0 to 1.
    """
    position = (wavelengths - 400) / 600
    continuum = 0.3 + 0.7 * (1 - np.exp(-2.2 * np.clip(position, 0, None))) / (1 - np.exp(-2.2))
    blue = 1 - 0.5 * iron * np.exp(-np.clip(position, 0, None) * 4)
    humus = 1 - organic * 0.55 * np.exp(-((wavelengths - 600) ** 2) / (2 * 190**2))
    return brightness * continuum * blue * humus


def wet(reflectance: np.ndarray, wavelengths: np.ndarray, moisture: float) -> np.ndarray:
    """Return what moisture, 0 (dry) to 1 (saturated), makes of a soil's reflectance."""
    water = 0.9 + 0.25 * np.exp(-((wavelengths - 970) ** 2) / (2 * 25**2))
    return reflectance * np.exp(-moisture * 0.8 * water)


def vegetation(wavelengths: np.ndarray) -> np.ndarray:
    """Return the reflectance of green leaves (bands,)."""
    edge = 1 / (1 + np.exp(-(wavelengths - 715) / 12))
    green = 0.06 * np.exp(-((wavelengths - 552) ** 2) / (2 * 28**2))
    water = 1 - 0.05 * np.exp(-((wavelengths - 970) ** 2) / (2 * 20**2))
    return (0.035 + green + 0.42 * edge) * water


def absorption(wavelengths: np.ndarray, center: float, width: float, depth: float) -> np.ndarray:
    """Return the factor of one Gaussian absorption band: 1 far from it, 1 - depth at its center."""
    return 1 - depth * np.exp(-((wavelengths - center) ** 2) / (2 * width**2))


def noise_level(wavelengths: np.ndarray) -> np.ndarray:
    """Return the standard deviation of a sensor's noise in reflectance (bands,): silicon sees less at both ends."""
    return 0.0012 * (1 + 1.5 * ((wavelengths - 700) / 300) ** 2)
