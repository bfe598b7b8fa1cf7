"""Probes and zero-shot classifiers on reconstructions, against direct formulas and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import ClassificationAccumulator, LinearClassifier, accuracy_drop, probe_agreement, probe_kl
from hf_msae.metrics.classification import number_labels


def clusters(rows=300, width=8, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    centers = np.random.default_rng(99).normal(size=(classes, width))
    return (centers[labels] + 0.5 * rng.normal(size=(rows, width))).astype(np.float32), labels


def softmax(logits):
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_is_scikit_learns_on_unit_embeddings(classes):
    x, labels = clusters(classes=classes)
    probe = LinearClassifier.fit(x, labels, regularization=0.5)
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    scaled = StandardScaler().fit_transform(unit)
    expected = LogisticRegression(C=2.0, max_iter=1000).fit(scaled, labels).predict_proba(scaled)
    assert softmax(probe.logits(torch.from_numpy(x)).numpy()) == pytest.approx(expected, rel=1e-6)
    assert (expected.argmax(axis=1) == labels).mean() > 0.8


def test_zero_shot_logits_are_scaled_cosines():
    rng = np.random.default_rng(1)
    x, texts = rng.normal(size=(20, 6)), rng.normal(size=(3, 6))
    classifier = LinearClassifier.zero_shot(texts, ["a", "b", "c"], logit_scale=50.0, logit_bias=-4.0)
    cosines = np.array([[a @ t / np.linalg.norm(a) / np.linalg.norm(t) for t in texts] for a in x])
    assert classifier.logits(torch.from_numpy(x)).numpy() == pytest.approx(50 * cosines - 4)
    assert classifier.classes == ("a", "b", "c")


def direct(classifier, x, y, labels):
    p, q = (softmax(classifier.logits(each).numpy()) for each in (x, y))
    before, after = p.argmax(axis=1), q.argmax(axis=1)
    known = labels >= 0
    return {
        "kl": np.mean([sum(a * np.log(a / b) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]),
        "agreement": np.mean(before == after),
        "accuracy": np.mean(before[known] == labels[known]),
        "accuracy_reconstruction": np.mean(after[known] == labels[known]),
        "accuracy_drop": np.mean(before[known] == labels[known]) - np.mean(after[known] == labels[known]),
        "num_labelled": known.sum(),
    }


@pytest.mark.parametrize("sizes", [[150], [1] * 150, [100, 49, 1]])
def test_against_the_definitions_streamed_and_merged(sizes):
    x, labels = clusters(rows=150)
    classifier = LinearClassifier.fit(*clusters(seed=3))
    x = torch.from_numpy(x)
    y = x + 0.8 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    labels[::7] = -1
    expected = direct(classifier, x, y, labels)
    assert 0.01 < expected["accuracy_drop"] < 0.9 and expected["num_labelled"] == 128
    streamed, merged = ClassificationAccumulator(classifier), ClassificationAccumulator(classifier)
    for a, b, c in zip(x.split(sizes), y.split(sizes), torch.from_numpy(labels).split(sizes), strict=True):
        streamed.update(a, b, c)
        single = ClassificationAccumulator(classifier)
        single.update(a, b, c)
        merged.merge(single)
    for accumulator in (streamed, merged):
        assert accumulator.compute() == pytest.approx(expected, rel=1e-9)
    assert probe_kl(x, y, classifier) == pytest.approx(expected["kl"])
    assert probe_agreement(x, y, classifier) == pytest.approx(expected["agreement"])
    drop = accuracy_drop(x, y, classifier, torch.from_numpy(labels))
    assert drop == pytest.approx(expected["accuracy_drop"])


def test_a_perfect_reconstruction_changes_nothing_and_length_does_not_count():
    x, labels = clusters()
    classifier = LinearClassifier.fit(x, labels)
    x = torch.from_numpy(x)
    for y in (x, 3 * x):
        assert probe_kl(x, y, classifier) == pytest.approx(0, abs=1e-12)
        assert probe_agreement(x, y, classifier) == 1.0
    assert ClassificationAccumulator(classifier).classifier is classifier
    accumulator = ClassificationAccumulator(classifier)
    accumulator.update(x, x)
    found = accumulator.compute()
    assert found["accuracy"] is found["accuracy_drop"] is None and found["num_labelled"] == 0


def test_a_class_that_the_probe_never_saw_is_never_chosen():
    x, labels = clusters()
    with pytest.warns(UserWarning, match="horse"):
        classifier = LinearClassifier.fit(x, labels, classes=["a", "b", "c", "d", "horse"])
    x = torch.from_numpy(x)
    assert classifier.logits(x).argmax(1).max() < 4
    assert probe_kl(x, x + 0.1, classifier) < 10  # not NaN, though 0 log 0 is in it
    with pytest.warns(UserWarning, match="of b$"):
        left_out = LinearClassifier.fit(x, np.where(labels == 1, -1, labels), classes=["a", "b", "c", "d"]).bias
    assert torch.isinf(left_out[1]) and left_out[[0, 2, 3]].isfinite().all()


def test_opened_embeddings_do():
    x, labels = clusters()
    probe, expected = (LinearClassifier.fit(each, labels) for each in (load_embeddings(x), x))
    assert torch.equal(probe.weight, expected.weight)
    assert torch.equal(probe.logits(load_embeddings(x)), expected.logits(x))


def test_labels_by_name_or_number():
    numbers, names = number_labels(np.array(["red", "blue", "red"]))
    assert (numbers.tolist(), names) == ([1, 0, 1], ("blue", "red"))
    assert number_labels(["red"], ["blue", "green", "red"])[0].tolist() == [2]
    assert number_labels([2, -1, 0])[1] == ("0", "1", "2")
    with pytest.raises(ValueError, match=r"'pink'.*blue, red"):
        number_labels(["pink"], ["blue", "red"])
    with pytest.raises(ValueError, match=r"0 to 5.*3 classes"):
        number_labels([0, 5], ["a", "b", "c"])
    with pytest.raises(ValueError, match="flat list"):
        number_labels([[0, 1]])
    assert number_labels(["b", None, "a"])[0].tolist() == [1, -1, 0]
    for labels in (["b", float("nan"), "a"], pd.Series(["b", None, "a"]), pd.Series(["b", None, "a"], dtype="string")):
        numbers, names = number_labels(labels)
        assert (numbers.tolist(), names) == ([1, -1, 0], ("a", "b"))
    with pytest.raises(ValueError, match="float64"):
        number_labels([0.0, float("nan")])


def test_numbers_among_unknown_labels_are_numbers():
    """Otherwise positive=1 would mean class 3, the second name, and -1 would be a class."""
    for known in ([3, 1, -1], [True, False, True]):
        numbers, names = number_labels(known)
        found, classes = number_labels([None, *known])
        assert (found.tolist(), classes) == ([-1, *numbers], names)
    nullable = pd.Series([True, None, False], dtype="boolean")
    assert number_labels(nullable)[0].tolist() == number_labels(nullable, ["0", "1"])[0].tolist() == [1, -1, 0]


def test_what_is_refused():
    x, labels = clusters()
    with pytest.raises(ValueError, match="got 1"):
        LinearClassifier.fit(x, np.zeros(300, dtype=int))
    with pytest.raises(ValueError, match=r"300.*299"):
        LinearClassifier.fit(x, labels[1:])
    with pytest.raises(ValueError, match=r"3.*2 classes"):
        LinearClassifier.zero_shot(np.eye(3), ["a", "b"])
    with pytest.raises(ValueError, match="'b'"):
        LinearClassifier.zero_shot(np.diag([1.0, 0.0, 1.0]), ["a", "b", "c"])
    classifier = LinearClassifier.fit(x, labels)
    with pytest.raises(ValueError, match=r"7.*8"):
        classifier.logits(torch.zeros(2, 7))
    accumulator = ClassificationAccumulator(classifier)
    with pytest.raises(ValueError, match="no samples"):
        accumulator.compute()
    x = torch.from_numpy(x)
    with pytest.raises(ValueError, match=r"torch\.float32"):
        accumulator.update(x, x, torch.full((300,), 0.5))
    with pytest.raises(ValueError, match="0 to 3"):
        accumulator.update(x, x, torch.full((300,), 4))
    with pytest.raises(ValueError, match=r"300 .*\(3,\)"):
        accumulator.update(x, x, torch.zeros(3, dtype=torch.long))


def noisy(rows=400, width=200, seed=0):
    """Two classes that two of many directions tell imperfectly: little regularization overfits."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] + 1.5 * rng.normal(size=rows) > 0).astype(int)


