"""The 2,400 features of Team EagleEyes, winners of the HYPERVIEW challenge, as a scikit-learn transformer.

Kuzu, R. S., Albrecht, F., Arnold, C., Kamath, R., Konen, K. (2022), Predicting Soil Properties from Hyperspectral
Satellite Images, IEEE ICIP; code: github.com/ridvansalihkuzu/hyperview_eagleeyes. The two differ, and both are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .checks import PatchError, check_pair, check_wavelengths
from .patches import Pair, Patches, TakesPatches

if TYPE_CHECKING:
    from typing import Self

BANDS = 150
"""The layout is defined for this number of bands."""
LARGEST_MEAN = 2210
"""What digital numbers are divided by: the largest mean of a field in the challenge's training data."""
SINGULAR_VALUES = 5
KNN_TRANSFORMATIONS = (
    *("mean", "derivative_1", "derivative_2", "derivative_3"),
    *(f"singular_{k}" for k in range(1, SINGULAR_VALUES + 1)),
    *("fft_mean_real", "fft_mean_imaginary"),
)
"""What the winners' nearest neighbors see: 11 of the 16 transformations."""
_WAVELETS = {  # the part of each level's coefficients that the next level, and the features, are made from
    "sym3": (None, slice(1, -1), slice(1, -1), slice(1, -1)),
    "dmey": (slice(12, 92), slice(15, 55), slice(15, 35), slice(15, 25)),
}
_LEVELS = {"sym3": (77, 40, 21, 12), "dmey": (80, 40, 20, 10)}
_BAND_TRANSFORMATIONS = {*KNN_TRANSFORMATIONS[:9], "singular_ratio"}


