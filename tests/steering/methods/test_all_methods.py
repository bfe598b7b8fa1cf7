"""What every method that is fitted by labels promises."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import roc_auc_score

from hf_msae.steering import METHODS, NotDefinedError, load_edit
from tests.steering.conftest import BY_LABELS, WIDTH

every = pytest.mark.parametrize("method", BY_LABELS)
any_two = pytest.mark.parametrize("method", ["leace", "msae"])  # of what all methods have of `Edit`
supervised = pytest.mark.parametrize("method", sorted(set(BY_LABELS) - {"lat"}))  # its labels only turn a direction
CHANGES = {"score": lambda e, x: e.score(x), "remove": lambda e, x: e.remove(x), "add": lambda e, x: e.add(x, 0.7)}


def parameters(edit):
    return {name: value.tolist() for name, value in edit.parameters.items()}


@every
def test_arrays_tensors_and_leading_dimensions_give_the_same(fitted, task, method):
    x = task.features[task.test][:6]
    for change, apply in CHANGES.items():
        expected = apply(fitted[method], x)
        assert isinstance(expected, np.ndarray) and expected.dtype == np.float32
        found = apply(fitted[method], torch.from_numpy(x).reshape(2, 3, WIDTH))
        assert isinstance(found, torch.Tensor) and found.dtype == torch.float32
        np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-4, rtol=1e-5, err_msg=change)
        single = apply(fitted[method], x[0])
        np.testing.assert_allclose(single, expected[0], atol=1e-4, rtol=1e-5, err_msg=change)


@every
def test_results_have_the_type_of_the_embeddings(fitted, task, method):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        x = torch.from_numpy(task.features[task.test][:6]).to(dtype)
        for change, apply in CHANGES.items():
            found, expected = apply(fitted[method], x), apply(fitted[method], x.float())
            assert found.dtype == (torch.float32 if change == "score" and dtype.itemsize < 4 else dtype)
            assert torch.allclose(found.double(), expected.double(), atol=0.02, rtol=0.02), (change, dtype)


@any_two
def test_arrays_of_another_byte_order_do_and_what_is_not_opened_is_named(fitted, make, train, task, method, tmp_path):
    x = task.features[task.test][:6]
    for apply in CHANGES.values():
        assert np.array_equal(apply(fitted[method], x.astype(">f4")), apply(fitted[method], x))
    np.save(tmp_path / "x.npy", train[0])
    for given, named in ((tmp_path / "x.npy", "PosixPath"), (Dataset.from_dict({"x": train[0].tolist()}), "Dataset")):
        for ask in (lambda x: make(method).fit(x, train[1]), fitted[method].remove):
            with pytest.raises(TypeError, match=f"{named}.*load_embeddings"):
                ask(given)


@every
def test_saved_edits_are_the_same_to_the_last_bit(fitted, task, method, tmp_path):
    fitted[method].save_pretrained(tmp_path)
    loaded = load_edit(tmp_path)
    assert type(loaded) is METHODS[method] and loaded.settings() == fitted[method].settings()
    assert loaded.provenance == fitted[method].provenance
    x = task.features[task.test]
    for apply in CHANGES.values():
        np.testing.assert_array_equal(apply(loaded, x), apply(fitted[method], x))


@any_two
def test_a_changed_file_is_refused(fitted, method, tmp_path):
    fitted[method].save_pretrained(tmp_path)
    path = tmp_path / "edit.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"edit\.safetensors"):
        load_edit(tmp_path)


@any_two
def test_other_widths_and_edits_without_a_fit_are_refused(fitted, make, method, tmp_path):
    with pytest.raises(ValueError, match=rf"{WIDTH}.*{WIDTH + 1}"):
        fitted[method].remove(np.zeros((2, WIDTH + 1), dtype=np.float32))
    for use in (lambda e: e.score(np.zeros((1, WIDTH), np.float32)), lambda e: e.save_pretrained(tmp_path)):
        with pytest.raises(ValueError, match=f"{method}.*not been fitted"):
            use(make(method))


@every
def test_data_that_define_nothing_are_refused(make, train, method):
    X, concept, _ = train
    damaged = X.copy()
    damaged[7, 3] = np.nan
    with pytest.raises(ValueError, match="row 7"):
        make(method).fit(damaged, concept)
    with pytest.raises(NotDefinedError, match="0 rows without"):
        make(method).fit(X, np.ones(len(X), dtype=bool))
    with pytest.raises(NotDefinedError, match="alike"):
        make(method).fit(np.ones_like(X), concept)


@pytest.mark.parametrize("method", ["svm", "logistic", "ridge", "lasso", "reactive_clarc", "inlp"])
def test_fewer_rows_than_folds_are_refused(make, train, method):
    X, concept, _ = train
    few = np.zeros_like(concept)
    few[:3] = True
    with pytest.raises(NotDefinedError, match=r"3 rows.*5 folds"):
        make(method).fit(X, few)


@supervised
def test_removal_takes_the_concept_out_and_leaves_others(fitted, task, method):
    x, concept = task.features[task.test], task.concepts["bias"][task.test]
    directions, other = np.array(task.provenance["directions"]), task.concepts["concept 1"][task.test]
    removed = fitted[method].remove(x)
    assert roc_auc_score(concept, x @ directions[0]) > 0.99
    # A latent says nothing of embeddings below its threshold, so zero leaves half of the noise without the concept.
    assert abs(roc_auc_score(concept, removed @ directions[0]) - 0.5) < (0.3 if method == "msae" else 0.2)
    assert roc_auc_score(other, removed @ directions[1]) > 0.95
    assert roc_auc_score(concept, fitted[method].score(x)) > 0.95


@supervised
def test_addition_puts_the_concept_in(fitted, task, method):
    x = task.features[task.test][~task.concepts["bias"][task.test]]
    along = np.array(task.provenance["directions"])[0]
    moved = [(fitted[method].add(x, amount) - x) @ along for amount in (0.0, 0.5, 1.0)]
    assert np.abs(moved[0]).max() < 1e-4
    assert moved[2].mean() > 2
    np.testing.assert_allclose(moved[1], moved[2] / 2, atol=1e-3)


def test_lat_finds_where_embeddings_vary_most(train, task):
    X, concept, _ = train
    direction = np.array(task.provenance["directions"])[0]
    edit = METHODS["lat"]().fit(X + 12 * np.outer(concept, direction), concept)
    assert edit.direction.numpy() @ direction > 0.95
    other = METHODS["lat"]().fit(X + 12 * np.outer(concept, direction), concept, seed=1)
    assert not torch.equal(edit.direction, other.direction)


@every
def test_fits_repeat_to_the_last_bit(fitted, make, train, method):
    X, concept, others = train
    assert parameters(make(method).fit(X, concept, others=others)) == parameters(fitted[method])


@any_two
def test_edits_of_another_backbone_or_of_none_are_refused(fitted, make, train, backbones, method):
    with pytest.raises(ValueError, match="backbone is unknown"), fitted[method].attached(backbones["CLIPModel"]):
        pass

    class Opened:
        def __init__(self):
            self.provenance = {**backbones["CLIPModel"].provenance(), "hook_point": "image_embeds"}

        def __getitem__(self, rows):
            return train[0][rows]

    edit = make(method).fit(Opened(), *train[1:2])
    assert edit.provenance["hook_point"] == "image_embeds"
    with pytest.raises(ValueError, match="weights"), edit.attached(backbones["SiglipModel"]):
        pass
    # Its weights are the right ones, but its embeddings have another width.
    with pytest.raises(ValueError, match=f"width {WIDTH}"), edit.attached(backbones["CLIPModel"]):
        pass


@pytest.mark.parametrize("method", sorted(set(BY_LABELS) - {"msae"}))
def test_methods_that_need_labels_say_so(make, train, method):
    with pytest.raises(NotDefinedError, match=f"{method} needs labels"):
        make(method).fit_by_name("red", None, train[0])


@any_two
def test_other_concepts_of_another_shape_are_refused(make, train, method):
    X, concept, others = train
    with pytest.raises(ValueError, match="others"):
        make(method).fit(X, concept, others=others[:-1])


def test_a_description_of_an_unknown_method_is_refused(fitted, tmp_path):
    fitted["pattern"].save_pretrained(tmp_path)
    path = tmp_path / "edit.json"
    description = json.loads(path.read_text())
    del description["description_sha256"]
    path.write_text(json.dumps({**description, "format_version": 1, "method": "magic"}))
    with pytest.raises(ValueError, match="'magic'"):
        load_edit(tmp_path)
