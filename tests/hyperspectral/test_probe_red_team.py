"""Classifiers of embeddings are red-teamed by concepts: a planted one is found, and nothing severe without one."""

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from scipy.stats import norm
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge

from hf_msae.bias import bias_report
from hf_msae.concepts import ConceptTable
from hf_msae.embeddings import load_embeddings
from hf_msae.hyperspectral import FixedClassifier, red_team
from hf_msae.hyperspectral.audits.pulls import pulls
from hf_msae.hyperspectral.concept_space import concept_space, read_concepts
from hf_msae.hyperspectral.subject import make_subject
from hf_msae.metrics import LinearClassifier
from hf_msae.statistics import log_odds
from tests.identity_msae import identity_msae

N, ROWS = 40, 400
NAMES = ["star", "night", *(f"n{i}" for i in range(2, 12)), *(f"u{i}" for i in range(12, N))]
TABLE = ConceptTable.from_columns(
    NAMES, np.linspace(0.9, 0.5, N), [None] * N, np.zeros(N), q_value=np.where(np.arange(N) < 12, 0.01, 0.9)
)
QUICK = {"num_folds": 2, "num_bootstrap": 100, "num_seeds": 2, "num_attacked": 10, "num_explained": 40}
QUICK |= {"progress": False}
MODEL = LogisticRegression()
MSAE = identity_msae(N, [N])


def world(planted, seed=0):
    """Latent j is dimension j. The classifier is of stars; where planted, most stars are at night."""
    rng = np.random.default_rng(seed)
    z = rng.exponential(size=(ROWS, N)) * (rng.uniform(size=(ROWS, N)) < 0.3)
    star = rng.uniform(size=ROWS) < 0.4
    night = rng.uniform(size=ROWS) < (np.where(star, 0.9, 0.1) if planted else 0.3)
    z[:, 0] = np.where(star, 0.4 + rng.exponential(size=ROWS), 0) * (rng.uniform(size=ROWS) < 0.8)
    z[:, 1] = np.where(night, 0.5 + rng.exponential(size=ROWS), 0)
    return z.astype(np.float32), pd.Series(star, name="star"), night


def audited(planted, *audits, model=MODEL, seed=0, **options):
    x, star, night = world(planted, seed)
    groups = {"night": night}
    return red_team(model, x, star, groups, msae=MSAE, features=TABLE, audits=audits, **QUICK, **options)


@pytest.fixture(scope="module")
def report():
    """All audits of a classifier of stars at night."""
    x, star, night = world(True)
    return red_team(MODEL, x, star, {"night": night}, msae=MSAE, features=TABLE, **QUICK)


def test_a_planted_concept_is_found_by_group_and_by_name(report):
    first = report.findings[0]
    assert (first.severity, first.metric) == ("severe", "shortcut_index") and "night" in first.title
    pull = report.tables["pulls"].iloc[0]
    odds, (_, star, night) = log_odds(report.tables["predictions"]["prediction"].clip(0.001, 0.999)), world(True)
    means = [[odds[(star == c) & (night == g)].mean() for g in (False, True)] for c in (False, True)]
    gap = (np.diff(means[0])[0] + np.diff(means[1])[0]) / 2 / (odds[star].mean() - odds[~star].mean())
    assert pull["pull"] == pytest.approx(gap) and pull["low"] > 0.05
    (concept,) = [each for each in report.findings if each.kind == "concept 1"]
    assert concept.audit == "concepts" and concept.severity in ("severe", "moderate")
    assert concept.title.startswith("Night") and concept.value > concept.low > 0.1 and concept.subject == "star"
    assert not any(each.kind == "concept 0" for each in report.findings), "stars may depend on stars"
    named = {each.kind for each in report.findings if each.audit == "concepts"} - {"few concepts"}
    assert named == {"concept 1"}
    effects = report.tables["concepts"].set_index("name")
    assert effects.loc["star", ["expected", "drives"]].tolist() == [True, True]
    assert set(effects.index) == set(NAMES[:12]) and effects["validated"].all()