class EagleEyesFeatures(TakesPatches, TransformerMixin, BaseEstimator):
    """Turn patches into the 2,400 features of the HYPERVIEW challenge's winners.

    They are 16 transformations of 150 values each: the mean spectrum of the field and its first three derivatives (by
    band), the ratio of the first two singular values of each band's image, the five largest singular values, Fourier
    transforms (real and imaginary parts), and wavelet coefficients. Pixels outside the field are 0 in the images,
    which are repeated to a square.

    | variant | Fourier transforms of | wavelet coefficients |
    |---|---|---|
    | "code", of the submission | mean, first singular values | approximations of sym3, approximations of dmey |
    | "paper", as published | mean, ratio of singular values | approximations of dmey, details of dmey |

    Patches are read one at a time, so memory holds one for each of `n_jobs`.

    Args:
        wavelengths: Centers of the 150 bands in nm; None takes those of the `Patches` it is fitted to.
        variant: "code" or "paper".
        pseudo_wavelength: Give Fourier and wavelet features the band and wavelength of their position, as in the
            plots of arXiv 2403.08017. They have none otherwise, since they mix all or many bands.
        n_jobs: Patches computed at once, in threads; None for 1, -1 for all cores.

    Attributes:
        wavelengths_: Centers of the bands.
        feature_table: After fitting, one row per feature: feature (its name), transformation, band (from 0),
            wavelength (nm), level (of wavelets) and frequency (of Fourier transforms, in cycles over all bands); NaN
            where there is none.

    Example:
        >>> from hf_msae.hyperspectral import EagleEyesFeatures, make_patches
        >>> patches = make_patches(20, seed=0)
        >>> EagleEyesFeatures().fit_transform(patches).shape
        (20, 2400)
    """

    def __init__(
        self,
        wavelengths: Sequence[float] | np.ndarray | None = None,
        *,
        variant: str = "code",
        pseudo_wavelength: bool = False,
        n_jobs: int | None = None,
    ):
        self.wavelengths = wavelengths
        self.variant = variant
        self.pseudo_wavelength = pseudo_wavelength
        self.n_jobs = n_jobs

    def fit(self, X: Patches | Sequence[Pair], y: object = None) -> Self:
        """Learn nothing but the bands, which have to be 150, those of the patches."""
        if self.variant not in ("code", "paper"):
            raise ValueError(f"variant is {self.variant!r}, but must be 'code' or 'paper'")
        wavelengths = X.wavelengths if self.wavelengths is None and isinstance(X, Patches) else self.wavelengths
        if wavelengths is None:
            raise ValueError("the patches do not know their wavelengths: pass EagleEyesFeatures(wavelengths)")
        wavelengths = check_wavelengths(wavelengths)
        if len(wavelengths) != BANDS:
            raise ValueError(
                f"there are {len(wavelengths)} wavelengths, but the features are of {BANDS} bands: resample the "
                "patches first (Patches.resample)"
            )
        self.wavelengths_ = wavelengths
        self._table = _feature_table(wavelengths, self.variant, self.pseudo_wavelength)
        self._check_bands(X)
        return self

    def transform(self, X: Patches | Sequence[Pair]) -> np.ndarray:
        """Return the features of patches (n, 2400), float64."""
        check_is_fitted(self)
        self._check_bands(X)
        if not len(X):
            raise ValueError("there are no patches")
        rows = Parallel(n_jobs=self.n_jobs, prefer="threads")(delayed(self._features)(X, row) for row in range(len(X)))
        return np.stack(rows)

    @property
    def feature_table(self) -> pd.DataFrame:
        """What each feature is, once fitted."""
        check_is_fitted(self)
        return self._table.copy()

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Return the names of the features."""
        check_is_fitted(self)
        return self._table["feature"].to_numpy(dtype=object)

    def _check_bands(self, X: Patches | Sequence[Pair]) -> None:
        if isinstance(X, Patches) and (
            len(X.wavelengths) != BANDS or not np.allclose(X.wavelengths, self.wavelengths_, rtol=0, atol=1)
        ):
            raise ValueError(
                f"the patches have {len(X.wavelengths)} bands from {X.wavelengths[0]:.1f} to {X.wavelengths[-1]:.1f} "
                f"nm, but the features are of {BANDS} from {self.wavelengths_[0]:.1f} to {self.wavelengths_[-1]:.1f} "
                "nm: resample the patches (Patches.resample)"
            )

    def _features(self, X: Patches | Sequence[Pair], row: int) -> np.ndarray:
        data, mask = X[row]
        name = X.ids[row] if isinstance(X, Patches) else row
        data, mask = check_pair(data, mask, f"patch {name}", BANDS)
        if max(mask.shape) < SINGULAR_VALUES:
            size = f"{mask.shape[0]}x{mask.shape[1]}"
            raise PatchError(f"patch {name}", "data", f"{size} pixels, but the longer side needs {SINGULAR_VALUES}")
        inside = ~mask
        mean = data[:, inside].mean(axis=1, dtype=float) / LARGEST_MEAN
        if not np.isfinite(mean).all():
            raise PatchError(f"patch {name}", "data", "values of the field are not finite")
        image = np.zeros(data.shape)
        np.copyto(image, data, where=inside)
        singular = singular_values(image) / LARGEST_MEAN
        ratio = singular[:, 0] / (singular[:, 1] + np.finfo(float).eps)
        derivatives = [mean]
        for _ in range(3):
            derivatives.append(np.gradient(derivatives[-1]))
        fourier = [np.fft.fft(mean), np.fft.fft(singular[:, 0] if self.variant == "code" else ratio)]
        if self.variant == "code":
            wavelets = [_wavelet(mean, "sym3")[0], _wavelet(mean, "dmey")[0]]
        else:
            wavelets = _wavelet(mean, "dmey")
        parts = [part for transform in fourier for part in (transform.real, transform.imag)]
        return np.concatenate([*derivatives, ratio, *singular.T, *parts, *wavelets])


def singular_values(images: np.ndarray) -> np.ndarray:
    """Return the five largest singular values (bands, 5) of each image (bands, h, w) after repeating it to a square.

    They are the roots of eigenvalues of a matrix of the shorter side: repeating rows only weighs them, so neither the
    square nor a singular value decomposition is needed.
    """
    if images.shape[1] > images.shape[2]:
        images = images.transpose(0, 2, 1)
    height, width = images.shape[1:]
    repeated = np.bincount(np.arange(width) % height, minlength=height)
    weighted = images if height == width else images * np.sqrt(repeated)[:, None]
    squares = np.linalg.eigvalsh(weighted @ weighted.transpose(0, 2, 1))[:, : -SINGULAR_VALUES - 1 : -1]
    found = np.sqrt(np.clip(squares, 0, None))
    if height < SINGULAR_VALUES:
        found = np.pad(found, ((0, 0), (0, SINGULAR_VALUES - height)))
    # Roots of eigenvalues lose the digits of singular values that are small beside the first.
    inexact = found[:, -1] < 1e-6 * found[:, 0]
    if inexact.any():
        exact = np.linalg.svd(weighted[inexact], compute_uv=False)[:, :SINGULAR_VALUES]
        found[inexact, : exact.shape[1]] = exact
    return found


def _wavelet(signal: np.ndarray, wavelet: str) -> tuple[np.ndarray, np.ndarray]:
    """Return 150 approximation and 150 detail coefficients of four levels (fewer details for sym3, which has none)."""
    import pywt

    approximations, details = [], []
    for part in _WAVELETS[wavelet]:
        # sym3 keeps a level's coefficients and trims what it makes the next from; dmey trims what it keeps.
        if wavelet == "sym3":
            approximation, detail = pywt.dwt(signal if part is None else signal[part], wavelet, mode="constant")
        else:
            approximation, detail = (each[part] for each in pywt.dwt(signal, wavelet, mode="constant"))
        approximations.append(approximation)
        details.append(detail)
        signal = approximation
    return np.concatenate(approximations), np.concatenate(details)


def _feature_table(wavelengths: np.ndarray, variant: str, pseudo_wavelength: bool) -> pd.DataFrame:
    second = "singular_1" if variant == "code" else "singular_ratio"
    names = ["mean", "derivative_1", "derivative_2", "derivative_3", "singular_ratio"]
    names += [f"singular_{k}" for k in range(1, SINGULAR_VALUES + 1)]
    names += [f"fft_{of}_{part}" for of in ("mean", second) for part in ("real", "imaginary")]
    names += (
        ["sym3_approximation", "dmey_approximation"] if variant == "code" else ["dmey_approximation", "dmey_detail"]
    )
    rows = []
    for name in names:
        levels = np.repeat(np.arange(1, 5), _LEVELS[name[:4]]) if name[:4] in _LEVELS else np.full(BANDS, np.nan)
        for place in range(BANDS):
            known = name in _BAND_TRANSFORMATIONS or pseudo_wavelength
            if name in _BAND_TRANSFORMATIONS:
                suffix = f"{wavelengths[place]:.1f}nm"
            elif name.startswith("fft"):
                suffix = f"frequency{place}"
            else:
                suffix = f"level{int(levels[place])}_{place - int(np.argmax(levels == levels[place]))}"
            rows.append(
                {
                    "feature": f"{name}_{suffix}",
                    "transformation": name,
                    "band": place if known else np.nan,
                    "wavelength": wavelengths[place] if known else np.nan,
                    "level": levels[place],
                    "frequency": place if name.startswith("fft") else np.nan,
                }
            )
    return pd.DataFrame(rows)
