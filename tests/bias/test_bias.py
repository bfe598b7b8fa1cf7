"""Bias reports: the concept that a classifier uses is found, and one that only goes along with it is not."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file
from scipy.stats import mannwhitneyu

from hf_msae.bias import BiasReport, analysis, bias_report
from hf_msae.bias.classifiers import load_linear_layer
from hf_msae.bias.interventions import DOSES, FEWEST_NAMED
from hf_msae.concepts import ConceptTable
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import LinearClassifier
from hf_msae.report.sections.bias import verdict as page_verdict
from tests.identity_msae import identity_msae

D, N, ROWS = 60, 60, 1500
NAMES = ConceptTable.from_columns(
    [f"n{i}" for i in range(N)], np.linspace(0.9, 0.5, N), [None] * N, np.zeros(N),
    q_value=np.where(np.arange(N) < 8, 0.01, 0.9),
)  # fmt: skip


@pytest.fixture(scope="module")
def world():
    """Latent j is dimension j. 0 and 1 are used by the classifier, 2 goes along with 0, 3 to 7 are of no account."""
    rng = np.random.default_rng(0)
    z = rng.exponential(size=(ROWS, N)) * (rng.uniform(size=(ROWS, N)) < 0.3)
    z[:, 2] = np.where(z[:, 0] > 0, rng.exponential(size=ROWS) * (rng.uniform(size=ROWS) < 0.9), 0)
    model = identity_msae(D, [N])
    weights = 0.05 * torch.from_numpy(rng.normal(size=D)).float()
    weights[0], weights[1] = 3.0, -2.0

    def classifier(x):
        return (x @ weights - 0.5).sigmoid()

    return model, load_embeddings(z.astype(np.float32)), classifier, weights


@pytest.fixture(scope="module")
def report(world):
    model, embeddings, classifier, _ = world
    return bias_report(model, embeddings, classifier, concepts=NAMES, indices=range(8), target="yes", progress=False)


@pytest.mark.parametrize("indices", [None, [3]])
def test_the_row_of_the_data_that_is_not_finite_is_named(world, indices):
    model, embeddings, classifier, _ = world
    bad = embeddings[:].clone()
    bad[-1, 4] = np.inf
    with pytest.raises(ValueError, match=rf"row {ROWS - 1} of the given array .*infinity"):
        bias_report(model, bad, classifier, indices=indices, progress=False)


def test_tokens_of_one_picture_are_no_separate_samples(world):
    """Copies of each embedding as tokens: they say no more than one of them."""
    model, embeddings, classifier, _ = world
    rows = embeddings[:300].tolist()
    tokens = load_embeddings(Dataset.from_dict({"image_embeds": [[row] * 8 for row in rows]}))
    settings = {"indices": range(8), "progress": False, "num_samples": 1000}
    one, eight = (bias_report(model, given, classifier, **settings) for given in (embeddings[:300], tokens))
    assert one.num_samples == eight.num_samples == 300
    one, eight = (found.frame.set_index("latent").sort_index() for found in (one, eight))
    np.testing.assert_allclose(eight["association"], one["association"])
    np.testing.assert_allclose(eight["p_association"], one["p_association"])
    np.testing.assert_allclose(eight["high"] - eight["low"], one["high"] - one["low"], rtol=0.2, atol=1e-3)


def test_what_drives_the_classifier_is_found_and_what_goes_along_is_not(report):
    assert len(report.frame) == 8
    assert set(report.drivers["name"]) == {"n0", "n1"}
    frame = report.frame.set_index("name")
    assert frame.loc["n2", "association"] > 0.3 and frame.loc["n2", "p_association"] < 1e-6
    assert abs(frame.loc["n2", "effect"]) < 0.05 < frame.loc["n0", "effect"]
    assert frame.loc["n1", "effect"] < 0 and frame.loc["n1", "high"] < 0
    assert report.frame["drives"].tolist() == [True] * 2 + [False] * 6, "drivers come first"
    for _, rows in report.frame.groupby("drives"):
        assert rows["effect"].abs().is_monotonic_decreasing
    assert str(report).startswith(report.verdict()) and report.verdict().endswith("'yes': n0, n1")
    none = replace(report, frame=report.frame.assign(drives=False))
    assert "none of 8" in none.verdict()
    one = replace(report, frame=report.frame.assign(drives=report.frame["latent"] == 3, name=None))
    assert "1 of 8" in one.verdict() and one.verdict().endswith("latent 3")
    alone = replace(report, frame=report.frame.head(1))
    assert "1 of 1 concept drives" in alone.verdict()
    alone = replace(report, frame=report.frame.head(1).assign(drives=False))
    for said in (alone.verdict(), page_verdict(alone)):
        assert "only concept tested" in said and "1 concepts" not in said


def test_drivers_are_findings(report):
    first, second = report.findings
    assert {first.kind, second.kind} == {"concept 0", "concept 1"}
    frame = report.frame.set_index("latent")
    for finding in (first, second):
        row = frame.loc[int(finding.kind.split()[1])]
        assert (finding.metric, finding.subject, finding.audit) == ("effect", "yes", "bias")
        assert (finding.value, finding.low, finding.high) == (row["effect"], row["low"], row["high"])
        assert finding.severity == "severe" and min(abs(row["low"]), abs(row["high"])) > 0.25
        assert ("raises" in finding.title) == (row["effect"] > 0) and f"n{finding.kind[-1]}" in finding.title.lower()
    assert replace(report, frame=report.frame.assign(z=0.5)).findings == ()


def test_figures_are_those_of_a_direct_computation(world):
    model, embeddings, classifier, weights = world
    report = bias_report(model, embeddings, classifier, indices=[0, 5], num_samples=10**6, progress=False)
    z = embeddings[:].numpy().astype(np.float64)
    guess = classifier(embeddings[:]).numpy() > 0.5
    frame = report.frame.set_index("latent")
    for latent in (0, 5):
        test = mannwhitneyu(z[guess, latent], z[~guess, latent], method="asymptotic")
        one, other = z[guess, latent][:, None], z[~guess, latent]
        pairs = (one > other).mean() - (one < other).mean()
        assert frame.loc[latent, "association"] == pytest.approx(pairs)
        assert frame.loc[latent, "p_association"] <= 1 and test.pvalue <= frame.loc[latent, "p_association"]
        positive = z[:, latent][z[:, latent] > 0]
        answers, guesses = [], []
        for quantile in DOSES:
            level = 0 if quantile == 0 else np.quantile(positive, quantile)
            changed = z.copy()
            changed[:, latent] = level
            probability = classifier(torch.from_numpy(changed).float()).double()
            answers.append(probability.mean().item())
            guesses.append(probability.numpy() > 0.5)
        curve = report.curves[report.curves["latent"] == latent]
        assert curve["probability"].to_numpy() == pytest.approx(np.array(answers), abs=1e-5)
        assert (curve["low"] <= curve["probability"]).all() and (curve["probability"] <= curve["high"]).all()
        strong = DOSES.index(0.9)
        assert frame.loc[latent, "effect"] == pytest.approx(answers[strong] - answers[0], abs=1e-5)
        assert frame.loc[latent, "flip_rate"] == pytest.approx((guesses[strong] != guesses[0]).mean(), abs=1e-3)
        step = np.quantile(positive, 0.9)
        assert frame.loc[latent, "log_odds"] == pytest.approx(float(step * weights[latent]), rel=1e-3, abs=1e-4)
    # The null moves along the directions of other latents by the same step: its effects are step x weight.
    others = np.delete(weights.numpy(), [0, 5])
    spread = np.quantile(z[:, 5][z[:, 5] > 0], 0.9) * 1.4826 * np.median(np.abs(others))
    assert frame.loc[5, "null_spread"] == pytest.approx(spread, rel=1e-3)
    assert report.baseline == pytest.approx(classifier(embeddings[:]).double().mean().item(), abs=1e-6)


def test_a_few_latents_are_ranked_at_a_time_with_the_same_figures(world, report, monkeypatch):
    """All latents of a million rows at once would take 70 MB each."""
    model, embeddings, classifier, _ = world
    ranked = []
    monkeypatch.setattr(analysis, "_RANKED_ENTRIES", 3 * ROWS)
    monkeypatch.setattr(
        "scipy.stats.mannwhitneyu", lambda x, *a, **b: ranked.append(x.shape) or mannwhitneyu(x, *a, **b)
    )
    again = bias_report(model, embeddings, classifier, concepts=NAMES, indices=range(8), target="yes", progress=False)
    assert [columns for _, columns in ranked] == [3, 3, 2]
    pd.testing.assert_frame_equal(again.frame, report.frame)


def test_an_effect_whose_sign_is_not_sure_drives_nothing(world):
    """Large on the log-odds where the prediction is settled, and up or down by chance where it is not."""
    model, embeddings, _, _ = world

    def classifier(x):
        up_or_down = torch.where(x[:, 6] > 0, 0.7, -0.3)
        return torch.where(x[:, 5] > 0, -18 + 3 * x[:, 3], 0.2 * up_or_down * x[:, 3]).sigmoid()

    frame = bias_report(model, embeddings, classifier, indices=[3, 5, 6], progress=False).frame.set_index("latent")
    assert frame.loc[3, "q_effect"] < 1e-6 and frame.loc[3, "low"] < 0 < frame.loc[3, "high"]
    assert not frame.loc[3, "drives"]


def test_latents_that_no_row_activates_are_named(world):
    model, embeddings, classifier, _ = world
    x = embeddings[:].clone()
    x[:, [3, 5]] = 0
    few = {"num_samples": 50, "num_null": 20, "num_bootstrap": 20, "progress": False}
    with pytest.warns(UserWarning, match=r"activates the latents 3, 5\b") as warned:
        found = bias_report(model, x, classifier, indices=[3, 4, 5], **few)
    assert found.frame["latent"].tolist() == [4] and warned[0].filename == __file__
    with pytest.raises(ValueError, match=r"activates latent 3\b"):
        bias_report(model, x, classifier, indices=[3], **few)


def test_a_class_goes_by_its_name(world):
    """The number of a class is its place, and not what its name says."""
    model, embeddings, _, weights = world
    stars = np.where(embeddings[:] @ weights > 0.5, "2", "1")
    few = {"num_samples": 50, "num_null": 20, "num_bootstrap": 20, "progress": False}
    assert (
        bias_report(model, embeddings, LinearClassifier.fit(embeddings[:], stars), 1, indices=[0], **few).target == "2"
    )


def test_interventions_are_in_raw_space_and_intervals_of_the_level_that_was_set(world):
    """An MSAE that scales its inputs gives the same effects; a higher level gives wider intervals."""
    model, embeddings, classifier, _ = world
    scaled = identity_msae(D, [N])
    scaled.set_input_statistics(torch.zeros(D), 4.0)
    one = bias_report(model, embeddings, classifier, indices=[0, 5], num_samples=200, progress=False)
    other = bias_report(scaled, embeddings, classifier, indices=[0, 5], num_samples=200, progress=False)
    for column in ("effect", "log_odds", "null_spread", "z"):
        assert other.frame[column].to_numpy() == pytest.approx(one.frame[column].to_numpy(), rel=1e-3, abs=1e-6)
    narrow = bias_report(model, embeddings, classifier, indices=[0, 5], num_samples=200, alpha=0.5, progress=False)
    assert narrow.alpha == 0.5 and one.alpha == 0.05
    x = embeddings[:]
    z, rng = x.numpy(), np.random.default_rng(0)
    chosen = np.sort(rng.choice(len(embeddings), 200, replace=False))
    strong, absent = z[chosen].copy(), z[chosen].copy()
    strong[:, 0], absent[:, 0] = np.quantile(z[:, 0][z[:, 0] > 0], 0.9), 0
    change = (classifier(torch.from_numpy(strong)) - classifier(torch.from_numpy(absent))).double().numpy()
    resample = rng.integers(0, 200, (10_000, 200))
    for report, ends in ((one, [0.025, 0.975]), (narrow, [0.25, 0.75])):
        row = report.frame.set_index("latent").loc[0]
        expected = np.quantile(change[resample].mean(axis=1), ends)
        assert [row["low"], row["high"]] == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))


def test_the_null_is_of_latents_that_are_active_as_often():
    """Rare latents that the classifier heeds are no measure for a frequent one."""
    rng = np.random.default_rng(3)
    often = np.where(np.arange(N) < 42, 0.6, 0.05)
    z = (rng.exponential(size=(ROWS, N)) * (rng.uniform(size=(ROWS, N)) < often)).astype(np.float32)
    weights = torch.where(torch.arange(N) < 42, 0.05, 1.0)
    weights[0] = 0.5
    report = bias_report(
        identity_msae(D, [N]), load_embeddings(z), lambda x: (x @ weights - 2).sigmoid(), indices=[0], num_null=20,
        num_samples=100, progress=False,
    )  # fmt: skip
    step = np.quantile(z[:, 0][z[:, 0] > 0], 0.9)
    assert report.frame["null_spread"][0] == pytest.approx(1.4826 * 0.05 * step, rel=1e-2)


def test_it_is_drawn(report):
    rank = np.arange(len(report.frame))
    some = replace(report, frame=report.frame.assign(drives=rank == 0, q_effect=rank * 0.125))
    panels = some.plot(n=2).axes
    titles = ["n0 · 0\nq < 0.001", "n1 · 1\nq = 0.125, may be chance"]
    assert [panel.get_title() for panel in panels[:2]] == titles
    curve = report.curves[report.curves["latent"] == 0]
    assert panels[0].lines[0].get_ydata().tolist() == curve["probability"].tolist()
    assert panels[0].get_ylabel() == "probability of yes"
    panels = report.plot_boxes(n=1).axes
    assert panels[0].get_title() == "n0 · 0"
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["yes", "not yes"]
    medians = report.boxes.loc[report.boxes["latent"] == 0, "median"]
    assert [line.get_xdata()[0] for line in panels[0].lines[4::5]] == pytest.approx(medians.tolist())


def test_boxes_are_of_samples_with_and_without_the_prediction(world, report):
    _, embeddings, classifier, _ = world
    z, guess = embeddings[:].numpy(), classifier(embeddings[:]).numpy() > 0.5
    assert len(report.boxes) == 16
    for box in report.boxes.itertuples(index=False):
        some = z[guess == box.predicted, box.latent]
        assert box.num_samples == len(some) and box.active == pytest.approx((some > 0).mean())
        found = [box.low, box.q1, box.median, box.q3, box.high]
        assert found == pytest.approx(np.quantile(some, [0.05, 0.25, 0.5, 0.75, 0.95]), abs=1e-6)


def test_it_is_saved_and_loaded(report, tmp_path):
    report.save(tmp_path / "bias.json")
    content = json.loads((tmp_path / "bias.json").read_text())
    assert content["target"] == "yes" and content["num_samples"] == 500 and content["baseline"] == report.baseline
    assert content["drivers"] == report.drivers["latent"].tolist()
    loaded = BiasReport.load(tmp_path / "bias.json")
    for name in ("frame", "curves", "boxes"):
        pd.testing.assert_frame_equal(getattr(loaded, name), getattr(report, name), check_dtype=False)
    assert loaded.verdict() == report.verdict() and str(loaded) == str(report)


def test_what_is_refused(world):
    model, embeddings, classifier, _ = world
    for arguments, message in (
        ({"classifier": lambda x: torch.ones(len(x))}, "1500 samples"),
        ({"classifier": lambda x: x[:, 0] * 100}, "one probability"),
        ({"indices": [60]}, "0 to 59.*60"),
        ({"num_null": 1}, "num_null.*20.*1"),
        ({"num_samples": 0}, "num_samples.*2.*0"),
        ({"alpha": 1.5}, "alpha.*1.5"),
        ({"indices": []}, "at least one"),
        ({"indices": "12"}, r"indices.*'12'.*pass \['12'\]"),  # not the latents 1 and 2
        ({"indices": 12}, r"indices.*12: pass \[12\]"),
        ({"indices": range(55)}, "only 5 latents.*55"),
    ):
        with pytest.raises(ValueError, match=message):
            bias_report(model, embeddings, **{"classifier": classifier, "indices": [0], **arguments}, progress=False)


def test_what_is_no_table_of_names_is_refused_before_the_classifier_is_asked(world):
    model, embeddings, _, _ = world
    for names in (NAMES.frame, "names.parquet"):
        with pytest.raises(TypeError, match=rf"concepts must be a ConceptTable, got {type(names).__name__}"):
            bias_report(model, embeddings, None, concepts=names, indices=[0], progress=False)


def test_without_validated_names_the_strongest_latents_are_tested(world):
    model, embeddings, classifier, _ = world
    none_valid = ConceptTable(NAMES.frame.assign(q_value=0.9))
    few = {"num_samples": 50, "num_null": 20, "num_bootstrap": 20, "progress": False}
    with torch.no_grad():
        total = model.encode(torch.as_tensor(embeddings[:]).float()).sum(dim=0)
    expected = set(total.argsort(descending=True)[: int((total > 0).sum()) // 2].tolist())
    for names in (None, none_valid):
        report = bias_report(model, embeddings, classifier, concepts=names, **few)
        assert set(report.frame["latent"]) == expected and not report.frame["validated"].any()
    assert "(unvalidated)" in str(report) and "None" not in str(bias_report(model, embeddings, classifier, **few))
    lines = str(report).splitlines()
    assert "q" in lines[1].split() and "Benjamini" in lines[-1]
    assert f"{report.frame['q_effect'].iloc[0]:.3f}" in lines[2].split()


@pytest.mark.parametrize("number", [1, FEWEST_NAMED - 1, FEWEST_NAMED])
def test_few_validated_names_are_filled_up_with_the_strongest_latents(world, number):
    model, embeddings, classifier, _ = world
    few = {"num_samples": 50, "num_null": 20, "num_bootstrap": 20, "progress": False}
    strongest = bias_report(model, embeddings, classifier, **few).frame["latent"]
    weakest = np.setdiff1d(np.arange(N), strongest)[:number]
    names = ConceptTable(NAMES.frame.assign(q_value=np.where(np.isin(np.arange(N), weakest), 0.01, 0.9)))
    frame = bias_report(model, embeddings, classifier, concepts=names, **few).frame
    assert set(frame.loc[frame["validated"], "latent"]) == set(weakest)
    filled = set(frame.loc[~frame["validated"], "latent"])
    if number < FEWEST_NAMED:
        assert filled < set(strongest) and len(frame) == len(strongest)
    else:
        assert not filled


def test_latents_are_chosen_by_name(world):
    model, embeddings, classifier, _ = world
    few = {"num_samples": 50, "num_null": 20, "num_bootstrap": 20, "progress": False}
    name = NAMES.frame["name"][5]
    report = bias_report(model, embeddings, classifier, concepts=NAMES, indices=[name, "latent:7", 2], **few)
    latents = sorted(report.frame["latent"])
    assert latents == sorted({NAMES.latent_of(name), 7, 2}) and "q_effect" in report.frame and " q " in str(report)
    with pytest.raises(ValueError, match="'dark'"):
        bias_report(model, embeddings, classifier, concepts=NAMES, indices=["dark"], **few)


def test_the_old_name_of_indices_works_for_one_release(world):
    model, embeddings, classifier, _ = world
    with pytest.warns(DeprecationWarning, match="indices"):
        report = bias_report(model, embeddings, classifier, latents=[0, 5], num_samples=200, progress=False)
    assert set(report.frame["latent"]) == {0, 5}


@pytest.mark.parametrize(
    "tensors", [{"weight": torch.tensor(1.0)}, {"weight": torch.zeros(2, 7)}, {"kernel": torch.zeros(2, 8)}]
)
def test_a_linear_layer_of_another_shape_is_refused_by_its_file(tmp_path, tensors):
    save_file(tensors, tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match=rf"head\.safetensors.*\(C, 8\).*{next(iter(tensors))}"):
        load_linear_layer(tmp_path / "head.safetensors", 8)
