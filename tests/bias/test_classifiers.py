"""Classifiers from columns beside embeddings."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_msae.backbones import Backbone
from hf_msae.bias.classifiers import probe_columns, zero_shot_columns
from hf_msae.embeddings import load_embeddings


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


def test_numbers_make_no_texts():
    columns = {"number": [7, 3, 7], "flag": [True, False, True]}
    data = load_embeddings(Dataset.from_dict({"image_embeds": np.eye(3).tolist(), **columns}))
    for column in columns:
        with pytest.raises(ValueError, match=column):
            zero_shot_columns(None, data, [column])
