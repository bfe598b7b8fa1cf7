"""Red teaming from patches: their features, targets and groups, for any model of patches or of features."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import fields as dataclass_fields
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.base import clone, is_classifier
from sklearn.pipeline import Pipeline

from .._utils.atomic import atomic_path, make_folder
from .._utils.checks import refuse_other_order
from .._utils.code_facts import code_of_parts
from .._utils.wording import counted
from .generator import SyntheticFields
from .hybrid import HybridRegressor
from .hybrid_of_features import of_features
from .mean_spectrum import MeanSpectrum, ModelOfPatches, RememberedSpectra
from .patches import Chosen, Patches, Resampled
from .reading import FIELD_SIZE, read_targets
from .sources import NpzFiles


def inputs_of_patches(
    model: Any,
    patches: Patches,
    y: Any = None,
    groups: Any = None,
    features: pd.DataFrame | None = None,
    transformer: Any = None,
    output_dir: str | os.PathLike | None = None,
    model_name: str | None = None,
) -> dict[str, Any]:
    """Return the arguments of `make_subject` for patches, given those of `red_team`.

    The transformer is the one given, that of a hybrid, or the first step of a pipeline that takes patches; a model of
    features without one is given the mean spectrum. Of other models of patches, such as networks, the mean spectrum is
    what audits see, and predictions are made from the patches. Features are kept in `output_dir`.
    """
    if y is None:
        y = patches.targets
    if y is None:
        raise ValueError("the patches have no targets: pass y, or load them with ground_truth=...")
    refuse_other_order(**{"the patches": pd.Series(0, index=list(patches.ids)), "y": y})
    if hasattr(model, "fit") and not is_classifier(model):
        read_targets(y, len(patches), classify=False)  # before features are made of what cannot be used
    if transformer is None:
        if isinstance(model, HybridRegressor):
            model, transformer = of_features(model, patches)
        elif isinstance(model, Pipeline) and takes_patches(model[0]) and len(model) > 1:
            transformer, model = clone(model[0]), Pipeline(model.steps[1:])
        elif takes_patches(model):
            if is_classifier(model):
                raise TypeError(
                    f"{model_name or type(model).__name__} classifies patches; of models of patches, regressors are "
                    "tested"
                )
            transformer = RememberedSpectra(patches).fit(patches)
            model = ModelOfPatches(model, transformer)
        else:
            transformer = MeanSpectrum()
    if not hasattr(transformer, "feature_table"):
        transformer = transformer.fit(patches)
    if groups is None:
        groups = dict(patches.groups)
        if len(np.unique(patches.size_classes)) > 1:
            groups[FIELD_SIZE] = patches.size_classes
    are_images = bool(patches.sizes["pixels"].max() > 1)
    is_remembered = isinstance(transformer, RememberedSpectra)
    X = kept_features(patches, transformer.spectra if is_remembered else transformer, output_dir)
    if is_remembered:
        transformer.remember(X)
    return {
        "model": model,
        "X": X,
        "y": y,
        "groups": groups,
        "features": transformer.feature_table if features is None else features,
        "patches": patches if are_images else None,
        "transformer": transformer if are_images else None,
        "remarks": _remarks(patches),
        "ids": patches.ids,
    }


def _remarks(patches: Patches) -> list[str]:
    if not patches.dropped:
        return []
    number = counted(len(patches.dropped), "invalid patch was", "invalid patches were")
    return [
        f"{number} left out and not tested: {', '.join(patches.dropped[:5])}{', ...' * (len(patches.dropped) > 5)}"
    ]


def takes_patches(model: Any) -> bool:
    """Say whether a model predicts from patches, such as a hybrid or a pipeline that makes features."""
    tags = getattr(model, "__sklearn_tags__", None)
    return tags is not None and tags().input_tags.three_d_array


def kept_features(patches: Patches, transformer: Any, output_dir: str | os.PathLike | None) -> np.ndarray:
    """Return the features of patches: those in the folder, if they are of the same pixels, transformer and code."""
    if output_dir is None:
        return np.asarray(transformer.transform(patches))
    digest = hashlib.sha256(repr((transformer, patches.wavelengths.tolist(), patches.scale)).encode())
    digest.update(
        joblib.hash([value for name, value in sorted(vars(transformer).items()) if name[-1] == "_"]).encode()
    )
    digest.update(code_of_parts(transformer).encode())
    for row in range(len(patches)):
        _add_pixels(digest, patches.pairs, row)
    path = make_folder(Path(output_dir) / "features") / f"{digest.hexdigest()[:16]}.npy"
    with suppress(FileNotFoundError, ValueError, EOFError):  # a damaged file counts as missing
        return np.load(path, allow_pickle=False)
    found = np.asarray(transformer.transform(patches))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, found)
    return found


def _add_pixels(digest: Any, pairs: Any, row: int) -> None:
    """Add what the pixels of a patch follow from: a file's content, what a field is made of, or the pixels."""
    row = int(row)
    if isinstance(pairs, Chosen):
        _add_pixels(digest, pairs.pairs, pairs.rows[row])
    elif isinstance(pairs, Resampled):
        digest.update(pairs.weights.tobytes())
        _add_pixels(digest, pairs.pairs, row)
    elif isinstance(pairs, NpzFiles):
        digest.update(Path(pairs.files[row]).read_bytes())
    elif isinstance(pairs, SyntheticFields):
        digest.update(f"{row} {_code_of_fields()}".encode())
        for field in dataclass_fields(pairs):
            value = getattr(pairs, field.name)
            of_patch = field.name in ("farm", "depths", "gains")
            digest.update(np.asarray(value[row] if of_patch else (0 if value is None else value)).tobytes())
    else:
        for array in map(np.ascontiguousarray, pairs[row]):
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(array.tobytes())


@cache
def _code_of_fields() -> str:
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / f"{name}.py").read_bytes() for name in _FIELDS)).hexdigest()


_FIELDS = ("generator", "soil_optics")
