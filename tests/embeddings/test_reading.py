"""load_embeddings and EmbeddingDataset: every source, no copies, right rows in right order."""

import pickle
import tracemalloc

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from hf_msae.embeddings import EmbeddingDataset, EmbeddingWriter, load_embeddings
from tests.embeddings.small_sources import WIDTH, X, saved_npy, vectors, written

SOURCES = {
    "writer": lambda p: written(p / "out"),
    "writer, str": lambda p: str(written(p / "out")),
    "save_to_disk": lambda p: vectors(X).save_to_disk(p / "saved", num_shards=3) or p / "saved",
    "one split": lambda p: datasets.DatasetDict(test=vectors(X)).save_to_disk(p / "dict") or p / "dict",
    "parquet": lambda p: vectors(X).to_parquet(p / "x.parquet") and p / "x.parquet",
    "npy": lambda p: saved_npy(p / "x.npy", X),
    "npy, fortran": lambda p: saved_npy(p / "x.npy", np.asfortranarray(X)),
    "npy, big endian": lambda p: saved_npy(p / "x.npy", X.astype(">f4")),
    "npy, float64": lambda p: saved_npy(p / "x.npy", X.astype(np.float64)),
    "Dataset": lambda p: vectors(X),
    "Dataset, torch format": lambda p: vectors(X).with_format("torch"),
    "Dataset, float64": lambda p: vectors(X.astype(np.float64)),
    "DatasetDict": lambda p: datasets.DatasetDict(train=vectors(X)),
    "variable length": lambda p: datasets.Dataset.from_dict({"image_embeds": X.tolist()}),
    "large lists": lambda p: datasets.Dataset(pa.table({"v": pa.array(X.tolist(), pa.large_list(pa.float32()))})),
    "concatenated": lambda p: datasets.concatenate_datasets([vectors(X[:13]), vectors(X[13:])]),
    "array": lambda p: X,
    "tensor": lambda p: torch.from_numpy(X).requires_grad_(),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
def test_every_source_gives_the_same_rows(tmp_path, make):
    acts = load_embeddings(make(tmp_path))
    assert len(acts) == 57 and acts.width == WIDTH
    assert isinstance(acts, torch.utils.data.Dataset)
    np.testing.assert_allclose(acts[:].numpy(), X, rtol=1e-6)
    order = np.random.default_rng(1).permutation(57)
    rows = acts.__getitems__(order.tolist())
    assert rows.dtype == torch.float32 and rows.shape == (57, WIDTH)
    np.testing.assert_allclose(rows.numpy(), X[order], rtol=1e-6)


def test_all_ways_to_index(tmp_path):
    acts = load_embeddings(written(tmp_path))
    assert torch.equal(acts[41], torch.from_numpy(X[41]))
    assert torch.equal(acts[-1], torch.from_numpy(X[56]))
    for index in ([3, 50, 3, -57], np.array([56, 0]), torch.tensor([20, 19, 40]), slice(15, 45), slice(50, 5, -3)):
        plain = index.numpy() if isinstance(index, torch.Tensor) else index
        np.testing.assert_array_equal(acts[index].numpy(), X[plain])
    assert acts[[]].shape == (0, WIDTH) and acts[7:3].shape == (0, WIDTH)
    for outside in (57, -58, [0, 57]):
        with pytest.raises(IndexError, match=r"out of range.*57 rows"):
            acts[outside]
    with pytest.raises(TypeError, match="bool"):
        acts[[True, False]]


@pytest.mark.parametrize("index", [1.5, np.float32(1), True, "1", None, [True, False]], ids=repr)
def test_what_is_no_row_is_refused(index):
    with pytest.raises(TypeError, match="rows must be a flat list of integers"):
        load_embeddings(X)[index]


def test_batches_are_sequential_and_keep_the_rest(tmp_path):
    acts = load_embeddings(written(tmp_path))
    batches = list(acts.batches(16))
    assert [len(batch) for batch in batches] == [16, 16, 16, 9]
    np.testing.assert_array_equal(torch.cat(batches).numpy(), X)
    batches[0].fill_(0)  # a batch is the caller's own
    np.testing.assert_array_equal(acts[:].numpy(), X)
    with pytest.raises(ValueError, match=r"batch_size.*0"):
        next(acts.batches(0))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_views_are_the_mapped_files_themselves(tmp_path, dtype):
    acts = load_embeddings(written(tmp_path, dtype=dtype))
    chunks = acts.dataset.data.column("image_embeds").chunks
    assert len(acts._views) == len(chunks) == 3
    for view, chunk in zip(acts._views, chunks, strict=True):
        assert view.dtype == dtype
        assert view.ctypes.data == chunk.flatten().buffers()[1].address
        assert not view.flags.owndata and not view.flags.writeable


def test_arrays_and_npy_files_are_not_copied(tmp_path):
    assert np.shares_memory(load_embeddings(X)._views[0], X)
    tensor = torch.from_numpy(X.copy())
    assert load_embeddings(tensor)._views[0].ctypes.data == tensor.data_ptr()
    assert isinstance(load_embeddings(saved_npy(tmp_path / "x.npy", X))._views[0], np.memmap)


@pytest.mark.parametrize("save", [lambda p, x: written(p / "x", x, 20_000), lambda p, x: saved_npy(p / "x.npy", x)])
def test_pickle_opens_the_files_again_instead_of_copying_the_data(tmp_path, save):
    big = np.tile(X, (1000, 1))
    acts = load_embeddings(save(tmp_path, big))
    blob = pickle.dumps(acts)
    assert len(blob) < 20_000 < big.nbytes
    again = pickle.loads(blob)
    np.testing.assert_array_equal(again[[50_000, 5]].numpy(), big[[50_000, 5]])
    assert repr(again) == repr(acts)


def test_data_loader_with_workers(tmp_path):
    acts = load_embeddings(written(tmp_path))
    loader = DataLoader(acts, 10, shuffle=True, num_workers=2, collate_fn=EmbeddingDataset.collate)
    rows = torch.cat(list(loader))
    assert rows.shape == (57, WIDTH)
    assert sorted(rows[:, 0].tolist()) == sorted(X[:, 0].tolist())


# -- columns, splits, indices ----------------------------------------------------------------------------------------


def test_column_by_name_hook_point_or_because_it_is_the_only_one():
    two = vectors(X, text_embeds=pa.array((2 * X).tolist(), pa.list_(pa.float32())), ids=[[1, 2]] * 57)
    assert load_embeddings(two).column == "image_embeds"
    assert load_embeddings(two, hook_point="text_embeds").column == "text_embeds"
    assert load_embeddings(two, column="text_embeds", hook_point="image_embeds").column == "text_embeds"
    assert load_embeddings(vectors(X, "emb")).column == "emb"
    assert load_embeddings(X, column="image_embeds").column is None
    with pytest.raises(ValueError, match=r"no column 'vision.layers.3' .*vector columns: image_embeds, text_embeds;"):
        load_embeddings(two, hook_point="vision.layers.3")
    with pytest.raises(ValueError, match="no column 'embeds'"):
        load_embeddings(two, column="embeds")


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (["a", "b"], "string"),
        ([1.0, 2.0], "double"),
        ([[1, 2], [3, 4]], "list<.*int64"),
        ([[[[1.0]], [[2.0]]]], "list<.*list<.*list<.*float"),
        ([["a"], ["b"]], "list<.*string"),
    ],
)
def test_a_column_without_vectors_is_refused(values, what):
    data = datasets.Dataset.from_dict({"image_embeds": values})
    with pytest.raises(ValueError, match=f"column 'image_embeds' .*{what}"):
        load_embeddings(data)