def test_cross_validation_chooses_what_predicts_new_rows_best():
    x, labels = noisy()
    new, new_labels = noisy(4000, seed=1)

    def loss(regularization):
        logits = LinearClassifier.fit(x, labels, ["no", "yes"], regularization).logits(torch.from_numpy(new))
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(new_labels)).item()

    losses = {value: loss(value) for value in (1.0, 10.0, 100.0, 1000.0, 10_000.0)}
    best, second = sorted(losses, key=losses.get)[:2]
    assert best > 1.0 and second > 1.0
    assert loss("cv") in (losses[best], losses[second])  # the grid is coarse and the rows differ: at most one off


def test_cross_validation_refuses_what_it_cannot_divide():
    x, labels = noisy()
    few = np.zeros(400, dtype=int)
    few[:3] = 1
    with pytest.raises(ValueError, match=r"5.*are 3 of yes.*--regularization"):
        LinearClassifier.fit(x, few, ["no", "yes"], "cv")
    for wrong in ("best", 0.0, -1.0):
        with pytest.raises(ValueError, match=r"regularization.*cv"):
            LinearClassifier.fit(x, labels, regularization=wrong)


@pytest.mark.parametrize("classes", [{"cat", "dog"}, {0: "cat", 1: "dog"}])
def test_names_of_classes_without_an_order_are_refused(classes):
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    for make in (
        lambda: LinearClassifier.fit(x, [0, 1] * 10, classes),
        lambda: LinearClassifier.zero_shot(x[:2], classes),
    ):
        with pytest.raises(ValueError, match="classes must be a list of names.*" + type(classes).__name__):
            make()


