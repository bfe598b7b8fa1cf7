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
        ({"concepts": {"dot": HAS.astype(int) * 2}}, "'dot'.* 4 rows are neither.* 2$"),
        ({"concepts": {"dot": ["yes", "no"] * 4}}, "'dot'.* 8 rows.*'yes'"),
        ({"concepts": {"dot": [True, None] * 4}}, "'dot'.* 4 rows.*None"),
        ({"concepts": {"dot": [1.0, np.nan] * 4}}, "'dot'.* 4 rows.*nan"),
        ({"concepts": {"dot": True}}, r"dot.*\(\)"),
        ({"concepts": {"dot": HAS[:-1]}}, r"dot.*\(7,\).*8 rows"),
        ({"concepts": {0: HAS}}, "text.* 0"),
        ({"concepts": [HAS]}, "mapping.*list"),
        ({"concepts": {"line": HAS}}, "'dot'.*line"),
        ({"target": ["cat", "dog"] * 4}, "'cat'.*np.unique"),
        ({"target": LABELS + 0.5}, "target.*0.5"),
        ({"target": LABELS[:3]}, r"target.*\(3,\)"),
        ({"target": 0 * LABELS}, "fewer than two labels"),
        ({"target": [0, None] * 4}, "target.*None"),
        ({"target": np.where(LABELS, np.nan, 0)}, "target.*nan"),
        ({"split": HAS}, "split.* 8 rows.*True.*np.where"),
        ({"split": ["train", "val"] * 4}, "4 rows.*'val'"),
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


def test_read_only_arrays_of_the_right_type_are_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", FEATURES)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.shares_memory(as_features(mapped, "a"), mapped)
    found = as_features(FEATURES, "a")
    assert found is not FEATURES and as_features(found, "a") is found and (found == FEATURES).all()
    labels, has = as_labels(LABELS, "a"), as_concepts({"dot": HAS}, "a")["dot"]
    assert as_labels(labels, "a") is labels and as_concepts({"dot": has}, "a")["dot"] is has
    assert (as_split(SPLIT, "a") == SPLIT).all() and FEATURES.flags.writeable
    assert as_features(FEATURES.astype(np.float64), "a").dtype == np.float64


@pytest.mark.parametrize(
    "wrap",
    [np.asarray, torch.from_numpy, pd.DataFrame, lambda x: x[:], lambda x: np.broadcast_to(x, x.shape)],
    ids=["array", "tensor", "frame", "view", "read-only view"],
)
def test_a_task_stays_when_what_it_was_made_of_changes(wrap):
    features, has, labels, split = FEATURES.copy(), HAS.copy(), LABELS.copy(), SPLIT.copy()
    made = task(
        features=wrap(features), counterfactuals=wrap(features), concepts={"dot": has}, target=labels, split=split
    )
    features[:, 1], has[:], labels[:], split[:] = 0, True, 7, "test"
    assert made.sha256 == task(counterfactuals=FEATURES).sha256
    for values in (made.features, made.counterfactuals, made.concepts["dot"], made.target, made.split):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = values[1]
