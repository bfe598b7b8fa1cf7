"""How long `hf-msae report` takes as a whole process, and how many rows it encodes.

    hf-msae extract --backbone scenes --dataset scenes:test:20000 --hook_point image_embeds --output_dir embeddings
    python benchmarks/report.py scenes-image --data embeddings
    python benchmarks/report.py scenes-image --data embeddings --before path/to/older/checkout

With `--before`, reports of the older checkout and of this one take turns. Rows are counted in a separate run of each,
because counting takes time. A row counts once for each multiplication with the encoder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_HERE = Path(__file__).parents[1]
_COUNT = """\
import sys
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_msae import MSAEModel
from hf_msae.cli import main

opened = MSAEModel.from_pretrained if Path(sys.argv[1]).exists() else MSAEModel.from_released
encoder = opened(sys.argv[1]).encoder


class Count(TorchDispatchMode):
    rows = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            left, right = args[-2:]
            if right.shape == encoder.shape and torch.equal(right, encoder):
                Count.rows += len(left)
        return function(*args, **(kwargs or {}))


with Count():
    main(["report", *sys.argv[1:]])
print("encoded", Count.rows)
"""


def report(checkout: Path, words: list[str], count: bool = False) -> tuple[float, int | None]:
    """Write a report with the code of a checkout.

    Returns:
        The seconds that the process took, and the number of rows that it encoded if `count`.
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    program = ["-c", _COUNT] if count else ["-m", "hf_msae.cli", "report"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *program, *words, "--output", str(Path(folder) / "report.html"), "--disable_tqdm"]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"the report of {checkout} failed:\n{done.stderr}")
    return seconds, int(done.stdout.split()[-1]) if count else None


def main() -> None:
    """Measure time and encoded rows, and print one line per checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="Folder or name of the MSAE, as for hf-msae report.")
    parser.add_argument("--data", required=True, type=Path, help="Folder of embeddings to report on.")
    parser.add_argument("--before", type=Path, help="Checkout of an older version to compare with.")
    parser.add_argument("--pairs", type=int, default=3, help="Number of timed reports of each version.")
    args = parser.parse_args()
    model = str(Path(args.model).resolve()) if Path(args.model).exists() else args.model
    words = [model, "--data", str(args.data.resolve())]
    checkouts = {"before": args.before.resolve()} if args.before else {}
    checkouts["this version"] = _HERE
    # These runs also fill the picture caches that the timed runs read.
    rows = {name: report(checkout, words, count=True)[1] for name, checkout in checkouts.items()}
    seconds: dict[str, list[float]] = {name: [] for name in checkouts}
    for _ in range(args.pairs):
        for name, checkout in checkouts.items():
            seconds[name].append(report(checkout, words)[0])
    for name, each in seconds.items():
        times = ", ".join(f"{value:.1f}" for value in each)
        print(f"{name}: median {statistics.median(each):.1f} s ({times}), {rows[name]:,} rows encoded")
    if args.before:
        ratios = [new / old for old, new in zip(seconds["before"], seconds["this version"], strict=True)]
        print(f"ratio within pairs: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