def test_splits(tmp_path):
    both = datasets.DatasetDict(train=vectors(X[:40]), test=vectors(X[40:]))
    both.save_to_disk(tmp_path / "dict")
    for name, data in both.items():
        (tmp_path / "parquet" / "data").mkdir(parents=True, exist_ok=True)
        data.to_parquet(tmp_path / "parquet" / "data" / f"{name}-00000-of-00001.parquet")
    (tmp_path / "parquet" / "README.md").write_text("a card")
    for source in (both, tmp_path / "dict", tmp_path / "parquet"):
        np.testing.assert_array_equal(load_embeddings(source, split="test")[:].numpy(), X[40:])
        with pytest.raises(ValueError, match="train, test"):
            load_embeddings(source)
        with pytest.raises(ValueError, match=r"'validation'.*train, test"):
            load_embeddings(source, split="validation")
    with pytest.raises(ValueError, match="split 'train'"):
        load_embeddings(vectors(X), split="train")


@pytest.mark.parametrize("fixed", [True, False])
def test_select_shuffle_and_filter(tmp_path, fixed):
    data = vectors(X) if fixed else datasets.Dataset.from_dict({"image_embeds": X.tolist(), "label": list(range(57))})
    data.save_to_disk(tmp_path / "saved", num_shards=3)
    data = datasets.load_from_disk(str(tmp_path / "saved"))
    shuffled = data.shuffle(seed=3)
    picked = data.select([40, 3, 3, 22])
    part = data.select(range(11, 47))
    kept = data.filter(lambda row: row["image_embeds"][0] > 0)
    for subset in (shuffled, picked, part, kept, shuffled.select([5, 1, 0]), part.shuffle(seed=1)):
        expected = np.array(subset["image_embeds"][:], dtype=np.float32)
        acts = load_embeddings(subset)
        assert len(acts) == len(expected)
        np.testing.assert_allclose(acts[:].numpy(), expected, rtol=1e-6)
        np.testing.assert_allclose(torch.cat(list(acts.batches(4))).numpy(), expected, rtol=1e-6)
        backwards = np.arange(len(expected))[::-1]
        np.testing.assert_allclose(acts[backwards].numpy(), expected[::-1], rtol=1e-6)
        np.testing.assert_allclose(pickle.loads(pickle.dumps(acts))[0].numpy(), expected[0], rtol=1e-6)


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
def test_rows_that_are_kept_stay_where_they_are(tmp_path, make):
    whole, rows = load_embeddings(make(tmp_path)), np.array([0, 4, 5, 17, 20, 29])
    whole.statistics()
    kept = whole.keep(rows)
    np.testing.assert_array_equal(kept[:], whole[rows])
    assert kept.dataset is None or len(kept.dataset) == 6
    assert torch.equal(kept.statistics().mean, load_embeddings(X[rows]).statistics().mean)
    again = pickle.loads(pickle.dumps(kept.keep(np.array([1, 4]))))
    np.testing.assert_array_equal(again[:], whole[[4, 20]])


