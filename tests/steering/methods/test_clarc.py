"""ClArC moves embeddings to where one class lies, and its reactive form only those that need it."""

import numpy as np
import pytest

from hf_msae.steering import METHODS


@pytest.fixture(scope="module", params=[np.float16, np.float32])
def x(request, task):
    return task.features[task.test].astype(request.param)


def test_clarc_moves_to_the_means_of_the_classes(fitted, train):
    X, concept, _ = train
    edit, along = fitted["clarc"], fitted["clarc"].direction.numpy()
    np.testing.assert_allclose(edit.remove(X) @ along, (X[~concept] @ along).mean(), atol=1e-4)
    np.testing.assert_allclose(edit.add(X) @ along, (X[concept] @ along).mean(), atol=1e-4)


def test_rows_that_the_detector_passes_over_stay_the_same_to_the_last_bit(fitted, x):
    edit = fitted["reactive_clarc"]
    fires = edit.score(x) > 0
    assert 0.3 < fires.mean() < 0.7
    for changed, stays in ((edit.remove(x), ~fires), (edit.add(x), fires)):
        assert changed[stays].tobytes() == x[stays].tobytes()
        assert (changed[~stays] != x[~stays]).any(axis=1).all()


def test_the_reactive_form_is_clarc_where_it_fires(fitted, task):
    x = task.features[task.test]
    fires = fitted["reactive_clarc"].score(x) > 0
    np.testing.assert_array_equal(fitted["reactive_clarc"].remove(x)[fires], fitted["clarc"].remove(x)[fires])


def test_the_detector_is_the_linear_svm(fitted, train):
    svm = METHODS["svm"]().fit(*train[:2]).direction.numpy()
    detector = fitted["reactive_clarc"].parameters["detector"].numpy()
    np.testing.assert_allclose(detector / np.linalg.norm(detector), svm, atol=1e-5)
