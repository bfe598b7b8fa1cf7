"""The recipes for ISIC and typographic ImageNet, on files that look like the real ones."""

import shutil

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from PIL import Image as Picture

from hf_msae.steering.tasks import isic, typographic_imagenet
from hf_msae.steering.tasks.networks import BackboneNetwork
from hf_msae.steering.tasks.pictures import paste
from hf_msae.steering.tasks.published import ISIC_ARTIFACTS


def _picture(red, seed=0):
    values = np.random.default_rng(seed).integers(0, 90, (40, 40, 3), dtype=np.uint8)
    values[:, :, 0] += 150 if red else 0
    return Picture.fromarray(values)


@pytest.fixture(scope="module")
def lesions():
    """What isic_bias.csv says of 96 lesions: a ruler is twice as frequent beside malignant ones."""
    random = np.random.default_rng(0)
    label = np.arange(96) % 2
    table = pd.DataFrame({"image": [f"ISIC_{number:07}.png" for number in range(96)]})
    for name in ISIC_ARTIFACTS:
        table[name] = (random.random(96) < (np.where(label, 0.6, 0.3) if name == "ruler" else 0.4)).astype(int)
    return table.assign(label=label, label_string=np.where(label, "malignant", "benign"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, lesions):
    """Pictures as the challenge names them, with masks and superpixels beside them."""
    folder = tmp_path_factory.mktemp("pictures")
    for row in lesions.itertuples():
        name = row.image.removesuffix(".png")
        _picture(row.label, row.Index).save(folder / f"{name}.jpg")
        _picture(True).save(folder / f"{name}_superpixels.png")
    return folder


@pytest.fixture
def folder(pictures, tmp_path):
    """A folder with them, to which the tables are added."""
    shutil.copytree(pictures, tmp_path / "pictures")
    return tmp_path


def test_isic_with_the_list_of_artifacts(tiny, folder, lesions):
    lesions.to_csv(folder / "isic_bias.csv", sep=";")
    task = isic(folder, tiny, balance_test=False)
    assert (task.name, task.bias) == ("isic", "ruler")
    assert list(task.concepts) == ["ruler", *ISIC_ARTIFACTS[:4], "ink", "patches"]
    assert len(task.target) == 96 and abs(len(task.train) - 48) <= 1
    # Rows of a split are in the order of the list; pictures are those of the rows.
    red = task.features[task.target == 1].mean(axis=0) - task.features[task.target == 0].mean(axis=0)
    found = (task.features @ red)[task.target == 1].min() > (task.features @ red)[task.target == 0].max()
    assert found and task.concepts["ruler"].sum() == lesions["ruler"].sum()
    balanced = isic(folder, tiny, bias="hair")
    assert balanced.bias == "hair" and "ruler" in balanced.concepts
    cells = 2 * balanced.target[balanced.test] + balanced.concepts["hair"][balanced.test]
    assert len(set(np.bincount(cells))) == 1
    (folder / "pictures" / "ISIC_0000007.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="ISIC_0000007"):
        isic(folder, tiny)


def test_isic_halves_are_of_other_patients(tiny, folder, lesions):
    lesions.to_csv(folder / "isic_bias.csv", sep=";")
    names = lesions["image"].str.removesuffix(".png")
    patients = pd.Series([f"IP_{number // 4}" for number in range(96)]).where(np.arange(96) % 8 != 0)
    known = pd.DataFrame({"isic_id": names, "patient_id": patients, "lesion_id": [f"IL_{i // 2}" for i in range(96)]})
    known.iloc[::-1].to_csv(folder / "metadata.csv", index=False)
    first, other = (isic(folder, tiny, balance_test=False, seed=seed) for seed in (0, 1))
    assert first.sha256 != other.sha256
    assert len(first.target) == 96 and 0 < len(first.train) < 96
    # Features are told apart by the pictures' noise: find which lesion each row is.
    files = [folder / "pictures" / f"{name}.jpg" for name in names]
    features = BackboneNetwork(tiny).features([Picture.open(file) for file in files])
    lesion = np.array([np.abs(features - row).max(axis=1).argmin() for row in first.features])
    assert sorted(lesion) == list(range(96))
    parts = {part: set(patients[lesion[first.split == part]].dropna()) for part in ("train", "test")}
    assert len(parts["train"]) > 5 and not parts["train"] & parts["test"]


def test_isic_with_columns_in_the_metadata_of_the_archive(tiny, folder, lesions):
    diagnosis = np.where(lesions["label"] == 1, "Malignant", "Benign").astype(object)
    diagnosis[:6] = "Indeterminate"
    diagnosis[6:8] = None
    table = lesions.drop(columns=["image", "label", "label_string"]).assign(diagnosis_1=diagnosis)
    table.assign(isic_id=lesions["image"].str.removesuffix(".png")).to_csv(folder / "metadata.csv", index=False)
    task = isic(folder, tiny, bias="ink", concepts=["ruler"], balance_test=False)
    assert len(task.target) == 88 and list(task.concepts) == ["ink", "ruler"]
    assert task.target.sum() == lesions["label"][8:].sum()
    table.drop(columns="diagnosis_1").assign(isic_id=lesions["image"]).to_csv(folder / "metadata.csv", index=False)
    with pytest.raises(ValueError, match="benign_malignant"):
        isic(folder, tiny)
    (folder / "metadata.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"metadata\.csv"):
        isic(folder, tiny)


def test_isic_with_published_splits(tiny, folder, lesions):
    for part, rows in (("train", lesions[:60]), ("val", lesions[60:66]), ("test", lesions[66:])):
        rows.assign(vasc=0).to_csv(folder / f"isic_annotated_{part}3.csv")
    task = isic(folder, tiny, trap_set=3, balance_test=False)
    assert (len(task.train), len(task.test)) == (60, 30)
    np.testing.assert_array_equal(task.concepts["patches"][task.train], lesions["patches"][:60] == 1)
    np.testing.assert_array_equal(task.target[task.test], lesions["label"][66:])
    with pytest.raises(FileNotFoundError, match=r"isic_annotated_train4\.csv"):
        isic(folder, tiny, trap_set=4)


def test_isic_as_a_dataset(tiny, lesions, tmp_path):
    pictures = [_picture(row.label, row.Index) for row in lesions.itertuples()]
    columns = {"malignant": lesions["label_string"].tolist(), "ruler": lesions["ruler"].astype(bool).tolist()}
    rows = Dataset.from_dict({"image": pictures, **columns}).cast_column("image", Image())
    DatasetDict(train=rows.select(range(60)), test=rows.select(range(60, 96))).save_to_disk(tmp_path / "saved")
    task = isic(tmp_path / "saved", tiny)
    assert list(task.concepts) == ["ruler"] and len(task.train) == 60
    np.testing.assert_array_equal(task.target[task.train], lesions["label"][:60])
    missing = rows.remove_columns("malignant").add_column("malignant", ["benign"] * 95 + [None])
    with pytest.raises(ValueError, match=r"malignant.*2 of 192"):
        isic(DatasetDict(train=missing, test=missing), tiny)


CLASSES = ("church", "tench", "crane")
IDS = {"church": "n03028079", "tench": "n01440764", "crane": "n02012849"}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """train/n01440764/*.JPEG and val/n01440764/*.JPEG, as ImageNet comes. Do not change it in place."""
    folder = tmp_path_factory.mktemp("imagenet")
    for part, size in (("train", 16), ("val", 12)):
        for place, name in enumerate(CLASSES):
            (folder / part / IDS[name]).mkdir(parents=True)
            for junk in (".DS_Store", "._picture.jpg", "Thumbs.db"):  # which file managers leave behind
                (folder / part / IDS[name] / junk).write_bytes(b"no picture")
            for number in range(size):
                picture = _picture(name == "tench", seed=100 * place + number + (50 if part == "val" else 0))
                picture.save(folder / part / IDS[name] / f"{IDS[name]}_{number}.JPEG", quality=95)
        (folder / part / ".ipynb_checkpoints").mkdir()
    return folder


def test_typographic_imagenet_from_a_folder(tiny, imagenet):
    others, word = [IDS["church"], IDS["crane"]], "church"
    task = typographic_imagenet(imagenet, tiny, IDS["tench"], others, word, num_rows=48, seed=3)
    assert list(task.concepts) == ["pasted caption"] and task.bias == "pasted caption"
    assert (len(task.train), len(task.test)) == (24, 24)
    for rows, correlation in ((task.train, 0.9), (task.test, 0.0)):
        found = np.corrcoef(task.target[rows], task.concepts[task.bias][rows])[0, 1]
        assert task.target[rows].mean() == 0.5 and found == pytest.approx(correlation, abs=0.1)
    # Exact pairs: the counterfactual of a row is the embedding of the same picture with the word or without it.
    network, files = BackboneNetwork(tiny), sorted(imagenet.rglob("*.JPEG"))
    clean = network.features([Picture.open(file) for file in files])
    attacked = network.features([paste(Picture.open(file).convert("RGB"), "caption", word) for file in files])
    has = task.concepts[task.bias][:, None]
    without, with_word = (
        np.where(has, a, b) for a, b in ((task.counterfactuals, task.features), (task.features, task.counterfactuals))
    )
    which = np.array([np.abs(clean - row).max(axis=1).argmin() for row in without])
    np.testing.assert_allclose(without, clean[which], atol=1e-5)
    np.testing.assert_allclose(with_word, attacked[which], atol=1e-5)
    np.testing.assert_array_equal(task.target, [IDS["tench"] in str(files[i]) for i in which])
    np.testing.assert_array_equal(task.split == "test", ["val" in files[i].parts for i in which])


def _rows(size, offset):
    names = ["tench, Tinca tinca", "church, church building", "crane", "crane, machine"]
    labels = np.arange(size) % 4
    pictures = [_picture(label == 0, offset + number) for number, label in enumerate(labels)]
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"image": pictures, "label": labels.tolist()}, features)


def test_typographic_imagenet_from_a_dataset(tiny, tmp_path):
    unlabelled = _rows(8, 900).map(lambda row: {"label": -1})
    dataset = DatasetDict(train=_rows(160, 0), validation=_rows(160, 500), test=unlabelled)
    task = typographic_imagenet(dataset, tiny, "tench", ["church", "crane"], num_rows=100)
    assert list(task.concepts) == ["pasted caption", "church", "crane"]
    assert task.provenance["word"] == "church" and task.provenance["label"] == "tench, Tinca tinca"
    assert (task.concepts["church"] | task.concepts["crane"]).sum() == (task.target == 0).sum()
    assert (len(task.train), len(task.test)) == (50, 50)
    dataset.save_to_disk(tmp_path / "saved")
    several = typographic_imagenet(tmp_path / "saved", tiny, "tench", num_rows=160, correlation=0.5)
    assert list(several.concepts) == ["pasted caption", "church", "crane", "crane, machine"]


def test_attacked_pictures_are_read(tiny, imagenet, tmp_path):
    copies = tmp_path / "attacked"
    for file in imagenet.rglob("*.JPEG"):
        place = copies / file.relative_to(imagenet)
        place.parent.mkdir(parents=True, exist_ok=True)
        paste(Picture.open(file).convert("RGB"), "watermark", "dog").save(place, quality=95)
    settings = {"others": [IDS["church"]], "num_rows": 48}
    task = typographic_imagenet(imagenet, tiny, IDS["tench"], attacked=copies, **settings)
    network, files = BackboneNetwork(tiny), sorted(copies.rglob("*.JPEG"))
    attacked = network.features([Picture.open(file) for file in files])
    has = task.concepts["attack"]
    assert task.bias == "attack" and 0 < has.sum() < len(has)
    for rows in (task.features[has], task.counterfactuals[~has]):
        assert max(np.abs(attacked - row).max(axis=1).min() for row in rows) < 1e-5
    files[-1].unlink()
    with pytest.raises(FileNotFoundError, match=files[-1].name):
        typographic_imagenet(imagenet, tiny, IDS["tench"], attacked=copies, others=[IDS["crane"], IDS["church"]])


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"word": None}, ValueError, "n03028079"),
        ({"target": "n00000000"}, ValueError, "n00000000"),
        ({"others": ["n01440764"]}, ValueError, "n01440764"),
        ({"artifact": "sticker"}, ValueError, "sticker"),
        ({"num_rows": 2}, ValueError, "num_rows"),
        ({"attacked": "nowhere"}, FileNotFoundError, "nowhere"),
    ],
)
def test_bad_arguments_of_the_attack_are_named(tiny, imagenet, change, error, named):
    settings = {"target": IDS["tench"], "others": [IDS["church"]], "word": "church", **change}
    with pytest.raises(error, match=named):
        typographic_imagenet(imagenet, tiny, **settings)


