"""What people pass to `red_team`, read: targets, groups and the table of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .._utils.checks import refuse_masked
from .._utils.wording import class_title, counted, joined

FEATURE_COLUMNS = ("feature", "transformation", "band", "wavelength", "level")
FIELD_SIZE = "field_size"
"""The grouping that comes with patches of several sizes, without anyone having named a farm, instrument or date."""
_MOST_VALUES, _BINS = 20, 5  # of a grouping by a measurement


def read_targets(y: Any, n: int, classify: bool) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """Return the targets (n, t), their names, and the classes; of two classes only the second is a target."""
    names = [str(name) for name in y.columns] if isinstance(y, pd.DataFrame) else None
    if isinstance(y, pd.Series) and y.name is not None:
        names = [str(y.name)]
    if names and (twice := [name for place, name in enumerate(names) if name in names[:place]]):
        raise ValueError(f"two columns of y are called {twice[0]!r}: rename or leave out one of them")
    refuse_masked("y", y)
    values = np.asarray(y)
    if len(values) != n:
        raise ValueError(f"y has {len(values)} rows, but X has {n}")
    if values.dtype.kind == "O" and (missing := pd.isna(values).reshape(n, -1)).any():
        row, column = np.argwhere(missing)[0]
        what = names[column] if names else "y"
        lacking = counted(int(missing.any(axis=1).sum()), "such row")
        raise ValueError(f"{what} has no value in row {row}: leave out {lacking}")
    if classify:
        values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
        if values.ndim != 1:
            among = f": choose one of {', '.join(names)}" if names else f", got an array of shape {values.shape}"
            raise ValueError(f"y of a classifier must be one label per row{among}")
        if values.dtype.kind == "f":
            refuse_not_finite("y", values.reshape(n, -1), names)
            if (values % 1 == 0).all():
                values = values.astype(np.int64)  # numbers of classes, which tables of targets hold as fractions
            elif (number := len(np.unique(values))) > _MOST_VALUES:
                named = f"{', '.join(names)} has" if names else "y has"
                raise ValueError(
                    f"{named} {number:,} values that are measured, and a classifier needs classes: pass a regressor, "
                    "or cut the values into classes"
                )
        classes, places = np.unique(values, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y has only the class {str(classes[0])!r}: there is nothing to predict")
        Y = (places[:, None] == np.arange(len(classes))[None]).astype(np.float64)
        shown = list(map(str, classes))
        if len(classes) == 2:
            return Y[:, 1:], (class_title(names[0], shown, shown[1]) if names else shown[1],), classes
        if names and classes.dtype.kind in "iu":  # a number says nothing without the name of what it numbers
            shown = [f"{names[0]} {each}" for each in shown]
        return Y, tuple(shown), classes
    try:
        Y = np.asarray(values, dtype=np.float64).reshape(n, -1)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{joined(names) if names else 'y'} must be numbers for a regressor, got values such as "
            f"{str(values.ravel()[0])!r}. A classifier says that it is one: class Mine(ClassifierMixin, BaseEstimator)"
        ) from error
    refuse_not_finite("y", Y, names)
    names = names or (["target"] if Y.shape[1] == 1 else [f"target_{i}" for i in range(Y.shape[1])])
    for name, column in zip(names, Y.T, strict=True):
        if np.ptp(column) == 0:
            others = [each for each in names if each != name]
            hint = f". Choose others (--targets {' '.join(others)})" if others else ""
            raise ValueError(f"target {name} is {column[0]:g} in all rows: there is nothing to predict{hint}")
    return Y, tuple(names), None


def read_groups(groups: Any, n: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the labels of rows as text, and what was done to those that are measurements."""
    if groups is None:
        return {}, []
    given = groups if isinstance(groups, Mapping | pd.DataFrame) else {"group": groups}
    found, remarks = {}, []
    for name, labels in given.items():
        refuse_masked(f"groups {name!r}", labels)
        labels = np.asarray(labels)
        if str(name) in found:
            raise ValueError(f"two groupings are called {str(name)!r}: rename one of them")
        if labels.shape != (n,):
            raise ValueError(f"groups {name!r} must have {n} labels, got an array of shape {labels.shape}")
        missing = pd.isna(labels)
        if missing.any():
            raise ValueError(f"groups {name!r} lack the label of row {int(np.flatnonzero(missing)[0])}")
        if labels.dtype.kind == "f" and (labels % 1 == 0).all():
            labels = labels.astype(np.int64)  # numbers of groups, from a table in which others are missing
        if labels.dtype.kind == "f" and (number := len(np.unique(labels))) > _MOST_VALUES:
            labels = pd.qcut(labels, _BINS, duplicates="drop").astype(str)
            remarks.append(
                f"{name} has {number:,} measured values, so it was cut into {len(np.unique(labels))} quantiles. Whole "
                "numbers and text are taken as names of groups."
            )
        found[str(name)] = np.asarray(labels).astype(str)
    return found, remarks


def read_features(features: pd.DataFrame | None, names: list[str] | None, p: int) -> pd.DataFrame:
    """Return the feature table of p columns, with their names where there is no table."""
    if features is None:
        names = names or [f"feature {i}" for i in range(p)]
        return pd.DataFrame({"feature": names, "transformation": "feature"}).assign(
            band=np.nan, wavelength=np.nan, level=np.nan
        )
    if missing := [name for name in FEATURE_COLUMNS if name not in features.columns]:
        raise ValueError(f"the feature table has no column {missing[0]!r}")
    if len(features) != p:
        raise ValueError(f"the feature table has {len(features)} rows, but X has {p} columns")
    known = [*FEATURE_COLUMNS, *(["concept"] if "concept" in features else [])]
    table = features[known].reset_index(drop=True)
    return table.assign(**{name: table[name].astype(float) for name in ("band", "wavelength", "level")})


def refuse_not_finite(name: str, values: np.ndarray, columns: Sequence[str] | None = None) -> None:
    """Refuse an array (rows, columns) with values that are not finite; columns go by their names, if they have any."""
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        where = f"column {column}" if columns is None else str(columns[column])
        raise ValueError(
            f"{name} is {values[row, column]} in row {row}, {where}, and not finite in {counted(len(wrong), 'place')}"
        )
