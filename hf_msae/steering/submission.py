"""A submission to the leaderboard: what one method did on tasks of SwordBench, as a small JSON file."""

from __future__ import annotations

import json
import math
import os
import re
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from .._utils.atomic import make_folder
from .._utils.json_files import from_json, write_text
from .._utils.redaction import public
from .damage import GROUPS
from .result import SwordBenchResult
from .submission_checks import FIGURES, check_cell, is_number
from .tasks import TASKS

FORMAT = 1
SEEDS = (0, 1, 2)
"""The seeds that are compared. Paired tests need the same ones of every method."""

_MOST_BYTES = 1_000_000
_SIGNS = {"-": -1.0, "0": 0.0, "+": 1.0}
_URL = re.compile(r"https?://[\w.~:/?#@!$&'*+,;=%-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class SubmittedCell:
    """What a method did on one task with one seed.

    `rows_sha256` is the hash of the task's rows (`rows_sha256`), and `figures` has the value of each of `FIGURES` and
    the ends of its 95% interval, null where it is not defined. What removal gained in each biased, unbiased and
    aligned row is one character: "-" for -1, "0", "+" for 1, or a letter whose value is in `values`.
    """

    task: str
    backbone: str
    seed: int
    rows_sha256: str
    figures: dict[str, list[Any]]
    biased: str
    unbiased: str
    aligned: str
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.task not in TASKS:
            raise ValueError(f"there is no task {self.task!r}; the tasks are {', '.join(sorted(TASKS))}")
        place = f"{self.task}, seed {self.seed}"
        if self.seed not in SEEDS:
            raise ValueError(f"{place}: the leaderboard compares the seeds {', '.join(map(str, SEEDS))}")
        check_text("backbone", self.backbone)
        if not re.fullmatch("[0-9a-f]{64}", self.rows_sha256):
            raise ValueError(f"{place}: rows_sha256 is {self.rows_sha256[:80]!r}, which is no SHA-256")
        for letter, value in self.values.items():
            if letter not in set(string.ascii_letters) or not is_number(value) or not -1 <= value <= 1:
                raise ValueError(
                    f"{place}: the value of {letter[:80]!r} is {value!r}, but has to lie between -1 and 1"
                )
        for group in GROUPS:
            known = set(_SIGNS) | (set(self.values) if group == "aligned" else set())
            if unknown := sorted(set(getattr(self, group)) - known):
                raise ValueError(f"{place}: the gains in {group} rows hold {unknown[0]!r}, which stands for no value")
            if group != "aligned" and not getattr(self, group):
                raise ValueError(f"{place}: there are no {group} rows")
        gains = {group: np.array(self.gains(group)) for group in GROUPS}
        check_cell(place, self.figures, gains)

    @property
    def num_rows(self) -> int:
        """The number of rows of the smallest group; there may be no aligned rows."""
        return min(len(rows) for group in GROUPS if (rows := getattr(self, group)))

    def gains(self, group: str) -> list[float]:
        """Return what removal gained in each row of a group."""
        values = {**_SIGNS, **self.values}
        return [float(values[character]) for character in getattr(self, group)]


@dataclass(frozen=True)
class Submission:
    """What one method did on some tasks, each with the seeds of `SEEDS`.

    Attributes:
        method: The name on the leaderboard.
        url: Where to read about the method.
        version: Version of hf_msae that measured it.
        fitted_by: Name of the method in `METHODS`.
        settings: Options of the method.
        cells: One for each task and seed.
        format: Format of the file.
    """

    method: str
    version: str
    fitted_by: str
    settings: dict[str, Any]
    cells: list[SubmittedCell]
    url: str | None = None
    format: int = FORMAT

    def __post_init__(self):
        if self.format != FORMAT:
            raise ValueError(f"the format is {self.format}, but this version of hf_msae reads {FORMAT}")
        for name in ("method", "version", "fitted_by"):
            check_text(name, getattr(self, name))
        check_url(self.url)
        found = sorted((cell.task, cell.seed) for cell in self.cells)
        if not found:
            raise ValueError("there are no cells")
        if found != [(task, seed) for task in sorted({task for task, _ in found}) for seed in SEEDS]:
            raise ValueError(f"each task needs the seeds {', '.join(map(str, SEEDS))} once, but got {found}")
        of_rows: dict[str, SubmittedCell] = {}
        for cell in self.cells:
            if (other := of_rows.setdefault(cell.rows_sha256, cell)) is not cell:
                raise ValueError(
                    f"{cell.task}, seed {cell.seed}: rows_sha256 is that of {other.task}, seed {other.seed}, but each "
                    "seed has other rows"
                )

    @classmethod
    def of_result(
        cls, result: SwordBenchResult, method: str, name: str | None = None, url: str | None = None
    ) -> Submission:
        """Make a submission of what one method did in a run of `run_swordbench`.

        Args:
            result: The result, also one that was loaded from results.json.
            method: Label of the method in this run.
            name: The name on the leaderboard. Defaults to the label.
            url: Where to read about the method.

        Raises:
            ValueError: The run has no such method or lacks seeds, a task is none of `TASKS`, the method is not defined
                on one, or the result is of an earlier version.
        """
        made = result.made[result.made["method"] == method]
        if made.empty or made["rows_sha256"].isna().any():
            raise ValueError(
                f"the run has no method {method!r}, or was made by an earlier version; in that case run it again: "
                "cells that are finished are kept"
            )
        gains = result.gains[result.gains["method"] == method].set_index(["task", "seed"])
        frame = result.frame[result.frame["method"] == method]
        cells = []
        for row in made.itertuples():
            of_cell = frame[(frame["task"] == row.task) & (frame["seed"] == row.seed)]
            bias = of_cell.loc[of_cell["metric"] == "net_gain", "concept"]
            if bias.empty:
                reasons = "; ".join(of_cell["reason"].dropna().unique())
                raise ValueError(f"{method} is not defined on {row.task} with seed {row.seed}: {reasons}")
            figures = of_cell[(of_cell["concept"] == bias.item()) & of_cell["metric"].isin(FIGURES)]
            strings, values = _encoded({group: gains.at[(row.task, row.seed), group] for group in GROUPS})
            cells.append(
                SubmittedCell(
                    task=row.task,
                    backbone=of_cell["backbone"].iloc[0],
                    seed=int(row.seed),
                    rows_sha256=row.rows_sha256,
                    figures={
                        each.metric: [_rounded(value) for value in (each.value, each.low, each.high)]
                        for each in figures.itertuples()
                    },
                    **strings,
                    values=values,
                )
            )
        fitted_by, settings = made.iloc[0][["fitted_by", "settings"]]
        return cls(name or method, __version__, fitted_by, public(settings), cells, url)

    def save(self, path: str | os.PathLike) -> None:
        """Write the submission as JSON, numbers of an interval on one line."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        text = re.sub(r'\[\n([^\[\]{}"]*)\]', lambda found: f"[{' '.join(found[1].split())}]", text)
        make_folder(Path(path).parent)
        write_text(path, text + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> Submission:
        """Read and check what `save` wrote.

        Raises:
            ValueError: The file is damaged, or holds what no run gives; the message names the file.
        """
        try:
            if (size := Path(path).stat().st_size) > _MOST_BYTES:
                raise ValueError(f"it has {size:,} bytes, but at most {_MOST_BYTES:,} are read")
            text = Path(path).read_text(encoding="utf-8")
            content = json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
            if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
                raise ValueError('it has no list of "cells"')
            cells = [from_json(SubmittedCell, dict(each), f"cell {i}") for i, each in enumerate(content["cells"])]
            return from_json(cls, {**content, "cells": cells}, "the submission")
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} cannot be used as a submission: {error}") from error

    def result_cells(self) -> list[dict[str, Any]]:
        """Return the cells as `SwordBenchResult.of_cells` takes them. Tasks are the same if their rows are."""
        return [
            {
                **{"task": cell.task, "backbone": cell.backbone, "method": self.method, "seed": cell.seed},
                **{"task_sha256": cell.rows_sha256, "rows_sha256": cell.rows_sha256, "fitted_by": self.fitted_by},
                **{"settings": self.settings, "perfect": None, "doses": [], "cross": []},
                **{group: cell.gains(group) for group in GROUPS},
                "figures": [
                    {"concept": "bias", "metric": metric, **dict(zip(("value", "low", "high"), figure, strict=True))}
                    for metric, figure in cell.figures.items()
                ],
            }
            for cell in self.cells
        ]


def check_text(what: str, text: str) -> None:
    """Raise ValueError unless a name that is shown is 1 to 80 visible characters."""
    if not 1 <= len(text) <= 80 or not text.isprintable() or text.strip() != text:
        raise ValueError(f"{what} has to be 1 to 80 visible characters on one line, but is {text[:100]!r}")


def check_url(url: str | None) -> None:
    """Raise ValueError unless this is the plain address of a web page, or None."""
    if url is not None and not _URL.fullmatch(url):
        raise ValueError(f"url has to be a plain address with http:// or https://, but is {url[:200]!r}")


def _encoded(gains: Mapping[str, list[float]]) -> tuple[dict[str, str], dict[str, float]]:
    """Return the gains of each group with one character a row, and the values of the letters among these."""
    characters = {value: sign for sign, value in _SIGNS.items()}
    others = sorted({value for values in gains.values() for value in values} - set(characters))
    if len(others) > len(string.ascii_letters):
        raise ValueError(f"the gains have {len(others)} different values, but there are letters for 52")
    letters = dict(zip(others, string.ascii_letters, strict=False))
    characters |= letters
    found = {group: "".join(characters[value] for value in values) for group, values in gains.items()}
    return found, {letter: value for value, letter in letters.items()}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON, of which a name that is given twice would lose the first value."""
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"it has {twice[0][:80]!r} twice in one object")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}, which is no number")


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), 6)