def test_the_same_name_of_two_classes_and_masked_labels_are_refused():
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="two classes are called 'cat'"):
        LinearClassifier.fit(x, ["cat", "dog"] * 10, ["cat", "dog", "cat"])
    with pytest.raises(ValueError, match="labels masks 1 of its values, the first in row 3"):
        LinearClassifier.fit(x, np.ma.masked_array([0, 1] * 10, np.arange(20) == 3))


def test_missing_values_of_the_types_of_pandas_are_unknown():
    for values, dtype in (([1, None, 0], "Int64"), ([True, None, False], "boolean"), (["b", None, "a"], "category")):
        numbers, classes = number_labels(pd.Series(values).astype(dtype))
        assert numbers.tolist() == [1, -1, 0] and classes == (("a", "b") if dtype == "category" else ("0", "1"))


def test_labels_in_another_order_than_a_table_of_embeddings_are_refused():
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 4)), index=[f"{row}.png" for row in range(20)])
    labels = pd.Series([0, 1] * 10, index=x.index)
    with pytest.raises(ValueError, match=r"labels has the rows of embeddings in another order: row 0 is 19\.png in"):
        LinearClassifier.fit(x, labels[::-1])
    assert LinearClassifier.fit(x, labels[::-1].to_numpy()).classes == ("0", "1")
