"""Killed with SIGKILL at random moments, again and again: no row is lost, doubled or out of order."""

import json
import os
import random
import signal
import time

import datasets
import numpy as np
import pytest

from hf_msae.backbones.extraction import extract_activations
from hf_msae.backbones.image_text_data import open_dataset
from hf_msae.embeddings import load_embeddings, verify_embeddings
from tests.backbones.extraction.data import exit_code, fork, ids, in_one_process, in_two_processes, numbered

ROWS, KILLS = 1600, 3
SETTINGS = {"batch_size": 8, "rows_per_shard": 32, "progress": False}


def progress(folder):
    """Rows in complete shards, of the whole and of its parts."""
    counts = [0]
    for file in [folder / "activations.json", *folder.glob("part-*/activations.json")]:
        try:
            counts.append(json.loads(file.read_text())["num_rows"])
        except FileNotFoundError:  # not there yet, or a part that was joined meanwhile
            counts.append(0)
    return min(sum(counts), ROWS)  # parts that are joined already count twice until they are deleted


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "data"
    rows = numbered(40).add_column("label", [f"label {row}" for row in range(40)])
    rows = rows.select([row % 40 for row in range(ROWS)]).remove_columns("id")
    rows.add_column("id", list(range(ROWS))).save_to_disk(str(folder), num_shards=4)
    return str(folder)


@pytest.fixture(scope="module")
def whole(backbone, data, tmp_path_factory):
    """What a run that nobody kills writes."""
    return extract_activations(backbone, open_dataset(data), tmp_path_factory.mktemp("whole"), **SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True], ids=["data set", "stream"])
@pytest.mark.parametrize("run", [in_one_process, in_two_processes])
def test_no_row_is_lost_doubled_or_out_of_order(folders, data, whole, tmp_path, one_thread, run, streaming):
    seed = int(os.environ.get("KILL_DRILL_SEED", time.time_ns() % 2**32))
    print(f"KILL_DRILL_SEED={seed}")  # shown if the test fails
    rng = random.Random(seed)
    folder = tmp_path / "killed"

    def start():
        return fork(run, folders["SiglipModel"], open_dataset(data, streaming=streaming), folder, **SETTINGS)

    killed_at = []
    for target in sorted(rng.randrange(1, ROWS * 3 // 4) for _ in range(KILLS)):
        process = start()
        while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and progress(folder) < target:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        killed_at.append(progress(folder))
    print(f"killed with {killed_at} rows in complete shards")
    assert killed_at == sorted(killed_at), "rows that were complete are gone"
    assert 0 < killed_at[0] < ROWS, "no kill hit the embedding"

    assert exit_code(start()) == 0
    assert verify_embeddings(folder) > 2
    assert ids(folder) == list(range(ROWS))
    found, expected = load_embeddings(folder), load_embeddings(whole)
    np.testing.assert_allclose(found[:], expected[:], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.statistics().mean, expected[:].double().mean(dim=0), atol=1e-7)
    found, expected = (datasets.load_from_disk(str(each)) for each in (folder, whole))
    assert found.column_names == expected.column_names
    assert found["label"][:] == expected["label"][:] == [f"label {row % 40}" for row in range(ROWS)]
    assert not list(folder.glob("part-*")) and not list(folder.glob("*.tmp"))
