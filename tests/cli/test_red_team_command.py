"""`hf-msae red-team`: what a run writes, that it is taken up again, and what is refused."""

import json

import pandas as pd
import pytest

from hf_msae.cli.red_team import main
from hf_msae.hyperspectral import make_patches


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


@pytest.mark.slow
def test_figures_are_written(fields, tmp_path):
    main([str(fields), "--targets", "K", "--audits", "performance", "--model", "ridge", "--output", str(tmp_path)])
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"predictions.png", "deciles.png"}
    assert set(pd.read_csv(tmp_path / "tables" / "performance.csv")["target"]) == {"K"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model", "forrest"], "forrest"),
        (["--model", "no_such_module:model"], "no_such_module"),
        (["--audits", "shortcut"], "shortcut"),
        (["--targets", "Zinc"], "Zinc"),
        (["--groups", "field"], "field"),
        (["--features", "median"], "median"),
        (["--blind_spots", "leak"], "synthetic"),
        (["--num_folds", "1"], "num_folds"),
    ],
)
def test_what_does_not_fit_is_refused(fields, tmp_path, capsys, words, named):
    with pytest.raises(SystemExit) as error:
        main([str(fields), "--output", str(tmp_path / "out"), *words])
    assert error.value.code and named in capsys.readouterr().err
