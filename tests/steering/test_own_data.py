"""Tasks of embeddings with columns of labels: which rows are tested on, and what is said of too few of them."""

import warnings

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Value

from hf_msae.embeddings import load_embeddings
from hf_msae.steering import task_from_embeddings


def embeddings(cells, **columns):
    """Embeddings of {(label, has the bias): rows}."""
    kinds = [label for (label, _), number in cells.items() for _ in range(number)]
    bias = [has for (_, has), number in cells.items() for _ in range(number)]
    X = np.random.default_rng(0).standard_normal((len(kinds), 4)).tolist()
    return load_embeddings(Dataset.from_dict({"image_embeds": X, "kind": kinds, "bias": bias, **columns}))


CELLS = {("cat", True): 400, ("cat", False): 40, ("dog", True): 60, ("dog", False): 300}


def counts(task, part):
    rows = task.rows(part)
    return np.bincount(2 * task.target[rows] + task.concepts["bias"][rows], minlength=4).tolist()


def test_training_keeps_the_correlation_and_the_test_has_as_many_rows_of_each_cell():
    given = embeddings(CELLS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tasks = [task_from_embeddings(given, "kind", "bias", ["bias"], seed=seed) for seed in (0, 1)]
    for task in tasks:
        assert counts(task, "train") == [20, 200, 150, 30] and counts(task, "test") == [20] * 4
        rows = task.provenance["inputs"]
        np.testing.assert_array_equal(task.features, given[rows].numpy())
    assert set(tasks[0].provenance["inputs"]) != set(tasks[1].provenance["inputs"])
    whole = task_from_embeddings(given, "kind", "bias", test_share=0.25, balance_test=False)
    assert counts(whole, "test") == [10, 100, 75, 15] and len(whole.features) == 800


def test_columns_that_hold_no_labels_are_refused():
    given = embeddings(CELLS)
    for columns in (("image_embeds", "bias"), ("kind", "image_embeds")):
        with pytest.raises(ValueError, match=r"column 'image_embeds' of the given dataset holds List.*, not labels"):
            task_from_embeddings(given, *columns)


def test_a_column_of_splits_is_kept():
    split = np.resize(["train", "test", "test", "validation"], 800)
    given = embeddings(CELLS, part=split)
    with pytest.warns(UserWarning, match=r"correlated in the test rows.*balance_test"):
        task = task_from_embeddings(given, "kind", "bias", split_column="part", seed=3)
    assert task.provenance["inputs"] == np.flatnonzero(split != "validation").tolist()
    assert task.split.tolist() == split[split != "validation"].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = task_from_embeddings(given, "kind", "bias", split_column="part", balance_test=True)
    assert counts(task, "test") == [20] * 4 and len(task.train) == 200


def test_what_the_test_cannot_show_is_said():
    with pytest.warns(UserWarning, match=r"kind = cat without bias \(3\), kind = dog with bias \(0\)"):
        task = task_from_embeddings(embeddings({**CELLS, ("cat", False): 6, ("dog", True): 1}), "kind", "bias")
    assert counts(task, "test") == [3, 200, 150, 0] and counts(task, "train") == [3, 200, 150, 1]


def test_fewer_rows_are_drawn_at_random():
    task = task_from_embeddings(embeddings(CELLS), "kind", "bias", num_rows=400, balance_test=False)
    assert len(task.features) == 400 and np.unique(task.provenance["inputs"]).size == 400


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bias": "frame"}, "'frame'"),
        ({"target": "animal"}, "'animal'"),
        ({"target": "age"}, "'age' has 800 values in 800 rows, such as 0.5: .* cut measurements into classes"),
        ({"target": "torn"}, "'torn' has no value in 400 of 800 rows"),
        ({"test_share": 1.5}, "test_share must lie between 0 and 1, got 1.5"),
        ({"concepts": ["kind"]}, "'kind' holds 'cat', 'dog'"),
        ({"concepts": "bias"}, r"concepts.*'bias'.*pass \['bias'\]"),
        ({"split_column": "kind"}, "'cat', which is no split"),
    ],
)
def test_columns_that_do_not_fit_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        given = embeddings(CELLS, age=(np.arange(800) + 0.5).tolist(), torn=[None, 1.0] * 400)
        task_from_embeddings(given, **{"target": "kind", "bias": "bias", **options})


def test_tokens_and_arrays_are_refused():
    tokens = Dataset.from_dict({"tokens": [[[0.0, 1.0]] * 2] * 8, "kind": [0, 1] * 4, "bias": [0, 1] * 4})
    with pytest.raises(ValueError, match="tokens"):
        task_from_embeddings(load_embeddings(tokens, hook_point="tokens"), "kind", "bias")
    with pytest.raises(ValueError, match="no columns"):
        task_from_embeddings(load_embeddings(np.ones((4, 2), dtype=np.float32)), "kind", "bias")
    with pytest.raises(TypeError, match=r"load_embeddings.*Dataset"):
        task_from_embeddings(tokens, "kind", "bias")


def test_rows_without_a_label_are_not_a_label_of_their_own():
    X = np.random.default_rng(0).standard_normal((60, 4)).tolist()
    columns = {"image_embeds": X, "bias": [True, False] * 30}
    for unknown, feature in ((-1, ClassLabel(names=["0", "1"])), ("", Value("string"))):
        kinds = [unknown] * 6 + [type(unknown)(number % 2) for number in range(54)]
        data = Dataset.from_dict({**columns, "kind": kinds}).cast_column("kind", feature)
        with pytest.raises(ValueError, match="column 'kind' has no value in 6 of 60 rows"):
            task_from_embeddings(load_embeddings(data), "kind", "bias")
    signs = Dataset.from_dict({**columns, "kind": [-1] * 30 + [1] * 30})  # as in CelebA: no class of labels
    assert set(task_from_embeddings(load_embeddings(signs), "kind", "bias").target) == {0, 1}
    with pytest.raises(ValueError, match=r"num_rows must be an integer.* got 20\.0"):
        task_from_embeddings(load_embeddings(signs), "kind", "bias", num_rows=20.0)
