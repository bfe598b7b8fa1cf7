"""`load_patches`: patches from files, arrays and datasets, all of them checked before anything is computed."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .checks import PatchError, check_patch, check_unit, check_wavelengths, looks_inverted
from .ground_truth import as_id, split_table
from .opening import open_source, read_wavelengths
from .patches import UNITS, Pair, Patches

if TYPE_CHECKING:
    from datasets import Dataset


def load_patches(
    source: str | os.PathLike | Dataset | np.ndarray | Sequence,
    *,
    wavelengths: Sequence[float] | np.ndarray | str | os.PathLike | None = None,
    ground_truth: str | os.PathLike | pd.DataFrame | None = None,
    targets: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    fields: str | os.PathLike | np.ndarray | None = None,
    ids: Sequence[Any] | None = None,
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
            - an array (n, bands, h, w), or a sequence of cubes (bands, h, w) or of pairs (cube, mask).
        wavelengths: Centers of the bands in nm, or a file with them. None: from the files.
        ground_truth: What was measured: a CSV file or table with a column sample_index, or in the order of the
            patches. None: the *_gt.csv beside or above the files, if there is one, or columns of the dataset.
        targets: Its columns of targets; None for those named as in HYPERVIEW and HYPERVIEW2.
        groups: Its columns of groups; None for farm, field, site, date, instrument, campaign and source.
        fields: For a scene: labels of fields (h, w), 0 for none, as an array, .npy or ENVI header.
        ids: Names of patches in memory; None for their positions.
        unit: What values are in: "digital_numbers" (reflectance * 10,000), "percent" or "reflectance". None:
            reflectance if ENVI headers have a reflectance scale factor, digital numbers otherwise.
        mask_means: What True in a mask means: "outside" or "field". None: outside, unless that looks wrong.
        invalid: "raise" refuses invalid patches, "drop" leaves them out and warns.
        split: Of a dataset with several splits.
        progress: Show a progress bar.

    Raises:
        PatchError: Something is wrong; it says with which file and field.
        FileNotFoundError: There is nothing at this path.
    """
    if invalid not in ("raise", "drop"):
        raise ValueError(f"invalid is {invalid!r}, but must be 'raise' or 'drop'")
    if mask_means not in (None, "outside", "field"):
        raise ValueError(f"mask_means is {mask_means!r}, but must be 'outside' or 'field'")
    pairs, names, found = open_source(source, fields, ids, split)
    if wavelengths is None:
        wavelengths = found.get("wavelengths")
    if wavelengths is None:
        raise PatchError(found["where"], "wavelengths", "there is no file with them: pass wavelengths=[...] in nm")
    if isinstance(wavelengths, str | os.PathLike):
        wavelengths = read_wavelengths(wavelengths)
    wavelengths = check_wavelengths(wavelengths, found["where"])
    unit = unit or found.get("unit", "digital_numbers")
    check_unit(unit)
    patch_ids = found.get("ids") or [as_id(name) for name in names]
    if twice := [name for name, number in Counter(patch_ids).items() if number > 1]:
        raise PatchError(found["where"], "ids", f"two patches are named {twice[0]}")
    table = found.get("table") if ground_truth is None else ground_truth
    known, labels = None, {}
    if table is not None:
        known, labels = split_table(table, patch_ids, targets, groups, found["where"])
    patches, problems = _check_all(pairs, names, wavelengths, unit, mask_means, invalid == "raise", progress)
    patches = replace(patches, ids=patch_ids, targets=known, groups=labels, truth=found.get("truth"))
    if problems:
        kept = np.setdiff1d(np.arange(len(patch_ids)), list(problems))
        warnings.warn(f"{len(problems)} patches are left out: {next(iter(problems.values()))}", stacklevel=2)
        if not len(kept):
            raise next(iter(problems.values()))
        return patches[kept]
    return patches


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
    inverted, masked = [], 0
    if mask_means == "field":
        pairs = _Inverted(pairs)
    for row in tqdm(range(len(pairs)), desc="checking patches", unit="patch", disable=not progress):
        try:
            data, mask = pairs[row]
            if data.shape[0] != bands:
                hint = ": put the bands first" if data.shape[-1] == bands else ""
                raise PatchError(names[row], "data", f"{data.shape[0]} bands, but {bands} wavelengths{hint}")
            sizes[row] = *data.shape[1:], (~mask).sum()
            if mask.any() and not mask.all():
                masked += 1
                inverted += [row] if looks_inverted(mask) else []
            spectra[row] = check_patch(data, mask, wavelengths, unit, names[row]) * UNITS[unit]
        except PatchError as error:
            if refuse:
                raise
            problems[row] = error
    if mask_means is None and 2 * len(inverted) > masked:
        raise PatchError(
            names[inverted[0]],
            "mask",
            f"it is True in the middle of {len(inverted)} of {masked} masked patches and False in their corners, but "
            "True means outside the field: pass mask_means='field' if it is inverted, or 'outside' if it is not",
        )
    table = pd.DataFrame(sizes, columns=["height", "width", "pixels"])
    return Patches(pairs, wavelengths, [], table, spectra, scale=UNITS[unit]), problems


class _Inverted(Sequence):
    """Patches whose masks are True in the field."""

    def __init__(self, pairs: Sequence[Pair]):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        data, mask = self.pairs[index]
        return data, ~mask
