"""Sources of embeddings that cannot be used are refused, with the file and the row."""

import pickle
import re

import datasets
import numpy as np
import pyarrow as pa
import pytest

from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import LinearClassifier
from tests.embeddings.small_sources import X, saved_npy, vectors, written


def test_ragged_rows_are_named_with_their_file(tmp_path):
    rows = X.tolist()
    rows[33] = rows[33][:3]
    data = datasets.Dataset.from_dict({"image_embeds": rows})
    with pytest.raises(ValueError, match=r"row 33 of column 'image_embeds'.* 3 .* 5"):
        load_embeddings(data)
    data.save_to_disk(tmp_path / "saved", num_shards=3)
    with pytest.raises(ValueError, match=r"row 33 .*data-00001-of-00003\.arrow"):
        load_embeddings(tmp_path / "saved")
    for i, part in enumerate((range(20), range(20, 57))):
        (tmp_path / "parts").mkdir(exist_ok=True)
        data.select(part).to_parquet(tmp_path / "parts" / f"{i}.parquet")
    with pytest.raises(ValueError, match=r"row 33 .*1\.parquet"):
        load_embeddings(tmp_path / "parts")
    good = data.filter(lambda row: len(row["image_embeds"]) == 5)
    np.testing.assert_allclose(load_embeddings(good)[33].numpy(), X[34], rtol=1e-6)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2)])
def test_missing_rows_and_values_are_named(kind):
    for rows, message in (
        ([[1.0, 2.0], None, [3.0, 4.0]], "row 1 .*null"),
        ([[1.0, 2.0], [3.0, 4.0], [5.0, None]], "row 2 .*null"),
    ):
        data = datasets.Dataset(pa.table({"image_embeds": pa.array(rows, kind)}))
        with pytest.raises(ValueError, match=message):
            load_embeddings(data)
    empty_lists = datasets.Dataset(pa.table({"x": pa.array([[], []], pa.list_(pa.float32()))}))
    with pytest.raises(ValueError, match=r"row 0 .*empty"):
        load_embeddings(empty_lists)


def truncate(path, keep=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def broken_folder(tmp_path):
    truncate(written(tmp_path / "out") / "data-00001.arrow")
    return tmp_path / "out"


def shorter_folder(tmp_path):
    """A shard exchanged for a valid one with fewer rows."""
    folder, other = written(tmp_path / "out"), written(tmp_path / "other", X[:9])
    (other / "data-00000.arrow").replace(folder / "data-00001.arrow")
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: saved_npy(p / "x.npy", X[0]), r"x\.npy .*2-D.*\(5,\)"),
        (lambda p: saved_npy(p / "x.npy", X[None]), r"x\.npy .*2-D.*\(1, 57, 5\)"),
        (lambda p: saved_npy(p / "x.npy", X[:0]), r"x\.npy is empty.*\(0, 5\)"),
        (lambda p: saved_npy(p / "x.npy", X.astype(complex)), "complex128"),
        (lambda p: saved_npy(p / "x.npy", np.ones((3, 2), int)), "int64"),
        (lambda p: saved_npy(p / "x.npy", np.array([["a"]])), "<U1"),
        (lambda p: saved_npy(p / "x.npy", np.array([[{}]])), r"x\.npy"),
        (lambda p: truncate(saved_npy(p / "x.npy", X)), r"x\.npy"),
        (lambda p: truncate(saved_npy(p / "x.npy", X), 0.0), r"x\.npy"),
        (lambda p: truncate(p / "x.parquet", vectors(X).to_parquet(p / "x.parquet") and 0.6), r"x\.parquet"),
        (lambda p: [vectors(X[:0]).to_parquet(p / "x.parquet"), p / "x.parquet"][1], r"x\.parquet is empty"),
        (lambda p: vectors(X).select([]), "the given dataset is empty"),
        (broken_folder, r"data-00001\.arrow"),
        (shorter_folder, r"46 .*activations\.json.*57"),
        (lambda p: p, "state.json"),
        (lambda p: truncate(saved_npy(p / "x.npy", X)).rename(p / "x.pt"), r"x\.pt"),
    ],
)
def test_damaged_and_unsuitable_sources(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        load_embeddings(make(tmp_path))


@pytest.mark.parametrize("kind", ["npy", "parts", "parquet"])
def test_a_split_that_a_file_does_not_have_is_refused(tmp_path, kind):
    place = tmp_path / "x.parquet" if kind == "parquet" else saved_npy(tmp_path / "x_0.npy", X)
    if kind == "parquet":
        vectors(X).to_parquet(place)
    with pytest.raises(ValueError, match="no split 'test'"):
        load_embeddings(tmp_path if kind == "parts" else place, split="test")


def test_a_pickle_is_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was executed",))

    (tmp_path / "x.npy").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"x\.npy"):
        load_embeddings(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["missing.npy", "missing.parquet", "no/such/folder", "./embeddings"])
def test_missing_files(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(name)):
        load_embeddings(name)


def test_a_name_that_is_nowhere():
    with pytest.raises(FileNotFoundError, match=r"someone/embeds.*Hub"):
        load_embeddings("someone/embeds")


@pytest.mark.parametrize("source", [None, 3, [[1.0, 2.0]]])
def test_objects_of_other_kinds(source):
    with pytest.raises(TypeError, match=type(source).__name__):
        load_embeddings(source)


def test_streaming_data_sets_are_refused():
    with pytest.raises(TypeError, match="streaming"):
        load_embeddings(vectors(X).to_iterable_dataset())


def test_masked_values_are_refused_and_arrays_that_mask_nothing_taken():
    array = np.ma.masked_array(X, mask=False)
    np.testing.assert_array_equal(load_embeddings(array)[:].numpy(), X.astype(np.float32))
    array[3, 2] = np.ma.masked
    with pytest.raises(ValueError, match=r"the given array masks 1 of its values, the first in row 3.*filled"):
        load_embeddings(array)
    with pytest.raises(ValueError, match="masks 1 of its values, the first in row 3"):
        LinearClassifier.fit(array, np.arange(len(X)) % 2)


def test_opened_embeddings_are_returned_as_they_are():
    opened = load_embeddings(datasets.Dataset.from_dict({"image_embeds": X}))
    assert load_embeddings(opened) is opened and load_embeddings(opened, "image_embeds") is opened
    with pytest.raises(TypeError, match="EmbeddingDataset"):
        load_embeddings(opened, "text_embeds")


def test_numbers_of_rows_that_are_fractions_are_named():
    opened = load_embeddings(X)
    with pytest.raises(ValueError, match=r"batch_size must be an integer.* got 5\.0"):
        next(opened.batches(5.0))
    with pytest.raises(ValueError, match=r"number must be an integer.* got 5\.0"):
        opened.sample(5.0)
