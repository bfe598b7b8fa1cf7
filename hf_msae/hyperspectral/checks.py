"""Checks of patches: what is wrong is named with the file and the field, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._utils.wording import counted
from .patches import UNITS, Pair

_NO_FIELD = (
    "no pixel belongs to the field: it is True everywhere, and True means outside. Leave the patch out, or pass "
    "mask_means='inside' if True means inside"
)
_FLAT_BANDS = 8  # in which a pixel has the largest value of its field: clipped, since noise makes them differ
_MANY_PIXELS, _MANY_SHARE = 10, 0.1  # that have it in one band
_MISSING = -9998  # digital numbers: values as low are marks, such as -9999 or the lowest of the type
_MORE = 0.05  # of the middle of a patch than of its edge is outside, if its mask is inverted


class PatchError(ValueError):
    """A patch, or the table that comes with patches, cannot be used.

    Attributes:
        file: Its file, or its name if there is no file.
        field: What is wrong in it: "data", "mask", "wavelengths", or a column.
    """

    def __init__(self, file: object, field: str, problem: str):
        super().__init__(f"{file}: {field}: {problem}")
        self.file, self.field = str(file), field

    def __reduce__(self):
        return _rebuild, (self.file, self.field, str(self))


def _rebuild(file: str, field: str, message: str) -> PatchError:
    return PatchError(file, field, message.removeprefix(f"{file}: {field}: "))


def check_wavelengths(wavelengths: Sequence[float] | np.ndarray, source: object = "wavelengths") -> np.ndarray:
    """Return wavelengths as float64 (bands,); they have to ascend, and to be in nm."""
    found = np.array(wavelengths, dtype=float)
    if found.ndim != 1 or len(found) < 2 or not np.isfinite(found).all():
        raise PatchError(source, "wavelengths", f"a finite number per band is needed, but the shape is {found.shape}")
    if not (steps := np.diff(found) > 0).all():
        at = int(np.flatnonzero(~steps)[0])
        raise PatchError(
            source, "wavelengths", f"{found[at + 1]:g} nm of band {at + 2} follows {found[at]:g} nm: sort the bands"
        )
    if found[-1] < 100:
        raise PatchError(
            source, "wavelengths", f"{found[0]:g} to {found[-1]:g} look like micrometers: multiply them by 1,000"
        )
    if found[0] < 200 or found[-1] > 20000:
        raise PatchError(source, "wavelengths", f"{found[0]:g} to {found[-1]:g} are no wavelengths of light in nm")
    return found


def as_mask(mask: np.ndarray, shape: tuple[int, ...], name: object) -> np.ndarray:
    """Return a mask of (h, w) or (bands, h, w) as bool (h, w): True where any band is outside the field."""
    mask = np.asarray(mask)
    if mask.shape not in (shape, shape[1:]):
        raise PatchError(name, "mask", f"its shape is {mask.shape}, but data has {shape}")
    if mask.dtype != bool:
        odd = mask[(mask != 0) & (mask != 1)]
        if len(odd):
            raise PatchError(name, "mask", f"values are true and false (1 and 0), but one is {odd[0]}")
        mask = mask.astype(bool)
    return mask.any(axis=0) if mask.ndim == 3 else mask


def check_pair(data: np.ndarray, mask: np.ndarray, name: object, bands: int | None = None) -> Pair:
    """Return a patch as arrays, its mask as bool (h, w), after checking their shapes."""
    data = np.asarray(data)
    if data.ndim != 3 or (bands is not None and len(data) != bands):
        raise PatchError(name, "data", f"its shape is {data.shape}, but ({bands or 'bands'}, h, w) is needed")
    mask = as_mask(mask, data.shape, name)
    if mask.all():
        raise PatchError(name, "mask", _NO_FIELD)
    return data, mask


def check_patch(data: np.ndarray, mask: np.ndarray, wavelengths: np.ndarray, unit: str, name: object) -> np.ndarray:
    """Return the mean spectrum of a patch (bands,), after checking all of it; `name` is the file, for messages."""
    if mask.all():
        raise PatchError(name, "mask", _NO_FIELD)
    field = data[:, ~mask]
    if not (finite := np.isfinite(field)).all():
        band, number = int(np.flatnonzero(~finite.all(axis=1))[0]), int((~finite).any(axis=0).sum())
        raise PatchError(
            name,
            "data",
            f"{number} of {field.shape[1]} pixels of the field are not finite, the first in band {band + 1} "
            f"({wavelengths[band]:.1f} nm): mask them or leave the patch out",
        )
    empty = ~field.any(axis=1)
    if empty.all() and mask.any() and data[:, mask].any():
        raise PatchError(
            name,
            "mask",
            "the field is 0 everywhere and what is outside is not: is the mask inverted? If all are, pass "
            "mask_means='inside'",
        )
    if empty.any():
        band = int(np.flatnonzero(empty)[0])
        raise PatchError(
            name,
            "data",
            f"band {band + 1} ({wavelengths[band]:.1f} nm) is 0 in all of the field: {empty.sum()} missing",
        )
    filled = (field[0] <= 0) & (field == field[0]).all(axis=0)
    if pixels := int(filled.sum()):
        raise PatchError(
            name,
            "mask",
            f"{pixels} of {field.shape[1]} pixels of the field are {field[0, filled.argmax()]:g} in all bands, which "
            "no soil is: mask them (of ENVI cubes, with `data ignore value` in the header or with NAME_mask.hdr) or "
            "leave the patch out",
        )
    missing = field <= _MISSING / UNITS[unit]
    # Standardized spectra have such values, too, if no two that are the same.
    if missing.any() and (field.min() <= _MISSING or np.ptp(field[missing]) == 0):
        band, pixel = np.argwhere(missing)[0]
        raise PatchError(
            name,
            "data",
            f"{missing.any(axis=0).sum()} of {field.shape[1]} pixels of the field have values that stand for missing "
            f"ones, such as {field[band, pixel]:g} in band {band + 1} ({wavelengths[band]:.1f} nm): mask them, or "
            "leave out the band or the patch",
        )
    if pixels := _saturated(field):
        top = field.max()
        are = "pixel of the field is" if pixels == 1 else "pixels of the field are"
        raise PatchError(name, "data", f"{pixels} {are} at the largest value, {top:g}: saturated")
    mean = field.mean(axis=1, dtype=float)
    median = float(np.median(mean))
    found = "reflectance" if abs(median) <= 1.5 else "percent" if abs(median) <= 100 else "digital_numbers"
    if found != unit:
        raise PatchError(
            name,
            "data",
            f"a median of {median:.3g} looks like {found.replace('_', ' ')}, not {unit.replace('_', ' ')}: "
            f"convert it, or pass unit={found!r} if all patches are like this",
        )
    return mean


def _saturated(field: np.ndarray) -> int:
    """Return how many pixels of a field (bands, pixels) are at its largest value, if that looks like clipping; or 0.

    It does if the type has no larger value, if a pixel has it in many bands, or if many pixels have it in one band
    while most bands have their own largest value in few pixels.
    """
    highest = field.max(axis=1)
    top = highest.max()
    at_top = field == top
    pixels = int(at_top.any(axis=0).sum())
    if np.issubdtype(field.dtype, np.integer) and top == np.iinfo(field.dtype).max:
        return pixels
    if at_top.sum(axis=0).max() >= _FLAT_BANDS and field.min() < top:
        return pixels
    often = at_top.sum(axis=1).max()
    if often >= max(_MANY_PIXELS, _MANY_SHARE * field.shape[1]):
        typical = np.median((field == highest[:, None]).mean(axis=1))
        return pixels if typical < _MANY_SHARE / 2 else 0
    return 0


def says_outside(mask: np.ndarray) -> tuple[float, float, float]:
    """Return the shares of the middle half of a patch, of its edge, and of all of it that a mask calls outside."""
    height, width = mask.shape
    middle = mask[height // 4 : height - height // 4, width // 4 : width - width // 4]
    edge = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return float(middle.mean()), float(edge.mean()), float(mask.mean())


def odd_masks(shares: Mapping[Any, tuple[float, float, float]]) -> list[Any]:
    """Return the names of patches whose masks look inverted while most others do not; see `inverted_masks`."""
    right = sum(edge > middle + _MORE for middle, edge, _ in shares.values())
    if 2 * right <= len(shares):
        return []
    return [name for name, (middle, edge, _) in shares.items() if middle > edge + _MORE]


def inverted_masks(shares: Mapping[Any, tuple[float, float, float]]) -> PatchError | None:
    """Return what to raise if masks look inverted: if most of them call the middle outside rather than the edge.

    A patch is cut around its field, so that what is outside lies along its edge, and a field has pixels. `shares` is
    what `says_outside` returned, by the name of the patch.
    """
    inverted = [name for name, (middle, edge, whole) in shares.items() if middle > edge + _MORE or whole == 1]
    if 2 * len(inverted) <= len(shares):
        return None
    middle, edge, whole = np.mean([shares[name] for name in inverted], axis=0)
    number = counted(len(shares), "mask looks", "masks look")
    return PatchError(
        inverted[0],
        "mask",
        f"{'all' if len(inverted) == len(shares) else f'{len(inverted)} of'} {number} inverted: {middle:.0%} of the "
        f"middle of a patch and {edge:.0%} of its edge are outside the field ({whole:.0%} of all pixels), if True "
        "means outside. Pass mask_means='inside' if it means inside, or 'outside' if the masks are right",
    )
