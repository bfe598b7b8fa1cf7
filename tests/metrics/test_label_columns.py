"""Columns of labels next to embeddings."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value

from hf_msae._utils.wording import class_title
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics.label_columns import column_labels

SPECIES = ["cat", "dog", "", "ant", "dog"]


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
            "gaps": Value("float64"),
        }
    )
    rows = {
        "image_embeds": np.random.default_rng(0).normal(size=(5, 3)).tolist(),
        "species": SPECIES,
        "number": [7, -1, 3, None, 3],
        "declared": [1, 0, None, -1, 1],
        "flag": [True, False, None, True, True],
        "weight": [0.5] * 5,
        "gaps": [1.0, None, 0.0, float("nan"), 1.0],
    }
    return load_embeddings(Dataset.from_dict(rows, features=features))


@pytest.mark.parametrize(
    ("column", "numbers", "classes"),
    [
        ("species", [1, 2, -1, 0, 2], ("ant", "cat", "dog")),
        ("number", [1, -1, 0, -1, 0], ("3", "7")),
        ("declared", [1, 0, -1, -1, 1], ("no", "yes", "unseen")),
        ("flag", [1, 0, -1, 1, 1], ("False", "True")),
        ("gaps", [1, -1, 0, -1, 1], ("0", "1")),  # what a CSV file with empty cells becomes
    ],
)
def test_labels_of_every_kind_of_column(data, column, numbers, classes):
    found, names = column_labels(data, column)
    assert found.tolist() == numbers and names == classes


def test_given_classes_decide_the_numbers(data):
    assert column_labels(data, "species", ["dog", "cat", "ant", "eel"])[0].tolist() == [1, 0, -1, 2, 0]
    with pytest.raises(ValueError, match=r"'species'.*'ant'.*cat, dog"):
        column_labels(data, "species", ["cat", "dog"])


@pytest.mark.parametrize(
    ("classes", "positive", "title"),
    [(("False", "True"), "True", "c"), (("False", "True"), "False", "c False"), (("0", "1"), "1", "c 1")],
)
def test_true_is_called_like_its_column(classes, positive, title):
    assert class_title("c", classes, positive) == title


def test_what_is_no_label_is_refused(data):
    with pytest.raises(ValueError, match=r"'kind'.*species, number, declared"):
        column_labels(data, "kind")
    with pytest.raises(ValueError, match=r"'weight'.*float"):
        column_labels(data, "weight")
    empty = Features(image_embeds=Sequence(Value("float32"), length=1), unknown=Value("bool"))
    empty = Dataset.from_dict({"image_embeds": [[1.0]], "unknown": [None]}, features=empty)
    with pytest.raises(ValueError, match=r"'unknown'.*no label"):
        column_labels(load_embeddings(empty), "unknown")
    with pytest.raises(ValueError, match="'species'"):
        column_labels(load_embeddings(np.eye(3, dtype=np.float32)), "species")
