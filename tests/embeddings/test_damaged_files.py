"""Files of embeddings that were edited or are something else: the file is named, or does not matter."""

import io
import zipfile

import datasets
import numpy as np
import pytest

from hf_msae.embeddings import EmbeddingWriter, load_embeddings
from tests.fuzzing import check_every_field

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    features = datasets.Features({"label": datasets.Value("string")})
    with EmbeddingWriter(tmp_path / "saved", {"image_embeds": 4}, extra_features=features) as writer:
        writer.write({"image_embeds": X}, {"label": ["a"] * 20})
    return tmp_path / "saved"


@pytest.mark.parametrize(
    ("old", "new"), [('"num_rows": 20,', '"num_rows": 21,'), ('"image_embeds": 4', '"image_embeds": 5')]
)
def test_numbers_that_the_data_do_not_have_are_refused(folder, old, new):
    file = folder / "activations.json"
    text = " ".join(file.read_text().split())
    last = text.rindex(old)  # the total, after those of the shards
    file.write_text(text[:last] + new + text[last + len(old) :])
    with pytest.raises(ValueError, match=r"activations\.json"):
        load_embeddings(folder)


@pytest.mark.parametrize("name", ["activations.json", "dataset_info.json", "state.json"])
def test_a_field_of_another_type(folder, name):
    def read():
        opened = load_embeddings(folder)
        opened.statistics()
        np.testing.assert_array_equal(opened[:], X)

    if name == "activations.json":  # false is what an unfinished extraction says
        check_every_field(folder / name, read, accepted=r"unfinished")
    else:
        check_every_field(folder / name, read)


def npy(shape="(20, 4)", dtype="'<f4'"):
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + chr(10)
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + X.tobytes()


def zipped():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.npy", npy())
    return content.getvalue()


BAD = {
    "a zip": zipped(),
    "an npz": (lambda file: (np.savez(file, X), file.getvalue())[1])(io.BytesIO()),
    "half of it": npy()[:-100],
    "more than there is": npy("(1000000000000, 4)"),
    "more than an integer": npy("(1000000000000000000000000000000, 4)"),
    "a negative shape": npy("(-20, 4)"),
    "a shape of strings": npy("('a', 4)"),
    "no shape": npy("None"),
    "objects": npy(dtype="'|O'"),
    "no dtype": npy(dtype="'word'"),
    "nested": npy("((20,), (4,))"),
    "text": b"1,2,3",
    "nothing": b"",
}


def test_a_good_array_made_the_same_way_opens(tmp_path):
    (tmp_path / "x.npy").write_bytes(npy())
    np.testing.assert_array_equal(load_embeddings(tmp_path / "x.npy")[:], X)


@pytest.mark.parametrize("name", BAD)
def test_arrays_that_are_none_are_named(tmp_path, name):
    (tmp_path / "x.npy").write_bytes(BAD[name])
    with pytest.raises(ValueError, match=r"x\.npy"):
        load_embeddings(tmp_path / "x.npy")
