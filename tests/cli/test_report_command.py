"""`hf-msae report`: that what the flags say comes together; what the page shows is tested in tests/report."""

import json

import numpy as np
import pytest

from hf_msae.cli.bias import probe_report
from hf_msae.cli.report import main
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import evaluate_msae

SMALL = ["--num_concepts", "3", "--images_per_concept", "2", "--num_searches", "1", "--num_explained", "1"]


@pytest.mark.slow
def test_a_page_with_pictures_and_findings(place, tmp_path, capsys):
    page = tmp_path / "pages" / "report.html"
    main([str(each) for each in [place.model, "--data", place.test, "--output", page, "--bias_targets", "star",
          "--train_data", place.train, "--disable_tqdm", *SMALL]])  # fmt: skip
    assert capsys.readouterr().out == f"The page is in {page}\n"
    text = page.read_text()
    report, _ = probe_report(
        place.msae,
        load_embeddings(place.train),
        load_embeddings(place.test),
        "star",
        concepts=place.table,
        progress=False,
    )
    for row in report.frame.itertuples():
        assert f"{row.effect:+.3f}".replace("-", "\N{MINUS SIGN}") in text
    assert f"hf-msae report {place.model} --data {place.test}" in text, "how to make it again"
    assert "data:image/" in text
    fvu = evaluate_msae(place.msae, load_embeddings(place.test), progress=False).by_k["16"]["fvu"]
    assert f"{fvu:.4f}" in text


@pytest.mark.slow
def test_a_page_without_pictures_and_with_given_metrics(place, tmp_path, capsys):
    metrics = evaluate_msae(place.msae, load_embeddings(place.test), progress=False)
    content = metrics.to_dict()
    content["by_k"]["16"]["fvu"] = 0.98765
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    rows = load_embeddings(place.test)[:].numpy()
    np.save(tmp_path / "rows.npy", rows)
    page = tmp_path / "report.html"
    main([str(each) for each in [place.model, "--data", tmp_path / "rows.npy", "--output", page, "--metrics", tmp_path,
          "--disable_tqdm", *SMALL]])  # fmt: skip
    assert capsys.readouterr().out.endswith("without pictures: name them with --images\n")
    assert "0.9877" in page.read_text()


def test_what_is_refused(place, refused, tmp_path):
    output = ["--output", tmp_path / "r.html"]
    for arguments, message in (
        ([*output, "--bias_targets", "star"], "--bias_targets and --train_data belong together"),
        ([*output, "--bias_targets", "stat", "--train_data", place.train], "has no column 'stat'"),
        ([*output, "--images", "scenes:test:10:3"], "has 10 rows, but"),
        ([*output, "--metrics", tmp_path / "typo"], "there is no metrics file"),
        ([*output, "--metrics", __file__], "holds no metrics of an evaluation"),
        ([*output, "--k", "0"], "k must be positive"),
        ([*output, "--k", "1000"], "1000"),
        (["--output", tmp_path / "r.pdf"], "r.pdf"),
        (["--output", tmp_path], "is a folder"),
        ([], "--output"),
    ):
        assert message in refused(main, place.model, "--data", place.test, *arguments)
    assert not (tmp_path / "r.html").exists()
