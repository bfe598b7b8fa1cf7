"""`load_patches`: patches from files, arrays and datasets, all of them checked before anything is computed."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .._utils.wording import counted
from .checks import PatchError, check_patch, check_wavelengths, inverted_masks, odd_masks, says_outside
from .copies import digest, first_copies, named_copies
from .ground_truth import as_id, chosen_rows, split_tables
from .opening import open_source
from .patches import UNITS, Chosen, Pair, Patches, chosen_truth
from .wavelengths import LENGTHS, in_nanometers, read_wavelengths

if TYPE_CHECKING:
    from datasets import Dataset

_MOST_REASONS = 5
_MORE_MASKS = 100
"""Masks that are looked at before the first invalid patch is called the only one."""


def load_patches(
    source: str | os.PathLike | Dataset | np.ndarray | Sequence,
    *,
    wavelengths: Sequence[float] | np.ndarray | str | os.PathLike | None = None,
    wavelength_unit: str | None = None,
    ground_truth: str | os.PathLike | pd.DataFrame | None = None,
    targets: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    group_table: str | os.PathLike | pd.DataFrame | None = None,
    fields: str | os.PathLike | np.ndarray | None = None,
    ids: Sequence[Any] | None = None,
    only: Sequence[Any] | str | os.PathLike | None = None,
    leave_out: Sequence[Any] | str | os.PathLike | None = None,
    unit: str | None = None,
    mask_means: str | None = None,
    invalid: str = "raise",
    split: str = "train",
    progress: bool = True,
) -> Patches:
    """Open patches and check all of them, reading one at a time.

    Args:
        source: One of
            - a folder of the HYPERVIEW challenge: files ID.npz with data and mask, there or in a folder below, with
              train_gt.csv and wavelengths.csv beside or above them;
            - a folder of ENVI headers (.hdr), one cube per patch, with NAME_mask.hdr if there are masks;
            - one ENVI header, a scene, with `fields`;
            - a Hugging Face dataset, its folder (`save_to_disk`) or Hub id, with a column data and perhaps mask;
            - an array (n, bands, h, w), or a sequence of cubes (bands, h, w) or of pairs (cube, mask); cubes may be
              numpy's masked arrays.
        wavelengths: Centers of the bands, or a file with them. None: from the files.
        wavelength_unit: What they are in: "nm", "um", "angstrom" or "m". None: what the file says, otherwise nm, or
            the one unit that the numbers can be in.
        ground_truth: What was measured: a CSV file or table with a column sample_index, another whose values are
            the ids, or, with a warning if the ids are no numbers or a column is left over, in the order of the
            patches. None: the *_gt.csv beside or above the files, if there is one, or columns of the dataset.
        targets: Its columns of targets; None for those named as in HYPERVIEW and HYPERVIEW2.
        groups: Columns of groups, there or in `group_table`; None for farm, field, site, date, instrument, campaign
            and source there, and for all columns of `group_table`.
        group_table: Labels that are not in the ground truth: a CSV file or table with a column sample_index and one
            for each grouping. It may have more rows than there are patches.
        fields: For a scene: labels of fields (h, w), 0 for none, as an array, .npy or ENVI header.
        ids: Names of patches in memory; None for their positions.
        only: Names of the patches to open: a sequence, or a file with one in each line or a column sample_index.
        leave_out: Names of patches not to open, in the same way. They are not checked either.
        unit: What values are in: "digital_numbers" (reflectance * 10,000), "percent" or "reflectance". None:
            reflectance if ENVI headers have a reflectance scale factor, digital numbers otherwise.
        mask_means: What True in a mask means: "outside" or "inside" the field. None: outside, unless that looks wrong
            of most masks.
        invalid: "raise" refuses invalid patches and rows of the ground truth without a patch, "drop" leaves them out
            and warns.
        split: Of a dataset with several splits.
        progress: Show a progress bar.

    Raises:
        PatchError: Something is wrong; it says with which file and field.
        FileNotFoundError: There is nothing at this path.
    """
    if invalid not in ("raise", "drop"):
        raise ValueError(f"invalid is {invalid!r}, but must be 'raise' or 'drop'")
    if mask_means not in (None, "outside", "inside"):
        raise ValueError(f"mask_means is {mask_means!r}, but must be 'outside' or 'inside'")
    if wavelength_unit not in (None, *LENGTHS):
        raise ValueError(f"wavelength_unit is {wavelength_unit!r}, but must be one of {', '.join(LENGTHS)}")
    pairs, names, found = open_source(source, fields, ids, split)
    wavelengths = _wavelengths(wavelengths, wavelength_unit, found)
    unit = unit or found.get("unit", "digital_numbers")
    if unit not in UNITS:
        raise ValueError(f"unit is {unit!r}, but must be one of {', '.join(map(repr, UNITS))}")
    patch_ids = found.get("ids") or [as_id(name) for name in names]
    if twice := [name for name, number in Counter(patch_ids).items() if number > 1]:
        raise PatchError(found["where"], "ids", f"two patches are named {twice[0]}")
    rows = chosen_rows(patch_ids, only, leave_out, found["where"])
    tables = found.get("table") if ground_truth is None else ground_truth, group_table
    known, labels = split_tables(*tables, patch_ids, rows, targets, groups, found["where"], invalid == "drop")
    if len(rows) < len(patch_ids):
        pairs, names = Chosen(pairs, rows), [names[row] for row in rows]
    mask_means = mask_means or found.get("mask_means")
    patches, problems = _check_all(pairs, names, wavelengths, unit, mask_means, invalid == "raise", progress)
    truth = found.get("truth")
    if truth is not None and len(rows) < len(patch_ids):
        truth = chosen_truth(truth, rows)
    patches = replace(patches, ids=[patch_ids[row] for row in rows], targets=known, groups=labels, truth=truth)
    if problems:
        kept = np.setdiff1d(np.arange(len(patches)), list(problems))
        left_out = counted(len(problems), "patch is left out", "patches are left out")
        reasons = "; ".join(map(str, list(problems.values())[:_MOST_REASONS]))
        warnings.warn(f"{left_out}: {reasons}{'; ...' * (len(problems) > _MOST_REASONS)}", stacklevel=2)
        if not len(kept):
            raise next(iter(problems.values()))
        return replace(patches[kept], dropped=tuple(patches.ids[row] for row in problems))
    return patches


def _wavelengths(given: Any, unit: str | None, found: dict[str, Any]) -> np.ndarray:
    """Return the centers of the bands in nm: those given, those of a file that is given, or those of the source."""
    source = "wavelengths"
    if given is None:
        given, source = found.get("wavelengths"), found.get("wavelength_file", found["where"])
        unit = unit or found.get("wavelength_unit")
    elif isinstance(given, str | os.PathLike):
        source = given
        given, named = read_wavelengths(given)
        unit = unit or named
    if given is None:
        raise PatchError(source, "wavelengths", "there is no file with them: pass wavelengths=[...]")
    return check_wavelengths(in_nanometers(given, unit, source), source)


def _check_all(
    pairs: Sequence[Pair],
    names: Sequence[Any],
    wavelengths: np.ndarray,
    unit: str,
    mask_means: str | None,
    refuse: bool,
    progress: bool,
) -> tuple[Patches, dict[int, PatchError]]:
    """Read all patches once. Returns them, without ids, and what is wrong by position."""
    bands = len(wavelengths)
    sizes, spectra = np.ones((len(pairs), 3), dtype=int), np.full((len(pairs), bands), np.nan)
    problems: dict[int, PatchError] = {}
    shares: dict[Any, tuple[float, float, float]] = {}
    pixels: list[Any] = list(range(len(pairs)))  # a digest of each valid one
    if mask_means == "inside":
        pairs = _Inverted(pairs)
    for row in tqdm(range(len(pairs)), desc="checking patches", unit="patch", disable=not progress):
        try:
            data, mask = pairs[row]
            if data.shape[0] != bands:
                hint = ": put the bands first" if data.shape[-1] == bands else ""
                raise PatchError(names[row], "data", f"{data.shape[0]} bands, but {bands} wavelengths{hint}")
            sizes[row] = *data.shape[1:], (~mask).sum()
            shares[names[row]] = says_outside(mask)
            spectra[row] = check_patch(data, mask, wavelengths, unit, names[row]) * UNITS[unit]
            pixels[row] = digest(data[:, ~mask])
        except PatchError as error:
            if refuse and mask_means is None:  # the first patch may only be the first of all
                shares |= _shares_of(pairs, names, range(row + 1, min(len(pairs), row + _MORE_MASKS)))
                if (of_all := inverted_masks(shares)) is not None:
                    raise of_all from error
            if refuse:
                raise
            problems[row] = error
    if mask_means is None and (of_all := inverted_masks(shares)) is not None:
        raise of_all
    left_out = {names[row] for row in problems}
    if mask_means != "outside" and (odd := [name for name in odd_masks(shares) if name not in left_out]):
        look = counted(len(odd), "mask looks", "masks look")
        warnings.warn(
            f"{look} inverted, unlike most others, since the middle of the patch is outside the field rather than its "
            f"edge: {', '.join(map(str, odd[:_MOST_REASONS]))}{', ...' * (len(odd) > _MOST_REASONS)}",
            stacklevel=3,
        )
    first = first_copies(pixels)
    if number := len(first) - len(np.unique(first)):
        copies = counted(number, "patch is a copy", "patches are copies")
        warnings.warn(f"{copies} of others, pixel by pixel: {named_copies(first, names)}", stacklevel=3)
    table = pd.DataFrame(sizes, columns=["height", "width", "pixels"])
    return Patches(pairs, wavelengths, [], table, spectra, scale=UNITS[unit]), problems


def _shares_of(pairs: Sequence[Pair], names: Sequence[Any], rows: range) -> dict[Any, tuple[float, float, float]]:
    """Return what the masks of some patches call outside; those of patches that cannot be read are left out."""
    found = {}
    for row in rows:
        with suppress(PatchError):
            found[names[row]] = says_outside(pairs[row][1])
    return found


class _Inverted(Sequence):
    def __init__(self, pairs: Sequence[Pair]):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        data, mask = self.pairs[index]
        return data, ~mask
