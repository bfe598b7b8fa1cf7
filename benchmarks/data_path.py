"""How fast shuffled batches of embeddings come from disk, how much of a training waits for them, and in what memory.

    python benchmarks/data_path.py --folder /some/disk        # writes up to 4 GB there, and deletes it

- rate: batches of 4,096 x 768 in shuffled order as `MSAETrainer` reads them, from .npy and Arrow, float32 and float16,
  beside the floor: rows picked at random from a memory-mapped .npy. The page cache is warm.
- waiting: the share of a training's time that its steps wait for data.
- memory: anonymous memory that an epoch of reading adds, for a small file and a large one, both shuffled in windows of
  the same --memory_budget. Pages of the file that the system caches do not count.
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
    """Random embeddings as .npy, in pieces."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(rows, WIDTH))
    rng = np.random.default_rng(0)
    for start in range(0, rows, 65536):
        stop = min(rows, start + 65536)
        out[start:stop] = rng.standard_normal((stop - start, WIDTH), dtype=np.float32)
    out.flush()
    return path


def as_arrow(npy: Path, folder: Path) -> Path:
    """The same as a data set folder."""
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
        "| stored as | rows/s, random rows of a memory map | rows/s, shuffled batches | ratio |\n|---|---:|---:|---:|"
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
    print(f"\nTraining ({BATCH}, {WIDTH}, {8 * WIDTH}): {result.data_wait:.2%} of the time waiting for data, ", end="")
    print(f"{result.samples_per_second:,.0f} rows/s over {result.global_step} steps")


def anonymous_memory() -> float:
    """MB of this process that are no cached pages of files."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1e3


def read_epoch(path: Path, budget: float, answers) -> None:
    PartialState()  # which warnings are logged by
    data = load_embeddings(path)
    plan = BatchPlan(len(data), BATCH, window_rows=shuffle_window(data, budget))
    before, peak = anonymous_memory(), 0.0
    for _ in plan.loader(data, 0):
        peak = max(peak, anonymous_memory())
    answers.put((plan.window_rows, peak - before))


def memory(folder: Path, sizes: list[float], budget: float) -> None:
    print(f"\n| file | window of a budget of {budget} GB | anonymous memory added |\n|---|---:|---:|")
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
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the rate measurement")
    parser.add_argument("--rounds", type=int, default=3, help="epochs to time")
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.2, 4.0], help="GB of the memory measurement")
    parser.add_argument("--memory_budget", type=float, default=0.1, help="GB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        rates(Path(name), arguments.rows, arguments.rounds)
        waiting(Path(name))
        memory(Path(name), arguments.sizes, arguments.memory_budget)


if __name__ == "__main__":
    main()
