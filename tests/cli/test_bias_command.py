"""`hf-msae bias`."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hf_msae.bias import bias_report
from hf_msae.bias.classifiers import probe_report
from hf_msae.cli.bias import BiasArguments, main
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import LinearClassifier

FAST = ["--num_samples", "60", "--num_null", "30", "--disable_tqdm"]


@pytest.fixture
def bias(place, tmp_path, capsys):
    def bias(*arguments):
        file = tmp_path / "bias.json"
        main([str(each) for each in [place.model, "--data", place.test, "--output", file, *FAST, *arguments]])
        return json.loads(file.read_text()), capsys.readouterr().out

    return bias


@pytest.mark.slow
def test_a_probe_of_a_column(place, bias, tmp_path):
    figures = ["--figure", tmp_path / "dose.png", "--box_figure", tmp_path / "boxes.png"]
    content, printed = bias("--target", "star", "--train_data", place.train, "--regularization", "10", *figures)
    train, embeddings = load_embeddings(place.train), load_embeddings(place.test)
    labels = np.asarray(place.scenes["train"]["star"]).astype(int)
    probe = LinearClassifier.fit(train[:], labels, ["False", "True"], 10)
    expected = bias_report(
        place.msae, embeddings, probe, "True", place.table, num_samples=60, num_null=30, progress=False, target="star"
    )
    truth = np.asarray(place.scenes["test"]["star"])
    predicted = probe.logits(embeddings[:]).argmax(dim=1).numpy()
    accuracy, guessing = (predicted == truth).mean(), max(truth.mean(), 1 - truth.mean())
    expected = replace(expected, accuracy=accuracy, accuracy_of_guessing=guessing)
    assert content == json.loads(json.dumps(expected.to_dict())) and str(expected) in printed
    assert f"{accuracy:.1%} of 240 rows" in printed and f"{guessing:.1%}" in printed
    assert Image.open(tmp_path / "dose.png").width > 500 < Image.open(tmp_path / "boxes.png").width


def test_regularization_is_a_number_or_cv():
    assert BiasArguments(zero_shot=["a", "b"]).regularization == "cv"
    assert BiasArguments(target="a", train_data="b", regularization="0.5").regularization == 0.5


def test_a_class_of_several_has_to_be_named(place):
    def labeled(folder):
        embeddings = load_embeddings(folder)
        red, star = (np.asarray(embeddings.dataset[name]) for name in ("red", "star"))
        kinds = np.where(red, "a", np.where(star, "b", "c"))
        return load_embeddings(embeddings.dataset.add_column("kind", kinds.tolist()))

    train, test = labeled(place.train), labeled(place.test)
    with pytest.raises(ValueError, match=r"kind.*a, b, c.*positive"):
        probe_report(place.msae, train, test, "kind", regularization=1.0)
    options = {"indices": [0, 1], "num_samples": 40, "num_null": 30, "progress": False}
    report, accuracy = probe_report(place.msae, train, test, "kind", "b", 10.0, **options)
    shares = test.dataset.to_pandas()["kind"].value_counts(normalize=True)
    assert report.accuracy == accuracy and report.accuracy_of_guessing == pytest.approx(shares.iloc[0])
    assert report.target == "kind b" and report.frame.set_index("latent").loc[1, "effect"] > 0


def test_zero_shot_texts_and_a_layer_of_ones_own(place, bias, tmp_path):
    texts = ["a photo of a star", "a photo of a circle"]
    x = load_embeddings(place.test)[:]
    content, printed = bias("--zero_shot", *texts, "--indices", "0", "1", "5")
    assert "Fewer than" not in printed
    scale = float(place.backbone.model.logit_scale.detach().exp())
    classifier = LinearClassifier.zero_shot(place.backbone.text_embeds(texts), texts, scale)
    baseline = classifier.logits(x).softmax(dim=1)[:, 0]
    effects = {row["latent"]: row["effect"] for row in content["concepts"]}
    assert content["target"] == texts[0] and effects[1] > 0 > effects[5]
    assert content["baseline"] == pytest.approx(baseline.mean().item(), abs=0.1), "with the backbone's own scale"

    layer = {"weight": classifier.weight.float().contiguous(), "bias": torch.zeros(2), "steps": torch.ones(1)}
    save_file(layer, tmp_path / "head.safetensors")
    content, printed = bias("--classifier", tmp_path / "head.safetensors", "--positive", "0")
    assert "Fewer than 10 names" in printed, "of the names of this model, six are validated"
    effects = {row["latent"]: row["effect"] for row in content["concepts"]}
    assert content["target"] == "class 0" and effects[1] > 0 > effects[5]


def test_what_is_refused(place, refused, tmp_path):
    save_file({"weight": torch.ones(2, 5)}, tmp_path / "narrow.safetensors")
    save_file({"bias": torch.ones(2)}, tmp_path / "none.safetensors")
    (tmp_path / "no.safetensors").write_text("no")
    train = ["--train_data", place.train, "--regularization", "1"]
    refused(main, ["--data", place.test], [
        ([], "--target, --zero_shot and --classifier"),
        (["--target", "star"], "--target and --train_data"),
        (["--zero_shot", "a"], "--zero_shot.*two"),
        (["--zero_shot", "a", "b", "--positive", "b"], "--positive"),
        (["--target", "stat", *train], "'stat'"),
        (["--target", "star", "--train_data", place.test], f"{place.test}"),
        (["--target", "star", *train, "--positive", "yes"], "'yes'.*False, True"),
        (["--target", "caption", *train], r"classes: choose one with --positive: .*, \.\.\."),
        (["--target", "star", *train, "--indices", "dark"], "'dark'"),
        (["--target", "star", *train, "--regularization", "low"], "cv.*'low'"),
        (["--zero_shot", "a", "b", "--figure", "x.png", "--box_figure", "x.png"], "x.png"),
        (["--classifier", tmp_path / "no.safetensors"], "no.safetensors"),
        (["--classifier", tmp_path / "narrow.safetensors"], r"weight \(C, 128\).*\(2, 5\)"),
        (["--classifier", tmp_path / "none.safetensors"], r"weight \(C, 128\)"),
        (["--classifier", tmp_path / "x", "--positive", "yes"], "number of a class.*'yes'"),
    ])  # fmt: skip
