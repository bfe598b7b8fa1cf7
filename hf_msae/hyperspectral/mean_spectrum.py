"""The mean spectrum of a field as features, for any bands, and models of patches among audits that see these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin, clone
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
        """Learn nothing but the bands."""
        wavelengths = X.wavelengths if self.wavelengths is None and isinstance(X, Patches) else self.wavelengths
        if wavelengths is None:
            raise ValueError("the patches do not know their wavelengths: pass MeanSpectrum(wavelengths)")
        self.wavelengths_ = check_wavelengths(wavelengths)
        return self

    def transform(self, X: Patches | Sequence[Pair]) -> np.ndarray:
        """Return mean reflectance (n, bands), of data in digital numbers."""
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


class RememberedSpectra(MeanSpectrum):
    """The mean spectrum, which remembers the patches of the rows that it made last, and always knows some."""

    def __init__(self, patches: Patches):
        super().__init__(patches.wavelengths)
        self.patches = patches
        self.spectra = MeanSpectrum(patches.wavelengths).fit(patches)
        self.known: dict[bytes, int] = {}
        self.last: dict[bytes, Pair] = {}

    def remember(self, X: np.ndarray) -> None:
        """Remember which rows the known patches have."""
        self.known = {row.tobytes(): place for place, row in enumerate(np.asarray(X, dtype=np.float64))}

    def transform(self, X: Patches | Sequence[Pair]) -> np.ndarray:
        """Return mean reflectance (n, bands)."""
        found = super().transform(X)
        if not isinstance(X, Patches):
            self.last = {row.tobytes(): pair for row, pair in zip(found, X, strict=True)}
        return found

    def patch_of(self, row: np.ndarray) -> Pair:
        """Return the patch with this mean spectrum."""
        key = np.ascontiguousarray(row, dtype=np.float64).tobytes()
        if key in self.last:
            return self.last[key]
        if key not in self.known:
            raise ValueError("a model of patches was given a row of features that is no patch")
        return self.patches[self.known[key]]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the wavelengths: patches are no parameter."""
        return {"wavelengths": self.wavelengths}

    def __sklearn_clone__(self) -> RememberedSpectra:
        return self  # clones of a model share it


PATCHES_ONLY = "The model predicts from patches, not from features, so {} left out."
"""What audits say that change single columns of X."""


class ModelOfPatches(RegressorMixin, BaseEstimator):
    """A regressor of patches that is given the rows of their mean spectra."""

    learns_from_places = True
    """`fit` is told which rows and columns of the table it is given."""

    def __init__(self, model: Any, spectra: RememberedSpectra):
        self.model = model
        self.spectra = spectra

    def fit(self, X: np.ndarray, y: np.ndarray, rows: np.ndarray, columns: np.ndarray | None = None) -> Self:
        """Learn from the patches of these rows."""
        self.model_ = clone(self.model)
        self.model_.fit(self.spectra.patches[rows], y)  # which need not return the model
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return predictions (n, t)."""
        return self.model_.predict([self.spectra.patch_of(row) for row in X])