def test_provenance_survives_select_but_not_a_mix(tmp_path):
    ours = written(tmp_path / "a", metadata={"base_model_name_or_path": "a"})
    theirs = written(tmp_path / "b", metadata={"base_model_name_or_path": "b"})
    provenance = {"base_model_name_or_path": "a", "hook_point": "image_embeds"}
    ours, theirs = datasets.load_from_disk(str(ours)), datasets.load_from_disk(str(theirs))
    assert load_embeddings(ours.select([3, 1])).provenance == provenance
    assert load_embeddings(datasets.concatenate_datasets([ours, theirs])).provenance == {}
    assert load_embeddings(X).provenance == {}


def test_only_a_column_named_like_a_hook_point_says_where_it_comes_from(tmp_path):
    ours = datasets.load_from_disk(str(written(tmp_path / "a", metadata={"base_model_name_or_path": "a"})))
    for name, expected in (("text.layers.3", {"hook_point": "text.layers.3"}), ("embedding", {})):
        renamed = load_embeddings(ours.rename_column("image_embeds", name), column=name)
        assert renamed.provenance == {"base_model_name_or_path": "a", **expected}


def test_a_sample_has_rows_in_order_and_the_origin_of_all(tmp_path):
    rows = np.arange(60, dtype=np.float32).reshape(30, 2)
    with EmbeddingWriter(tmp_path / "e", {"image_embeds": 2}, metadata={"backbone": "b"}) as writer:
        writer.write({"image_embeds": rows})
    whole = load_embeddings(tmp_path / "e")
    drawn = whole.sample(12, seed=3)
    places = (drawn[:][:, 0] / 2).long()
    assert len(drawn) == 12 and (places.diff() > 0).all() and torch.equal(drawn[:], whole[places])
    assert (drawn.source, drawn.column, drawn.provenance) == (whole.source, "image_embeds", whole.provenance)
    assert not torch.equal(drawn[:], whole.sample(12, seed=4)[:]) and whole.sample(30) is whole


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_of_any_layout_are_gathered_without_copying_the_rest(tmp_path, order):

    matrix = np.asarray(np.random.default_rng(0).normal(size=(20_000, 64)).astype(np.float32), order=order)
    np.save(tmp_path / "matrix.npy", matrix)
    data, rows = load_embeddings(tmp_path / "matrix.npy"), np.arange(0, 20_000, 1000)
    tracemalloc.start()
    found = data[rows]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found.numpy(), matrix[rows])
    assert peak < matrix.nbytes / 10


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64"])
def test_indices_of_every_integer_type_are_rows(dtype):
    table = np.arange(600, dtype=np.float32).reshape(200, 3)
    order = np.random.default_rng(0).permutation(200).astype(dtype)
    assert load_embeddings(table)[order].numpy().tolist() == table[order].tolist()
    many = np.arange(2.0**16, dtype=np.float32)[:, None]  # more rows than the smaller types can count
    assert load_embeddings(many)[order].numpy().tolist() == many[order].tolist()
