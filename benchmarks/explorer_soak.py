"""The concept explorer over hours: whether the memory of its process levels off while visitors come and go.

    PYTHONPATH=. python benchmarks/explorer_soak.py --minutes 120

Starts `hf-msae demo` on 127.0.0.1. Visitors open sessions of their own, ask questions of all kinds with pictures and
words that nobody has sent before, a third of them invalid, and leave. The table shows the process's resident memory,
its open files and its uploads once a minute; the last line, how much the memory grew per hour in the second half.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from gradio_client import Client, handle_file
from PIL import Image

from hf_msae.explorer.tabs.bias.answer import TEXTS
from tests.explorer.serving import Served, serving

CONCEPTS = ("star", "red", "night", "circle", "blue", "snow", "small", "frame", "green", "beach")
NONE = ("", 0) * 3
QUESTIONS_PER_VISIT = 6


def ask(client: Client, chance: random.Random, folder: Path) -> Any:
    """Ask a random question; with a chance of a third, one that is refused."""
    concept, bad = chance.choice(CONCEPTS), chance.random() < 1 / 3
    path = folder / f"{chance.getrandbits(64):x}.png"
    noise = np.random.default_rng(chance.getrandbits(32)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((chance.randint(64, 1200),) * 2).save(path)
    if bad:
        path.write_bytes(path.read_bytes()[: chance.randint(0, 200)])
    words = f"{concept} {chance.getrandbits(32):x}" * (100 if bad else 1)
    wrong = "no such concept" if bad else concept
    try:
        return chance.choice(
            (
                lambda: client.predict(handle_file(path), "16", api_name="/see"),
                lambda: client.predict(handle_file(path), concept, api_name="/look_closer"),
                lambda: client.predict(handle_file(path), words, api_name="/match_words"),
                lambda: client.predict(
                    "a picture of the collection", None, "", chance.randrange(200), wrong, 1, *NONE, api_name="/search"
                ),
                lambda: client.predict(wrong, api_name="/concept"),
                lambda: client.predict(concept, False, "wrong" if bad else "name", api_name="/concepts"),
                lambda: client.predict(TEXTS, words, "" if bad else "something else", api_name="/bias"),
                lambda: client.predict(
                    handle_file(path), f"{words}, b", "as it is", concept, "multiply", 0, *("", "multiply", 1) * 3,
                    api_name="/steer",
                ),
            )
        )()  # fmt: skip
    finally:
        path.unlink()


def visit_until(end: float, served: Served, folder: Path, seed: int, count: Counter[str]) -> None:
    """Come, ask, and leave, again and again."""
    chance = random.Random(seed)
    while time.monotonic() < end:
        try:
            client = Client(served.url, verbose=False, download_files=False)
        except Exception as error:  # counted, so that one failure does not end the visits
            count[f"no session: {type(error).__name__}"] += 1
            time.sleep(1)
            continue
        for _ in range(QUESTIONS_PER_VISIT):
            try:
                ask(client, chance, folder)
                count["answered"] += 1
            except Exception as error:
                count["refused" if type(error).__name__ == "AppError" else type(error).__name__] += 1
            time.sleep(chance.random())
        client.close()


def size_of(folder: Path) -> int:
    """Return the bytes of the files below a folder. Pictures may be removed meanwhile."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                total += (Path(place) / name).stat().st_size
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120, help="Minutes for which visitors come.")
    parser.add_argument("--users", type=int, default=8, help="Number of visitors at a time.")
    parser.add_argument("--dataset", default="scenes:test:200:7", help="Pictures to show, as for hf-msae demo.")
    parser.add_argument("--limit_per_hour", type=float, default=50, help="Growth in MB per hour that is a failure.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, served_in = Path(place) / "sent", Path(place) / "served"
        folder.mkdir()
        served_in.mkdir()
        with serving(served_in, args.dataset) as served:
            process, count, sizes = psutil.Process(served.pid), Counter(), []
            start = time.monotonic()
            end = start + 60 * args.minutes
            visitors = [
                threading.Thread(target=visit_until, args=(end, served, folder, seed, count), daemon=True)
                for seed in range(args.users)
            ]
            for each in visitors:
                each.start()
            print("| minute | answered | refused | failed | memory (MB) | open files | uploads (MB) |")
            print("|---|---|---|---|---|---|---|", flush=True)
            while time.monotonic() < end:
                time.sleep(min(60, max(0.0, end - time.monotonic())))
                minute = (time.monotonic() - start) / 60
                memory = process.memory_info().rss / 2**20
                sizes.append((minute, memory))
                kept = size_of(served_in / "gradio") / 2**20
                failed = sum(count.values()) - count["answered"] - count["refused"]
                counts = f"{count['answered']} | {count['refused']} | {failed}"
                print(f"| {minute:.0f} | {counts} | {memory:.0f} | {process.num_fds()} | {kept:.0f} |", flush=True)
            for each in visitors:
                each.join(120)
        second = [each for each in sizes if each[0] > args.minutes / 2]
        growth = 60 * statistics.linear_regression(*zip(*second, strict=True)).slope
        print(f"\nIn the second half, the memory grew by {growth:.0f} MB per hour. Counted: {dict(count)}")
        if growth > args.limit_per_hour:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
