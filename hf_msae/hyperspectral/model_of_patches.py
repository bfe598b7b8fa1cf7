"""Models that predict from patches alone, such as networks, among audits that see rows of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone

from .mean_spectrum import MeanSpectrum
from .patches import Pair, Patches

if TYPE_CHECKING:
    from typing import Self


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
        self.model_ = clone(self.model).fit(self.spectra.patches[rows], y)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return predictions (n, t)."""
        return self.model_.predict([self.spectra.patch_of(row) for row in X])
