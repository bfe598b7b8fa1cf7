"""A full disk: what is complete stays, and the message says how to continue. (Here: a limit on file sizes.)"""

import os
import resource

import numpy as np
import pytest

from hf_msae.embeddings import EmbeddingWriter, load_embeddings

ROWS = [np.full((10 ** (row // 3 + 1), 4), row, dtype=np.float32) for row in range(9)]


def write(folder):
    with EmbeddingWriter(folder, {"x": 4}, rows_per_shard=3, token_columns=["x"]) as writer:
        for row in range(writer.rows_consumed, 9):
            writer.write({"x": [ROWS[row]]})


def write_with_limit(folder, limit):
    """Write in a fork that cannot write larger files; returns the message of its error."""
    EmbeddingWriter(folder, {"x": 4}, rows_per_shard=3, token_columns=["x"])
    read, sent = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            write(folder)
        except OSError as error:
            os.write(sent, str(error).encode())
        finally:
            os._exit(0)
    os.close(sent)
    os.waitpid(pid, 0)
    with os.fdopen(read) as message:
        return message.read()


@pytest.mark.parametrize(("limit", "safe", "file"), [(20_000, 6, "data-00002"), (3000, 3, "data-00001")])
def test_what_is_complete_is_kept_and_continued(tmp_path, limit, safe, file):
    message = write_with_limit(tmp_path, limit)
    assert "no space left" in message and f"{file}.arrow" in message and f"{safe} rows" in message
    assert not list(tmp_path.glob("*.tmp"))
    with pytest.raises(ValueError, match=f"unfinished .{safe} rows"):
        load_embeddings(tmp_path)
    write(tmp_path)
    np.testing.assert_array_equal(load_embeddings(tmp_path)[:], np.concatenate(ROWS))


def test_a_writer_that_failed_takes_no_more(tmp_path):
    writer = EmbeddingWriter(tmp_path / "out", {"x": 4}, rows_per_shard=2)
    (tmp_path / "out" / "data-00000.arrow").mkdir()  # a shard cannot be renamed to it
    with pytest.raises(OSError, match="directory"):
        writer.write({"x": np.ones((2, 4), dtype=np.float32)})
    with pytest.raises(ValueError, match="is closed"):
        writer.write({"x": np.ones((2, 4), dtype=np.float32)})
