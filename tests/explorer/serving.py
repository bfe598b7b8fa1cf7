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
DEMO = ("-m", "hf_msae.cli", "demo")
QUIET_DEMO = (
    "-c",
    # One column is explained ahead: more would compete with the tests for the processor.
    "from hf_msae.explorer.tabs.bias import answer; answer.KEPT = 1; from hf_msae.cli.demo import main; main()",
)


@dataclass(frozen=True)
class Served:
    """A running explorer.

    Attributes:
        url: Where it listens.
        pid: Its process.
        log: The file with all it has printed.
        place: A folder with its working directory and its temporary folders.
        seconds: Seconds from its start until it listened.
    """

    url: str
    pid: int
    log: Path
    place: Path
    seconds: float


@contextmanager
def serving(
    place: Path, dataset: str, *options: str, program: Sequence[str] = DEMO, patience: float = 180
) -> Iterator[Served]:
    """Start it on a free port, with further options, and end it afterwards."""
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
            [sys.executable, *program, "--dataset", dataset, "--port", "0", *options],
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
