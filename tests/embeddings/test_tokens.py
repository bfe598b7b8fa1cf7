"""Columns with several embeddings a row: written, read without copies, and assigned to their rows."""

import pickle

import datasets
import numpy as np
import pytest
import torch

from hf_msae.embeddings import EmbeddingWriter, load_embeddings
from hf_msae.metrics.label_columns import column_labels

COUNTS = [3, 1, 4, 1, 5, 2, 6, 5, 3, 5]
POINT = "vision.layers.1"


def tokens(row):
    return np.random.default_rng(row).normal(size=(COUNTS[row], 4)).astype(np.float32)


def write(folder, dtype="float32", rows=range(10), **settings):
    settings = {"rows_per_shard": 4, "token_columns": [POINT], **settings}
    features = datasets.Features({"label": datasets.Value("int64")})
    with EmbeddingWriter(folder, {"image_embeds": 2, POINT: 4}, features, dtype, **settings) as writer:
        for row in rows:
            pooled = np.full((1, 2), row, dtype=np.float32)
            writer.write({"image_embeds": pooled, POINT: [torch.from_numpy(tokens(row))]}, {"label": [row % 3]})
    return folder


EXPECTED = np.concatenate([tokens(row) for row in range(10)])
ROWS = np.repeat(np.arange(10), COUNTS)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tokens_count_one_by_one_and_know_their_row(tmp_path, dtype):
    data = load_embeddings(write(tmp_path, dtype), hook_point=POINT)
    assert len(data) == sum(COUNTS) and data.width == 4 and data.has_tokens
    np.testing.assert_array_equal(data[:], EXPECTED.astype(dtype))
    np.testing.assert_array_equal(torch.cat(list(data.batches(7))), EXPECTED.astype(dtype))
    chosen = np.random.default_rng(0).permutation(len(data))
    np.testing.assert_array_equal(data[chosen], EXPECTED.astype(dtype)[chosen])
    np.testing.assert_array_equal(data.dataset_rows(), ROWS)
    np.testing.assert_array_equal(data.dataset_rows(chosen), ROWS[chosen])
    assert data.statistics().mean.numpy() == pytest.approx(EXPECTED.astype(dtype).astype(float).mean(axis=0))
    pooled = load_embeddings(tmp_path)
    assert len(pooled) == 10 and not pooled.has_tokens and pooled.dataset_rows([4]).tolist() == [4]
    assert datasets.load_from_disk(str(tmp_path))[6][POINT] == tokens(6).astype(dtype).astype(float).tolist()
    assert data.provenance.get("hook_point") in (None, POINT)


def test_the_views_are_the_mapped_files_themselves(tmp_path):
    data = load_embeddings(write(tmp_path), hook_point=POINT)
    assert not any(view.flags.owndata or view.flags.writeable for view in data._views)
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again[:], EXPECTED)
    np.testing.assert_array_equal(again.dataset_rows(), ROWS)


def test_chosen_rows_bring_their_tokens(tmp_path):
    dataset = datasets.load_from_disk(str(write(tmp_path)))
    order = [7, 2, 2, 0, 9]
    data = load_embeddings(dataset.select(order), hook_point=POINT)
    np.testing.assert_array_equal(data[:], np.concatenate([tokens(row) for row in order]))
    np.testing.assert_array_equal(data.dataset_rows(), np.repeat(np.arange(5), [COUNTS[row] for row in order]))
    assert data.location(5 + 4) == f" (in {tmp_path / 'data-00000.arrow'})"
    assert data.location(len(data) - 1) == f" (in {tmp_path / 'data-00002.arrow'})"


def test_tokens_that_are_kept_know_their_row(tmp_path):
    data, rows = load_embeddings(write(tmp_path), hook_point=POINT), np.array([2, 3, 8, 9, 34])
    kept = data.keep(rows)
    np.testing.assert_array_equal(kept[:], EXPECTED[rows])
    np.testing.assert_array_equal(kept.dataset_rows(), ROWS[rows])
    assert column_labels(kept, "label")[0].tolist() == (ROWS[rows] % 3).tolist()
    np.testing.assert_array_equal(kept.keep(np.array([1, 4])).dataset_rows(), ROWS[[3, 34]])


def test_tokens_have_the_label_of_their_row(tmp_path):
    data = load_embeddings(write(tmp_path), hook_point=POINT)
    labels, classes = column_labels(data, "label")
    assert labels.tolist() == (ROWS % 3).tolist() and classes == ("0", "1", "2")


@pytest.mark.parametrize("kind", ["nested lists", "matrices"])
def test_tokens_of_other_data_sets(kind):
    rows = [tokens(row).tolist() for row in (0, 2, 1)]
    rows = rows if kind == "nested lists" else [tokens(row).tolist()[:1] * 3 for row in (0, 2, 1)]
    data = load_embeddings(datasets.Dataset.from_dict({"tokens": rows}))
    np.testing.assert_allclose(data[:], np.concatenate([np.asarray(each) for each in rows]), rtol=1e-6)


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"token_columns.*'x'"):
        EmbeddingWriter(tmp_path, {POINT: 4}, token_columns=["x"])
    writer = EmbeddingWriter(tmp_path / "a", {POINT: 4}, token_columns=[POINT])
    writer.write({POINT: [tokens(0), tokens(2)]})
    bad = tokens(4)
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match=f"row 3 of {POINT}.*NaN"):
        writer.write({POINT: [tokens(1), bad]})
    for wrong in (tokens(1)[0], tokens(1)[:0]):
        with pytest.raises(ValueError, match=r"row 3 of vision.layers.1 .*\(tokens, width\)"):
            writer.write({POINT: [tokens(1), wrong]})
    with pytest.raises(ValueError, match=r"vision.layers.1 .*4\).*\(1, 3\)"):
        writer.write({POINT: [tokens(1)[:, :3]]})
    ragged = datasets.Dataset.from_dict({"x": [[[1.0, 2.0]], [[3.0, 4.0], [5.0]]]})
    with pytest.raises(ValueError, match=r"token 2 of column 'x'.* 1 .* 2"):
        load_embeddings(ragged)
