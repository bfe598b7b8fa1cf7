"""Measures of labels on images: against scikit-learn, closed forms, ties, and what cannot be measured."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

from hf_msae.neuron_labels.evaluation.measures import (
    MEASURES,
    TRUSTED,
    chance_auprc,
    measure_labels,
    paired,
    top_overlap,
)


def _random(seed, n=400, neurons=3, concepts=4, ties=True):
    rng = np.random.default_rng(seed)
    presence = rng.random((n, concepts)) < [0.05, 0.2, 0.4, 0.7][:concepts]
    activations = rng.normal(size=(n, neurons)) + presence[:, [0]]
    return (np.maximum(activations, 0).round(1) if ties else activations), presence


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("auc", lambda c, a: roc_auc_score(c, a)),
        ("auprc", lambda c, a: average_precision_score(c, a)),
        ("correlation", lambda c, a: np.corrcoef(c, a)[0, 1]),
        ("cosine", lambda c, a: c @ a / np.linalg.norm(c) / np.linalg.norm(a)),
        ("mean_difference", lambda c, a: (a[c == 1].mean() - a[c == 0].mean()) / np.ptp(a)),
    ],
)
def test_measures_equal_their_definitions_for_all_pairs(name, reference, ties):
    activations, presence = _random(0, ties=ties)
    found = MEASURES[name](activations, presence)
    wanted = [[reference(c.astype(float), a) for c in presence.T] for a in activations.T]
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


@pytest.mark.parametrize("alpha", [None, 0.05, 0.3])
def test_binarized_measures_equal_scikit_learns_without_ties(alpha):
    activations, presence = _random(1, ties=False)
    for i, a in enumerate(activations.T):
        for j, c in enumerate(presence.T):
            k = int(c.sum()) if alpha is None else round(alpha * len(c))
            active = np.zeros(len(c), dtype=bool)
            active[np.argsort(-a)[:k]] = True
            found = {name: MEASURES[name](activations, presence, alpha)[i, j] for name in ("f1", "iou")}
            assert found["f1"] == pytest.approx(f1_score(c, active))
            assert found["iou"] == pytest.approx(jaccard_score(c, active))
            recall, precision = (
                MEASURES[name](activations, presence, alpha)[i, j] for name in ("recall", "precision")
            )
            assert recall == pytest.approx((active & c).sum() / k)
            assert precision == pytest.approx((active & c).sum() / c.sum())


def test_ties_at_the_threshold_count_as_random_choices_do_on_average():
    rng = np.random.default_rng(2)
    activations, presence = np.array([3.0, 1, 1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 0, 1, 0, 1, 0])
    both, active, shown = top_overlap(activations[:, None], presence[:, None].astype(float), 3 / 8)
    assert (active, shown) == (3, 4)
    assert both[0, 0] == pytest.approx(1 + 2 * 2 / 4)
    drawn = [presence[np.lexsort((rng.random(8), -activations))[:3]].sum() for _ in range(20_000)]
    assert both[0, 0] == pytest.approx(np.mean(drawn), abs=0.02)


def test_an_activation_that_is_zero_nearly_everywhere_is_not_active_everywhere():
    activations, presence = np.zeros((1000, 1)), np.zeros((1000, 1), dtype=bool)
    activations[:10], presence[:50] = 1, True
    assert MEASURES["iou"](activations, presence)[0, 0] < 0.2  # 10 of 50, and a few of the zeros


def test_order_of_images_and_positive_scale_do_not_matter():
    activations, presence = _random(3)
    order = np.random.default_rng(0).permutation(len(activations))
    for measure in MEASURES.values():
        wanted = measure(activations, presence)
        np.testing.assert_allclose(measure(activations[order], presence[order]), wanted, rtol=1e-10)
        np.testing.assert_allclose(measure(7 * activations, presence), wanted, rtol=1e-10)
        if measure.name != "cosine":
            np.testing.assert_allclose(measure(activations + 3, presence), wanted, rtol=1e-8)


def test_presence_between_0_and_1_counts_as_that_many_images():
    """Presence of 1/4 in an image is 1 image of 4 copies."""
    activations, _ = _random(4, n=60)
    quarters = np.random.default_rng(5).integers(0, 5, size=(60, 2))
    copies = np.stack([(np.arange(4) < count[:, None]) for count in quarters.T], axis=-1).reshape(240, 2)
    repeated = np.repeat(activations, 4, axis=0)
    for name in ("auc", "auprc", "mean_difference", "f1", "iou", "recall", "precision"):
        measure = MEASURES[name]
        np.testing.assert_allclose(measure(activations, quarters / 4), measure(repeated, copies), rtol=1e-10)


def test_a_perfect_and_an_unrelated_neuron():
    rng = np.random.default_rng(6)
    presence = rng.random((5000, 1)) < 0.1
    perfect, unrelated = presence.astype(float), rng.random((5000, 1))
    for name in ("auprc", "correlation", "f1", "iou", "cosine", "auc", "mean_difference", "recall", "precision"):
        assert MEASURES[name](perfect, presence)[0, 0] == pytest.approx(1)
    share = chance_auprc(presence)[0]
    assert MEASURES["auprc"](unrelated, presence)[0, 0] == pytest.approx(share, abs=0.02)
    assert MEASURES["auc"](unrelated, presence)[0, 0] == pytest.approx(0.5, abs=0.03)
    assert abs(MEASURES["correlation"](unrelated, presence)[0, 0]) < 0.05


def test_a_table_says_why_something_cannot_be_measured():
    activations, presence = _random(7, neurons=4)
    presence[:, 1], presence[:, 2], activations[:, 3] = False, True, 2.0
    frame = measure_labels(activations, presence)
    assert [bool(reason) for reason in frame["reason"]] == [False, True, True, True]
    assert frame.loc[0, list(MEASURES)].notna().all()
    assert frame.loc[1:, list(MEASURES)].isna().all(axis=None)
    assert "no image" in frame["reason"][1] and "every image" in frame["reason"][2] and "same" in frame["reason"][3]
    assert frame["share"].tolist() == pytest.approx(presence.mean(axis=0).tolist())


def test_pairs_are_the_diagonal_of_all():
    activations, presence = _random(8, neurons=4)
    for measure in MEASURES.values():
        np.testing.assert_allclose(
            paired(measure, activations, presence), np.diag(measure(activations, presence)), rtol=1e-12
        )


def test_what_is_not_activations_or_presence_is_refused():
    activations, presence = _random(9)
    measure = MEASURES["auc"]
    with pytest.raises(ValueError, match=r"1\.5"):
        measure(activations, np.full(len(activations), 1.5))
    with pytest.raises(ValueError, match="nan"):
        measure(np.full(len(presence), np.nan), presence)
    with pytest.raises(ValueError, match=r"400.*399"):
        measure(activations, presence[1:])
    with pytest.raises(ValueError, match=r"alpha.*1\.0"):
        MEASURES["f1"](activations, presence, 1.0)
    with pytest.raises(ValueError, match="'auroc'"):
        measure_labels(activations, presence[:, :3], measures=["auroc"])
    assert set(TRUSTED) == {"auprc", "correlation", "f1", "iou", "cosine"}
