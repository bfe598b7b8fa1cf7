"""The leaderboard: what a submission holds, what is refused, ranks, text that is no markup, and the committed page."""

import json
from pathlib import Path

import numpy as np
import pytest

from hf_msae.steering import Submission, SwordBenchResult
from hf_msae.steering.leaderboard import read_submissions, render, write_leaderboard

ROOT = Path(__file__).parents[2]


def cell(method="a", seed=0, rows="0" * 64, task="gaussian", shift=0.0, aligned=None):
    rng = np.random.default_rng(seed)
    biased = (rng.random(40) < 0.3 + shift).astype(float).tolist()
    unbiased = (-(rng.random(1000) < 0.1).astype(float)).tolist()
    aligned = [0.0, -1.0, 0.25, -0.125] if aligned is None else aligned
    means = {"success": np.mean(biased), "damage": -np.mean(unbiased), "over_correction": -np.mean(aligned)}
    means["net_gain"] = means["success"] - means["damage"] - max(0, means["over_correction"])
    means |= {"bias_cost": 0.5, "worst_group_before": 0.5, "recovery": means["success"] / 0.5}
    return {
        **{"task": task, "backbone": "b|`c", "method": method, "seed": seed, "task_sha256": f"{method}{seed}"},
        **{"rows_sha256": rows, "fitted_by": "msae", "settings": {"msae": "/home/me/runs/m"}, "perfect": False},
        **{"biased": biased, "unbiased": unbiased, "aligned": aligned, "doses": [], "cross": []},
        "figures": [
            {"concept": "bias", "metric": name, "value": float(value), "low": float(value), "high": float(value)}
            for name, value in means.items()
        ],
    }


def submission(method="a", **options):
    result = SwordBenchResult.of_cells([cell(method, seed, f"{seed}" * 64, **options) for seed in range(3)])
    return Submission.of_result(result, method, url="https://example.org/a_b")


def test_a_file_holds_what_the_run_found_and_is_small(tmp_path):
    given = submission()
    given.save(tmp_path / "a.json")
    loaded = Submission.load(tmp_path / "a.json")
    assert loaded == given and loaded.cells[1].gains("biased") == cell(seed=1)["biased"]
    assert loaded.cells[0].gains("aligned") == [0.0, -1.0, 0.25, -0.125]
    assert loaded.settings == {"msae": "m"}
    assert (tmp_path / "a.json").stat().st_size < 10_000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(format=2), "format"),
        (lambda c: c.update(method="a\u202eb"), "method"),
        (lambda c: c.update(url="javascript:alert(1)"), "url"),
        (lambda c: c.update(url="https://x.y/)<b>"), "url"),
        (lambda c: c.update(stranger=1), "stranger"),
        (lambda c: c["cells"][0].update(task="gausian"), "gausian"),
        (lambda c: c["cells"].pop(), "seeds"),
        (lambda c: c["cells"][0].update(seed=7), "seeds"),
        (lambda c: c["cells"][0]["figures"].update(damage=[1.5, 1, 2]), "1.5"),
        (lambda c: c["cells"][0]["figures"].update(success=[0.9, 0.8, 1.0]), "success"),
        (lambda c: c["cells"][0]["figures"].update(kl=[2, 3, 1]), "kl"),
        (lambda c: c["cells"][0]["figures"].pop("bias_cost"), "bias_cost"),
        (lambda c: c["cells"][0].update(biased="0x"), "'x'"),
        (lambda c: c["cells"][0].update(biased="0" * 40), "success"),
        (lambda c: c["cells"][0]["values"].update(a=3), "3"),
    ],
)
def test_what_no_run_gives_is_refused_by_name(tmp_path, change, said):
    submission().save(path := tmp_path / "theirs.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"theirs\.json") as refused:
        read_submissions(tmp_path)
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"cells": [NaN]}', '{"cells": [1]}'])
def test_damaged_files_are_refused(tmp_path, text):
    (tmp_path / "theirs.json").write_text(text)
    with pytest.raises(ValueError, match=r"theirs\.json"):
        read_submissions(tmp_path)


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder"])
def test_links_and_folders_are_refused_unread(tmp_path, kind):
    place = tmp_path / "leaderboard"
    place.mkdir()
    submission().save(tmp_path / "elsewhere.json")
    if kind == "folder":
        (place / "theirs.json").mkdir()
    else:
        (place / "theirs.json").symlink_to(tmp_path / ("elsewhere.json" if kind == "link" else "nothing"))
    with pytest.raises(ValueError, match=r"theirs\.json"):
        read_submissions(place)


@pytest.mark.parametrize(
    ("of_other", "said"),
    [({"method": "A"}, "same name"), ({"aligned": [-1.0]}, "number of aligned rows"), ({"rows": 1}, "rows_sha256")],
)
def test_submissions_that_cannot_be_compared_are_refused(tmp_path, of_other, said):
    submission("a").save(tmp_path / "1.json")
    submission("b").save(tmp_path / "2.json")
    options = {"method": "c", **of_other}
    if options.pop("rows", None):
        cells = [cell("c", seed, "f" * 64) for seed in range(3)]
        other = Submission.of_result(SwordBenchResult.of_cells(cells), "c")
    else:
        other = submission(**options)
    other.save(tmp_path / "theirs.json")
    with pytest.raises(ValueError, match=said) as refused:
        read_submissions(tmp_path)
    assert "theirs.json" in str(refused.value)


def test_other_features_are_refused_and_rounding_is_not(tmp_path):
    for name in "abc":
        submission(name).save(tmp_path / f"{name}.json")
    path = tmp_path / "c.json"
    for cost, fits in ((0.51, True), (0.6, False)):
        content = json.loads(path.read_text())
        content["cells"][0]["figures"]["bias_cost"] = [cost, cost, cost]
        path.write_text(json.dumps(content))
        if fits:
            assert len(read_submissions(tmp_path)) == 3
        else:
            with pytest.raises(ValueError, match=r"c\.json.*bias_cost"):
                read_submissions(tmp_path)


def test_the_page_ranks_as_a_run_does_and_text_is_no_markup():
    page = render([submission("<b>|`x`"), submission("better", shift=0.5)])
    rows = [line for line in page.splitlines() if line.startswith(("| 1 |", "| 2 |"))]
    assert "[`better`](<https://example.org/a_b>)" in rows[0] and "[`` <b>\\|`x` ``]" in rows[1]
    assert "`` b\\|`c ``" in page and rows[0].endswith("| - | no |")  # there is no exactness
    assert len(rows) == 2


def test_an_empty_folder_is_no_leaderboard(tmp_path):
    with pytest.raises(ValueError, match="no submissions"):
        write_leaderboard(tmp_path)


def test_the_committed_page_is_that_of_the_committed_submissions():
    folder = ROOT / "leaderboard"
    assert (folder / "README.md").read_text(encoding="utf-8") == render(read_submissions(folder))
