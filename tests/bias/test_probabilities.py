"""Classifiers of all kinds are asked for the probability of one class."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformers.modeling_outputs import ImageClassifierOutput

from hf_msae.bias import as_classifier
from hf_msae.metrics import LinearClassifier

D, ROWS = 60, 500


@pytest.fixture(scope="module")
def data():
    """Embeddings, and weights of the two columns that tell their class, and hardly of others."""
    generator = torch.Generator().manual_seed(0)
    weights = 0.05 * torch.randn(D, generator=generator)
    weights[0], weights[1] = 3.0, -2.0
    return torch.randn(ROWS, D, generator=generator).relu(), weights


def test_classifiers_of_all_kinds(data):
    x, weights = data
    labels = (x @ weights > 0.5).long().numpy()
    probe = LinearClassifier.fit(x, labels, ["no", "yes"])
    expected = probe.logits(x).softmax(dim=-1)[:, 1]
    assert torch.equal(as_classifier(probe, "yes")(x), expected) and torch.equal(as_classifier(probe, 1)(x), expected)
    sklearn = LogisticRegression(max_iter=1000).fit(x.numpy(), np.array(["no", "yes"])[labels])
    np.testing.assert_allclose(as_classifier(sklearn, "no")(x), sklearn.predict_proba(x.numpy())[:, 0])
    single, double = torch.nn.Linear(D, 1), torch.nn.Linear(D, 2)
    torch.testing.assert_close(as_classifier(single)(x), single(x)[:, 0].sigmoid())
    torch.testing.assert_close(as_classifier(single, 0)(x), 1 - single(x)[:, 0].sigmoid())
    with pytest.raises(ValueError, match=r"2.*0, 1"):
        as_classifier(single, 2)(x)
    torch.testing.assert_close(as_classifier(double, 0)(x), double(x).softmax(dim=-1)[:, 0])
    assert as_classifier(expected.__mul__) == expected.__mul__
    with pytest.raises(ValueError, match=r"'maybe'.*no, yes"):
        as_classifier(probe, "maybe")
    with pytest.raises(TypeError, match="str"):
        as_classifier("probe")
    with pytest.raises(ValueError, match=r"LogisticRegression has no classes_.*fit it first"):
        as_classifier(LogisticRegression())


@pytest.mark.parametrize("names", [(1, 2), (-1, 1), (False, True), ("0", "1")])
def test_labels_of_scikit_learn_are_meant_not_their_places(data, names):
    embeddings, weights = data
    x = embeddings.numpy()
    model = LogisticRegression(max_iter=1000).fit(x, np.array(names)[(embeddings @ weights > 0.5).long().numpy()])
    for place, name in enumerate(names):
        for positive in (name, str(name), np.array(names)[place]):
            np.testing.assert_array_equal(as_classifier(model, positive)(embeddings), model.predict_proba(x)[:, place])
    with pytest.raises(ValueError, match="5"):
        as_classifier(model, 5)


def test_a_module_is_asked_as_it_predicts_and_left_as_it_was(data):
    x, _ = data
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(D), torch.nn.Dropout(0.5), torch.nn.Linear(D, 2)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    ask = as_classifier(module)
    assert torch.equal(ask(x), ask(x)) and module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Head(torch.nn.Linear):
    """Returns its logits as `wrap` says."""

    def __init__(self, wrap):
        super().__init__(D, 2)
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(super().forward(x))


def test_logits_of_transformers_and_of_dicts_are_taken(data):
    x, _ = data
    for wrap in (lambda logits: ImageClassifierOutput(logits=logits), lambda logits: {"loss": None, "logits": logits}):
        head = Head(wrap)
        torch.testing.assert_close(as_classifier(head)(x), torch.nn.Linear.forward(head, x).softmax(dim=-1)[:, 1])
    for wrap, message in (
        (lambda logits: {"scores": logits}, r"returns a dict of scores, not logits.*module.eval\(\)\(x\)\['scores'\]"),
        (lambda logits: (logits, None), r"returns a tuple, not logits.*pass a function.*module.eval\(\)\(x\)\[0\]"),
    ):
        with pytest.raises(TypeError, match=message):
            as_classifier(Head(wrap))(x)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_a_module_that_returns_probabilities_is_refused(data, classes):
    """Taken for logits, they would say less than they do: a probability of 1 became 0.73."""
    (x, _), layer = data, torch.nn.Linear(D, classes)
    layer.weight.data *= 100
    last, said = (torch.nn.Softmax(-1), "softmax") if classes > 1 else (torch.nn.Sigmoid(), "sigmoid")
    with pytest.raises(ValueError, match=f"returns probabilities, not logits: leave out its last {said}"):
        as_classifier(torch.nn.Sequential(layer, last))(x)
    log = torch.nn.Sequential(layer, torch.nn.LogSoftmax(-1) if classes > 1 else torch.nn.Identity())
    torch.testing.assert_close(as_classifier(log, 0)(x), as_classifier(layer, 0)(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_module_is_asked_in_its_own_precision(data, dtype):
    x, _ = data
    module = torch.nn.Linear(D, 2)
    expected = as_classifier(module)(x)
    found = as_classifier(module.to(dtype))(x)
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.02)
