"""The explorer as people start it: a process of `hf-msae demo`, reached by its port alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Served:
    """A running explorer.

    Attributes:
        url: where it listens.
        pid: of its process.
        log: the file that holds all it has said.
        place: its working directory; its home and temporary folders lie in it.
        seconds: from its start until it listened.
    """

    url: str
    pid: int
    log: Path
    place: Path
    seconds: float


@contextmanager
def serving(
    place: Path, dataset: str = "scenes:test:200:7", patience: float = 180, options: Sequence[str] = ()
) -> Iterator[Served]:
    """Start it, on a port that is free, with further options, and end it afterwards."""
    log = place / "log.txt"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "GRADIO_TEMP_DIR": str(place / "gradio"),
        "TMPDIR": str(place / "tmp"),
        "HF_HUB_OFFLINE": "1",
    }
    (place / "tmp").mkdir()
    (place / "cwd").mkdir()
    start = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "hf_msae.cli", "demo", "--dataset", dataset, "--port", "0", *options],
            cwd=place / "cwd",
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            if process.poll() is not None or time.perf_counter() - start > patience:
                raise RuntimeError(f"the explorer did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield Served(found[0], process.pid, log, place, time.perf_counter() - start)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
