"""Audits of columns and bands: leaks, pruning, attacks and what depends on the draw."""

import tracemalloc
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor

from hf_msae.hyperspectral import FixedClassifier, red_team
from hf_msae.hyperspectral.audits.attacks import attacks
from hf_msae.hyperspectral.audits.bands import bands, share_p_value
from hf_msae.hyperspectral.audits.stability import attribution_shift, over_samples
from hf_msae.hyperspectral.subject import make_subject
from tests.hyperspectral.worlds import MODEL, QUICK, WAVELENGTHS, audited, spectra


@pytest.mark.parametrize(
    ("fault", "title"), [("leaking band", "tells of K"), ("drifting band", "differs by farm")], ids=str
)
def test_a_band_unlike_its_neighbors_is_named(fault, title):
    (finding,) = audited(fault, "bands").findings
    assert finding.severity == "severe" and title in finding.title
    assert f"and 20 ({WAVELENGTHS[20]:.0f} nm)" in finding.title
    assert finding.value > 0.5


def test_many_groups_take_no_memory_of_rows_times_groups():
    X, y, _, table = spectra(n=3000)
    farm = np.random.default_rng(0).integers(0, 600, 3000)
    X[:, 20] += 0.002 * (farm % 5)
    subject = make_subject(MODEL, X, y, {"farm": farm}, features=table)
    tracemalloc.start()
    outcome = bands(subject)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * X.nbytes  # a column for each group has 15 times as much
    row = outcome.tables["bands"].set_index("name").loc["farm"]
    centered = X - X.mean(axis=0)
    near = centered[:, [18, 19, 21, 22]]
    rest = centered[:, 20] - near @ np.linalg.lstsq(near, centered[:, 20], rcond=None)[0]
    means = pd.Series(rest).groupby(farm).transform("mean")
    assert row["band"] == 20 and row["share"] == pytest.approx(means.var(ddof=0) / rest.var())


def test_audits_are_several_and_may_come_from_a_generator():
    (finding,) = audited("leaking band", "bands").findings
    X, y, _, table = spectra("leaking band")
    found = red_team(MODEL, X, y, features=table, audits=iter(["bands"]), **QUICK)
    assert [each.title for each in found.findings] == [finding.title]
    with pytest.raises(ValueError, match=r"audits must be several audits, got 'bands': pass \['bands'\]"):
        red_team(MODEL, X, y, features=table, audits="bands", **QUICK)


def test_a_share_that_is_harmless_is_not_significant():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 200))
    y = np.sqrt(0.05) * x + np.sqrt(0.95) * rng.normal(size=x.shape)  # 5% is explained: neither more nor less
    shares = [np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(x, y, strict=True)]
    assert 0.02 < np.mean([share_p_value(share, 200, 1) < 0.05 for share in shares]) < 0.09
    assert share_p_value(0.12, 200, 1) > 0.01 and f.sf(0.12 * 198 / 0.88, 1, 198) < 1e-5
    assert share_p_value(0.95, 300, 7) < share_p_value(0.6, 300, 7) < 1e-20


def test_pruning_finds_the_columns_that_suffice():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 100))
    y = X[:, 3] + X[:, 70] + 0.3 * rng.normal(size=120)
    found = red_team(Ridge(1.0), X, y, audits=["pruning"], **QUICK)
    losses = found.tables["pruning"].set_index(["ranking", "features"])["loss"]
    assert losses["attribution", 2] < 0.5 and losses["permutation", 2] < 0.5 < 1.5 < losses["random", 2]
    assert losses["all columns", 100] == 1
    smallest = found.tables["smallest"].set_index("ranking")
    assert smallest.loc["attribution", "features"] in (1, 2) and smallest.loc["random", "features"] > 10
    assert found.findings == ()  # a single column, 1%, does not do as well


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_class_of_one_row_does_not_rank_columns_where_it_is_not():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 6))
    labels = np.where(X[:, 3] > 0, "a", "b").astype(object)
    model = LogisticRegression().fit(np.concatenate([X, -X[:3]]), [*labels, *["rare"] * 3])
    labels[5] = "rare"
    found = red_team(FixedClassifier(model), X, labels, audits=["pruning"], **QUICK)
    losses = found.tables["pruning"].set_index(["ranking", "features"])["loss"]
    assert losses["attribution", 1] < losses["random", 1] and losses["all columns", 6] == 1


def test_a_hundredth_of_columns_that_suffices_is_a_minor_finding():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 100))
    found = red_team(Ridge(1.0), X, X[:, 3] + 0.3 * rng.normal(size=120), audits=["attributions", "pruning"], **QUICK)
    assert [(each.severity, each.metric) for each in found.findings] == [("minor", "loss")]
    assert "1 of 100 columns" in found.findings[0].title


def test_sampled_attributions_are_not_compared():
    X, y, _, _ = spectra(n=60)
    subject = make_subject(KNeighborsRegressor(5), X[:, :5], y[["K"]])
    found, remarks = attribution_shift(subject, np.arange(60), {"noise": X[:, :5]})
    assert found.empty and "sampled" in remarks[0]


def test_pairs_that_share_a_sample_are_not_independent():
    x = np.random.default_rng(0).normal(size=8)
    means = np.array([(a + b) / 2 for a, b in combinations(x, 2)])
    assert over_samples(means, 8) == pytest.approx((x.mean(), x.std(ddof=1) / np.sqrt(8)))


def test_attacks_are_tested_of_targets_that_are_shown_to_be_predicted():
    rng = np.random.default_rng(0)
    attacked = rng.permutation(120)[:80]
    X, noise = rng.normal(size=(120, 3)), rng.normal(size=(120, 1))
    noise[attacked] *= 0.05  # so near the mean that errors there are smaller than the variance of all rows
    y = pd.DataFrame({"K": X[:, 0] + 0.1, "noise": noise[:, 0]})
    subject = make_subject(Ridge(), X, y, num_resamples=100, limits={"num_attacked": 4})
    assert subject.squared_errors[attacked, 1].mean() < noise.var()
    found = attacks(subject)
    assert {each.subject for each in found.candidates} == {"K"}
    assert [remark for remark in found.remarks if "noise" in remark and "K" not in remark]