def test_bad_datasets_of_the_attack_are_named(tiny, imagenet, tmp_path):
    rows = _rows(40, 0)
    with pytest.raises(ValueError, match=r"several classes.*'crane'"):
        names = rows.features["label"].names
        clash = rows.cast_column("label", ClassLabel(names=[*names[:2], "crane, bird", names[3]]))
        typographic_imagenet(DatasetDict(train=clash, val=clash), tiny, "crane")
    with pytest.raises(ValueError, match="validation"):
        typographic_imagenet(DatasetDict(train=rows), tiny, "tench")
    with pytest.raises(ValueError, match="species"):
        typographic_imagenet(DatasetDict(train=rows, val=rows), tiny, "tench", label_column="species")
    with pytest.raises(ValueError, match="photo"):
        typographic_imagenet(DatasetDict(train=rows, val=rows), tiny, "tench", image_column="photo")
    with pytest.raises(ValueError, match="40, 39"):
        attacked = DatasetDict(train=rows, val=rows.select(range(39)))
        typographic_imagenet(DatasetDict(train=rows, val=rows), tiny, "tench", attacked=attacked)
    shutil.copytree(imagenet / "train", tmp_path / "train")
    with pytest.raises(FileNotFoundError, match="val"):
        typographic_imagenet(tmp_path, tiny, IDS["tench"])
