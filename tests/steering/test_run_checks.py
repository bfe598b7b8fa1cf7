"""What a run of SwordBench refuses before it measures anything, and what it notes of fits that do not converge."""

import json
import warnings
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from hf_msae.steering import METHODS, TASKS, gaussian_task, run_swordbench
from hf_msae.steering import run as module
from hf_msae.steering.cross_validation import fit_best
from tests.identity_msae import identity_msae

tiny_task = partial(gaussian_task, num_rows=120, width=12, num_concepts=1)
run = partial(run_swordbench, progress=False, seeds=(0,))
OTHER = {"base_model_name_or_path": "other/siglip", "hook_point": "image_embeds"}


@pytest.fixture(scope="module")
def tiny():
    return tiny_task()


@pytest.fixture
def nothing_measured(monkeypatch):
    def measure(*given):
        raise AssertionError("it was measured")

    monkeypatch.setattr(module, "measure", measure)


@pytest.mark.usefixtures("nothing_measured")
def test_an_msae_of_other_features_is_refused(tiny, tmp_path):
    msae = identity_msae(12, [12])
    msae.config.update({"base_model_name_or_path": "one/clip", "hook_point": "image_embeds"})
    edit = METHODS["msae"](msae=msae, num_latents=1)
    for provenance in (OTHER, {"base_model_name_or_path": "one/clip", "hook_point": "vision.layers.1"}):
        with pytest.raises(ValueError, match=rf"msae.*gaussian.*one/clip.*{provenance['base_model_name_or_path']}"):
            run([replace(tiny, provenance=provenance)], [edit], tmp_path)
    with pytest.raises(ValueError, match=r"gaussian.*12 columns.*24"):
        run([gaussian_task(num_rows=120, width=24)], [edit], tmp_path)
    with pytest.raises(AssertionError, match="measured"):
        run([tiny], [edit], tmp_path)


@pytest.mark.usefixtures("nothing_measured")
def test_a_backbone_of_other_features_is_refused(backbones, tmp_path):
    backbone = backbones["CLIPModel"]
    task = gaussian_task(num_rows=120, width=backbone.width(), num_concepts=1)
    by_name = partial(run, methods=["text"], output_dir=tmp_path, backbone=backbone)
    with pytest.raises(ValueError, match=r"text.*gaussian.*other/siglip"):
        by_name([replace(task, provenance=OTHER)])
    with pytest.raises(ValueError, match="hook point"):
        by_name([replace(task, provenance={**backbone.provenance(), "hook_point": "vision.layers.1"})])
    with pytest.raises(ValueError, match=r"12 columns"):
        by_name([gaussian_task(num_rows=120, width=12, num_concepts=1)])
    with pytest.raises(AssertionError, match="measured"):
        by_name([replace(task, provenance={**backbone.provenance(), "hook_point": "image_embeds"})])
    with pytest.raises(AssertionError, match="measured"):  # a method that reads no name
        run([replace(task, provenance=OTHER)], ["lda"], tmp_path, backbone=backbone)


