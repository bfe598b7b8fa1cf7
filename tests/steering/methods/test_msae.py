"""Steering by latents of an MSAE."""

import json
import shutil
from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from hf_msae import MSAEModel
from hf_msae.steering import METHODS, NotDefinedError, load_edit
from hf_msae.steering.methods.msae import detection
from hf_msae.steering.msae_edit import MSAEEdit


@pytest.fixture
def model(msae_folder):
    return MSAEModel.from_pretrained(msae_folder)


@pytest.fixture
def saved(train, model, tmp_path):
    """An edit in `tmp_path / "edit"`, of an MSAE in `tmp_path / "msae"`."""
    model.save_pretrained(tmp_path / "msae")
    edit = METHODS["msae"](msae=tmp_path / "msae", num_latents=1).fit(*train[:2])
    edit.save_pretrained(tmp_path / "edit")
    return edit


def test_detection_is_the_area_under_the_curve():
    rng = np.random.default_rng(0)
    codes = np.maximum(rng.standard_normal((80, 5)), 0)
    codes[:, 3] = 0
    concept = rng.random(80) < 0.3
    areas, effects, levels = detection(codes, concept)
    np.testing.assert_allclose(areas, [roc_auc_score(concept, codes[:, j]) for j in range(5)])
    means = np.abs(codes[concept].mean(axis=0) - codes[~concept].mean(axis=0))
    assert effects[3] == 0
    np.testing.assert_allclose(effects[:3], means[:3] / codes.std(axis=0)[:3])
    np.testing.assert_allclose(levels, [codes[~concept].mean(axis=0), codes[concept].mean(axis=0)])


def test_codes_of_many_rows_are_measured_block_by_block(make, task, monkeypatch):
    concept, X = next(iter(task.concepts.values()))[task.train], task.features[task.train]
    whole, sizes, encode = make("msae", num_latents=3).fit(X, concept), [], MSAEEdit._codes
    monkeypatch.setattr(MSAEEdit, "_codes", lambda *given: sizes.append(encode(*given).size) or encode(*given))
    monkeypatch.setattr("hf_msae.steering.msae_edit.MOST_ENTRIES", 5 * len(X))
    parts = make("msae", num_latents=3).fit(X, concept)
    assert max(sizes) <= 5 * len(X) and sum(sizes) == len(X) * parts.model.config.num_latents
    assert parts.latents == whole.latents
    torch.testing.assert_close(parts.parameters["levels"], whole.parameters["levels"])


def test_copies_encode_the_same_rows_once(make, task, monkeypatch):
    X = task.features[task.train]
    concepts = np.stack(list(task.concepts.values()), axis=1)[task.train]
    encoded, edit = [], make("msae")
    once = type(edit)._codes
    monkeypatch.setattr(type(edit), "_codes", lambda *args: encoded.append(1) or once(*args))
    for number in range(3):
        others = np.delete(concepts, number, axis=1)
        found = copy(edit).fit(X, concepts[:, number], others=others)
        assert len(encoded) == 1
        fresh = make("msae").fit(X, concepts[:, number], others=others)
        encoded.pop()
        np.testing.assert_allclose(found.parameters["effects"], fresh.parameters["effects"], atol=1e-5)
    copy(edit).fit(X[:-1], concepts[:-1, 0], others=concepts[:-1, 1:])
    assert len(encoded) == 2


@pytest.mark.parametrize("options", [{}, {"num_latents": 1}])
@pytest.mark.parametrize("given", [np.asarray, torch.from_numpy])
def test_embeddings_in_which_nothing_changes_are_copied(make, train, options, given):
    X, concept, others = train
    edit = make("msae", **options).fit(X, concept, others=others)
    far = 20 * make("msae").model.dictionary[0].detach().numpy()
    lacks, has = given(X[~concept][:8] - far), given(X[concept][:8] + far)
    for x, result in ((lacks, edit.remove(lacks)), (has, edit.add(has, 0.0))):
        assert (result == x).all()
        result[:] = 7
        assert (x != 7).all()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_latent_of_the_concept_is_chosen(make, task, number):
    concept = list(task.concepts.values())[number][task.train]
    assert make("msae", num_latents=1).fit(task.features[task.train], concept).latents == (number,)


def test_ties_go_to_the_larger_difference(make):
    concept = np.arange(20) % 2 == 0
    X = np.zeros((20, 12), dtype=np.float32)
    codes = np.stack([np.where(concept, 1 + 0.5 * (np.arange(20) % 3), 0), np.where(concept, 1.0, 0)], axis=1)
    X += codes @ make("msae").model.dictionary[:2].detach().numpy()
    assert make("msae", num_latents=1).fit(X, concept).latents == (1,)


