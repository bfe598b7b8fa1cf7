"""SemanticLens' scores: closed forms, definitions, planted groups and invariances."""

import numpy as np
import pytest
import torch

from hf_msae.neuron_labels.evaluation.semanticlens import clarity, polysemanticity, redundancy


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_clarity_is_the_mean_cosine_of_different_images():
    values = _random(4, 7, 5)
    for each, found in zip(values, clarity(values), strict=True):
        lengths = np.linalg.norm(each, axis=1)
        cosines = each @ each.T / np.outer(lengths, lengths)
        assert found == pytest.approx(cosines[~np.eye(7, dtype=bool)].mean())


def test_clarity_is_1_for_copies_and_lowest_for_opposites():
    assert clarity(np.tile(_random(1, 6), (5, 1))) == pytest.approx(1)
    assert clarity(np.array([[1.0, 0], [-2, 0]])) == pytest.approx(-1)
    assert clarity(np.eye(4)) == pytest.approx(0)


def test_redundancy_is_the_cosine_with_the_most_alike_neuron():
    values = np.array([[1.0, 0], [1, 1], [0, -3]])
    assert redundancy(values) == pytest.approx([np.sqrt(0.5), np.sqrt(0.5), 0])
    images = _random(6, 8, 5)
    np.testing.assert_allclose(redundancy(images), redundancy(images.mean(axis=1)))
    assert redundancy(np.concatenate([images, images[:1]]))[0] == pytest.approx(1)


def test_polysemanticity_is_1_minus_the_cosine_of_two_planted_groups():
    rng = np.random.default_rng(1)
    first, second = np.array([3.0, 0, 0]), np.array([1.5, 1.5 * np.sqrt(3), 0])  # 60 degrees apart
    images = np.concatenate([first + 0.01 * rng.normal(size=(12, 3)), second + 0.01 * rng.normal(size=(8, 3))])
    one_group = first + 0.01 * rng.normal(size=(20, 3))
    found = polysemanticity(np.stack([images, one_group]))
    assert found[0] == pytest.approx(0.5, abs=0.02)
    assert found[1] == pytest.approx(0, abs=0.01)


def test_one_outlier_is_no_second_meaning():
    rng = np.random.default_rng(2)
    images = np.array([1.0, 0, 0]) + 0.01 * rng.normal(size=(20, 3))
    images[-1] = [0, 5, 0]
    mean = images.mean(axis=0)
    wanted = 1 - np.mean([mean @ each / np.linalg.norm(mean) / np.linalg.norm(each) for each in images[:10]])
    assert polysemanticity(images[None])[0] == pytest.approx(wanted)
    assert polysemanticity(images[None])[0] < 0.1
    assert polysemanticity(np.ones((1, 5, 3)))[0] == pytest.approx(0)


def test_scores_do_not_depend_on_order_or_scale_and_take_tensors():
    values = _random(3, 12, 4, seed=3)
    order = np.random.default_rng(0).permutation(12)
    np.testing.assert_allclose(clarity(values[:, order]), clarity(values))
    np.testing.assert_allclose(clarity(values * np.arange(1, 13)[:, None]), clarity(values))
    np.testing.assert_allclose(redundancy(5 * values), redundancy(values))
    np.testing.assert_allclose(polysemanticity(2 * values), polysemanticity(values), rtol=1e-6)
    np.testing.assert_allclose(clarity(torch.from_numpy(values)), clarity(values), rtol=1e-5)


@pytest.mark.parametrize("score", [clarity, redundancy, polysemanticity])
def test_too_few_or_broken_embeddings_are_refused(score):
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        score(np.ones((1, 3)))
    with pytest.raises(ValueError, match="nan"):
        score(np.full((2, 2, 3), np.nan))
