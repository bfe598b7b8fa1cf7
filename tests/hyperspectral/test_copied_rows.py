"""Rows that are copies of others stay on one side of every fold."""

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline

from hf_msae.hyperspectral import FixedClassifier, MeanSpectrum, Patches, make_patches, red_team
from hf_msae.hyperspectral.copies import first_copies, keep_together
from hf_msae.hyperspectral.hybrid import predict_out_of_fold
from hf_msae.hyperspectral.subject import make_subject
from tests.hyperspectral.worlds import QUICK

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6))
Y = RNG.normal(size=60)
TWICE = np.repeat(np.arange(60), 2)


def split_copies(folds, rows=TWICE):
    """How many rows have a copy in another fold."""
    return sum(len(np.unique(folds[rows == row])) > 1 for row in np.unique(rows))


def test_copies_teach_nothing():
    wide = RNG.normal(size=(60, 150))  # a linear model gets every row right that it has learned from
    options = {"audits": ["performance", "stability", "shortcuts"], **QUICK}
    farms = np.repeat(np.array(list("abc")), 40)
    found = red_team(LinearRegression(), wide[TWICE], Y[TWICE], {"farm": farms}, **options)
    performance = found.tables["performance"].set_index("metric")["value"]
    assert performance["r2"] < 0 and found.tables["shortcuts"]["random"].iloc[0] < 0
    spread = found.tables["stability"].set_index("metric")["value"]
    assert spread["r2_spread"] < 0.3  # one draw with copies on both sides, and one without, differ by 0.6
    (remark,) = [each for each in found.remarks if "copies" in each]
    assert remark.startswith("60 rows are copies") and "row 1 of row 0" in remark and "row 11" not in remark
    assert "farm" not in remark


@pytest.mark.parametrize("labels", [None, np.arange(60) % 3])
def test_folds_are_as_they_were_without_copies(labels):
    model = LinearRegression() if labels is None else LogisticRegression()
    subject = make_subject(model, X, Y if labels is None else labels, seed=7)
    splitter = (KFold if labels is None else StratifiedKFold)(5, shuffle=True, random_state=7)
    for fold, (_, test) in enumerate(splitter.split(X, labels)):
        assert (subject.folds[test] == fold).all()
    assert subject.remarks == () and subject.copies is None
    drawn = subject.drawn_folds(subject.folds, np.random.default_rng(3))
    assert (drawn == np.random.default_rng(3).permutation(subject.folds)).all()


def test_rows_that_are_equal_in_float32_are_copies():
    changed = X[TWICE] * np.where(np.arange(120) % 2, 1 + 1e-12, 1)[:, None]
    changed[:2, 0] = 0.0, -0.0
    subject = make_subject(LogisticRegression(), changed, np.repeat(np.arange(60) % 3, 2))
    assert (subject.copies == 2 * TWICE).all() and split_copies(subject.folds) == 0
    assert len(np.unique(subject.folds)) == 5
    for draw in range(3):
        assert split_copies(subject.drawn_folds(subject.folds, np.random.default_rng(draw))) == 0


def test_no_fold_is_left_empty():
    rows = np.r_[np.zeros(54, dtype=int), np.arange(6)]
    for seed in range(5):
        folds = np.random.default_rng(seed).permutation(np.arange(60) % 5)
        found = keep_together(folds, first_copies(rows), np.random.default_rng(seed))
        assert len(np.unique(found)) == 5 and split_copies(found, rows) == 0
    with pytest.raises(ValueError, match="only 3 that differ"):
        make_subject(LinearRegression(), X[np.arange(60) % 3], Y)
    with pytest.raises(ValueError, match="class 'rare'"):
        make_subject(LogisticRegression(), X[np.maximum(np.arange(60), 9)], np.where(np.arange(60) < 10, "rare", "b"))


def test_groupings_that_separate_copies_are_named():
    groups = {"farm": np.repeat(np.array(list("abc")), 40), "day": np.tile(["mon", "tue"], 60)}
    (remark,) = make_subject(LinearRegression(), X[TWICE], Y[TWICE], groups).remarks
    assert "day separates copies" in remark and "farm" not in remark


def test_a_fixed_model_is_tested_on_copies_as_they_are():
    model = FixedClassifier(LogisticRegression().fit(X, Y > 0))
    subject = make_subject(model, X[TWICE], Y[TWICE] > 0)
    assert subject.copies is None and subject.is_fixed and "60 rows are copies" in subject.remarks[0]
    assert "fold" not in subject.remarks[0]


def test_copied_patches_are_named_by_their_ids():
    made = make_patches(8, seed=0, edges=(11, 12))
    patches: Patches = made[np.r_[0:8, 0, 3, 0:6]]
    patches.ids[8:10] = ["copy", "twin"]
    found = red_team(DummyRegressor(), patches, audits=["performance"], **QUICK)
    assert any(f"copy of {made.ids[0]}, twin of {made.ids[3]}" in remark for remark in found.remarks)


def test_patches_are_predicted_without_their_copies():
    made = make_patches(12, seed=0, edges=(11, 12))
    patches = made[np.repeat(np.arange(12), 2)]
    nearest = make_pipeline(MeanSpectrum(), KNeighborsRegressor(1))
    predictions, _ = predict_out_of_fold(nearest, patches, folds=3)
    assert (predictions[:, 0] != patches.targets["P"]).all()


def test_a_constant_target_is_refused_before_features_are_made():
    made = make_patches(24, seed=0, edges=(11, 12))

    class Features:
        feature_table = None

        def transform(self, patches):
            raise AssertionError("features were made")

    y = made.targets.assign(K=3.0)
    with pytest.raises(ValueError, match=r"target K is 3 .*--targets P Mg pH"):
        red_team(LinearRegression(), made, y, transformer=Features(), **QUICK)
