"""Streams, among them webdataset's tar files: the rows of the data set that is not streamed, also after a stop."""

import io
import json
import tarfile

import datasets
import numpy as np
import pytest

from hf_msae.backbones.extraction import extract_activations
from hf_msae.backbones.extraction.rows import RowReader
from hf_msae.backbones.image_text_data import open_dataset
from hf_msae.embeddings import load_embeddings
from hf_msae.embeddings.metadata import EmbeddingMetadata
from tests.backbones.extraction.data import encoded, ids, in_two_processes, labelled, numbered

SIZES = (7, 4, 6)
BOTH = {"text_column": "txt", "hook_points": ("image_embeds", "text_embeds"), "progress": False}


@pytest.fixture
def shards(tmp_path):
    """Tar files in webdataset's format."""
    row = 0
    for number, size in enumerate(SIZES):
        with tarfile.open(tmp_path / f"shard-{number}.tar", "w") as tar:
            for _ in range(size):
                files = {"png": encoded(row), "txt": f"a red circle {row}".encode()}
                files["json"] = json.dumps({"id": row}).encode()
                for ending, content in files.items():
                    entry = tarfile.TarInfo(f"{row:04d}.{ending}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
                row += 1
    return str(tmp_path / "shard-*.tar")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_of_tar_files_gives_what_they_hold(backbone, shards, tmp_path, num_workers):
    stream = open_dataset(shards, streaming=True)
    assert stream.num_shards == 3 and isinstance(stream, datasets.IterableDataset)
    extract_activations(backbone, stream, tmp_path / "s", batch_size=5, num_workers=num_workers, **BOTH)
    extract_activations(backbone, open_dataset(shards), tmp_path / "m", batch_size=5, **BOTH)
    saved = datasets.load_from_disk(str(tmp_path / "s"))
    assert saved["__key__"][:] == [f"{row:04d}" for row in range(sum(SIZES))]
    assert saved["txt"][:] == [f"a red circle {row}" for row in range(sum(SIZES))]
    for point in ("image_embeds", "text_embeds"):
        np.testing.assert_array_equal(
            load_embeddings(tmp_path / "s", point)[:], load_embeddings(tmp_path / "m", point)[:]
        )
    assert load_embeddings(tmp_path / "s").provenance["image_column"] == "png", "the only column of images"


class Stopped(Exception):
    pass


@pytest.mark.parametrize("kind", ["tar", "parquet", "saved", "csv"])
def test_a_stopped_stream_continues_where_it_was(backbone, shards, tmp_path, kind, monkeypatch):
    data = labelled(sum(SIZES)).select_columns(["image", "caption", "label"])
    names = [str(tmp_path / f"{row}.png") for row in range(sum(SIZES))]
    if kind == "parquet":
        (tmp_path / "data").mkdir()
        for part in range(3):
            data.shard(3, part, contiguous=True).to_parquet(tmp_path / "data" / f"{part}.parquet")
    elif kind == "saved":
        data.save_to_disk(tmp_path / "data")
    elif kind == "csv":  # the features of such a stream are not known before it is read
        for row, name in enumerate(names):
            with open(name, "wb") as file:
                file.write(encoded(row))
        datasets.Dataset.from_dict({"image": names, "txt": data["caption"][:]}).to_csv(tmp_path / "t.csv")

    def stream():
        if kind == "csv":
            return datasets.load_dataset("csv", data_files=str(tmp_path / "t.csv"), split="train", streaming=True)
        return open_dataset(shards if kind == "tar" else str(tmp_path / "data"), streaming=True)

    settings = {"batch_size": 2, "rows_per_shard": 4, "progress": False}
    extract_activations(backbone, stream(), tmp_path / "whole", **settings)
    whole = datasets.load_from_disk(str(tmp_path / "whole"))
    expected = {"tar": ["txt", "__key__", "__url__"], "csv": ["image", "txt"]}.get(kind, ["caption", "label"])
    assert whole.column_names[1:] == expected
    assert kind != "csv" or whole["image"][:] == names
    read, original = [], backbone.embed_pixels

    def stopping(pixels):
        read.append(len(pixels["pixel_values"]))
        if len(read) == 6:
            raise Stopped
        return original(pixels)

    monkeypatch.setattr(backbone, "embed_pixels", stopping)
    with pytest.raises(Stopped):
        extract_activations(backbone, stream(), tmp_path / "out", **settings)
    written = EmbeddingMetadata.load(tmp_path / "out")
    assert written.rows_consumed == 10 and written.position is not None and not written.complete
    extract_activations(backbone, stream(), tmp_path / "out", **settings)
    assert sum(read[6:]) == sum(SIZES) - 10, "no row twice"
    np.testing.assert_array_equal(load_embeddings(tmp_path / "out")[:], load_embeddings(tmp_path / "whole")[:])


def test_a_stream_without_a_position_is_read_from_its_start(backbone, shards, tmp_path):
    settings = {"batch_size": 2, "rows_per_shard": 4, "progress": False}
    out = extract_activations(backbone, open_dataset(shards, streaming=True), tmp_path / "out", **settings)
    expected = load_embeddings(out)[:]
    (out / EmbeddingMetadata.load(out).shards[2].file).unlink()
    extract_activations(backbone, open_dataset(shards, streaming=True), out, **settings)
    np.testing.assert_array_equal(load_embeddings(out)[:], expected)


def test_a_stream_that_breaks_off_says_where(backbone, shards, tmp_path):
    file = tmp_path / "shard-1.tar"
    file.write_bytes(file.read_bytes()[:3500])  # in the middle of a file
    with pytest.raises(ValueError, match=r"row \d+: ReadError"):
        extract_activations(
            backbone, open_dataset(shards, streaming=True), tmp_path / "out", batch_size=2, progress=False
        )


def test_opening(shards, tmp_path):
    assert open_dataset(shards).num_rows == sum(SIZES)
    assert open_dataset(str(tmp_path / "shard-1.tar")).num_rows == SIZES[1]
    assert open_dataset(str(tmp_path), streaming=True).num_shards == 3
    (tmp_path / "wrong.tar").write_text("no archive")
    for streaming in (True, False):
        with pytest.raises(ValueError, match=r"wrong\.tar"):
            open_dataset(str(tmp_path / "wrong.tar"), streaming=streaming)
    with pytest.raises(FileNotFoundError, match=r"nothing-\*.tar"):
        open_dataset(str(tmp_path / "nothing-*.tar"))
    with pytest.raises(ValueError, match=r"scenes:train:10.*streaming"):
        open_dataset("scenes:train:10", streaming=True)
    datasets.DatasetDict(a=labelled(3), b=labelled(2)).save_to_disk(str(tmp_path / "both"))
    assert len(list(open_dataset(str(tmp_path / "both"), "b", streaming=True))) == 2


@pytest.mark.slow
def test_two_processes_share_the_files(folders, backbone, shards, tmp_path, one_thread):
    stream = open_dataset(shards, streaming=True)
    in_two_processes(folders["SiglipModel"], stream, tmp_path / "two", batch_size=2, progress=False)
    extract_activations(backbone, open_dataset(shards), tmp_path / "one", batch_size=2, progress=False)
    assert datasets.load_from_disk(str(tmp_path / "two"))["__key__"][:] == [f"{row:04d}" for row in range(sum(SIZES))]
    np.testing.assert_allclose(load_embeddings(tmp_path / "two")[:], load_embeddings(tmp_path / "one")[:], atol=1e-5)


@pytest.mark.parametrize("on_unreadable", ["raise", "skip"])
def test_filtered_and_mapped_streams(backbone, tmp_path, on_unreadable):
    stream = numbered().to_iterable_dataset(4)
    kept = [row for row in range(40) if row % 3]
    settings = {"batch_size": 5, "progress": False, "on_unreadable": on_unreadable}
    extract_activations(backbone, stream.filter(lambda row: row["id"] % 3 != 0), tmp_path / "f", **settings)
    mapped = stream.map(lambda row: {**row, "id": -row["id"]}, features=stream.features)
    extract_activations(backbone, mapped, tmp_path / "m", **settings)
    assert ids(tmp_path / "f") == kept and ids(tmp_path / "m") == [-row for row in range(40)]
    extract_activations(backbone, numbered(), tmp_path / "whole", batch_size=5, progress=False)
    whole = load_embeddings(tmp_path / "whole")[:]
    np.testing.assert_allclose(load_embeddings(tmp_path / "f")[:], whole[kept], atol=1e-5)
    np.testing.assert_allclose(load_embeddings(tmp_path / "m")[:], whole, atol=1e-5)
    with pytest.raises(ValueError, match=r"features=.*map\(\)"):
        extract_activations(backbone, stream.map(lambda row: row), tmp_path / "u", **settings)


def test_a_damaged_image_in_a_filtered_stream_says_what_to_do(backbone, tmp_path):
    stream = numbered(10, bad=[7]).to_iterable_dataset(2)
    settings = {"on_unreadable": "skip", "progress": False}
    with pytest.raises(ValueError, match=r"row \d+: .*decode\(False\)"):
        extract_activations(backbone, stream.filter(lambda row: True), tmp_path / "a", **settings)
    extract_activations(backbone, stream.decode(False).filter(lambda row: True), tmp_path / "b", **settings)
    assert ids(tmp_path / "b") == [row for row in range(10) if row != 7]


def test_shuffled_streams_are_refused(backbone, tmp_path):
    with pytest.raises(ValueError, match=r"shuffle\(\)"):
        extract_activations(backbone, numbered().to_iterable_dataset(4).shuffle(seed=1), tmp_path, progress=False)


def test_a_stream_that_has_changed_is_not_continued(backbone, shards, tmp_path):
    def extract(stream, name, **settings):
        extract_activations(backbone, stream, tmp_path / name, progress=False, **settings)

    extract(open_dataset(shards, streaming=True), "tar")
    extract(open_dataset(shards, streaming=True), "tar")
    (tmp_path / "shard-0a.tar").write_bytes((tmp_path / "shard-0.tar").read_bytes())
    with pytest.raises(ValueError, match="dataset_fingerprint"):
        extract(open_dataset(shards, streaming=True), "tar")
    extract(numbered().to_iterable_dataset(4), "n")
    for other in (numbered().select(range(39, -1, -1)), numbered(41)):
        with pytest.raises(ValueError, match="dataset_fingerprint"):
            extract(other.to_iterable_dataset(4), "n")


def test_parts_of_a_stream_are_its_rows_in_order():
    stream = numbered().to_iterable_dataset(4)

    def reader(stream):
        return RowReader(stream, True, None, None, None)

    parts = [reader(stream).part(index, 3) for index in range(3)]
    assert [row for part in parts for stored in part.stream(0, 7) for row in stored.values["id"]] == list(range(40))
    with pytest.raises(ValueError, match=r"4 files.*5 processes"):
        reader(stream).part(0, 5)
    for changed in (stream.take(20), stream.skip(3), datasets.interleave_datasets([stream, stream]), stream.repeat(2)):
        with pytest.raises(ValueError, match="2 processes"):
            reader(changed).part(0, 2)


def test_messages_number_the_rows_of_a_part(backbone):
    part = RowReader(numbered(20, bad=[17]).to_iterable_dataset(4), True, "image", None, None).part(1, 2)
    part.image_processor = backbone.image_processor
    with pytest.raises(ValueError, match="row 7 of part 2 of 2 of column 'image'"):
        for stored in part.stream(0, 5):
            part.read(stored)
