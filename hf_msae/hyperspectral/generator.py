"""`make_patches`: synthetic fields whose causes are known, with blind spots to find if asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from .checks import check_wavelengths
from .patches import HYPERVIEW_WAVELENGTHS, TARGETS, UNITS, Pair, Patches
from .soil_optics import absorption, noise_level, soil, vegetation, wet

CAUSES = {"P": (550.0, 14.0, 0.14), "K": (660.0, 16.0, 0.08), "Mg": (870.0, 18.0, 0.08), "pH": (490.0, 14.0, 0.2)}
"""Center and width (standard deviation) in nm, and mean depth, of the absorption that each target deepens."""
BLIND_SPOTS = {"range": "K", "outliers": "P", "drift": "Mg", "leak": "pH", "farm": "K"}
"""What can be planted, and the target that it concerns if none is named."""
LEAK_WAVELENGTH = 725.0
"""Where a leaking band is, in nm: no cause is near."""
DATES = ("2021-03-03", "2021-03-24", "2021-04-14", "2021-05-05")
_MOMENTS = {"P": (70.3, 29.5, True), "K": (228.1, 62.0, True), "Mg": (159.4, 40.0, False), "pH": (6.79, 0.26, False)}
_CORRELATIONS = np.array([[1, 0.4, 0.1, 0.1], [0.4, 1, 0.4, 0], [0.1, 0.4, 1, 0.3], [0.1, 0, 0.3, 1]])
_SLOPE = 0.45  # relative change of an absorption's depth by a standard deviation of the target
_RANGE_LIMIT = 0.5  # standard deviations beyond which the spectrum no longer answers, with "range"
_OUTLIERS = 0.06  # their share, with "outliers"
_DRIFT = (0.0, 0.0, 0.05, 0.15)  # gain of the drifting band by date
_LEAK = 0.03  # relative change of the leaking band by a standard deviation of the target


def make_patches(
    n: int = 400,
    seed: int = 0,
    *,
    blind_spots: Sequence[str] | Mapping[str, str] = (),
    edges: tuple[int, int] = (14, 40),
    small_share: float = 0.375,
    farms: int = 8,
    noise: float = 1.0,
    label_noise: float = 0.3,
    wavelengths: Sequence[float] | np.ndarray = HYPERVIEW_WAVELENGTHS,
    soils: np.ndarray | None = None,
    plants: np.ndarray | None = None,
    others: np.ndarray | None = None,
) -> Patches:
    """Make synthetic fields whose causes are known, in the format of the HYPERVIEW challenge.

    Each field has a soil (brightness, organic matter, iron and moisture differ; `soil_optics` has the shapes), spatial
    variation, green plants in some pixels, other surfaces outside, mixed pixels at its border, and a sensor's noise.
    Each target deepens one absorption band (`CAUSES`), and nothing else. Targets have the ranges of the challenge, and
    its means and standard deviations; P and K are skewed. How they are correlated is an assumption.

    Args:
        n: Number of fields.
        seed: Random seed. A field depends on the seed and its position alone.
        blind_spots: What to plant, as names, or as a mapping to the targets that they concern (`BLIND_SPOTS` has the
            default ones):
            "range": the spectrum answers to the target within half a standard deviation of its mean only;
            "outliers": 6% of the fields have extreme values that their spectra do not show;
            "drift": the band at the center of the target's absorption gains 5% on the third date and 15% on the last;
            "leak": a band at 725 nm, where no cause is, follows the target;
            "farm": three quarters of the target's variance is between farms, and the absorption shows the rest only;
            but soils of farms differ, so that a model can read the farm.
        edges: Smallest and largest longer edge of larger fields, in pixels.
        small_share: Share of fields of 11x11 pixels, all of them in the field; 0.375 in the challenge.
        farms: Number of farms.
        noise: Factor of the sensor's noise.
        label_noise: Standard deviation of what else moves an absorption's depth, in those of the target.
        wavelengths: Centers of the bands in nm, within 400 and 1000.
        soils: Reflectance (m, bands) of soils to choose from instead of the shapes, such as measured ones.
        plants: The same of green plants in the field.
        others: The same of what lies outside the field.

    Returns:
        Patches with targets, groups farm, date and instrument (which changes nothing), and `truth`: bands (of each
        target, from 0), strength (standardized targets as the spectra show them, n x 4), blind_spots (of each: target,
        bands or rows), and per_patch (which entries are per patch).

    Raises:
        ValueError: An argument is out of range.
    """
    wavelengths = check_wavelengths(wavelengths)
    if wavelengths[0] < 400 or wavelengths[-1] > 1000:
        raise ValueError(f"wavelengths of {wavelengths[0]:g} to {wavelengths[-1]:g} nm are not within 400 and 1000 nm")
    if n < 1 or farms < 1 or not 11 <= edges[0] <= edges[1]:
        raise ValueError(
            f"n={n}, farms={farms}, edges={edges}, but n and farms are positive, and edges ascend from 11"
        )
    for name, given in (("soils", soils), ("plants", plants), ("others", others)):
        if given is not None and (np.ndim(given) != 2 or np.shape(given)[1] != len(wavelengths)):
            raise ValueError(f"{name} has the shape {np.shape(given)}, but must be (m, {len(wavelengths)})")
    planted = _planted(blind_spots)
    names = list(TARGETS)
    rng = np.random.default_rng(seed)
    farm = rng.integers(farms, size=n)
    date = rng.integers(len(DATES), size=n)
    scores = rng.multivariate_normal(np.zeros(len(names)), _CORRELATIONS, size=n)
    of_farms = rng.permutation(np.linspace(-1.4, 1.4, farms))
    outlying = rng.random(n) < _OUTLIERS
    tails = rng.choice([-1, 1], size=n, p=[0.35, 0.65]) * rng.uniform(2.2, 2.8, size=n)
    disturbance = rng.normal(0, label_noise, size=scores.shape)
    if "farm" in planted:
        column = names.index(planted["farm"])
        scores[:, column] *= 0.5
    shown = scores.copy()
    if "farm" in planted:
        scores[:, column] += np.sqrt(0.75) * of_farms[farm]
    found: dict[str, Any] = {kind: {"target": target} for kind, target in planted.items()}
    if "outliers" in planted:
        column = names.index(planted["outliers"])
        scores[outlying, column] = tails[outlying]
        found["outliers"]["rows"] = np.flatnonzero(outlying).tolist()
    if "range" in planted:
        column = names.index(planted["range"])
        shown[:, column] = np.clip(shown[:, column], -_RANGE_LIMIT, _RANGE_LIMIT)
    gains = np.ones((n, len(wavelengths)))
    if "drift" in planted:
        band = int(np.argmin(np.abs(wavelengths - CAUSES[planted["drift"]][0])))
        gains[:, band] *= 1 + np.array(_DRIFT)[date]
        found["drift"]["bands"] = [band]
    if "leak" in planted:
        band = int(np.argmin(np.abs(wavelengths - LEAK_WAVELENGTH)))
        gains[:, band] *= 1 + _LEAK * scores[:, names.index(planted["leak"])]
        found["leak"]["bands"] = [band]
    mean_depths = np.array([CAUSES[name][2] for name in names])
    depths = np.clip(mean_depths * (1 + _SLOPE * (shown + disturbance)), 0, 0.6)
    fields = SyntheticFields(
        seed, wavelengths, farm, depths, gains, tuple(edges), small_share, noise, soils, plants, others
    )
    masks = [fields.mask(np.random.default_rng([seed, row, 0])) for row in range(n)]
    sizes = [(*mask.shape, (~mask).sum()) for mask in masks]
    truth = {
        "bands": {name: causal_bands(name, wavelengths).tolist() for name in names},
        "strength": shown,
        "blind_spots": found,
        "per_patch": ["strength"],
    }
    return Patches(
        fields,
        wavelengths,
        [str(row) for row in range(n)],
        pd.DataFrame(sizes, columns=["height", "width", "pixels"]),
        targets=pd.DataFrame({name: _values(name, scores[:, column]) for column, name in enumerate(names)}),
        groups={
            "farm": np.array([f"farm {number + 1}" for number in farm]),
            "date": np.array(DATES)[date],
            "instrument": np.where(np.arange(n) % 2, "sensor 2", "sensor 1"),
        },
        truth=truth,
    )


def causal_bands(target: str, wavelengths: np.ndarray) -> np.ndarray:
    """Return the bands, from 0, within 1.5 standard deviations of the center of a target's absorption."""
    center, width, _ = CAUSES[target]
    return np.flatnonzero(np.abs(wavelengths - center) <= 1.5 * width)


