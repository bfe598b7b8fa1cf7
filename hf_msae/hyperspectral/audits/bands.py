"""Bands: single ones that behave unlike their neighbors, because they leak the target or drift.

Sensors see each wavelength in several neighboring bands, and absorption by matter is tens of nanometers wide. What a
band tells beyond its four nearest neighbors is therefore mostly noise, unless something is wrong with the band.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import ncf as noncentral_f

from ...statistics import SEVERITIES, Finding
from ..subject import Subject
from .outcome import Outcome

LIMITS = (0.05, 0.1, 0.2)
"""Shares of variance of what a band adds to its neighbors, explained by a target or a group, that are a finding."""
ISOLATED = 3.0
"""It has to be this many times as large as for the bands next to it, which a real absorption would show in as well."""
_NEAR = 2
_FEWEST_BANDS = 12
COLUMNS = ["of", "name", "band", "wavelength", "share", "nearby", "p_value"]


def bands(subject: Subject) -> Outcome:
    """Test what every band adds to its neighbors: whether a target or a group explains it.

    Of each band, the best linear prediction from the two bands on either side is subtracted. Table `bands` has, for
    every target and grouping and for the order of the rows, the band whose remainder is explained best: the share of
    its variance (R2, or eta squared of groups), the largest share for the four neighbors (of what these add to their
    own neighbors other than this band), and the p-value against a share of 5%, corrected for the number of bands. Not
    against a share of 0: at the foot of a real absorption, a band tells a little that four neighbors do not.
    """
    places = spectrum_columns(subject)
    if places is None:
        return Outcome({"bands": pd.DataFrame(columns=COLUMNS)}, [], [_NO_BANDS])
    spectra = subject.X[:, places]
    spectra = spectra - spectra.mean(axis=0)
    remainder = np.empty(spectra.shape)
    for band in range(len(places)):
        remainder[:, band] = _remainder(spectra, band)
    n = len(remainder)
    records, tests, remarks = [], [], []
    questions = [
        ("target", name, partial(_explained, y), 1) for name, y in zip(subject.targets, subject.Y.T, strict=True)
    ]
    for name, labels in subject.groups.items():
        groups, members = np.unique(labels, return_inverse=True)
        if 2 <= len(groups) <= n // 5:
            questions.append(("grouping", name, partial(_between_groups, members), len(groups) - 1))
        elif len(groups) > n // 5:
            remarks.append(
                f"{name}: no band was tested for drift, since {len(groups)} groups of {n} rows are too many."
            )
    questions.append(("order", "order of the rows", partial(_explained, np.linspace(-1, 1, n)), 1))
    for of, name, share_of, k in questions:
        share = share_of(remainder)
        best = _NEAR + int(share[_NEAR:-_NEAR].argmax())  # the outermost bands lack neighbors on one side
        around = [_remainder(spectra, near, without=best) for near in _neighbors(best, len(share))]
        nearby = float(share_of(np.stack(around, axis=1)).max())
        size = float(share[best])
        p_value = min(1.0, (len(share) - 2 * _NEAR) * share_p_value(size, n, k))
        feature = subject.features.iloc[places[best]]
        band, wavelength = int(feature["band"]), float(feature["wavelength"])
        records.append((of, name, band, wavelength, size, nearby, p_value))
        tests.append(_test(of, name, band, wavelength, size, nearby, p_value, n, k))
    return Outcome({"bands": pd.DataFrame(records, columns=COLUMNS)}, tests, remarks)


def share_p_value(share: float, n: int, k: int, least: float = LIMITS[0]) -> float:
    """Return the p-value of an explained share of variance against a true share of `least`, by the noncentral F test.

    There are n rows and k explaining columns.
    """
    rest = n - k - 1
    ratio = share / k * rest / max(1e-12, 1 - share)
    found = float(noncentral_f.sf(ratio, k, rest, n * least / (1 - least)))
    return found if np.isfinite(found) else 0.0  # where it underflows


_NO_BANDS = (
    "The feature table has no transformation with one column for each of at least 12 bands, so none was tested."
)


def spectrum_columns(subject: Subject) -> np.ndarray | None:
    """Return the columns of the first transformation that has every band once, band by band."""
    table = subject.features
    for _, rows in table[table["band"].notna()].groupby("transformation", sort=False):
        if rows["band"].is_unique and len(rows) >= _FEWEST_BANDS:
            return rows.sort_values("band").index.to_numpy()
    return None


def _neighbors(band: int, number: int, width: int = _NEAR) -> list[int]:
    return [i for i in range(max(0, band - width), min(number, band + width + 1)) if i != band]


def _remainder(spectra: np.ndarray, band: int, without: int | None = None) -> np.ndarray:
    """Return what a band of centered spectra (n, b) adds to the best linear prediction from its neighbors.

    If one of the neighbors is to be left out, a further one on either side takes its place.
    """
    width = _NEAR if without is None else _NEAR + 1
    X = spectra[:, [i for i in _neighbors(band, spectra.shape[1], width) if i != without]]
    return spectra[:, band] - X @ np.linalg.lstsq(X, spectra[:, band], rcond=None)[0]


def _explained(values: np.ndarray, remainder: np.ndarray) -> np.ndarray:
    """Return the share of the variance of each remainder (n, b) that an affine function of values (n,) explains."""
    values = values - values.mean()
    return (values @ remainder) ** 2 / np.maximum((values @ values) * (remainder**2).sum(axis=0), 1e-300)


def _between_groups(members: np.ndarray, remainder: np.ndarray) -> np.ndarray:
    """Return the share of the variance of each remainder (n, b) that lies between groups, numbered (n,)."""
    sums = np.stack([np.bincount(members, band) for band in remainder.T], axis=1)
    between = (sums**2 / np.bincount(members)[:, None]).sum(axis=0)
    return between / np.maximum((remainder**2).sum(axis=0), 1e-300)


def _test(
    of: str, name: str, band: int, wavelength: float, size: float, nearby: float, p_value: float, n: int, k: int
) -> Finding:
    # Fisher's transformation of the multiple correlation.
    center, width = np.arctanh(min(np.sqrt(size), 1 - 1e-9)), 1.96 / np.sqrt(max(1, n - k - 2))
    low, high = (float(np.tanh(max(0.0, end)) ** 2) for end in (center - width, center + width))
    passed = [each for each, limit in zip(SEVERITIES[::-1], LIMITS, strict=True) if low > limit]
    isolated = size > ISOLATED * nearby
    where = f"band {band}" + (f" ({wavelength:.0f} nm)" if np.isfinite(wavelength) else "")
    what = {
        "target": f"{where.capitalize()} tells of {name} what its neighbors do not",
        "grouping": f"{where.capitalize()} differs by {name} from its neighbors",
        "order": f"{where.capitalize()} drifts with the order of the rows",
    }[of]
    evidence = (
        f"Of what {where} adds to its four neighbors, {name} explains {size:.1%}; of what these add, it explains "
        f"{nearby:.1%} at most. Matter absorbs over many bands."
    )
    advice = _LEAK if of == "target" else _DRIFT
    severity = passed[-1] if passed and isolated else None
    kind = "leaking band" if of == "target" else "drifting band"
    return Finding(
        severity, what, "share_of_remainder", size, low, high, evidence, advice, p_value, "bands", kind, name
    )


_LEAK = "Look at where this band comes from: it may carry the label. Remove it, fit again and compare."
_DRIFT = "Recalibrate or remove this band, and check how much the model's score falls without it."
