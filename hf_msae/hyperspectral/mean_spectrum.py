"""The mean spectrum of a field as features: the simplest transformer of patches, for any bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .checks import check_pair, check_wavelengths
from .patches import UNITS, Pair, Patches, TakesPatches
from .sources import Arrays

if TYPE_CHECKING:
    from typing import Self


class MeanSpectrum(TakesPatches, TransformerMixin, BaseEstimator):
    """Turn patches into the mean reflectance of the field in each band, 0 to 1.

    Args:
        wavelengths: Centers of the bands in nm; None takes those of the `Patches` it is fitted to.

    Attributes:
        wavelengths_: Centers of the bands.
        feature_table: After fitting, one row per band: feature, transformation ("mean"), band (from 0), wavelength
            (nm), and level (NaN).
    """

    def __init__(self, wavelengths: Sequence[float] | np.ndarray | None = None):
        self.wavelengths = wavelengths

    def fit(self, X: Patches | Sequence[Pair], y: object = None) -> Self:
        """Learn nothing but the bands.

        Raises:
            ValueError: The wavelengths are unknown.
        """
        wavelengths = X.wavelengths if self.wavelengths is None and isinstance(X, Patches) else self.wavelengths
        if wavelengths is None:
            raise ValueError("the patches do not know their wavelengths: pass MeanSpectrum(wavelengths)")
        self.wavelengths_ = check_wavelengths(wavelengths)
        return self

    def transform(self, X: Patches | Sequence[Pair]) -> np.ndarray:
        """Return mean reflectance (n, bands), of data in digital numbers.

        Raises:
            PatchError: A patch has another number of bands, or no field.
        """
        check_is_fitted(self)
        found = np.empty((len(X), len(self.wavelengths_)))
        for row in range(len(X)):
            name = f"patch {X.ids[row] if isinstance(X, Patches) else row}"
            data, mask = check_pair(*X[row], name, found.shape[1])
            found[row] = data[:, ~mask].mean(axis=1, dtype=float) / UNITS["reflectance"]
        return found

    @property
    def feature_table(self) -> pd.DataFrame:
        """What each feature is, once fitted."""
        check_is_fitted(self)
        bands = self.wavelengths_
        return pd.DataFrame(
            {
                "feature": [f"mean_{wavelength:.1f}nm" for wavelength in bands],
                "transformation": "mean",
                "band": np.arange(len(bands)),
                "wavelength": bands,
                "level": np.nan,
            }
        )

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Return the names of the features."""
        return self.feature_table["feature"].to_numpy(dtype=object)


def patches_of_spectra(
    spectra: np.ndarray,
    wavelengths: np.ndarray,
    ids: list[str],
    groups: Mapping[str, np.ndarray],
    targets: pd.DataFrame | None = None,
) -> Patches:
    """Return spectra (n, bands) without images, such as those of a laboratory, as patches of one pixel."""
    sizes = pd.DataFrame(1, index=range(len(ids)), columns=["height", "width", "pixels"])
    pixels = Arrays(spectra[:, :, None, None], None, ids)
    return Patches(pixels, wavelengths, ids, sizes, spectra, targets=targets, groups=groups)