@dataclass(frozen=True)
class SyntheticFields(Sequence):
    """Fields that are computed when they are asked for: data (bands, h, w), int16 digital numbers, and mask (h, w)."""

    seed: int
    wavelengths: np.ndarray
    farm: np.ndarray
    depths: np.ndarray
    gains: np.ndarray
    edges: tuple[int, int]
    small_share: float
    noise: float
    soils: np.ndarray | None
    plants: np.ndarray | None
    others: np.ndarray | None

    def __len__(self) -> int:
        return len(self.farm)

    def __getitem__(self, index: int) -> Pair:
        index = range(len(self))[index]
        rng = np.random.default_rng([self.seed, index, 0])
        bands = self.wavelengths
        mask = self.mask(rng)
        dry = self._dry_soil(rng, index)
        moisture = rng.beta(2, 4)
        green = vegetation(bands) if self.plants is None else rng.choice(self.plants)
        surfaces = np.stack(  # soil in two states, plants, and what lies outside
            [wet(dry, bands, moisture), wet(dry, bands, moisture + 0.25), green, self._outside(rng)]
        )
        shares = _shares(rng, mask)
        light = (1 + 0.06 * _smooth(rng, mask.shape, 3)) * rng.normal(1, 0.03)
        data = np.tensordot(surfaces.T, shares * light, axes=1)
        sigma = self.noise * noise_level(bands)[:, None, None]
        data += sigma * rng.standard_normal(data.shape, dtype=np.float32)
        data *= self.gains[index][:, None, None]
        return np.clip(np.rint(data * UNITS["reflectance"]), 1, 2**15 - 2).astype(np.int16), mask

    def mask(self, rng: np.random.Generator) -> np.ndarray:
        """Return the mask of a field, by the first of its random numbers."""
        small = rng.random() < self.small_share
        return np.zeros((11, 11), dtype=bool) if small else _field_shape(rng, self.edges)

    def _dry_soil(self, rng: np.random.Generator, index: int) -> np.ndarray:
        """Return the soil of a field: that of its farm, varied, with the targets' absorptions."""
        of_farm = np.random.default_rng([self.seed, int(self.farm[index]), 1])
        brightness, organic, iron = of_farm.uniform(0.22, 0.36), of_farm.uniform(0.1, 0.6), of_farm.uniform(0.1, 0.8)
        if self.soils is None:
            spectrum = soil(
                self.wavelengths,
                brightness * rng.normal(1, 0.1),
                np.clip(organic + rng.normal(0, 0.08), 0, 1),
                np.clip(iron + rng.normal(0, 0.1), 0, 1),
            )
        else:
            first = of_farm.integers(len(self.soils))
            mixed = rng.uniform(0, 0.4)
            spectrum = (1 - mixed) * self.soils[first] + mixed * self.soils[rng.integers(len(self.soils))]
        for (center, width, _), depth in zip(CAUSES.values(), self.depths[index], strict=True):
            spectrum = spectrum * absorption(self.wavelengths, center, width, depth)
        return spectrum

    def _outside(self, rng: np.random.Generator) -> np.ndarray:
        """Return a surface beside the field: trees, a road, or another field."""
        if self.others is not None:
            return rng.choice(self.others)
        kind = rng.integers(3)
        if kind == 0:
            return 0.7 * vegetation(self.wavelengths)
        if kind == 1:
            return np.full(len(self.wavelengths), rng.uniform(0.12, 0.3))
        return soil(self.wavelengths, rng.uniform(0.2, 0.4), rng.uniform(0, 0.5), rng.uniform(0, 0.8))