def test_a_clean_twin_has_no_severe_finding():
    found = audited(False, "shortcuts", "performance", "concepts")
    assert [each.title for each in found.findings if each.severity == "severe"] == []
    assert not any("ight" in each.title for each in found.findings)
    assert abs(found.tables["pulls"]["pull"].iloc[0]) < 0.15
    table = found.tables["shortcuts"].iloc[0]
    assert table["metric"] == "auroc" and table["shortcut_index"] < 0.05 < 0.8 < table["random"]


@pytest.mark.parametrize("shift", [0.5, -0.5])
def test_pulls_are_tested_in_both_directions(shift):
    rng = np.random.default_rng(1)
    night, y = np.arange(ROWS) % 2, rng.uniform(size=ROWS) < 0.5
    X = 2 * y[:, None] + shift * night[:, None] + rng.normal(size=(ROWS, 1))
    subject = make_subject(LogisticRegression(), X, y, {"night": night}, num_folds=2)
    table, (tested,), remarks = pulls(subject)
    assert remarks == []
    (row,) = table.to_dict("records")
    assert np.sign(row["pull"]) == np.sign(shift) and ("Less" in tested.title) == (shift < 0)
    z = (abs(row["pull"]) - 0.05) / ((row["high"] - row["low"]) / 2 / norm.ppf(0.975))
    assert tested.p_value == pytest.approx(2 * norm.sf(z), rel=0.3)


def test_groups_of_which_no_pull_is_measured_are_named():
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2 > 0
    camera = np.where(np.arange(80) < 6, "old", np.where(np.arange(80) < 40, "new", "newest"))
    subject = make_subject(MODEL, y[:, None] + rng.normal(size=(80, 2)), y, {"camera": camera, "row": np.arange(80)})
    table, _, (of_camera, of_row) = pulls(subject)
    assert set(table["grouping"]) == {"camera"} and set(table["group"]) == {"new", "newest"}
    assert of_camera.startswith("camera:") and "for old," in of_camera and "8 rows" in of_camera
    assert of_row.startswith("row:") and "any of its 80 groups" in of_row
    shape = np.where(np.arange(80) % 20 < 3, "rare", np.where(y, "star", "none"))
    subject = make_subject(
        MODEL, rng.normal(size=(80, 2)), shape, {"hour": np.where(np.arange(80) < 12, "dawn", "day")}
    )
    table, _, (partly,) = pulls(subject)  # of the 12 rows at dawn, 7 are no stars
    assert table["target"].tolist() == ["none", "rare"] and "for day (of some classes)," in partly


def test_groups_with_more_of_a_class_are_no_shortcut_for_it():
    rng = np.random.default_rng(0)
    groups = np.arange(ROWS) % 2
    y = rng.uniform(size=ROWS) < np.array([0.2, 0.8])[groups]
    X = np.stack([2 * y + rng.normal(size=ROWS), rng.normal(size=ROWS)], axis=1)  # the class alone
    found = red_team(LogisticRegression(), X, y, groups.astype(str), audits=["shortcuts"], **QUICK)
    table = found.tables["shortcuts"].iloc[0]
    assert found.findings == () and abs(table["shortcut_index"]) < 0.03 and table["group_mean"] > 0.7


def test_a_group_of_one_class_cannot_be_learned_from_alone():
    x, star, night = world(True)
    found = red_team(
        MODEL, x, star | night, {"night": night}, msae=MSAE, features=TABLE, audits=["shortcuts"], **QUICK
    )
    assert found.tables["shortcuts"].empty and any(each.startswith("night:") for each in found.remarks)


def test_what_is_expected_can_be_named():
    found = audited(True, "concepts", expected=["star", "night"])
    assert not any(each.kind.startswith("concept ") for each in found.findings)
    assert found.tables["concepts"].query("expected")["name"].tolist() == ["star", "night"]
    worst = found.tables["worst_concepts"].set_index("search")
    assert "night" not in worst.loc["worst", "concepts"]


def test_effects_are_those_of_a_bias_report(report):
    x, star, _ = world(True)
    fitted = LogisticRegression().fit(x, star)
    bias = bias_report(MSAE, x, fitted, True, TABLE, num_samples=ROWS, progress=False).frame.set_index("name")
    effects = report.tables["concepts"].set_index("name")
    assert effects["effect"].corr(bias["effect"]) > 0.95
    assert set(bias.index[bias["drives"]]) == {"star", "night"} == set(effects.index[effects["drives"].astype(bool)])


