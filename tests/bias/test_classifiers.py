"""Classifiers from columns beside embeddings."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Sequence, Value

from hf_msae.backbones import Backbone
from hf_msae.bias.classifiers import column_labels, probe_columns, zero_shot_columns
from hf_msae.embeddings import load_embeddings

SPECIES = ["cat", "dog", None, "ant", "dog"]


@pytest.fixture
def data():
    features = Features(
        {
            "image_embeds": Sequence(Value("float32"), length=3),
            "species": Value("string"),
            "number": Value("int64"),
            "declared": ClassLabel(names=["no", "yes", "unseen"]),
            "flag": Value("bool"),
            "weight": Value("float32"),
        }
    )
    rows = {
        "image_embeds": np.random.default_rng(0).normal(size=(5, 3)).tolist(),
        "species": SPECIES,
        "number": [7, -1, 3, None, 3],
        "declared": [1, 0, None, -1, 1],
        "flag": [True, False, None, True, True],
        "weight": [0.5] * 5,
    }
    return load_embeddings(Dataset.from_dict(rows, features=features))


@pytest.mark.parametrize(
    ("column", "numbers", "classes"),
    [
        ("species", [1, 2, -1, 0, 2], ("ant", "cat", "dog")),
        ("number", [1, -1, 0, -1, 0], ("3", "7")),
        ("declared", [1, 0, -1, -1, 1], ("no", "yes", "unseen")),
        ("flag", [1, 0, -1, 1, 1], ("False", "True")),
    ],
)
def test_labels_of_every_kind_of_column(data, column, numbers, classes):
    found, names = column_labels(data, column)
    assert found.tolist() == numbers and names == classes


def test_given_classes_decide_the_numbers(data):
    assert column_labels(data, "species", ["dog", "cat", "ant", "eel"])[0].tolist() == [1, 0, -1, 2, 0]
    with pytest.raises(ValueError, match=r"'species'.*'ant'.*cat, dog"):
        column_labels(data, "species", ["cat", "dog"])


def test_what_is_no_label_is_refused(data):
    with pytest.raises(ValueError, match=r"'kind'.*species, number, declared"):
        column_labels(data, "kind")
    with pytest.raises(ValueError, match=r"'weight'.*float"):
        column_labels(data, "weight")
    with pytest.raises(ValueError, match="'species'"):
        column_labels(load_embeddings(np.eye(3, dtype=np.float32)), "species")


def labeled(rows, seed):
    rng = np.random.default_rng(seed)
    names = np.array(["ant", "bee", "cow"])
    classes = rng.integers(0, 3, rows)
    embeds = np.eye(4)[classes] + 0.2 * rng.normal(size=(rows, 4))
    return load_embeddings(Dataset.from_dict({"image_embeds": embeds.tolist(), "kind": names[classes].tolist()}))


def test_a_probe_is_trained_on_one_part_and_labels_are_of_the_other():
    train, test = labeled(200, 0), labeled(90, 1)
    fewer = load_embeddings(test.dataset.filter(lambda row: row["kind"] != "ant"))
    for data, known in ((test, {0, 1, 2}), (fewer, {1, 2})):  # numbered like the classes of the training data
        classifiers, labels = probe_columns(train, data, ["kind"])
        probe, truth = classifiers["probe kind"], labels["probe kind"]
        assert probe.classes == ("ant", "bee", "cow") and set(truth) == known
        assert (probe.logits(data[:]).argmax(1).numpy() == truth).mean() > 0.95
    same, other = (load_embeddings(each.dataset.map(lambda row: {"kind": "ant"})) for each in (train, test))
    for one, two, column, named in (
        (train, test, "kin", "'kin'"),
        (test, labeled(90, 1), "kind", "given dataset"),
        (fewer, train, "kind", r"'kind'.*'ant'.*bee, cow"),
        (same, other, "kind", r"'kind'.*1"),
    ):
        with pytest.raises(ValueError, match=named):
            probe_columns(one, two, [column])


def test_zero_shot_takes_the_texts_of_the_backbone():
    backbone = Backbone.from_pretrained("scenes")
    colors = ["red", "blue", "red"]
    data = load_embeddings(
        Dataset.from_dict({"image_embeds": torch.randn(3, backbone.width("image_embeds")).tolist(), "color": colors})
    )
    classifiers, labels = zero_shot_columns(backbone, data, ["color"], "a {} shape")
    texts = backbone.text_embeds(["a blue shape", "a red shape"])
    assert classifiers["zero-shot color"].logits(texts).argmax(1).tolist() == [0, 1]
    assert labels["zero-shot color"].tolist() == [1, 0, 1]
    scale = classifiers["zero-shot color"].weight.norm(dim=1)
    assert scale.tolist() == pytest.approx([float(backbone.model.logit_scale.detach().exp())] * 2, rel=1e-6)
    with pytest.raises(ValueError, match=r"\{\}.*a shape"):
        zero_shot_columns(backbone, data, ["color"], "a shape")


def test_numbers_make_no_texts(data):
    for column in ("number", "flag"):
        with pytest.raises(ValueError, match=column):
            zero_shot_columns(None, data, [column])
