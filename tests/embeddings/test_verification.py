"""Shards are compared with their checksums when they are first opened, and remembered."""

import os

import numpy as np
import pytest

from hf_msae.embeddings import EmbeddingWriter, load_embeddings, verification
from hf_msae.training.flags import DataArguments

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MSAE_CACHE", str(tmp_path / "cache"))
    with EmbeddingWriter(tmp_path / "saved", {"image_embeds": 4}, rows_per_shard=10) as writer:
        writer.write({"image_embeds": X})
    return tmp_path / "saved"


@pytest.fixture
def read(monkeypatch):
    """Names of the files whose checksum was computed."""
    names, compute = [], verification.sha256_of
    monkeypatch.setattr(verification, "sha256_of", lambda path: (names.append(path.name), compute(path))[1])
    return names


def flip_a_byte(shard):
    content = bytearray(shard.read_bytes())
    place = content.find(X[15].tobytes())
    assert place > 0
    content[place] ^= 1
    shard.write_bytes(content)


def test_every_shard_is_read_once(folder, read):
    load_embeddings(folder)
    assert sorted(read) == ["data-00000.arrow", "data-00001.arrow"]
    load_embeddings(folder)
    assert len(read) == 2
    os.utime(folder / "data-00001.arrow", ns=(1, 1))
    load_embeddings(folder)
    assert read[2:] == ["data-00001.arrow"]
    assert verification.verify_embeddings(folder) == 2
    assert sorted(read[3:5]) == ["data-00000.arrow", "data-00001.arrow"]


def test_a_changed_byte_is_refused_by_the_name_of_its_file(folder):
    load_embeddings(folder)
    flip_a_byte(folder / "data-00001.arrow")
    for _ in range(2):  # it is not remembered as whole
        with pytest.raises(ValueError, match=r"data-00001\.arrow has changed.*--no_verify"):
            load_embeddings(folder)
    opened = load_embeddings(folder, verify=False)[:].numpy()
    assert np.flatnonzero((opened != X).any(axis=1)).tolist() == [15]


@pytest.mark.parametrize("notes", [b"", b"[]", b"{", b'{"data-00000.arrow": 3}', b"\xff"])
def test_a_damaged_memory_is_not_believed(folder, read, notes):
    load_embeddings(folder)
    (file,) = (folder.parent / "cache" / "checksums").iterdir()
    file.write_bytes(notes)
    load_embeddings(folder)
    assert len(read) == 4


def test_a_cache_that_cannot_be_written_to(folder, monkeypatch):
    (folder.parent / "file").touch()
    monkeypatch.setenv("HF_MSAE_CACHE", str(folder.parent / "file"))
    assert len(load_embeddings(folder)) == 20


def test_the_flag():
    from hf_msae._utils.argument_parser import MSAEArgumentParser

    parser = MSAEArgumentParser([DataArguments], "", "")
    assert parser.parse(["--train_data", "x"])[0].verify is True
    assert parser.parse(["--train_data", "x", "--no_verify"])[0].verify is False
