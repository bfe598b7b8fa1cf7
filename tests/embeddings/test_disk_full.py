"""A disk that is full: what is complete stays, and the message says how to go on. (Here: a limit on file sizes.)"""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from hf_msae.embeddings import EmbeddingWriter, load_embeddings

PROGRAM = """
    import resource, sys
    import numpy as np
    from hf_msae.embeddings import EmbeddingWriter

    limit = int(sys.argv[2])
    with EmbeddingWriter(sys.argv[1], {"x": 4}, rows_per_shard=3, token_columns=["x"]) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        for row in range(writer.rows_consumed, 9):
            writer.write({"x": [np.full((10 ** (row // 3 + 1), 4), row, dtype=np.float32)]})
"""


def run(folder, limit):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), folder, str(limit)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def expected():
    return np.concatenate([np.full((10 ** (row // 3 + 1), 4), row, dtype=np.float32) for row in range(9)])


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "safe", "what"), [(20_000, 6, "data-00002.arrow, of 3 rows"), (3000, 3, "00001")])
def test_what_is_complete_is_kept_and_continued(tmp_path, limit, safe, what):
    done = run(tmp_path, limit)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "no space left in" in last and what in last and f"its {safe} rows in complete files are safe" in last
    assert not list(tmp_path.glob("*.tmp"))
    with pytest.raises(ValueError, match="unfinished"):
        load_embeddings(tmp_path)
    assert run(tmp_path, 10**9).returncode == 0
    np.testing.assert_array_equal(load_embeddings(tmp_path)[:], expected())


def test_a_writer_that_failed_takes_no_more(tmp_path, monkeypatch):
    writer = EmbeddingWriter(tmp_path / "out", {"x": 4}, rows_per_shard=2)
    (tmp_path / "out" / "data-00000.arrow").mkdir()  # what a shard cannot be renamed to
    with pytest.raises(OSError, match="directory"):
        writer.write({"x": np.ones((2, 4), dtype=np.float32)})
    with pytest.raises(ValueError, match="is closed"):
        writer.write({"x": np.ones((2, 4), dtype=np.float32)})
