"""What a task refuses, and what it says of itself."""

import warnings
from dataclasses import replace

import pytest


def test_labels_that_training_lacks_are_named(task):
    target = task.target.copy()
    target[task.test[:5]], target[task.test[5]], target[task.train[0]] = 7, 9, 8
    with pytest.raises(ValueError, match="labels 7, 9, which"):
        replace(task, target=target)


def test_test_rows_that_are_training_rows_are_counted(task):
    features = task.features.copy()
    features[task.test[:3]] = features[task.train[4]]
    with pytest.warns(UserWarning, match=f"3 of {len(task.test)} test rows of gaussian"):
        replace(task, features=features)
    features = task.features.copy()
    features[task.test[1]] = features[task.test[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replace(task, features=features)


def test_a_task_says_what_it_is_made_of(task):
    assert repr(task) == (
        "Task('gaussian': 3000 training and 3000 test rows of width 24 from 'none', 2 labels, bias 'bias', "
        "other concepts concept 1, concept 2, concept 3, 6000 exact pairs)"
    )
    alone = replace(task, concepts={"bias": task.concepts["bias"]}, counterfactuals=None)
    assert "no other concepts, no exact pairs" in repr(alone)
