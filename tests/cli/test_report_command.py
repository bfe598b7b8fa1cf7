"""`hf-msae report`."""

import json

import numpy as np
import pytest

from hf_msae import MSAEModel
from hf_msae.bias.classifiers import probe_report
from hf_msae.cli.report import main
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import evaluate_msae
from hf_msae.report.wording import signed

SMALL = ["--num_concepts", "3", "--images_per_concept", "2", "--num_searches", "1", "--num_explained", "1"]


@pytest.fixture
def report(place, tmp_path, capsys):
    """The text of a page, and what the command prints."""

    def report(data, *arguments):
        page = tmp_path / "pages" / "report.html"
        main([str(each) for each in (place.model, "--data", data, "--output", page, "--disable_tqdm", *SMALL,
                                     *arguments)])  # fmt: skip
        return page.read_text(), capsys.readouterr().out

    return report


@pytest.mark.slow
def test_a_page_with_pictures_and_bias(place, report):
    probe = ["--bias_targets", "star", "--train_data", place.train, "--regularization", "10"]
    page, printed = report(place.test, *probe)
    assert "report.html" in printed and "--images" not in printed
    train, test = load_embeddings(place.train), load_embeddings(place.test)
    expected, _ = probe_report(place.msae, train, test, "star", None, 10.0, concepts=place.table, progress=False)
    for row in expected.frame.itertuples():
        assert f"<td>{signed(row.effect, 3)}</td>" in page
    assert f"{expected.accuracy:.1%} of the rows" in page and f"{expected.accuracy_of_guessing:.1%}" in page
    assert f"hf-msae report {place.model} --data {place.test}" in page, "how to make it again"
    assert "background-image:url(data:image/" in page
    fvu = evaluate_msae(place.msae, test, progress=False).by_k["16"]["fvu"]
    assert f"{fvu:.4f}" in page


def test_a_page_without_pictures_and_with_given_metrics(place, report, tmp_path):
    content = evaluate_msae(place.msae, load_embeddings(place.test), progress=False).to_dict()
    content["by_k"]["16"]["fvu"] = 0.98765
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    np.save(tmp_path / "rows.npy", load_embeddings(place.test)[:].numpy())
    page, printed = report(tmp_path / "rows.npy", "--metrics", tmp_path)
    assert "--images" in printed and "0.9877" in page and "background-image:url(data:image/" not in page


def test_what_is_refused(place, refused, tmp_path):
    output = tmp_path / "r.html"
    content = evaluate_msae(MSAEModel(place.msae.config), load_embeddings(place.test), progress=False).to_dict()
    (tmp_path / "others.json").write_text(json.dumps(content))
    refused(main, ["--data", place.test, "--output", output], [
        (["--bias_targets", "star"], "--bias_targets and --train_data"),
        (["--bias_targets", "stat", "--train_data", place.train], "'stat'"),
        (["--images", "scenes:test:10:3"], "10 rows.*240.*--images"),
        (["--metrics", __file__], __file__),
        (["--metrics", tmp_path / "others.json"], f"another model.*{content['model_sha256'][:12]}"),
        (["--k", "0"], "k.*0"),
        (["--output", tmp_path / "r.pdf"], r"r\.pdf"),
    ])  # fmt: skip
    refused(main, ["--data", place.test], [([], "--output")])
    assert not output.exists()
