"""Rows per second of a training beside other work, against the share of the machine that it could expect.

    python benchmarks/busy_machine.py                          # 0 and 2 busy loops, 1, 2 and 4 threads
    python benchmarks/busy_machine.py --spin_counts ours default 0 1000

Beside as many busy loops as there are cores, a training with one thread per core gets half of every core, so half of
what it does alone is its fair share. Threads that have finished their part of an operation wait for the others in a
loop, and in that time take the core from them; GOMP_SPINCOUNT limits how often they look before they sleep. "ours" is
what the commands of this package set. Every training is a process of its own, since the variable is read once; the
settings take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

import pandas as pd

from hf_msae._utils.threads import fit_threads_to_cores

SHAPES = {"large": (1024, 512, 4096), "small": (256, 64, 512)}


def train(shape: tuple[int, int, int], seconds: float) -> float:
    """Return the rows per second of training steps, warmed up."""
    import torch

    from hf_msae import MSAEConfig, MSAEModel

    batch, d, n = shape
    torch.manual_seed(0)
    model, x = MSAEModel(MSAEConfig(d_in=d, num_latents=n)), torch.randn(batch, d)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, foreach=True)

    def step() -> None:
        model(x, return_loss=True, loss_only=True).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
    return steps * batch / (time.perf_counter() - start)


def measured(shape: str, threads: int, spin_count: str, loops: int, seconds: float) -> float:
    """Return the rows per second of a process with these settings beside some busy loops."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment.pop("GOMP_SPINCOUNT", None)
    if spin_count == "ours":
        fit_threads_to_cores(environment)
    elif spin_count != "default":
        environment["GOMP_SPINCOUNT"] = spin_count
    with ExitStack() as stack:
        for _ in range(loops):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
        command = [sys.executable, __file__, "--train", shape, "--seconds", str(seconds)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=SHAPES, nargs="+", default=list(SHAPES), help="Shapes of the step.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4], help="Numbers of threads.")
    parser.add_argument(
        "--spin_counts", nargs="+", default=["ours", "default", "1000"], help="Values of GOMP_SPINCOUNT."
    )
    parser.add_argument("--loops", type=int, default=os.cpu_count(), help="Busy loops beside the training.")
    parser.add_argument("--rounds", type=int, default=3, help="Number of times that each setting is measured.")
    parser.add_argument("--seconds", type=float, default=3, help="Seconds that each training is measured.")
    parser.add_argument("--train", choices=SHAPES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        print(train(SHAPES[arguments.train], arguments.seconds))
        return
    rates: dict[tuple, list[float]] = {}
    for _ in range(arguments.rounds):
        for shape in arguments.shapes:
            for threads in arguments.threads:
                for spin_count in arguments.spin_counts:
                    for loops in dict.fromkeys((0, arguments.loops)):
                        found = measured(shape, threads, spin_count, loops, arguments.seconds)
                        rates.setdefault((shape, threads, spin_count, loops), []).append(found)
                        print(f"{shape}, {threads} threads, {spin_count}, {loops} loops: {found:.0f}", file=sys.stderr)
    cores, rows = os.cpu_count(), []
    for (shape, threads, spin_count, loops), found in rates.items():
        alone = statistics.median(rates[shape, threads, spin_count, 0])
        # Of the cores, the threads get their share among all that want one.
        share = min(1.0, cores / (threads + loops)) / min(1.0, cores / threads)
        rows.append(
            {
                "shape": ", ".join(map(str, SHAPES[shape])), "threads": threads, "GOMP_SPINCOUNT": spin_count,
                "busy loops": loops, "rows/s": round(statistics.median(found)),
                "lowest to highest": f"{min(found):.0f} to {max(found):.0f}",
                "times slower than fair": f"{alone * share / statistics.median(found):.2f}" if loops else "",
            }
        )  # fmt: skip
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
