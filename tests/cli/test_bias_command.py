"""`hf-msae bias`."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hf_msae.bias import bias_report
from hf_msae.cli.bias import main, probe_report
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import LinearClassifier

FAST = ["--num_samples", "60", "--num_null", "30", "--disable_tqdm"]


@pytest.fixture
def bias(place, tmp_path, capsys):
    def bias(*arguments):
        file = tmp_path / "bias.json"
        given = [place.model, "--data", place.test, "--output", file, *FAST, *arguments]
        main([str(each) for each in given])
        return json.loads(file.read_text()), capsys.readouterr().out

    return bias


@pytest.mark.slow
def test_a_probe_of_a_column(place, bias, tmp_path):
    figures = ["--figure", tmp_path / "dose.png", "--box_figure", tmp_path / "boxes.png"]
    content, printed = bias("--target", "star", "--train_data", place.train, *figures)
    train, acts = load_embeddings(place.train), load_embeddings(place.test)
    labels = np.asarray(place.scenes["train"]["star"]).astype(int)
    probe = LinearClassifier.fit(train[:], labels, ["False", "True"], "cv")
    expected = bias_report(
        place.msae, acts, probe, "True", place.table, num_samples=60, num_null=30, progress=False, target="star"
    )
    assert content == json.loads(json.dumps(expected.to_dict())) and str(expected) in printed
    truth = np.asarray(place.scenes["test"]["star"])
    right = (probe.logits(acts[:]).argmax(dim=1).numpy() == truth).mean()
    assert f"labels {right:.1%} of 240 rows as star does" in printed
    assert Image.open(tmp_path / "dose.png").width > 500 < Image.open(tmp_path / "boxes.png").width


@pytest.mark.slow
def test_a_class_of_several_has_to_be_named(place):
    def labelled(folder):
        acts = load_embeddings(folder)
        kinds = np.where(np.asarray(acts.dataset["red"]), "a", np.where(np.asarray(acts.dataset["star"]), "b", "c"))
        return load_embeddings(acts.dataset.add_column("kind", kinds.tolist()))

    train, acts = labelled(place.train), labelled(place.test)
    with pytest.raises(ValueError, match="kind has the classes a, b, c: choose one with --positive"):
        probe_report(place.msae, train, acts, "kind")
    report, _ = probe_report(
        place.msae, train, acts, "kind", "b", 10.0, latents=[0, 1], num_samples=40, num_null=30, progress=False
    )
    assert report.target == "kind b" and report.frame.set_index("latent").loc[1, "effect"] > 0


def test_zero_shot_texts_and_a_layer_of_ones_own(place, bias, tmp_path):
    texts = ["a photo of a star", "a photo of a circle"]
    content, _ = bias("--zero_shot", *texts, "--latents", "0", "1", "5")
    scale = float(place.backbone.model.logit_scale.detach().exp())
    classifier = LinearClassifier.zero_shot(place.backbone.text_embeds(texts), texts, scale)
    baseline = classifier.logits(load_embeddings(place.test)[:]).softmax(dim=1)[:, 0]
    effects = {row["latent"]: row["effect"] for row in content["concepts"]}
    assert content["target"] == texts[0] and effects[1] > 0 > effects[5]
    assert content["baseline"] == pytest.approx(baseline.mean().item(), abs=0.1), "with the backbone's own scale"
    # A layer whose logits are these, of raw embeddings: the length of an embedding is not divided by, so only close.
    texts_weight = classifier.weight.float()
    others = {"bias": torch.zeros(2), "steps": torch.ones(1)}
    save_file({"weight": texts_weight.contiguous(), **others}, tmp_path / "head.safetensors")
    content, _ = bias("--classifier", tmp_path / "head.safetensors", "--positive", "0", "--latents", "0", "1", "5")
    assert content["target"] == "class 0"
    own = (load_embeddings(place.test)[:] @ texts_weight.T).softmax(dim=1)[:, 0]
    assert ((own > 0.5) == (baseline > 0.5)).all()
    again = {row["latent"]: row["effect"] for row in content["concepts"]}
    assert again[1] > 0 > again[5]


def test_what_is_refused(place, refused, tmp_path):
    save_file({"weight": torch.ones(2, 5)}, tmp_path / "narrow.safetensors")
    (tmp_path / "no.safetensors").write_text("no")
    train = ["--train_data", place.train]
    for arguments, message in (
        ([], "one of --target, --zero_shot and --classifier"),
        (["--target", "star"], "--target and --train_data belong together"),
        (["--zero_shot", "a"], "needs two texts"),
        (["--zero_shot", "a", "b", "--positive", "b"], "leave --positive out"),
        (["--target", "stat", *train], "no column 'stat'"),
        (["--target", "star", "--train_data", place.test], "cannot be trained on"),
        (["--target", "star", *train, "--positive", "yes"], "no class 'yes', only False, True"),
        (["--target", "star", *train, "--regularization", "low"], "a number above 0, or cv; got 'low'"),
        (["--target", "star", *train, "--num_null", "0"], "num_null must be positive"),
        (["--target", "star", *train, "--alpha", "5"], "alpha"),
        (["--zero_shot", "a", "b", "--figure", "x.png", "--box_figure", "x.png"], "give two names"),
        (["--classifier", tmp_path / "typo"], "there is no file"),
        (["--classifier", tmp_path / "no.safetensors"], "is no safetensors file"),
        (["--classifier", tmp_path / "narrow.safetensors"], "has to hold weight (C, 128)"),
        (["--classifier", tmp_path / "x", "--positive", "yes"], "the number of a class"),
    ):
        assert message in refused(main, place.model, "--data", place.test, *arguments)