def _planted(blind_spots: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    names = [blind_spots] if isinstance(blind_spots, str) else blind_spots
    chosen = dict(names) if isinstance(names, Mapping) else {name: BLIND_SPOTS.get(name) for name in names}
    for name, target in chosen.items():
        if name not in BLIND_SPOTS:
            raise ValueError(f"there is no blind spot {name!r}; there are {', '.join(BLIND_SPOTS)}")
        if target not in TARGETS:
            raise ValueError(f"blind spot {name!r} concerns {target!r}, but targets are {', '.join(TARGETS)}")
    return chosen


def _values(target: str, scores: np.ndarray) -> np.ndarray:
    low, high = TARGETS[target]
    mean, deviation, skewed = _MOMENTS[target]
    if skewed:
        sigma = np.sqrt(np.log1p((deviation / mean) ** 2))
        center, spread, ends = np.log(mean) - sigma**2 / 2, sigma, np.log([low, high])
    else:
        center, spread, ends = mean, deviation, np.array([low, high])
    below, above = norm.cdf((ends - center) / spread)
    found = center + spread * norm.ppf(below + (above - below) * norm.cdf(scores))
    return np.round(np.clip(np.exp(found) if skewed else found, low, high), 1)


def _field_shape(rng: np.random.Generator, edges: tuple[int, int]) -> np.ndarray:
    """Return the mask of a field, True outside: a rotated rounded rectangle that touches all four sides."""
    longer = int(rng.integers(edges[0], edges[1], endpoint=True))
    shape = [longer, max(11, round(longer * rng.uniform(0.55, 1)))]
    if rng.random() < 0.5:
        shape = shape[::-1]
    angle, power, aspect = rng.uniform(0, np.pi / 2), rng.uniform(2.5, 8), rng.uniform(0.6, 1)

    def inside(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        x, y = np.meshgrid(x, y)
        u, v = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / aspect
        return np.abs(u) ** power + np.abs(v) ** power <= 1

    grid = np.linspace(-1.5, 1.5, 121)
    found = inside(grid, grid)
    ends = [0.87 * np.abs(grid[found.any(axis=axis)]).max() for axis in (1, 0)]  # without tips of less than a pixel
    return ~inside(*(np.linspace(-end, end, size) for end, size in zip(ends, shape, strict=True)))


def _shares(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Return the share of each surface in each pixel (4, h, w): neighbors mix, as in a camera's blur."""
    plants = np.clip(rng.beta(1.2, 12) + 0.08 * _smooth(rng, mask.shape, 2), 0, 0.6)
    damp = np.clip(0.5 + 0.3 * _smooth(rng, mask.shape, 4), 0, 1)
    inside = 1 - gaussian_filter(mask.astype(float), 0.6)
    return np.stack([(1 - plants) * (1 - damp), (1 - plants) * damp, plants, np.ones(mask.shape)]) * np.stack(
        [inside, inside, inside, 1 - inside]
    )


def _smooth(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Return smooth random variation (h, w) with mean 0 and standard deviation 1."""
    found = gaussian_filter(rng.standard_normal(shape), scale)
    return (found - found.mean()) / max(float(found.std()), 1e-12)
