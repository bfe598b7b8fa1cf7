"""Tasks of people's own data, and the recipes, on folders that look like the real ones."""

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Picture

from hf_msae.steering.tasks import celeba, task_from_dataset, waterbirds
from hf_msae.steering.tasks.published import ATTRIBUTES

# Its pictures are of four kinds, and the same in both splits.
pytestmark = pytest.mark.filterwarnings("ignore:.*have the features of a training row")


def _picture(blue, bright):
    values = np.full((32, 32, 3), 200 if bright else 60, np.uint8)
    values[:, :, 2] = 255 if blue else 0
    return Picture.fromarray(values)


@pytest.fixture(scope="module")
def table():
    random = np.random.default_rng(0)
    split = np.repeat(["train", "validation", "test"], [40, 8, 24])
    y = np.arange(72) % 2
    place = np.where(random.random(72) < np.where(split == "train", 0.9, 0.5), y, 1 - y)
    return pd.DataFrame({"y": y, "place": place, "big": random.integers(0, 2, 72), "split": split})


@pytest.fixture(scope="module")
def dataset(table):
    features = Features({**{name: Value("int64") for name in ("y", "place", "big")}, "split": Value("string")})
    pictures = [_picture(place, y) for y, place in zip(table["y"], table["place"], strict=True)]
    rows = {**{name: table[name].tolist() for name in table}, "image": pictures}
    return Dataset.from_dict(rows, Features({**features, "image": Image()}))


def test_columns_become_a_task(tiny, dataset, table):
    task = task_from_dataset(dataset, tiny, "y", "place", ["big"], split_column="split")
    kept = (table["split"] != "validation").to_numpy()
    assert task.split.tolist() == table["split"][kept].tolist()
    np.testing.assert_array_equal(task.target, table["y"][kept])
    np.testing.assert_array_equal(task.concepts["place"], table["place"][kept] == 1)
    assert list(task.concepts) == ["place", "big"] and task.bias == "place"
    assert task.counterfactuals is None and task.features.shape == (64, 32)
    assert task.provenance["base_model_weights_sha256"]
    # Pictures are those of the rows: alike if and only if label and place are.
    cells = 2 * task.target + task.concepts["place"]
    for cell in np.unique(cells):
        assert np.ptp(task.features[cells == cell], axis=0).max() < 1e-3
    assert np.abs(task.features[cells == 0][0] - task.features[cells == 3][0]).max() > 0.01


def test_one_dataset_for_each_split_gives_the_same(tiny, dataset):
    one = task_from_dataset(dataset, tiny, "y", "place", split_column="split")
    of_split = np.array(dataset["split"])
    parts = {
        name: dataset.select(np.flatnonzero(of_split == part)).remove_columns("split")
        for name, part in (("train", "train"), ("valid", "validation"), ("test", "test"))
    }
    other = task_from_dataset(DatasetDict(parts), tiny, "y", "place")
    np.testing.assert_allclose(one.features, other.features, atol=1e-5)
    np.testing.assert_array_equal(one.split, other.split)


def test_rows_are_drawn_and_the_test_is_balanced(tiny, dataset):
    settings = {"split_column": "split", "balance_test": True, "num_rows": 40}
    task = task_from_dataset(dataset, tiny, "y", "place", **settings)
    again = task_from_dataset(dataset, tiny, "y", "place", **settings)
    np.testing.assert_array_equal(task.features, again.features)
    assert len(task.train) == 20
    cells = 2 * task.target[task.test] + task.concepts["place"][task.test]
    assert len(set(np.bincount(cells))) == 1 and len(np.unique(cells)) == 4


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"target": "species"}, "species"),
        ({"bias": "image"}, "image"),
        ({"split_column": "y"}, "test"),
        ({"split_column": None}, "splits"),
        ({"image_column": "photo"}, "photo"),
    ],
)
def test_bad_columns_are_named(tiny, dataset, change, named):
    settings = {"target": "y", "bias": "place", "split_column": "split", **change}
    with pytest.raises(ValueError, match=named):
        task_from_dataset(dataset, tiny, **settings)


def test_values_that_are_no_concept_or_split_are_named(tiny, dataset):
    odd = dataset.remove_columns(["big", "split"]).add_column("big", [7] * 72).add_column("split", ["dev"] * 72)
    with pytest.raises(ValueError, match="dev"):
        task_from_dataset(odd, tiny, "y", "place", split_column="split")
    odd = odd.remove_columns("split").add_column("split", dataset["split"][:])
    with pytest.raises(ValueError, match=r"big.*7"):
        task_from_dataset(odd, tiny, "y", "place", ["big"], split_column="split")


def test_waterbirds(tiny, tmp_path, table):
    numbers = {"train": 0, "validation": 1, "test": 2}
    table = table.assign(split=table["split"].map(numbers), img_filename=[f"001.Auk/{i}.jpg" for i in range(72)])
    table.drop(columns="big").to_csv(tmp_path / "metadata.csv", index_label="img_id")
    (tmp_path / "001.Auk").mkdir()
    for _, row in table.iterrows():
        _picture(row["place"], row["y"]).save(tmp_path / row["img_filename"])
    task = waterbirds(tmp_path, tiny)
    assert task.name == "waterbirds" and task.bias == "place"
    assert (len(task.train), len(task.test)) == (40, 24)
    np.testing.assert_array_equal(task.target, table["y"][table["split"] != 1])
    (tmp_path / "001.Auk" / "3.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"3\.jpg"):
        waterbirds(tmp_path, tiny)


def test_changed_files_are_read_again(tiny, tmp_path, table):
    files = [tmp_path / f"{i}.png" for i in range(72)]
    for file, y in zip(files, table["y"], strict=True):
        _picture(False, y).save(file)
    rows = Dataset.from_pandas(table.assign(image=list(map(str, files))))
    first = task_from_dataset(rows, tiny, "y", "place", split_column="split")
    _picture(True, True).resize((40, 40)).save(files[0])
    again = task_from_dataset(rows, tiny, "y", "place", split_column="split")
    changed = np.abs(first.features - again.features).max(axis=1) > 1e-3
    assert np.flatnonzero(changed).tolist() == [0]


def test_celeba(tiny, tmp_path):
    random = np.random.default_rng(0)
    names = [f"{i:06}.jpg" for i in range(1, 81)]
    attributes = pd.DataFrame(random.choice([-1, 1], (80, 40)), index=names, columns=list(ATTRIBUTES))
    text = attributes.to_string(header=False)
    (tmp_path / "list_attr_celeba.txt").write_text(f"80\n{' '.join(ATTRIBUTES)}\n{text}\n")
    parts = "\n".join(f"{name} {0 if i < 40 else 2}" for i, name in enumerate(names))
    (tmp_path / "list_eval_partition.txt").write_text(parts + "\n")
    (tmp_path / "img_align_celeba").mkdir()
    for name in names:
        _picture(True, attributes.loc[name, "Blond_Hair"] > 0).save(tmp_path / "img_align_celeba" / name)
    task = celeba(tmp_path, tiny)
    assert len(task.concepts) == 39 and task.bias == "Male" and len(task.train) == 40
    np.testing.assert_array_equal(task.target[task.train], attributes["Blond_Hair"].to_numpy()[:40] == 1)
    np.testing.assert_array_equal(task.concepts["Young"][task.train], attributes["Young"].to_numpy()[:40] == 1)
    assert len(set(np.bincount(2 * task.target[task.test] + task.concepts["Male"][task.test]))) == 1
