"""Red teaming: run the audits of a model, keep what each found, and test everything together."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from tqdm.auto import tqdm

from .._utils.atomic import make_folder
from .._utils.checks import check_integers, check_several
from .._utils.code_facts import code_of_parts
from .._utils.json_files import write_json
from .._utils.wording import joined
from ..statistics import confirmed
from .audits.attacks import attacks
from .audits.attributions import attributions
from .audits.bands import bands, spectrum_columns
from .audits.concepts import concepts
from .audits.outcome import Outcome
from .audits.performance import performance
from .audits.pruning import pruning
from .audits.shortcuts import is_spectral, shortcuts
from .audits.slices import QUANTILES
from .audits.stability import stability
from .fixed import FixedClassifier
from .from_patches import inputs_of_patches
from .mean_spectrum import ModelOfPatches
from .patches import Pair, Patches
from .result import RedTeamReport
from .subject import Subject, make_subject

if TYPE_CHECKING:
    from ..concepts import ConceptTable
    from ..model.modeling_msae import MSAEModel

AUDITS: dict[str, Callable[[Subject], Outcome]] = {
    "shortcuts": shortcuts,
    "performance": performance,
    "bands": bands,
    "attributions": attributions,
    "pruning": pruning,
    "attacks": attacks,
    "concepts": concepts,
    "stability": stability,
}
"""The audits, in the order in which they run and are reported."""
_FORMAT = 10
"""Outcomes of another format are measured again."""


def red_team(
    model: Any,
    X: Any,
    y: Any = None,
    groups: Any = None,
    *,
    features: pd.DataFrame | ConceptTable | None = None,
    msae: MSAEModel | None = None,
    expected: Collection[str] | None = None,
    patches: Sequence[Pair] | None = None,
    transformer: Any = None,
    audits: Sequence[str] = tuple(AUDITS),
    num_folds: int = 5,
    num_explained: int = 200,
    num_attacked: int = 60,
    num_seeds: int = 4,
    num_bootstrap: int = 1000,
    alpha: float = 0.05,
    seed: int = 0,
    output_dir: str | os.PathLike | None = None,
    data: str | None = None,
    model_name: str | None = None,
    progress: bool = True,
) -> RedTeamReport:
    """Look for what is wrong with a model of spectra, or of any other features.

    Clones of the model are fitted in folds, so that every prediction is of a row that its model did not see,
    unless it is in use. A finding is a quantity whose 95% interval lies beyond what is harmless and whose test
    stays significant after Holm's correction for all tests of the report, so that a sound model has a finding with
    a probability of about `alpha`. Intervals are over rows, given the fitted models: what other rows to learn from
    would change is not in them. Rows are taken as independent: where they are not, such as several patches of one
    field, name them with `groups`.

    Args:
        model: A scikit-learn regressor or classifier, fitted or not, with one or several targets; or a classifier that
            is in use and not to be fitted again: a `FixedClassifier`, `LinearClassifier`, torch module or function.
            With patches as X also a `HybridRegressor`, a pipeline whose first step is a transformer of patches, or
            another regressor of patches, such as a `VisionRegressor`, of which no columns are attributed or pruned.
        X: Features (n, p), an array or a DataFrame; or `Patches`, which have y, groups and all that follows: one call
            from a folder to a report is `red_team(model, load_patches(folder))`.
        y: Targets (n,) or (n, t), an array, Series or DataFrame; for a classifier labels (n,).
        groups: Labels of the rows (n,), such as farms, or several sets of labels by name: a dict or a DataFrame. Whole
            numbers are names of groups; measurements (fractions) with more than 20 values are cut into five quantiles.
            Defaults to the groups of the patches and their classes of field size.
        features: One row for each column of X: feature (its name), transformation, band (a number or NaN), wavelength
            (nm or NaN) and level (a number or NaN), as in `EagleEyesFeatures.feature_table`. If X are latents, or with
            `msae`, a `ConceptTable` with their names.
        msae: An MSAE of the embeddings X that the model is given: anything `load_embeddings` accepts. Predictions are
            then attributed to concepts, and concepts are pruned and attacked; y and groups may be names of columns.
        expected: Names of concepts that a classifier may depend on. Defaults to the names of y and of its classes.
        patches: Pairs of data (bands, height, width) and mask (height, width), True outside the field, of the rows.
        transformer: An object whose `transform` turns patches into X; with it, patches are attacked. Of `Patches`
            as X, it makes the features; `MeanSpectrum()` by default.
        audits: Names in `AUDITS`.
        num_folds: Number of folds.
        num_explained: Number of rows that predictions are explained of, at most.
        num_attacked: Number of patches that are attacked, at most; 20 times as many rows without patches.
        num_seeds: Number of seeds, and half the number of bootstrap samples, that stability is measured over.
        num_bootstrap: Number of resamples for intervals.
        alpha: Probability of one false finding or more.
        seed: Random seed of folds and draws.
        output_dir: Folder where the outcome of each audit is kept. A run that was interrupted continues with the
            audits that are missing; an audit runs again if the model, the data or a setting differ. Features of
            `Patches` are kept there too.
        data: What the data are called in the report.
        model_name: What the model is called in messages. Defaults to its class.
        progress: Whether to show a progress bar.

    Raises:
        TypeError: The model has no fit and predict.
        ValueError: Arrays do not belong together or are not finite, pandas objects have the same rows in another
            order, or an audit is unknown.

    Example:
        >>> report = red_team(HybridRegressor(), load_patches("fields"), output_dir="out")
        >>> report = red_team(RandomForestRegressor(), X, y, groups={"farm": farm}, features=table)
        >>> report = red_team(probe, "embeddings/test", "star", ["night"], msae=msae, features=concepts)
        >>> print(report)
        >>> report.to_json("report.json")
    """
    check_several("audits", audits=audits)
    audits = list(audits)  # a generator yields them once
    if unknown := [name for name in audits if name not in AUDITS]:
        raise ValueError(f"there is no audit {unknown[0]!r}; the audits are {', '.join(AUDITS)}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    limits = {"num_explained": num_explained, "num_attacked": num_attacked, "num_seeds": num_seeds}
    check_integers(num_folds=(num_folds, 2), num_attacked=(num_attacked, 2), num_bootstrap=(num_bootstrap, 100))
    check_integers(num_explained=(num_explained, 0), num_seeds=(num_seeds, 0), seed=(seed, 0))
    if isinstance(X, Patches):
        if patches is not None:
            raise ValueError("X are patches already: leave out patches=")
        given = inputs_of_patches(model, X, y, groups, features, transformer, output_dir, model_name)
    elif y is None:
        raise ValueError("y is missing: pass the targets as y, since only Patches bring their own")
    else:
        found = (X, y, groups, features, None)
        if msae is not None or expected or not (features is None or isinstance(features, pd.DataFrame)):
            from .concept_space import read_concepts  # here, since it imports torch

            found = read_concepts(X, y, groups, features, msae, expected)
        given = dict(zip(("X", "y", "groups", "features", "space"), found, strict=True))
        given |= {"model": model, "patches": patches, "transformer": transformer}
    given |= {"num_folds": num_folds, "num_resamples": num_bootstrap, "model_name": model_name}
    subject = make_subject(**given, seed=seed, limits=limits)
    if clash := [name for name in subject.groups if name in QUANTILES]:
        raise ValueError(f"groups cannot be called {clash[0]!r}, as parts of a target are: give them another name")
    model = subject.model if isinstance(subject.model, FixedClassifier) else model
    key = _key(subject) if output_dir is not None else ""
    outcomes: dict[str, Outcome] = {}
    chosen = [name for name in AUDITS if name in audits]
    if subject.space is None and len(chosen) == len(AUDITS):  # nobody asked for it by name
        chosen.remove("concepts")
    with tqdm(total=len(chosen), desc="red team", unit="audit", disable=not progress) as bar:
        for name in chosen:
            bar.set_postfix_str(name)
            outcomes[name] = _kept(name, subject, output_dir, key)
            bar.update()
    candidates = [each for outcome in outcomes.values() for each in outcome.candidates]
    tables = {name: table for outcome in outcomes.values() for name, table in outcome.tables.items()}
    if (spectrum := _mean_spectrum(subject)) is not None:
        tables["spectrum"] = spectrum
    about = {
        "model": _name(model.model if isinstance(model, FixedClassifier) else model),
        "parameters": str(model),
        "data": data or f"{len(subject.X)} rows of {subject.X.shape[1]} columns",
        "rows": len(subject.X),
        "columns": subject.X.shape[1],
        "targets": list(subject.targets),
        "groupings": list(subject.groups),
        "audits": chosen,
        "is_spectral": is_spectral(subject),
        "is_fixed": subject.is_fixed,
        "num_folds": num_folds,
        "seed": seed,
        **limits,
    }
    remarks = [*subject.remarks, *(remark for outcome in outcomes.values() for remark in outcome.remarks)]
    report = RedTeamReport(confirmed(candidates, alpha), tables, remarks, about, len(candidates), alpha)
    unknown: dict[str, list[str]] = {}
    for target, ends in report.unknown_ends().items():
        unknown.setdefault(" and ".join(ends), []).append(target)
    for ends, names in unknown.items():
        remarks.append(f"Whether predictions of {joined(names)} follow {ends} is not known.")
    return replace(report, remarks=remarks)


def _name(model: Any) -> str:
    """Return the class of a model, without the scaling around it."""
    while isinstance(model, Pipeline | TransformedTargetRegressor):
        model = model[-1] if isinstance(model, Pipeline) else model.regressor
    return type(model).__name__


def _kept(name: str, subject: Subject, output_dir: str | os.PathLike | None, key: str) -> Outcome:
    """Return the outcome of an audit: the one in the folder, if it is of the same model, data and settings."""
    if output_dir is None:
        return AUDITS[name](subject)
    path = make_folder(Path(output_dir) / "audits") / f"{name}-{key}.json"
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # a damaged file counts as missing
        return Outcome.from_dict(json.loads(path.read_text(encoding="utf-8")))
    outcome = AUDITS[name](subject)
    write_json(path, outcome.to_dict())
    return outcome


def _key(subject: Subject) -> str:
    digest = hashlib.sha256()  # of patches only by X, which the transformer makes of them
    settings: Mapping[str, Any] = {
        "format": _FORMAT,
        "model": type(subject.model).__module__ + "." + repr(subject.model),
        "transformer": repr(subject.transformer),
        "targets": subject.targets,
        "ids": subject.ids,
        "classes": None if subject.classes is None else list(map(str, subject.classes)),
        "num_resamples": subject.num_resamples,
        "seed": subject.seed,
        "limits": dict(subject.limits),
        "groups": {name: list(labels) for name, labels in subject.groups.items()},
        "features": subject.features.to_csv(),
        "expected": [] if subject.space is None else sorted(subject.space.expected),
    }
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    # What a model that is not fitted again has learned shows in its predictions, as do a network's weights.
    has_learned = subject.is_fixed or isinstance(subject.model, ModelOfPatches)
    if not has_learned:
        recipe = _recipe(subject.model)
        has_learned = recipe is None
        digest.update((recipe or "").encode())
    for array in (subject.X, subject.Y, subject.folds, *([subject.predictions] if has_learned else [])):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def _recipe(model: Any) -> str | None:
    """Return a digest of the parameters of a model, which its repr shortens, and of the code of its classes.

    None if there is no digest of its parameters, such as a lambda.
    """
    parameters = clone(model).get_params()
    try:
        found = joblib.hash(parameters)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return found + code_of_parts(model)


def _mean_spectrum(subject: Subject) -> pd.DataFrame | None:
    """Return the mean over rows of the transformation that has each band once: wavelength and value."""
    places = spectrum_columns(subject)
    if places is None or subject.features["wavelength"].iloc[places].isna().any():
        return None
    wavelengths = subject.features["wavelength"].to_numpy()[places]
    X = subject.X[:, places]
    low, high = np.quantile(X, (0.05, 0.95), axis=0)
    return pd.DataFrame({"wavelength": wavelengths, "mean": X.mean(axis=0), "low": low, "high": high})
