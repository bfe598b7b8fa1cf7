"""`hf-msae red-team`: what a run writes, that it is taken up again, and what is refused."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file

from hf_msae.cli.red_team import RedTeamArguments, main, open_patches, write
from hf_msae.concepts import ConceptTable
from hf_msae.hyperspectral import RedTeamReport, load_patches, make_patches
from hf_msae.hyperspectral.models import make_model
from tests.identity_msae import identity_msae


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields")
    make_patches(50, edges=(11, 14)).save(folder)
    return folder


def test_a_run_is_written_and_taken_up_again(fields, tmp_path, capsys, monkeypatch):
    (tmp_path / "my_models.py").write_text("from sklearn.linear_model import Ridge\nmodel = Ridge(1e-3)\n")
    monkeypatch.chdir(tmp_path)
    words = [str(fields), "--targets", "K", "pH", "--groups", "farm", "--audits", "bands"]
    main([*words, "--model", "my_models:model", "--output", "out"])
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["about"]["targets"] == ["K", "pH"] and content["about"]["groupings"] == ["farm"]
    assert content["verdict"] in printed and content["num_tests"] == 4  # two targets, the farm and the order
    page = (tmp_path / "out" / "report.html").read_text()
    assert "--targets K pH" in page and "Ridge" in page
    assert pd.read_csv(tmp_path / "out" / "tables" / "bands.csv")["name"].tolist()[:3] == ["K", "pH", "farm"]
    assert len(list((tmp_path / "out" / "audits").iterdir())) == 1
    monkeypatch.setattr("hf_msae.hyperspectral.audits.bands._explained", None)  # the audit is not repeated
    monkeypatch.setattr("hf_msae.hyperspectral.MeanSpectrum.transform", None)  # and features are kept
    main([*words, "--model", "my_models:model", "--output", "out"])
    assert capsys.readouterr().out == printed


def test_what_python_offers_of_patches_the_command_does_too(fields, tmp_path, monkeypatch):
    groups = pd.DataFrame({"id": range(50), "drone": ["old", "new"] * 25})
    groups.to_csv(tmp_path / "groups.csv", index=False)
    (tmp_path / "ids.txt").write_text("\n".join(map(str, range(40))))
    words = {"groups": ["drone", "field_size"], "group_table": str(tmp_path / "groups.csv"), "targets": ["K"]}
    words |= {"only": [str(tmp_path / "ids.txt")], "leave_out": ["3", "5"], "mask_means": "outside"}
    given = {}

    def load(source, **options):
        given.update(options)
        return load_patches(source, **options)

    monkeypatch.setattr("hf_msae.hyperspectral.load_patches", load)
    found = open_patches(RedTeamArguments(str(fields), "out", disable_tqdm=True, **words))
    assert len(found) == 38 and "3" not in found.ids and list(found.groups) == ["drone"]
    assert {"mask_means", "fields", "wavelength_unit", "unit", "invalid", "ground_truth"} < set(given)
    few = open_patches(RedTeamArguments("synthetic", "out", only=["7", "2"], num_fields=50))
    assert few.ids == ["2", "7"]


def test_a_model_of_ones_own_is_named_by_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", sys.path.copy())
    (tmp_path / "own_soil_model.py").write_text(
        "from sklearn.linear_model import Ridge\nchosen = Ridge(7)\ndef made():\n    return Ridge(8)\n"
    )
    file = tmp_path / "own_soil_model.py"
    assert make_model(f"{file}:chosen").alpha == 7 and make_model(f"{file}:made").alpha == 8
    monkeypatch.chdir(tmp_path)
    assert make_model("own_soil_model.py:made").alpha == 8 == make_model("own_soil_model:made").alpha


def test_a_network_of_ones_own_is_taken_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "own_heads.py").write_text(
        "import torch\nfrom hf_msae.metrics import LinearClassifier\nhead = torch.nn.Linear(4, 2)\n"
        "probe = LinearClassifier.zero_shot(torch.eye(4)[:2], ['no', 'yes'])\nMade = lambda: torch.nn.Linear(3, 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert make_model("own_heads:head").in_features == 4 and make_model("own_heads:Made").in_features == 3
    assert make_model("own_heads:probe").classes == ("no", "yes")


def test_remarks_are_printed(tmp_path, capsys, monkeypatch):
    report = RedTeamReport((), {}, ["No groups were given.", "Haze is left out."])
    monkeypatch.setattr("hf_msae.cli.red_team.of_patches", lambda args, options: report)
    main(["synthetic", "--output", str(tmp_path)])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == report.verdict() and [line[2:] for line in printed if line[:2] == "- "] == report.remarks


def test_tables_that_hold_nothing_are_not_written(tmp_path):
    report = RedTeamReport((), {"pulls": pd.DataFrame(columns=["pull"]), "slices": pd.DataFrame({"grouping": ["a"]})})
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "pulls.csv").write_text("pull\n0.5\n")  # of an earlier run
    write(report, str(tmp_path), "hf-msae red-team")
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"findings.csv", "slices.csv"}


def test_what_an_earlier_run_left_is_removed_but_nothing_else(tmp_path):
    (tmp_path / "figures").mkdir()
    write(RedTeamReport((), {"shown": pd.DataFrame({"a": [1]})}), str(tmp_path), "hf-msae red-team")
    for place in ("figures/pruning.png", "figures/mine.png", "tables/mine.csv"):
        (tmp_path / place).touch()
    for _ in range(2):
        write(RedTeamReport((), {"slices": pd.DataFrame({"grouping": ["a"]})}), str(tmp_path), "hf-msae red-team")
        assert {path.name for path in (tmp_path / "tables").iterdir()} == {"findings.csv", "slices.csv", "mine.csv"}
        assert {path.name for path in (tmp_path / "figures").iterdir()} == {"mine.png"}
        (tmp_path / "report.json").write_text("{")  # damaged


@pytest.fixture(scope="module")
def stars(tmp_path_factory):
    """An MSAE with names, and embeddings of stars that are nearly always at night; 0 is a star, 1 is night."""
    folder, rng, n = tmp_path_factory.mktemp("stars"), np.random.default_rng(0), 200
    star = rng.random(n) < 0.5
    night = rng.random(n) < np.where(star, 0.95, 0.05)
    x = rng.exponential(size=(n, 30)) * (rng.random((n, 30)) < 0.3)
    x[:, :2] = np.stack([star * (rng.random(n) < 0.8), night], axis=1) * (0.5 + rng.exponential(size=(n, 2)))
    columns = {"image_embeds": x.astype(np.float32).tolist(), "star": star.tolist(), "night": night.tolist()}
    Dataset.from_dict(columns).save_to_disk(folder / "data")
    identity_msae(30, [30]).save_pretrained(folder / "msae")
    q = np.where(np.arange(30) < 10, 0.01, 0.9)
    names = ["star", "night", *(f"n{i}" for i in range(28))]
    table = ConceptTable.from_columns(names, np.linspace(0.9, 0.5, 30), [None] * 30, np.zeros(30), q_value=q)
    table.save(folder / "msae" / "concepts" / "names.parquet")
    weight = torch.zeros(1, 30)
    weight[0, 1] = 3
    save_file({"weight": weight, "bias": torch.tensor([-2.0])}, folder / "head.safetensors")
    return folder


@pytest.mark.parametrize("model", [pytest.param("logistic", marks=pytest.mark.slow), "head.safetensors"])
def test_classifiers_of_embeddings_are_red_teamed(stars, tmp_path, capsys, model):
    words = [str(stars / "data"), "--msae", str(stars / "msae"), "--label", "star", "--groups", "night"]
    words += ["--audits", "shortcuts", "concepts", "--num_attacked", "3", "--num_explained", "40", "--num_folds", "2"]
    is_file = model.endswith(".safetensors")
    main([*words, "--model", str(stars / model) if is_file else model, "--output", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    titles = [each["title"] for each in report["findings"]]
    assert any("Night" in title and "raises predictions of star" in title for title in titles)
    assert ("shortcuts" in report["tables"]) == (not is_file), "what is in use is not fitted without a group"
    assert (
        report["about"]["model"] == ("Linear" if is_file else "LogisticRegression")
        and titles[0] in capsys.readouterr().out
    )
    assert (tmp_path / "out" / "figures" / "concepts.png").is_file()
    assert "Night · 1 raises" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_figures_are_written(fields, tmp_path):
    main([str(fields), "--targets", "K", "--audits", "performance", "--model", "ridge", "--output", str(tmp_path)])
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"predictions.png", "deciles.png"}
    assert set(pd.read_csv(tmp_path / "tables" / "performance.csv")["target"]) == {"K"}


@pytest.mark.slow
def test_the_hybrid_makes_its_own_features(fields, tmp_path):
    main([str(fields), "--targets", "K", "--audits", "attributions", "--model", "hybrid", "--output", str(tmp_path)])
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["about"]["model"] == "HybridRegressor" and content["about"]["columns"] == 2401
    table = pd.read_csv(tmp_path / "tables" / "additivity.csv")
    assert table["method"].iloc[0].startswith("TreeSHAP") and table["largest_gap"].iloc[0] < 1e-6


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model", "forrest"], "forrest"),
        (["--model", "no_such_module:model"], "no_such_module"),
        (["--model", "no_such_file.py:model"], "no_such_file.py"),
        (["--model", "sys:maxsize"], "of type int"),
        (["--model", "logistic"], "choose one of P, K, Mg, pH"),
        (["--model", "logistic", "--targets", "K"], "values that are measured"),
        (["--audits", "shortcut"], "shortcut"),
        (["--targets", "Zinc"], "Zinc"),
        (["--groups", "field"], "field"),
        (["--features", "median"], "median"),
        (["--blind_spots", "leak"], "synthetic"),
        (["--num_folds", "1"], "num_folds"),
        (["--label", "star"], "--msae"),
        (["--mask_means", "soil"], "'soil'"),
        (["--only", "0", "77"], "no patch 77"),
        (["--label", "star", "--msae", "m", "--mask_means", "inside"], "--mask_means"),
        (["--label", "star", "--msae", "m", "--only", "1"], "--only"),
    ],
)
def test_what_does_not_fit_is_refused(fields, tmp_path, capsys, words, named):
    with pytest.raises(SystemExit) as error:
        main([str(fields), "--output", str(tmp_path / "out"), *words])
    assert error.value.code and named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def make():\n    return unknown", "line 2: NameError.*'unknown'"),
        ("x = 1\ndef make(:", "line 2: SyntaxError"),
        (
            "from sklearn.svm import *\nclass make(SVR):\n    def fit(self, *_):\n        {}['pH']",
            "line 4: KeyError: 'pH'",
        ),
    ],
)
def test_an_error_in_a_models_own_file_is_named_with_its_line(tmp_path, capsys, code, said):
    file = tmp_path / f"own_{abs(hash(code))}.py"  # imported once
    file.write_text(code)
    flags = ["--num_fields", "50", "--audits", "performance", "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main(["synthetic", "--model", f"{file}:make", *flags])
    assert re.search(f"{file}, {said}", capsys.readouterr().err)
