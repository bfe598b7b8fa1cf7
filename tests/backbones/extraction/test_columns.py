"""Images and captions are read from columns of every Arrow type that holds them."""

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_msae._utils.images import to_rgb
from hf_msae.backbones.extraction import extract_activations
from hf_msae.backbones.extraction.rows import RowReader
from hf_msae.backbones.image_text_data import open_dataset
from hf_msae.embeddings import EmbeddingWriter, load_embeddings
from tests.backbones.extraction.data import encoded, picture

BYTES = [encoded(row) for row in range(3)]
TEXTS = ["a red star", "a blue star", "a red star"]


def struct(binary, string):
    fields = [("bytes", binary), *([("path", string)] if string else [])]
    return pa.array([{"bytes": each, "path": "a.png"} for each in BYTES], pa.struct(fields))


IMAGES = {
    "binary": pa.array(BYTES, pa.binary()),
    "large_binary": pa.array(BYTES, pa.large_binary()),
    "binary_view": pa.array(BYTES, pa.binary_view()),
    "dictionary": pa.array(BYTES, pa.binary()).dictionary_encode(),
    "struct": struct(pa.large_binary(), pa.large_string()),
    "struct of views": struct(pa.binary_view(), pa.string_view()),
    "struct without path": struct(pa.binary(), None),
}
STRINGS = {
    "string": pa.array(TEXTS),
    "large_string": pa.array(TEXTS, pa.large_string()),
    "string_view": pa.array(TEXTS, pa.string_view()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
}


def opened(table, how, tmp_path):
    if how == "memory":
        return datasets.Dataset(table)
    pq.write_table(table, tmp_path / "data.parquet")
    return open_dataset(str(tmp_path / "data.parquet"), streaming=how == "stream")


def rows_of(reader):
    return next(reader.stream(0, 3)) if reader.streams else range(3)


@pytest.mark.parametrize("how", ["memory", "parquet", "stream"])
@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind, how, tmp_path, backbone):
    reader = RowReader(opened(pa.table({"image": IMAGES[kind]}), how, tmp_path), True, None, None, None)
    reader.image_processor = backbone.image_processor
    read = reader.read(rows_of(reader))
    expected = backbone.image_processor([to_rgb(picture(row)) for row in range(3)], return_tensors="pt")
    assert read.pixels["pixel_values"].equal(expected["pixel_values"]) and not read.kept


@pytest.mark.parametrize("how", ["memory", "parquet", "stream"])
@pytest.mark.parametrize("kind", STRINGS)
def test_captions_and_paths_and_kept_columns(kind, how, tmp_path, backbone):
    data = opened(pa.table({"text": STRINGS[kind]}), how, tmp_path)
    reader = RowReader(data, False, None, "text", None)
    read = reader.read(rows_of(reader))
    assert read.texts == TEXTS and read.kept == {"text": TEXTS}
    with EmbeddingWriter(tmp_path / "out", {"text_embeds": 2}, reader.kept_features) as writer:
        writer.write({"text_embeds": np.eye(3, 2)}, read.kept)
    assert load_embeddings(tmp_path / "out").dataset["text"][:] == TEXTS


@pytest.mark.parametrize("how", ["memory", "parquet", "stream"])
def test_columns_of_paths(how, tmp_path, backbone):
    paths = [str(tmp_path / f"{row}[1].png") for row in range(3)]
    for path, each in zip(paths, BYTES, strict=True):
        with open(path, "wb") as file:
            file.write(each)
    data = opened(pa.table({"image": pa.array(paths, pa.string_view())}), how, tmp_path)
    reader = RowReader(data, True, None, None, ["image"])
    reader.image_processor = backbone.image_processor
    read = reader.read(rows_of(reader))
    assert len(read.numbers) == 3 and read.kept == {"image": paths}


@pytest.mark.parametrize(
    "kind",
    [pa.large_list(pa.float16()), pa.list_(pa.float16(), 2), pa.large_list(pa.float64()), pa.list_(pa.float32())],
)
def test_lists_of_every_kind_are_embeddings(kind, tmp_path):
    rows = np.float16([[1, 2], [3, 4], [5, 6]])
    pq.write_table(
        pa.table({"image_embeds": pa.array(list(rows.astype(kind.value_type.to_pandas_dtype())), kind)}),
        tmp_path / "e.parquet",
    )
    assert load_embeddings(tmp_path / "e.parquet")[:].tolist() == rows.tolist()


@pytest.mark.parametrize("argument", ["image_column", "text_column"])
def test_a_column_that_does_not_exist_is_refused_even_if_it_would_not_be_read(argument, backbone, tmp_path):
    data = datasets.Dataset(pa.table({"image": IMAGES["binary"], "caption": STRINGS["string"]}))
    columns = {"image_column": "image", "text_column": "caption", argument: "typo"}
    hook_point = "text_embeds" if argument == "image_column" else "image_embeds"
    with pytest.raises(ValueError, match=f"{argument} is 'typo'.*image, caption"):
        extract_activations(backbone, data, tmp_path / "out", hook_points=[hook_point], progress=False, **columns)
    assert not (tmp_path / "out").exists()
