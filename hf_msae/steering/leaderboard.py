"""The leaderboard: submissions to SwordBench, checked against each other and ranked, as a page of Markdown."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .._utils.json_files import write_text
from .._utils.markdown import code
from .damage import GROUPS
from .result import SwordBenchResult
from .submission import SEEDS, Submission, SubmittedCell
from .submission_checks import check_intervals
from .tasks import TASKS
from .verdict import is_perfect

TOLERANCE = 0.02
"""How far figures that are the same for all methods may differ between machines, which round features differently."""

_SHOWN = {
    "net_gain": "net gain",
    "success": "success",
    "damage": "damage",
    "over_correction": "over-correction",
    "recovery": "recovery",
    "exactness": "exactness",
}

_HEAD = """\
# Leaderboard of SwordBench

How well do methods take a concept out of embeddings? Each table is a [task](../docs/swordbench.md#the-tasks); the
[metrics](../docs/swordbench.md#the-benchmark) are measured on test rows that no method has seen. Methods are ranked by
net gain, and those that a paired test cannot tell from the best of a rank share it. Figures are means over the seeds
0, 1 and 2, with 95% intervals that cover test rows and seeds, as the tests do; a dash means that a figure or its
interval is not defined for one of the seeds. Ranks need not follow net gains: a method whose gains vary much is harder
to tell from the best, and where that is so, a line below the table says it. Steering is perfect if recovery is at
least 0.95, damage and over-correction are at most 0.05, and accuracy in the worst group of label and bias is above
chance after removal, intervals included; with fewer than 72 rows in a group that is not defined. The intervals of
recovery and of the worst group are taken from the files, so the column "perfect" is as the file says.

`python benchmarks/leaderboard.py` writes this page from the files in this folder. It refuses damaged and inconsistent
files, but it does not measure anything again.

## Submit a method

1. Fork this repository and run the method on one task or more:

   ```bash
   hf-msae swordbench --tasks scenes_background --methods leace --submission "my LEACE" --url https://example.org \\
       --output outputs/submission
   ```

   For a method of your own, see [the page about submissions](../docs/leaderboard.md).
2. Put the JSON file that it wrote into this folder and run `python benchmarks/leaderboard.py`. It checks all files and
   writes this page.
3. Open a pull request with both.
"""


def read_submissions(folder: str | os.PathLike) -> list[Submission]:
    """Read all submissions of a folder and check that they can be compared."""
    paths = sorted(Path(folder).glob("*.json"))
    if odd := [path.name for path in paths if path.is_symlink() or not path.is_file()]:  # it may lead anywhere
        raise ValueError(f"{odd[0]} is a link or a folder, but a submission is a file: put the file itself there")
    found = {path.name: Submission.load(path) for path in paths}
    names: dict[str, str] = {}
    for file, submission in found.items():
        name = unicodedata.normalize("NFKC", submission.method).casefold()
        if (other := names.setdefault(name, file)) != file:
            raise ValueError(f"{file} and {other} have the same name, {submission.method!r}: give each its own")
    cells: dict[tuple[str, int], dict[str, SubmittedCell]] = {}  # by task and seed, and by file
    for file, submission in found.items():
        for cell in submission.cells:
            cells.setdefault((cell.task, cell.seed), {})[file] = cell
    for (task, seed), of_seed in cells.items():
        _check_same_rows(of_seed)
        gains = {group: np.array([cell.gains(group) for cell in of_seed.values()]) for group in GROUPS}
        for group in GROUPS:
            _check_same_start(of_seed, group, gains[group])
        places = [f"{file}: {task}, seed {seed}" for file in of_seed]
        figures = [cell.figures for cell in of_seed.values()]
        check_intervals(places, figures, {group: each.T for group, each in gains.items()}, seed)
    return list(found.values())


def render(submissions: list[Submission]) -> str:
    """Return the page of submissions, Markdown in which nothing that they hold is markup."""
    result = SwordBenchResult.of_cells([cell for each in submissions for cell in each.result_cells()])
    ranking, by_name = result.ranking(), {each.method: each for each in submissions}
    summary = result.summary(list(_SHOWN)).set_index(["task", "method", "metric"]).to_dict("index")
    parts = [_HEAD]
    for task in (name for name in TASKS if name in set(ranking["task"])):
        rows = ranking[ranking["task"] == task]
        cells = {name: [each for each in by_name[name].cells if each.task == task] for name in rows["method"]}
        one = cells[rows["method"].iloc[0]][0]
        numbers = ", ".join(f"{len(getattr(one, group))} {group}" for group in GROUPS)
        parts.append(f"## {task}\n\nEmbeddings of {_cell(one.backbone)}; test rows of seed {one.seed}: {numbers}.\n")
        parts.append("| rank | method | " + " | ".join(_SHOWN.values()) + " | perfect |")
        parts.append("|---:|---|" + "---:|" * len(_SHOWN) + "---|")
        for row in rows.itertuples():
            figures = [_figure(summary, (task, row.method, metric)) for metric in _SHOWN]
            name, url = _cell(row.method), by_name[row.method].url
            link = name if url is None else f"[{name}](<{url}>)"
            parts.append(f"| {row.rank} | {link} | {' | '.join(figures)} | {_verdict(cells[row.method])} |")
        parts.append("")
        if notes := [f"- {_cell(row.method)}: {_cell(row.note)}" for row in rows.itertuples() if row.note]:
            parts += [*notes, ""]
    return "\n".join(parts)


def write_leaderboard(folder: str | os.PathLike) -> Path:
    """Check the submissions of a folder, write its README.md, and return that page."""
    submissions = read_submissions(folder)
    if not submissions:
        raise ValueError(f"{folder} holds no submissions: no file ends in .json")
    page = Path(folder) / "README.md"
    write_text(page, render(submissions))
    return page


def _check_same_rows(cells: Mapping[str, SubmittedCell]) -> None:
    """Check that submissions measured the same rows, as most of them did, seen by the same network."""

    def common(values: Mapping[str, object]) -> tuple[str, object]:
        usual = Counter(values.values()).most_common(1)[0][0]
        return next(file for file, value in values.items() if value == usual), usual

    for what, values in {
        **{
            f"number of {group} rows": {file: len(getattr(cell, group)) for file, cell in cells.items()}
            for group in GROUPS
        },
        "backbone": {file: cell.backbone for file, cell in cells.items()},
        "rows_sha256": {file: cell.rows_sha256 for file, cell in cells.items()},
    }.items():
        other, usual = common(values)
        for file, value in values.items():
            if value != usual:
                raise ValueError(
                    f"{file} was measured on other rows of {cells[file].task} with seed {cells[file].seed}: {what} is "
                    f"{value}, but {usual} in {other}. Use the task's default settings"
                )
    for metric in ("bias_cost", "worst_group_before"):  # of the classifier alone
        usual = float(np.median([cell.figures[metric][0] for cell in cells.values()]))
        for file, cell in cells.items():
            if abs(cell.figures[metric][0] - usual) > TOLERANCE:
                raise ValueError(
                    f"{file} was measured on other features of {cell.task} with seed {cell.seed}: {metric}, which no "
                    f"method changes, is {cell.figures[metric][0]}, but {usual} in the others"
                )


def _check_same_start(cells: Mapping[str, SubmittedCell], group: str, gains: np.ndarray) -> None:
    """Check that what submissions gained in the same rows starts from the same classifier.

    A row that gained was wrong before, and one that lost was right (of aligned rows, without the bias), whatever the
    method. Machines round features differently, so few rows may disagree.
    """
    before = np.select([gains > 0, gains < 0], [1 - gains, -gains], np.nan)  # nothing gained says nothing
    known = ~np.isnan(before).all(axis=0)
    usual = np.full(before.shape[1], np.nan)
    usual[known] = np.nanmedian(before[:, known], axis=0)
    differs = np.abs(before - usual) > TOLERANCE
    shares = differs.mean(axis=1) if differs.size else np.zeros(len(cells))
    worst = int(shares.argmax())
    if shares[worst] > TOLERANCE:
        file, row = list(cells)[worst], int(differs[worst].argmax())
        cell, given = cells[file], getattr(cells[file], group)
        others = [
            name
            for name, each in zip(cells, before[:, row], strict=True)
            if abs(each - before[worst, row]) > TOLERANCE
        ]
        raise ValueError(
            f"{file} contradicts others in {differs[worst].sum()} of {len(given)} {group} rows of {cell.task} with "
            f"seed {cell.seed}, such as row {row}: {given[row]!r} there and {getattr(cells[others[0]], group)[row]!r} "
            f"in {others[0]} cannot both be what a removal gains over the same classifier"
        )


def _cell(text: str) -> str:
    return code(text).replace("|", "\\|")


def _figure(summary: dict[tuple[str, str, str], dict], place: tuple[str, str, str]) -> str:
    """Return the mean of a figure over seeds and its interval, or a dash if one is not defined for a seed."""
    if place not in summary or summary[place]["missing"]:
        return "-"
    figure = np.array([summary[place][name] for name in ("mean", "low", "high")], dtype=float) + 0.0  # no -0.000
    return "{:.3f} [{:.3f}, {:.3f}]".format(*figure) if np.isfinite(figure).all() else "-"


def _verdict(cells: list[SubmittedCell]) -> str:
    found = [
        is_perfect({name: _numbers(figure) for name, figure in cell.figures.items()}, cell.num_rows) for cell in cells
    ]
    if None in found:
        return "not defined"
    return {0: "no", len(SEEDS): "yes"}.get(sum(found), f"{sum(found)} of {len(SEEDS)} seeds")


def _numbers(figure: list[float | None]) -> tuple[float, float, float]:
    value, low, high = (np.nan if each is None else each for each in figure)
    return value, low, high
