"""Killed with SIGKILL at random moments, again and again: no row is lost, doubled or out of order."""

import json
import os
import random
import subprocess
import sys
import time

import datasets
import numpy as np
import psutil
import pytest

from hf_msae.embeddings import load_embeddings, verify_embeddings
from tests.backbones.extraction.test_extraction import TORCHRUN, TRAINING, labelled

ROWS, KILLS = 4000, 3


def start(launcher, flags, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*launcher, TRAINING / "extract_activations.py", *flags, "--output_dir", folder, "--use_cpu"]
    return subprocess.Popen(
        [sys.executable, *map(str, command), "--disable_tqdm"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def progress(folder):
    """Rows in complete shards, of the whole and of its parts."""
    if not (folder / "activations.json").exists():
        return 0
    counts = []
    for file in [folder / "activations.json", *folder.glob("part-*/activations.json")]:
        try:
            counts.append(json.loads(file.read_text())["num_rows"])
        except FileNotFoundError:  # a part that was joined meanwhile
            counts.append(0)
    return sum(counts)


def kill(process):
    """All processes of a run at once."""
    if process.poll() is not None:
        return
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue  # over already
    process.wait()


@pytest.fixture(scope="module")
def flags(folders, tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    few = labelled(40)
    data = few.select([row % 40 for row in range(ROWS)]).add_column("id", list(range(ROWS)))
    data.save_to_disk(str(place / "data"), num_shards=4)
    flags = ["--backbone", folders["SiglipModel"], "--dataset", place / "data", "--batch_size", "8"]
    return [*flags, "--rows_per_shard", "64", "--keep_columns", "id", "label"]


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """What a run that nobody kills writes."""
    folder = tmp_path_factory.mktemp("whole") / "whole"
    output = (process := start([], flags, folder)).communicate()[0]
    assert process.returncode == 0, output
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "more"),
    [([], []), ([], ["--streaming"]), (TORCHRUN, []), (TORCHRUN, ["--streaming"])],
    ids=["one process", "one process, streaming", "two processes", "two processes, streaming"],
)
def test_no_row_is_lost_doubled_or_out_of_order(flags, whole, tmp_path, launcher, more):
    seed = int(os.environ.get("KILL_DRILL_SEED", time.time_ns() % 2**32))
    print(f"KILL_DRILL_SEED={seed}")  # shown if the test fails
    rng = random.Random(seed)
    flags, folder = [*flags, *more], tmp_path / "killed"

    killed_at = []
    for target in sorted(rng.randrange(1, ROWS * 3 // 4) for _ in range(KILLS)):
        process = start(launcher, flags, folder)
        while process.poll() is None and progress(folder) < target:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        kill(process)
        killed_at.append(progress(folder))
    print(f"killed with {killed_at} rows in complete shards")
    assert killed_at == sorted(killed_at), "rows that were complete are gone"
    assert 0 < killed_at[0] < ROWS, "no kill hit the embedding"

    process = start(launcher, flags, folder)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert verify_embeddings(folder) > 2
    found, expected = (datasets.load_from_disk(str(each)) for each in (folder, whole))
    assert found["id"][:] == expected["id"][:] == list(range(ROWS))
    assert found["label"][:] == expected["label"][:]
    np.testing.assert_allclose(load_embeddings(folder)[:], load_embeddings(whole)[:], rtol=0, atol=1e-6)
    statistics = load_embeddings(folder).statistics()
    np.testing.assert_allclose(statistics.mean, load_embeddings(whole)[:].double().mean(dim=0), atol=1e-7)
    assert not list(folder.glob("part-*")) and not list(folder.glob("*.tmp"))