def test_predictions_are_attributed_to_concepts_in_closed_form(report):
    assert "affine log-odds" in report.tables["additivity"]["method"].iloc[0]
    assert report.tables["additivity"]["largest_gap"].iloc[0] < 1e-3
    groups = report.tables["attribution_groups"].query("grouping == 'concept'").set_index("group")["attribution"]
    assert set(groups.nlargest(2).index) == {"star", "night"}
    assert groups["not in the code"] < 1e-3 and "no validated name" in groups.index
    columns = report.tables["attributions"]
    assert columns.nlargest(1, "attribution")["feature"].iloc[0] in ("star · 0", "night · 1")
    assert columns["feature"].str.contains("unvalidated").sum() == N - 12


def test_concepts_are_removed_doubled_and_swapped(report):
    table = report.tables["concept_attacks"].set_index(["name", "attack"])
    assert set(table.index.unique("attack")) == {"removed", "doubled", "swapped"}
    assert (table["metric"] == "auroc").all() and (table["low"] <= table["loss"] + 1e-12).all()
    assert table.loc[("star", "swapped"), "low"] > 0.05 > table.loc[("n5", "swapped"), "high"]
    x, _, _ = world(True)
    rows = np.sort(np.random.default_rng(0).permutation(ROWS)[:200])
    removed = x[rows, 1] / np.linalg.norm(x[rows], axis=1)
    assert table.loc[("night", "removed"), "dose"] == pytest.approx(removed.mean(), rel=1e-4)
    assert table.loc[("night", "removed"), "flip_rate"] > table.loc[("n5", "removed"), "flip_rate"]
    worst = report.tables["worst_concepts"].set_index("search")
    assert "night" in worst.loc["worst", "concepts"] and worst.loc["worst", "dose"] <= 0.05 * 3**0.5 + 1e-6
    assert worst.loc["worst", "loss"] > worst.loc["random", "loss"]


def test_few_concepts_do_as_well(report):
    losses = report.tables["pruning"].set_index(["ranking", "features"])["loss"]
    assert losses["attribution", 2] < 1.2 < losses["random", 2]


@pytest.mark.parametrize("kind", ["fitted", "probe", "torch", "function"])
def test_classifiers_in_use_are_tested_as_they_are(kind):
    x, star, _ = world(True, seed=1)
    fitted = LogisticRegression().fit(x, star)
    layer = torch.nn.Linear(N, 1)
    layer.load_state_dict({"weight": torch.tensor(fitted.coef_), "bias": torch.tensor(fitted.intercept_)})
    model = {
        "fitted": FixedClassifier(fitted),
        "probe": LinearClassifier.fit(x, star.astype(int).to_numpy(), ["other", "star"]),
        "torch": layer,
        "function": lambda each: layer(each).sigmoid()[:, 0].detach(),
    }[kind]
    more = ["concepts"] if kind == "fitted" else []
    found = audited(False, "shortcuts", "performance", "stability", *more, model=model)
    clean, _, _ = world(False)
    assert "shortcuts" not in found.tables and sum("not fitted again" in each for each in found.remarks) == 2
    if kind != "probe":  # which normalizes
        table = found.tables["predictions"]["prediction"]
        assert table.to_numpy() == pytest.approx(fitted.predict_proba(clean)[:, 1], abs=1e-5)
    titles = [each.title for each in found.findings]
    assert not more or any("Night" in each and "raises" in each for each in titles)
    assert "More star is predicted where night is True" in titles


def test_classes_of_a_module_have_the_order_of_a_categorical():
    x, star, _ = world(True)
    fitted = LogisticRegression().fit(x, star)
    layer = torch.nn.Linear(N, 2)
    weight, bias = torch.tensor(fitted.coef_), torch.tensor(fitted.intercept_)
    layer.load_state_dict({"weight": torch.cat([weight, 0 * weight]), "bias": torch.cat([bias, 0 * bias])})
    y = pd.Series(pd.Categorical(np.where(star, "star", "other"), categories=["star", "other"]), name="shape")
    options = {"msae": MSAE, "features": TABLE, "audits": ["performance"], **QUICK}
    performance = red_team(layer, x, y, **options).tables["performance"].set_index("metric")["value"]
    assert performance["auroc"] > 0.9, "the second class of the labels, star, is the first of the module"


