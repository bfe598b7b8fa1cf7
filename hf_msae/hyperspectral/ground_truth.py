"""The table that comes with patches: what was measured, and which farm, date or instrument a patch is from."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .._utils.wording import counted
from .checks import PatchError
from .patches import HYPERVIEW2_TARGETS, TARGETS

ID_COLUMNS = ("sample_index", "sample_id", "id", "index")
"""Names of the column that says which patch a row is about, in the order in which they are looked for."""
GROUP_COLUMNS = ("farm", "field", "site", "date", "instrument", "campaign", "source")
"""Columns that are taken as groups without being asked for."""
_ALIASES = {"p2o5": "P"} | {name.lower(): name for name in (*TARGETS, *HYPERVIEW2_TARGETS)}
_LIMITS = {"pH": (0.0, 14.0)}


def read_table(source: str | os.PathLike | pd.DataFrame) -> tuple[pd.DataFrame, object]:
    """Return a table, or a CSV file in UTF-8 as one, and its name for messages."""
    if isinstance(source, pd.DataFrame):
        _refuse_same_names(list(source.columns), "ground truth")
        return source, "ground truth"
    file = Path(source).expanduser()
    try:
        header = " ".join(pd.read_csv(file, nrows=0).columns)
        separator = next((each for each in ";\t" if each in header), ",")
        names = pd.read_csv(file, sep=separator, header=None, nrows=1, dtype=str).iloc[0].dropna()
        _refuse_same_names(names.tolist(), source)  # of which pandas would rename all but the first
        table = pd.read_csv(file, sep=separator)
        texts = table.select_dtypes(exclude="number").astype(str)
        if separator != "," and texts.apply(lambda column: column.str.fullmatch(r"-?\d+,\d+")).to_numpy().any():
            table = pd.read_csv(file, sep=separator, decimal=",")  # as spreadsheets write them in much of Europe
    except UnicodeDecodeError as error:
        raise PatchError(source, "encoding", f"it is not UTF-8 ({error}): save it as CSV in UTF-8") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise PatchError(source, "file", f"it cannot be read as CSV: {error}") from error
    return table, source


def _refuse_same_names(names: Sequence[Any], source: object) -> None:
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise PatchError(source, str(twice[0]), "two columns have this name: rename or leave out one of them")


def split_tables(
    source: str | os.PathLike | pd.DataFrame | None,
    group_source: str | os.PathLike | pd.DataFrame | None,
    ids: Sequence[str],
    rows: np.ndarray,
    targets: Sequence[str] | None,
    groups: Sequence[str] | None,
    where: object,
    drop: bool = False,
) -> tuple[pd.DataFrame | None, dict[str, np.ndarray]]:
    """Return the targets and groups of chosen patches, in their order.

    The tables, targets and groups are those of `load_patches`: without a column of `ID_COLUMNS`, or another whose
    values are the ids, the rows of `source` are in the order of the patches. `ids` are those of all patches, `rows`
    the places of the chosen ones, and with `drop` rows of the ground truth without a patch are left out, with a
    warning.
    """
    labels: dict[str, np.ndarray] = {}
    of_table = groups
    if group_source is not None:
        table, name = read_table(group_source)
        id_column = _id_column(table)
        if id_column is None:
            raise PatchError(name, ID_COLUMNS[0], f"there is no such column; columns are {', '.join(map(str, table))}")
        own = [str(column) for column in table if column != id_column]
        taken = own if groups is None else [group for group in groups if group in own]
        of_table = None if groups is None else [group for group in groups if group not in own]
        table = _in_order(table, id_column, ids, rows, name, where, may_have_more=True)
        labels = {group: _labels(table, group, name) for group in taken}
    if source is None:
        if of_table:
            raise PatchError(where, of_table[0], "there is no table with such a column: name one as ground_truth")
        return None, labels
    measured, others = _split_table(source, ids, rows, targets, of_table, where, drop)
    if both := [group for group in others if group in labels]:
        raise PatchError(
            name, both[0], f"the ground truth of {where} has this column, too: leave it out of one of them"
        )
    return measured, {**others, **labels}


def _split_table(
    source: str | os.PathLike | pd.DataFrame,
    ids: Sequence[str],
    rows: np.ndarray,
    targets: Sequence[str] | None,
    groups: Sequence[str] | None,
    where: object,
    drop: bool,
) -> tuple[pd.DataFrame | None, dict[str, np.ndarray]]:
    table, name = read_table(source)
    id_column = _id_column(table)
    if id_column is None:  # it may have another name
        id_column = _column_with_ids(table, ids, rows, targets or ())
    if id_column is None and not table.index.equals(pd.RangeIndex(len(table))):  # as where it was sorted or filtered
        indexed = table.reset_index(names="index of the table")
        if (found := _column_with_ids(indexed, ids, rows, targets or ())) == "index of the table":
            table, id_column = indexed, found
    if id_column is not None:
        has_patch = table[id_column].map(as_id).isin(ids)
        if drop and 0 < has_patch.sum() < len(table):
            lone = table[id_column][~has_patch].map(as_id)
            left_out = counted(len(lone), "row is left out that has", "rows are left out that have")
            warnings.warn(f"{name}: {left_out} no patch in {where}: {', '.join(lone[:3])}", stacklevel=4)
            table = table[has_patch]
        table = _in_order(table, id_column, ids, rows, name, where)
    elif len(table) != len(ids):
        there = f"there are {len(table)}, but {len(ids)} patches in {where}"
        raise PatchError(name, "rows", f"{there}, and no column {ID_COLUMNS[0]}")
    else:
        table = table.iloc[rows].reset_index(drop=True)
    is_group = id_column in (GROUP_COLUMNS if groups is None else groups)
    known = {column: _ALIASES.get(str(column).lower()) for column in table if is_group or column != id_column}
    if targets is None:
        chosen = {column: target for column, target in known.items() if target and target not in (groups or ())}
    else:
        chosen = {_column_of(target, known, name, "targets"): target for target in targets}
    twice = [column for column, target in chosen.items() if list(chosen.values()).count(target) > 1]
    if twice:
        raise PatchError(name, ", ".join(map(str, twice)), "these columns are the same target")
    if groups is None:
        taken = [column for column in known if str(column).lower() in GROUP_COLUMNS and column not in chosen]
    else:
        taken = [_column_of(group, dict.fromkeys(known), name, "groups") for group in groups]
    left = [each for each in known if each not in (*chosen, *taken)]
    if targets is None and groups is None and left:
        raise PatchError(
            name,
            str(left[0]),
            f"neither a target of the challenges nor a group: name the columns to use in targets "
            f"({', '.join(map(str, chosen)) or 'none is known'}) and groups ({', '.join(map(str, taken)) or 'none'})",
        )
    unused = [str(each) for each in left if not known[each] and str(each).lower() not in GROUP_COLUMNS]
    if id_column is None and (unused or not all(name.isdecimal() for name in ids)):
        hint = f" (there is {', '.join(unused)})" if unused else ""
        warnings.warn(
            f"{name}: no column is called {ID_COLUMNS[0]} or holds the ids of the patches{hint}, so rows are taken "
            f"in the order of the patches of {where}: {', '.join(ids[:3])}, ...",
            stacklevel=4,
        )
    for column in chosen:
        _check_target(table, column, chosen[column], id_column, name)
    measured = table[list(chosen)].astype(float).rename(columns=chosen) if chosen else None
    return measured, {str(group): _labels(table, group, name) for group in taken}


def _id_column(table: pd.DataFrame) -> str | None:
    return next((column for column in table if str(column).strip().lower() in ID_COLUMNS), None)


def _column_with_ids(table: pd.DataFrame, ids: Sequence[str], rows: np.ndarray, targets: Sequence[str]) -> str | None:
    """Return the first column, other than targets, whose values are the ids of all patches, or of the chosen ones.

    If there is none, one with the names of most patches is it, unless these are numbers, which may be anything.
    """
    asked = (set(ids), {ids[row] for row in rows})
    likely = None
    for column in table:
        found = set(table[column].map(as_id))
        if column in targets or str(column).lower() in _ALIASES or len(found) < len(table):
            continue
        if found in asked:
            return column
        named = [name for name in found.intersection(ids) if not name.isdecimal()]
        if likely is None and 2 * len(named) > len(asked[1]):
            likely = column
    return likely


def _labels(table: pd.DataFrame, group: str, name: object) -> np.ndarray:
    """Return the labels of a grouping as text, or as numbers if these are fractions, which are measurements."""
    values = table[group]
    if values.isna().any():
        raise PatchError(name, str(group), f"row {int(np.flatnonzero(values.isna())[0])} is empty")
    if pd.api.types.is_float_dtype(values):
        if not (values % 1 == 0).all():
            return values.to_numpy(dtype=np.float64)
        values = values.astype(int)  # a column of a CSV file in which some other row is empty
    return values.astype(str).to_numpy(dtype=str)


def chosen_rows(
    ids: Sequence[str],
    only: Sequence[Any] | str | os.PathLike | None,
    leave_out: Sequence[Any] | str | os.PathLike | None,
    where: object,
) -> np.ndarray:
    """Return the places of the patches that are named, or of all, without those that are left out.

    Names may also be a file with one in each line or a column of `ID_COLUMNS`.
    """
    asked = {what: _read_ids(given) for what, given in (("only", only), ("leave_out", leave_out)) if given is not None}
    for what, (names, source) in asked.items():
        if unknown := [name for name in names if name not in set(ids)]:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise PatchError(source or where, what, f"there is no patch {unknown[0]}{more} in {where}")
    kept = set(asked["only"][0]) if only is not None else set(ids)
    kept -= set(asked["leave_out"][0]) if leave_out is not None else set()
    if not kept:
        raise PatchError(where, "leave_out" if leave_out is not None else "only", "no patch is left")
    return np.array([row for row, name in enumerate(ids) if name in kept])


def _read_ids(given: Sequence[Any] | str | os.PathLike) -> tuple[list[str], object]:
    if not isinstance(given, str | os.PathLike):
        return [as_id(each) for each in given], None
    file = Path(given).expanduser()
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if lines and any(name.strip() in ID_COLUMNS for name in lines[0].lower().split(",")):
        table = pd.read_csv(file)
        return [as_id(each) for each in table[_id_column(table)]], given
    return [as_id(line) for line in lines], given


def as_id(value: object) -> str:
    """Return the name of a patch: numbers without leading zeros, as some files have them and tables do not."""
    text = str(value).strip()
    text = text.removesuffix(".0") if isinstance(value, float) else text
    return str(int(text)) if text.isdecimal() else text


def _in_order(
    table: pd.DataFrame,
    column: str,
    ids: Sequence[str],
    rows: np.ndarray,
    name: object,
    where: object,
    may_have_more: bool = False,
) -> pd.DataFrame:
    found = table[column].map(as_id)
    if found.duplicated().any():
        raise PatchError(name, column, f"{found[found.duplicated()].iloc[0]} is there twice")
    wanted, has, exists = [ids[row] for row in rows], set(found), set(ids)
    missing, more = [each for each in wanted if each not in has], [each for each in found if each not in exists]
    if missing or (more and not may_have_more):
        parts = []
        if missing:
            number = counted(len(missing), f"patch of {where} has", f"patches of {where} have")
            parts.append(f"{number} no row ({', '.join(missing[:3])}): add it, or name these in leave_out")
        if more:
            way_out = "" if may_have_more else ": delete it, or pass invalid='drop'"
            parts.append(f"{counted(len(more), 'row has', 'rows have')} no patch ({', '.join(more[:3])}){way_out}")
        raise PatchError(name, column, "; and ".join(parts))
    return table.set_index(found).loc[wanted].reset_index(drop=True)


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
        value = table[column].iloc[row]
        way_out = ": targets are numbers, so number classes (0, 1, ...)" if isinstance(value, str) else ""
        raise PatchError(name, str(column), f"{value} of patch {patch} is no value of {target}{way_out}")
