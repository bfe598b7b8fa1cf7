"""What a task takes for its arrays, and what it refuses by name."""

import numpy as np
import pandas as pd
import pytest
import torch

from hf_msae.steering import Task
from hf_msae.steering.tasks.inputs import as_concepts, as_features, as_labels, as_split

FEATURES = np.arange(24, dtype=np.float32).reshape(8, 3) ** 1.5
HAS = np.array([1, 0, 1, 0] * 2, dtype=bool)
LABELS = np.array([0, 1, 1, 0] * 2)
SPLIT = np.array(["train"] * 4 + ["test"] * 4)
GIVEN = {"features": FEATURES, "concepts": {"dot": HAS}, "target": LABELS, "bias": "dot", "split": SPLIT}


def task(**given):
    return Task(**{"name": "mine", "backbone": "none", **GIVEN, **given})


def as_object(values):
    return np.array(values.tolist(), dtype=object)


@pytest.mark.parametrize(
    "given",
    [
        {"features": FEATURES.tolist()},
        {"features": torch.from_numpy(FEATURES).requires_grad_()},
        {"features": pd.DataFrame(FEATURES)},
        {"features": as_object(FEATURES)},
        {"counterfactuals": torch.from_numpy(FEATURES)},
        {"concepts": {"dot": HAS.tolist()}},
        {"concepts": {"dot": torch.from_numpy(HAS)}},
        {"concepts": {"dot": HAS.astype(int)}},
        {"concepts": {"dot": as_object(HAS)}},
        {"concepts": pd.DataFrame({"dot": HAS.astype(float)})},
        {"target": LABELS.tolist()},
        {"target": torch.from_numpy(LABELS)},
        {"target": LABELS.astype(bool)},
        {"target": LABELS.astype(float)},
        {"target": pd.Series(LABELS, index=range(5, 13))},
        {"target": as_object(LABELS)},
        {"split": SPLIT.tolist()},
        {"split": as_object(SPLIT)},
        {"split": pd.Series(SPLIT)},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_is_meant_is_taken(given):
    counterfactuals = FEATURES if "counterfactuals" in given else None
    found, expected = task(**given), task(counterfactuals=counterfactuals)
    assert found.sha256 == expected.sha256
    assert found.features.dtype == np.float32 and found.concepts["dot"].dtype == bool
    assert found.target.dtype.kind == "i" and (found.train == np.arange(4)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_types_of_numbers_become_float32(dtype):
    features = torch.arange(24).reshape(8, 3).to(dtype)
    assert np.array_equal(task(features=features).features, np.arange(24, dtype=np.float32).reshape(8, 3))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"features": FEATURES.astype(str)}, "features.*numbers.*'0.0'"),
        ({"features": FEATURES.astype(complex)}, "features.*complex"),
        ({"features": [[1.0, 2.0], [3.0]]}, "features.*lengths"),
        ({"features": FEATURES[0]}, "features.*shape"),
        ({"features": np.where(FEATURES > 100, np.nan, FEATURES)}, "1 of 8 rows.*row 7"),
        ({"concepts": {"dot": HAS.astype(int) * 2}}, "'dot'.* 2 in 4 rows"),
        ({"concepts": {"dot": ["yes", "no"] * 4}}, "'dot'.*'yes'"),
        ({"concepts": {"dot": [True, None] * 4}}, "'dot'.*None in 4"),
        ({"concepts": {"dot": [1.0, np.nan] * 4}}, "'dot'.*nan in 4"),
        ({"concepts": {"dot": True}}, r"dot.*\(\)"),
        ({"concepts": {"dot": HAS[:-1]}}, r"dot.*\(7,\).*8 rows"),
        ({"concepts": {0: HAS}}, "text.* 0"),
        ({"concepts": [HAS]}, "mapping.*list"),
        ({"concepts": {"line": HAS}}, "'dot'.*line"),
        ({"target": ["cat", "dog"] * 4}, "'cat'.*np.unique"),
        ({"target": LABELS + 0.5}, "target.*0.5"),
        ({"target": [0, None] * 4}, "target.*None"),
        ({"target": np.where(LABELS, np.nan, 0)}, "target.*nan"),
        ({"split": HAS}, "split.*True in 8 rows.*np.where"),
        ({"split": ["train", "val"] * 4}, "'val' in 4"),
        ({"split": "train"}, "split.*'train'"),
        ({"counterfactuals": FEATURES[:, :2]}, r"counterfactuals.*\(8, 2\)"),
        ({"name": 3}, "name.* 3"),
        ({"backbone": None}, "backbone.*None"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_what_means_nothing_is_refused_by_name(given, said):
    with pytest.raises(ValueError, match=said):
        task(**given)


def test_arrays_of_the_right_type_are_not_copied():
    assert as_features(FEATURES, "a") is FEATURES and as_labels(LABELS, "a") is LABELS
    assert as_concepts({"dot": HAS}, "a")["dot"] is HAS and (as_split(SPLIT, "a") == SPLIT).all()
    assert as_features(FEATURES.astype(np.float64), "a").dtype == np.float64