def test_concepts_do_not_depend_on_how_many_rows_are_encoded_at_once(monkeypatch):
    x = load_embeddings(world(True)[0])
    whole, space = concept_space(MSAE, x, TABLE)
    monkeypatch.setattr("hf_msae.hyperspectral.concept_space._BATCH", 64)
    parts, same = concept_space(MSAE, x, TABLE)
    assert np.allclose(parts, whole) and np.array_equal(same.latents, space.latents)


def test_latents_and_columns_of_a_dataset_will_do():
    x, star, night = world(True)
    codes = red_team(MODEL, x, star, features=TABLE, audits=["concepts"], **QUICK)
    assert any(each.kind == "concept 1" for each in codes.findings)
    data = Dataset.from_dict({"embedding": x.tolist(), "star": star.tolist(), "night": night.tolist()})
    data = load_embeddings(data)
    found = red_team(MODEL, data, "star", ["night"], msae=MSAE, features=TABLE, audits=["shortcuts"], **QUICK)
    assert found.about["targets"] == ["star"] and found.about["groupings"] == ["night"]
    assert "Predictions of star rest on the night" in [each.title for each in found.findings]


def test_models_of_any_kind_are_explained_by_concept():
    forest = RandomForestClassifier(10, random_state=0)
    found = audited(True, "attributions", model=forest)
    assert "sampled permutations" in found.tables["additivity"]["method"].iloc[0]
    groups = found.tables["attribution_groups"].query("grouping == 'concept'").set_index("group")["attribution"]
    assert set(groups.nlargest(2).index) == {"star", "night"}


def test_several_classes_have_their_own_effects():
    x, star, _ = world(False)
    labels = np.where(star, "star", np.where(x[:, 5] > 0, "five", "none"))
    found = red_team(MODEL, x, labels, msae=MSAE, features=TABLE, audits=["performance", "concepts"], **QUICK)
    effects = found.tables["concepts"].set_index(["target", "name"])["effect"]
    assert effects["star", "star"] > 0.2 > effects["five", "star"] and effects["five", "n5"] > 0.2
    (finding,) = [each for each in found.findings if each.kind == "concept 5"]
    assert "five" in finding.title + finding.evidence and "none" in finding.title + finding.evidence
    table = found.tables["performance"].query("metric == 'auroc'")
    assert table["target"].tolist() == ["five", "none", "star"] and (table["value"] > 0.7).all()


def test_what_does_not_belong_together_is_named():
    x, star, _ = world(True)
    for given, options, said in (
        ((x[:, :20], star), {"features": TABLE}, "40 latents"),
        ((x, star), {"msae": MSAE, "features": pd.DataFrame({"feature": NAMES})}, "DataFrame"),
        ((x[:, :39], star), {"msae": MSAE, "features": TABLE}, "39 columns"),
        ((x, star), {"expected": ["night"]}, "expected"),
        ((x, "night"), {"msae": MSAE, "features": TABLE}, "'night'"),
    ):
        with pytest.raises(ValueError, match=said):
            red_team(MODEL, *given, **options)
    with pytest.raises(TypeError, match="dict"):
        red_team({}, x, star, msae=MSAE)
    found = red_team(MODEL, x, star, audits=["concepts"], **QUICK)
    assert "msae=" in found.remarks[0]
    found = red_team(Ridge(), x, x[:, 0], msae=MSAE, features=TABLE, audits=["concepts"], **QUICK)
    assert found.findings == () and "classifiers" in found.remarks[0]


@pytest.mark.parametrize("kind", [np.asarray, lambda night: pd.DataFrame({"group": night})])
def test_groups_of_any_kind_may_come_with_rows_without_a_label(kind):
    x, star, night = world(False)
    labels = ["" if row < 5 else str(each) for row, each in enumerate(star)]
    data = Dataset.from_dict({"image_embeds": x, "star": labels})
    _, y, groups, *_ = read_concepts(data, "star", kind(night), TABLE, MSAE, None)
    assert len(y) == ROWS - 5 and groups["group"].tolist() == night[5:].tolist()
