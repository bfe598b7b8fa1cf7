"""Models by name, for the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from sklearn.compose import TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .hybrid import HybridRegressor


def _scaled(trees: Any) -> Any:
    """Standardize the targets: trees split by the sum of their squared errors, and pH has the smallest by far."""
    return TransformedTargetRegressor(trees, transformer=StandardScaler())


MODELS: dict[str, Callable[[int], Any]] = {
    "forest": lambda seed: _scaled(
        RandomForestRegressor(100, min_samples_leaf=2, max_features=0.3, random_state=seed)
    ),
    "extra_trees": lambda seed: _scaled(
        ExtraTreesRegressor(100, min_samples_leaf=2, max_features=0.3, random_state=seed)
    ),
    "boosting": lambda seed: MultiOutputRegressor(GradientBoostingRegressor(subsample=0.5, random_state=seed)),
    "pls": lambda seed: PLSRegression(12),
    "ridge": lambda seed: make_pipeline(StandardScaler(), RidgeCV([0.01, 0.1, 1, 10, 100])),
    "hybrid": lambda seed: HybridRegressor(n_estimators=100, crops=2, random_state=seed),
    "knn": lambda seed: make_pipeline(StandardScaler(), KNeighborsRegressor(20, weights="distance")),
}
"""Functions of a seed that make a regressor."""
CLASSIFIERS: dict[str, Callable[[int], Any]] = {
    "logistic": lambda seed: make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)),
}
"""Functions of a seed that make a classifier. It is regularized strongly: see docs/bias.md."""


def make_model(name: str, seed: int = 0) -> Any:
    """Return a model, which has not been fitted unless it is one of your own.

    Args:
        name: One of `MODELS` or `CLASSIFIERS`, or "file.py:name" or "module:name" of your own: a scikit-learn model,
            a torch module or `LinearClassifier`, which is tested as it is, or a function or class without arguments
            that makes one, also in the working directory.
        seed: Random seed of one of these models.

    Raises:
        ValueError: There is no such model.
    """
    known = {**MODELS, **CLASSIFIERS}
    if name in known:
        return known[name](seed)
    module, colon, attribute = name.rpartition(":")
    if not colon:
        raise ValueError(f"there is no model {name!r}; the models are {', '.join(known)}, or file.py:name of your own")
    file = Path(module).expanduser()
    folder, module = (file.resolve().parent, file.stem) if file.suffix == ".py" else (Path.cwd(), module)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"model {name!r} cannot be imported: {error}") from error
    # A torch module, or a `LinearClassifier`, is not fitted; modules can be called, but make no model.
    if not isinstance(found, type) and any(hasattr(found, method) for method in ("fit", "forward", "logits")):
        return found
    if not callable(found):
        raise ValueError(
            f"model {name!r} is of type {type(found).__name__}: name a model, or a function that makes one"
        )
    return found()