@pytest.mark.parametrize("keep_residual", [True, False])
@pytest.mark.parametrize("mode", ["zero", "set", "scale"])
def test_removal_is_its_formula(make, model, train, task, mode, keep_residual):
    X, concept, _ = train
    options = {"num_latents": 2, "mode": mode, "factor": 0.25, "keep_residual": keep_residual}
    edit = make("msae", **options).fit(X, concept)
    x = torch.from_numpy(task.features[task.test])
    latents = list(edit.latents)
    with torch.no_grad():
        before = model.encode(x)
        after, train_codes = before.clone(), model.encode(torch.from_numpy(X))
        reference = train_codes[torch.from_numpy(~concept)][:, latents].mean(dim=0)
        after[:, latents] = {"zero": 0 * reference, "set": reference, "scale": 0.25 * before[:, latents]}[mode]
        expected = model.decode(after) + (x - model.decode(before) if keep_residual else 0)
    torch.testing.assert_close(edit.remove(x), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(edit.score(x), before[:, latents].sum(dim=1))


@pytest.mark.parametrize("amount", [1.0, 0.3])
def test_addition_moves_latents_to_their_mean_with_the_concept(make, model, train, amount):
    X, concept, _ = train
    edit = make("msae", num_latents=1).fit(X, concept)
    (latent,) = edit.latents
    x = torch.from_numpy(X)
    with torch.no_grad():
        before = model.encode(x)[:, [latent]]
        expected = x + amount * (before[torch.from_numpy(concept)].mean() - before) * model.dictionary[latent]
    torch.testing.assert_close(edit.add(x, amount), expected, atol=1e-4, rtol=1e-4)


def test_rows_without_the_latent_stay_the_same_to_the_last_bit(make, train):
    X, concept, _ = train
    edit = make("msae", num_latents=1).fit(X, concept)
    silent = edit.score(X) == 0
    assert silent.any() and edit.remove(X)[silent].tobytes() == X[silent].tobytes()


def test_shifts_are_their_formula_where_the_concept_is(make, model, train):
    X, concept, others = train
    edit = make("msae").fit(X, concept, others=others)
    x, found = torch.from_numpy(X), edit.score(X) > 0
    with torch.no_grad():
        codes = model.encode(x)
        labels = np.column_stack([np.ones(len(X)), concept, others])
        effects = torch.from_numpy(np.linalg.lstsq(labels, codes.numpy(), rcond=None)[0][1]).float()
        decode = model.decode
        removed = x + decode((codes - effects).clamp(min=0)) - decode(codes)
        added = x + decode((codes + 0.5 * effects).clamp(min=0)) - decode(codes)
    np.testing.assert_allclose(edit.remove(X)[found], removed[found], atol=1e-4)
    np.testing.assert_allclose(edit.add(X, 0.5)[~found], added[~found], atol=1e-4)
    assert (edit.remove(X)[~found] == X[~found]).all() and (edit.add(X)[found] == X[found]).all()
    assert roc_auc_score(concept, edit.score(X)) > 0.99 and (found == concept).mean() > 0.95
    decoded = make("msae", keep_residual=False).fit(X, concept, others=others).remove(X)
    with torch.no_grad():
        np.testing.assert_allclose(decoded[found], decode((codes - effects).clamp(min=0))[found], atol=1e-4)


def test_the_effect_of_a_concept_is_not_that_of_a_label_it_goes_with(make, model, task):
    """The label goes with the concept; its latent is moved only if the label is not known."""
    X = task.features[task.train]
    rng = np.random.default_rng(0)
    concepts = np.stack(list(task.concepts.values()), axis=1)[task.train]
    rows = np.flatnonzero((concepts[:, 0] == concepts[:, 1]) | (rng.random(len(X)) < 0.1))
    concept, label = concepts[rows].T[:2]
    blind = make("msae").fit(X[rows], concept).parameters["effects"]
    knowing = make("msae").fit(X[rows], concept, others=label[:, None]).parameters["effects"]
    assert abs(knowing[1]) < 0.2 * abs(blind[1]) and knowing[0] > 0.8 * blind[0] > 0


def test_k_limits_the_code(make, train, model):
    X, concept, _ = train
    edit = make("msae", num_latents=1, k=1).fit(X, concept)
    with torch.no_grad():
        expected = model.encode(torch.from_numpy(X), 1)[:, list(edit.latents)].sum(dim=1)
    assert (expected == 0).any()
    np.testing.assert_array_equal(edit.score(X), expected)
    assert (edit.remove(X) == X).all(axis=1)[expected == 0].all()


def test_names_need_no_labels(make, task, msae_folder, tmp_path):
    from hf_msae.concepts import ConceptTable

    frame = pd.DataFrame({"latent": range(12), "name": [f"word {j}" for j in range(12)], "similarity": 0.5})
    X = task.features[task.train]
    edit = make("msae", concepts=ConceptTable(frame)).fit_by_name("word 1", None, X)
    assert edit.latents == (1,) and edit.provenance["concept"] == "word 1"
    assert roc_auc_score(task.concepts["concept 1"][task.test], edit.score(task.features[task.test])) > 0.95
    assert make("msae").fit_by_name("latent:2", None, X).latents == (2,)
    with pytest.raises(ValueError, match=r"'red'.*concepts="):
        make("msae").fit_by_name("red", None, X)
    with pytest.raises(ValueError, match="shift"):
        make("msae", mode="shift").fit_by_name("latent:2", None, X)
    with pytest.raises(ValueError, match=r"num_latents is 4.*'latent:2'"):
        make("msae", num_latents=4).fit_by_name("latent:2", None, X)
    with pytest.raises(NotDefinedError, match="latent 2"):
        make("msae").fit_by_name("latent:2", None, np.abs(X[:, :1]) * edit.model.dictionary[2].detach().numpy())


@pytest.mark.usefixtures("saved")
def test_another_msae_at_its_place_and_none_are_refused(model, tmp_path):
    assert load_edit(tmp_path / "edit").latents == (0,)
    with torch.no_grad():
        model.latent_bias += 1
    model.save_pretrained(tmp_path / "msae")
    with pytest.raises(ValueError, match="another MSAE"):
        load_edit(tmp_path / "edit")
    shutil.rmtree(tmp_path / "msae")
    with pytest.raises(ValueError, match=r"msae.*load_edit\(folder, msae="):
        load_edit(tmp_path / "edit")


def test_an_msae_that_was_moved_can_be_named(saved, train, tmp_path):
    (tmp_path / "msae").rename(tmp_path / "elsewhere")
    loaded = load_edit(tmp_path / "edit", msae=tmp_path / "elsewhere")
    np.testing.assert_array_equal(loaded.remove(train[0]), saved.remove(train[0]))
    with pytest.raises(ValueError, match="folds"):
        load_edit(tmp_path / "edit", msae=tmp_path / "elsewhere", folds=3)


def test_edits_of_earlier_versions_hold_an_absolute_path(saved, train, tmp_path):
    file = tmp_path / "edit" / "edit.json"
    content = json.loads(file.read_text())
    assert content["settings"]["msae"] == "../msae"
    del content["description_sha256"]
    content["format_version"] = 1
    content["settings"]["msae"] = str(tmp_path / "msae")
    file.write_text(json.dumps(content))
    (tmp_path / "edit").rename(tmp_path / "moved")
    np.testing.assert_array_equal(load_edit(tmp_path / "moved").remove(train[0]), saved.remove(train[0]))


def test_an_edit_and_its_msae_are_moved_together(train, model, tmp_path):
    X, concept, _ = train
    home = tmp_path / "home"
    for place in ("home/msae", "home/edit/msae", "home/edit"):  # beside the edit, inside it, and with it
        model.save_pretrained(tmp_path / place)
        edit = METHODS["msae"](msae=tmp_path / place).fit(X, concept)
        edit.save_pretrained(home / "edit")
        assert str(tmp_path) not in (home / "edit" / "edit.json").read_text()
        home.rename(tmp_path / "away")
        np.testing.assert_array_equal(load_edit(tmp_path / "away" / "edit").remove(X), edit.remove(X))
        (tmp_path / "away").rename(home)


def test_the_way_to_an_msae_does_not_depend_on_the_working_directory(train, model, tmp_path, monkeypatch):
    X, concept, _ = train
    monkeypatch.chdir(tmp_path)
    model.save_pretrained(".hidden/msae")
    METHODS["msae"](msae=".hidden/msae").fit(X, concept).save_pretrained("edit")
    (tmp_path / "link").symlink_to(tmp_path / "edit")
    monkeypatch.chdir("/")
    for folder in ("edit", "link"):
        assert Path(load_edit(tmp_path / folder).msae) == (tmp_path / ".hidden" / "msae").resolve()


def test_an_msae_of_the_package_is_saved_by_its_name(tmp_path):
    model = MSAEModel.from_released("scenes-image")
    rows = np.random.default_rng(0).normal(size=(20, model.config.d_in)).astype(np.float32)
    edit = METHODS["msae"](msae=model).fit(rows, np.arange(20) < 10)
    edit.save_pretrained(tmp_path)
    assert load_edit(tmp_path).msae == "scenes-image"


def test_a_model_that_is_saved_nowhere_cannot_be_saved_with_an_edit(train, model, tmp_path):
    X, concept, _ = train
    nowhere = MSAEModel(model.config)
    nowhere.load_state_dict(model.state_dict())
    nowhere.name_or_path = ""
    edit = METHODS["msae"](msae=nowhere).fit(X, concept)
    with pytest.raises(ValueError, match="not saved anywhere"):
        edit.save_pretrained(tmp_path)


@pytest.mark.parametrize("options", [{"mode": "clamp"}, {"num_latents": 0}, {"num_latents": 2, "mode": "shift"}])
def test_impossible_options_are_refused(make, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make("msae", **options)


def test_an_msae_has_to_be_given(train):
    with pytest.raises(ValueError, match="needs an MSAE"):
        METHODS["msae"]().fit(*train[:2])
