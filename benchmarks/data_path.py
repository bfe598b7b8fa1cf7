"""How fast shuffled batches of embeddings are read from disk, how long training waits for them, and the memory used.

    python benchmarks/data_path.py --folder /some/disk        # writes up to 4 GB there, and deletes it

- Rate: batches of 4,096 x 768 in shuffled order as `MSAETrainer` reads them, from .npy and Arrow files in float32 and
  float16, compared with picking rows at random from a memory-mapped .npy. The page cache is warm.
- Waiting: the share of training time that is spent waiting for data.
- Memory: the anonymous memory that an epoch of reading adds, for a small and a large file, both shuffled in windows
  for the same --memory_budget. Cached pages of the file do not count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from accelerate import PartialState

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae.embeddings import load_embeddings
from hf_msae.training.batching import BatchPlan, shuffle_window

WIDTH, BATCH = 768, 4096


def write(path: Path, rows: int, dtype: str) -> Path:
    """Write random embeddings to a .npy file, piece by piece."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(rows, WIDTH))
    rng = np.random.default_rng(0)
    for start in range(0, rows, 65536):
        stop = min(rows, start + 65536)
        out[start:stop] = rng.standard_normal((stop - start, WIDTH), dtype=np.float32)
    out.flush()
    return path


def as_arrow(npy: Path, folder: Path) -> Path:
    """Write the embeddings of a .npy file to a dataset folder."""
    matrix = np.load(npy, mmap_mode="r")
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(matrix).reshape(-1)), WIDTH)
    datasets.Dataset(pa.table({"image_embeds": values})).save_to_disk(str(folder))
    return folder


def seconds_per_epoch(batches) -> float:
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start


def rates(folder: Path, rows: int, rounds: int) -> None:
    print(
        "| stored as | random rows of a memory map (rows/s) | shuffled batches (rows/s) | shuffled / random |\n"
        "|---|---:|---:|---:|"
    )
    for dtype in ("float32", "float16"):
        npy = write(folder / f"{dtype}.npy", rows, dtype)
        mapped = np.load(npy, mmap_mode="r")
        for source in (npy, as_arrow(npy, folder / f"{dtype}-arrow")):
            data = load_embeddings(source)
            floor, ours = [], []
            for epoch in range(rounds + 1):
                plan = BatchPlan(rows, BATCH)
                order = np.random.default_rng(epoch).permutation(rows)[: plan.steps_per_epoch * BATCH]
                floor.append(seconds_per_epoch(mapped[part] for part in order.reshape(-1, BATCH)))
                ours.append(seconds_per_epoch(plan.loader(data, epoch)))
            rate = [len(order) / statistics.median(times[1:]) for times in (floor, ours)]
            kind = f"{'Arrow' if source.is_dir() else '.npy'}, {dtype}"
            print(f"| {kind} | {rate[0]:,.0f} | {rate[1]:,.0f} | {rate[1] / rate[0]:.2f} |", flush=True)


def waiting(folder: Path) -> None:
    trainer = MSAETrainer(
        MSAEModel(MSAEConfig(d_in=WIDTH, num_latents=8 * WIDTH)),
        MSAETrainingArguments(
            str(folder / "run"),
            per_device_train_batch_size=BATCH,
            max_steps=8,
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        ),
        load_embeddings(folder / "float32.npy"),
    )
    result = trainer.train()
    print(
        f"\nTraining ({BATCH}, {WIDTH}, {8 * WIDTH}): {result.data_wait:.2%} of the time spent waiting for data, "
        f"{result.samples_per_second:,.0f} rows/s over {result.global_step} steps"
    )


def anonymous_memory() -> float:
    """MB of this process that are not cached pages of files."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1e3


def read_epoch(path: Path, budget: float, answers) -> None:
    PartialState()  # accelerate's logger needs it
    data = load_embeddings(path)
    plan = BatchPlan(len(data), BATCH, window_rows=shuffle_window(data, budget))
    before, peak = anonymous_memory(), 0.0
    for _ in plan.loader(data, 0):
        peak = max(peak, anonymous_memory())
    answers.put((plan.window_rows, peak - before))


def memory(folder: Path, sizes: list[float], budget: float) -> None:
    print(f"\n| file size | shuffle window for a budget of {budget} GB | anonymous memory added |\n|---|---:|---:|")
    context = multiprocessing.get_context("spawn")
    for size in sizes:
        path = write(folder / "memory.npy", int(size * 1e9 / WIDTH / 4), "float32")
        answers = context.Queue()
        process = context.Process(target=read_epoch, args=(path, budget, answers))
        process.start()
        window, added = answers.get()
        process.join()
        print(f"| {size} GB | {window:,} rows | {added:.0f} MB |", flush=True)
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="Folder to write to. Defaults to a temporary folder.")
    parser.add_argument("--rows", type=int, default=200_000, help="Number of rows for measuring the rate.")
    parser.add_argument("--rounds", type=int, default=3, help="Number of epochs to time.")
    parser.add_argument(
        "--sizes", type=float, nargs="+", default=[0.2, 4.0], help="File sizes in GB for measuring memory."
    )
    parser.add_argument("--memory_budget", type=float, default=0.1, help="Memory budget for shuffling in GB.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        rates(Path(name), arguments.rows, arguments.rounds)
        waiting(Path(name))
        memory(Path(name), arguments.sizes, arguments.memory_budget)


if __name__ == "__main__":
    main()