@pytest.mark.usefixtures("nothing_measured")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": [METHODS["ridge"](folds=np.int64(3))]}, "folds of ridge"),
        ({"methods": [METHODS["text"](neutral=[b"a photo"])], "backbone": ""}, "neutral of text"),
        ({"methods": [METHODS["quadratic"]()], "seeds": (0.5,)}, "0.5"),
        ({"methods": {3: METHODS["lda"]()}}, "label.* 3"),
        ({"seeds": (-1,)}, "-1"),
        ({"seeds": np.int64(2)}, r"seeds must be several numbers, got .*2.*: pass \[.*2"),
        ({"methods": ["eraser"]}, "eraser"),
        ({"methods": [METHODS["ridge"](folds=3), METHODS["ridge"]()]}, "ridge"),
        ({"tasks": [tiny_task, partial(tiny_task, correlation=0.5)]}, "'gaussian'"),
        ({"tasks": tiny_task()}, "several tasks"),
        ({"tasks": ["gausian"]}, "'gausian': did you mean gaussian.* scenes_pattern"),
        ({"tasks": "gaussian"}, r"\['gaussian'\]"),
        ({"methods": "lda"}, r"\['lda'\]"),
        ({"methods": {"a": "lda"}}, "'lda'"),
        ({"methods": [METHODS["lda"]]}, "name or an edit"),
        ({"seeds": 0}, r"\[0\]"),
        ({"tasks": []}, "at least one"),
        ({"seeds": (1, 0, 1)}, r"twice.*1, 0, 1"),
    ],
)
def test_a_run_that_cannot_be_is_refused_first(tiny, tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        run(**{"tasks": [tiny], "methods": ["lda"], "output_dir": tmp_path, **given})


@pytest.mark.usefixtures("nothing_measured")
def test_a_task_has_one_name_for_all_seeds(tiny, tmp_path):
    def by_seed(seed):
        return replace(tiny, name=f"mine-{seed}")

    with pytest.raises(ValueError, match="'mine-3' with the seed 3 and 'mine-4' with the seed 4"):
        run([tiny, by_seed], ["lda"], tmp_path, seeds=(3, 4))


def test_the_results_are_in_the_home_folder_if_a_tilde_says_so(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run([tiny], ["mean_difference"], "~/out")
    METHODS["mean_difference"]().fit(tiny.features, tiny.concepts[tiny.bias]).save_pretrained("~/edit")
    assert {each.name for each in tmp_path.iterdir()} == {"out", "edit"}
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"cells", "results.json"}


def test_seeds_of_numpy_are_whole_numbers(tiny, tmp_path):
    assert run([tiny], ["mean_difference"], tmp_path, seeds=np.arange(1)).to_pandas()["seed"].unique().tolist() == [0]


def test_fits_that_do_not_converge_are_noted_and_said_once(tiny, tmp_path):
    @dataclass
    class Hasty(METHODS["svm"]):
        method = "hasty"

        def _estimator(self, seed):
            return LinearSVC(random_state=seed, max_iter=1, dual=True)

    methods = {"hasty": Hasty(folds=2), "again": Hasty(folds=2), "fine": METHODS["mean_difference"]()}
    with pytest.warns(UserWarning, match=r"2 of 3 cells.*hasty on gaussian, seed 0; again") as shown:
        result = run([tiny], methods, tmp_path)
    assert len(shown) == 1 and not issubclass(shown[0].category, ConvergenceWarning)
    cells = {cell["method"]: cell for cell in map(json.loads, map(_text, (tmp_path / "cells").iterdir()))}
    assert cells["fine"]["notes"] == [] and cells["again"]["notes"] == cells["hasty"]["notes"]
    (note,) = cells["hasty"]["notes"]
    assert note.startswith("fit of bias: LinearSVC with {'C': ")
    assert result.to_pandas().query("metric == 'detection_auroc'")["value"].notna().all()


def test_only_the_chosen_settings_have_to_converge(tiny):
    X, y = tiny.features[tiny.train], np.where(tiny.concepts["bias"][tiny.train], 1.0, -1.0)
    with pytest.warns(ConvergenceWarning) as shown:
        fit_best(LinearSVC(random_state=0, max_iter=2, dual=True), {"C": [1.0, 10.0]}, X, y, 3, 0)
    assert len(shown) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_best(LinearSVC(random_state=0), {"C": [1.0, 10.0]}, X, y, 3, 0)


@pytest.mark.parametrize(("known", "name", "near"), [(METHODS, "leec", "leace"), (TASKS, "gausian", "gaussian")])
def test_unknown_names_are_refused_with_the_known_ones(known, name, near):
    for kind in (KeyError, ValueError):
        with pytest.raises(kind) as refused:
            known[name]
    assert f"{name!r}: did you mean {near}" in str(refused.value) and all(each in str(refused.value) for each in known)
    assert name not in known and known.get(name) is None


def test_one_other_concept_may_be_one_column(tiny):
    X, concept = tiny.features[tiny.train], tiny.concepts["bias"][tiny.train]
    other = tiny.target[tiny.train]
    one, many = (METHODS["joint_pattern"]().fit(X, concept, others=each) for each in (other, other[:, None]))
    assert one.parameters["direction"].equal(many.parameters["direction"])
    with pytest.raises(ValueError, match=r"others.*\(59,\).*60"):
        METHODS["joint_pattern"]().fit(X, concept, others=other[1:])


def _text(path):
    return path.read_text(encoding="utf-8")


def test_the_same_fit_is_made_once(task):
    X, y = task.features[task.train].astype(np.float64), np.where(task.concepts["bias"][task.train], 1.0, -1.0)
    grid = {"C": [0.1, 1.0]}
    first = fit_best(LinearSVC(random_state=0), grid, X, y, 5, 0)
    assert fit_best(LinearSVC(random_state=0), grid, X, y, 5, 0) is first
    for other in ((LinearSVC(random_state=0), grid, X, -y, 5, 0), (LinearSVC(random_state=0), grid, X + 1, y, 5, 0)):
        assert np.abs(fit_best(*other).coef_ - first.coef_).max() > 1e-6
    assert fit_best(LinearSVC(random_state=0), {"C": [0.1]}, X, y, 5, 0) is not first


def test_generators_are_read_once(tmp_path):
    found = run(iter([tiny_task]), (name for name in ["lda"]), tmp_path, seeds=iter([0, 1]), only_bias=True)
    assert sorted(found.to_pandas()["seed"].unique()) == [0, 1]
