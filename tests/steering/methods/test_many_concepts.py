"""Methods that fit all concepts together."""

import numpy as np
import pytest

from hf_msae.steering import METHODS, NotDefinedError
from tests.identity_msae import identity_msae


@pytest.fixture(scope="module")
def correlated():
    """Embeddings that two concepts, which often occur together, move along two orthogonal axes."""
    rng = np.random.default_rng(0)
    first = rng.random(2000) < 0.5
    second = np.where(rng.random(2000) < 0.9, first, ~first)
    X = rng.standard_normal((2000, 6))
    X[:, 0] += 4 * first
    X[:, 1] += 4 * second
    return X, np.stack([first, second], axis=1)


@pytest.fixture(scope="module")
def identity_edit():
    """Method -> an edit of embeddings (n, 6) that has not been fitted."""
    msae = identity_msae(6, [6])
    return lambda method: METHODS[method](**({"msae": msae} if method == "msae" else {}))


def direction(method, X, concepts, number, **options):
    others = np.delete(concepts, number, axis=1)
    return METHODS[method](**options).fit(X, concepts[:, number], others=others).direction.numpy()


@pytest.fixture(scope="module")
def directions(correlated):
    """Method -> the directions of both concepts."""
    return {method: [direction(method, *correlated, n) for n in (0, 1)] for method in ("joint_pattern", "orthogonal")}


def test_joint_patterns_do_not_take_in_other_concepts(correlated, directions):
    assert direction("pattern", *correlated, 0)[1] > 0.5
    assert all(directions["joint_pattern"][number][number] > 0.99 for number in (0, 1))


def test_orthogonal_patterns_are_nearly_orthogonal_and_stay_near_the_patterns(correlated, directions):
    X, concepts = correlated
    pattern = [direction("pattern", X, concepts, number) for number in (0, 1)]
    found = directions["orthogonal"]
    assert pattern[0] @ pattern[1] > 0.9
    assert abs(found[0] @ found[1]) < 0.05
    assert all(new @ old > 0.7 for new, old in zip(found, pattern, strict=True))
    kept = direction("orthogonal", X, concepts, 0, alpha=0.0)
    np.testing.assert_allclose(kept, pattern[0], atol=1e-5)


@pytest.mark.parametrize("method", ["joint_pattern", "orthogonal"])
def test_a_concept_alone_has_its_pattern(correlated, method):
    X, concepts = correlated
    expected = METHODS["pattern"]().fit(X, concepts[:, 0]).direction
    np.testing.assert_allclose(METHODS[method]().fit(X, concepts[:, 0]).direction, expected, atol=1e-6)


@pytest.mark.parametrize("method", ["joint_pattern", "orthogonal"])
def test_concepts_that_are_always_there_change_nothing(correlated, directions, method):
    X, concepts = correlated
    more = np.column_stack([concepts, np.ones(len(X), dtype=bool)])
    np.testing.assert_allclose(direction(method, X, more, 0), directions[method][0], atol=1e-5)


@pytest.mark.parametrize("method", ["joint_pattern", "reactive_pattern", "msae"])
@pytest.mark.parametrize(
    ("others", "said"),
    [
        (lambda first, second: [second, first], r"others\[:, 1\]"),
        (lambda first, second: [~first, second], r"opposite of others\[:, 0\]"),
        (lambda first, second: [first & second, second, first & ~second], "sum of the other"),
    ],
)
def test_a_concept_that_follows_from_others_is_not_defined(correlated, identity_edit, method, others, said):
    X, concepts = correlated
    edit = identity_edit(method)
    with pytest.raises(NotDefinedError, match=f"cannot be told from.*{said}"):
        edit.fit(X, concepts[:, 0], others=np.column_stack(others(*concepts.T)))


def test_others_that_follow_from_each_other_change_nothing(correlated, directions):
    X, concepts = correlated
    more = np.column_stack([concepts, ~concepts[:, 1], concepts[:, 1]])
    np.testing.assert_allclose(direction("joint_pattern", X, more, 0), directions["joint_pattern"][0], atol=1e-5)
