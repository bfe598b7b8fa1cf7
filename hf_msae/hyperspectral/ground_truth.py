"""The table that comes with patches: what was measured, and which farm, date or instrument a patch is from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .checks import PatchError
from .patches import HYPERVIEW2_TARGETS, TARGETS

ID_COLUMNS = ("sample_index", "sample_id", "id", "index")
"""Names of the column that says which patch a row is about, in the order in which they are looked for."""
GROUP_COLUMNS = ("farm", "field", "site", "date", "instrument", "campaign", "source")
"""Columns that are taken as groups without being asked for."""
_ALIASES = {"p2o5": "P"} | {name.lower(): name for name in (*TARGETS, *HYPERVIEW2_TARGETS)}
_LIMITS = {"pH": (0.0, 14.0)}


def read_table(source: str | os.PathLike | pd.DataFrame) -> tuple[pd.DataFrame, object]:
    """Return a table, and its name for messages."""
    if isinstance(source, pd.DataFrame):
        return source, "ground truth"
    return pd.read_csv(Path(source).expanduser()), source


def split_table(
    source: str | os.PathLike | pd.DataFrame,
    ids: Sequence[str],
    targets: Sequence[str] | None,
    groups: Sequence[str] | None,
    where: object,
) -> tuple[pd.DataFrame | None, dict[str, np.ndarray]]:
    """Return the targets and groups of patches from a table, in the order of the patches.

    Args:
        source: A CSV file or a table; without a column of `ID_COLUMNS`, its rows are in the order of the patches.
        ids: Names of the patches.
        targets: Columns of targets; None for those with names of the challenges, P2O5 being P.
        groups: Columns of groups; None for those in `GROUP_COLUMNS`.
        where: Where the patches are, for messages.

    Raises:
        PatchError: Ids differ or are repeated, a column is missing, or a value is no number or out of range.
    """
    table, name = read_table(source)
    id_column = next((column for column in table if str(column).lower() in ID_COLUMNS), None)
    if id_column is not None:
        table = _in_order(table, id_column, ids, name, where)
    elif len(table) != len(ids):
        raise PatchError(
            name, "rows", f"there are {len(table)}, but {len(ids)} patches in {where}, and no column {ID_COLUMNS[0]}"
        )
    known = {column: _ALIASES.get(str(column).lower()) for column in table if column != id_column}
    if targets is None:
        chosen = {column: target for column, target in known.items() if target}
    else:
        chosen = {_column_of(target, known, name, "targets"): target for target in targets}
    twice = [column for column, target in chosen.items() if list(chosen.values()).count(target) > 1]
    if twice:
        raise PatchError(name, ", ".join(map(str, twice)), "these columns are the same target")
    if groups is None:
        taken = [column for column in known if str(column).lower() in GROUP_COLUMNS and column not in chosen]
    else:
        taken = [_column_of(group, dict.fromkeys(known), name, "groups") for group in groups]
    if targets is None and (left := [column for column in known if column not in chosen and column not in taken]):
        raise PatchError(
            name, left[0], "neither a target of the challenges nor a group: name the columns in targets and groups"
        )
    for column in chosen:
        _check_target(table, column, chosen[column], id_column, name)
    for group in taken:
        if table[group].isna().any():
            raise PatchError(name, str(group), f"row {int(np.flatnonzero(table[group].isna())[0])} is empty")
    measured = table[list(chosen)].astype(float).rename(columns=chosen) if chosen else None
    return measured, {str(group): table[group].astype(str).to_numpy(dtype=str) for group in taken}


def as_id(value: object) -> str:
    """Return the name of a patch: numbers without leading zeros, as some files have them and tables do not."""
    text = str(value).strip()
    text = text.removesuffix(".0") if isinstance(value, float) else text
    return str(int(text)) if text.isdecimal() else text


def _in_order(table: pd.DataFrame, column: str, ids: Sequence[str], name: object, where: object) -> pd.DataFrame:
    found = table[column].map(as_id)
    if found.duplicated().any():
        raise PatchError(name, column, f"{found[found.duplicated()].iloc[0]} is there twice")
    missing, more = [each for each in ids if each not in set(found)], [each for each in found if each not in set(ids)]
    if missing or more:
        parts = []
        if missing:
            parts.append(f"{len(missing)} patches of {where} have no row ({', '.join(missing[:3])})")
        if more:
            parts.append(f"{len(more)} rows have no patch ({', '.join(more[:3])})")
        raise PatchError(name, column, " and ".join(parts))
    return table.set_index(found).loc[list(ids)].reset_index(drop=True)


def _column_of(asked: str, known: dict, name: object, what: str) -> str:
    found = next((column for column, target in known.items() if asked in (column, target)), None)
    if found is None:
        raise PatchError(name, asked, f"there is no such column for {what}; columns are {', '.join(map(str, known))}")
    return found


def _check_target(table: pd.DataFrame, column: str, target: str, id_column: str | None, name: object) -> None:
    values = pd.to_numeric(table[column], errors="coerce")
    low, high = _LIMITS.get(target, (0.0, np.inf))
    bad = ~np.isfinite(values)
    if target in _LIMITS or _ALIASES.get(target.lower()):
        bad |= (values < low) | (values > high)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        patch = table[id_column].iloc[row] if id_column is not None else row
        raise PatchError(name, str(column), f"{table[column].iloc[row]} of patch {patch} is no value of {target}")
