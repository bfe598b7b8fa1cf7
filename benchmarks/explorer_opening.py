"""Opening the concept explorer on many pictures: time, processor time and memory until it answers, and first clicks.

    PYTHONPATH=. python benchmarks/explorer_opening.py --folder collection

Makes a collection in a folder, unless it is there: pictures as parquet files and as a folder of files, and embeddings
of both, as a user would have extracted them. Then `hf-msae demo` opens each as often as asked, with all caches inside
the folder. Without them, the first time is one in which nothing has been converted or indexed yet.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
import urllib.request
import zlib
from pathlib import Path

import datasets
import numpy as np
import psutil
import torch
from explorer_load import CHROMIUM
from playwright.sync_api import sync_playwright

from hf_msae import VisionTextMSAE
from hf_msae.embeddings import EmbeddingWriter
from hf_msae.scenes import load_scenes
from tests.explorer.browsing import choose, open_tab
from tests.explorer.serving import serving

DISTINCT = 2_000
"""Scenes that are rendered and embedded; the other pictures have the same pixels and other bytes."""
ROWS_PER_FILE = 10_000
CONCEPT = "beach"
TIMEOUT = 600


def variant(picture: bytes, number: int) -> bytes:
    """The same picture in a file with other bytes: a comment in front of the last chunk of the PNG file."""
    comment = b"tEXtComment\0%d" % number
    chunk = (len(comment) - 4).to_bytes(4, "big") + comment + zlib.crc32(comment).to_bytes(4, "big")
    return picture[:-12] + chunk + picture[-12:]


def make_collection(folder: Path, rows: int) -> None:
    """Write pictures as parquet files and as files in a folder for each of two classes, and embeddings of both."""
    scenes = load_scenes("test", min(DISTINCT, rows), 7)
    stored = [row["bytes"] for row in scenes.cast_column("image", datasets.Image(decode=False))["image"]]
    model = VisionTextMSAE.from_pretrained("scenes-image")
    embeddings = model.image_embeds(scenes["image"][:], progress=False).float().cpu()
    of_scene = np.arange(rows) % len(scenes)

    (folder / "parquet").mkdir(parents=True)
    features = datasets.Features({"image": datasets.Image(decode=False)})
    for number, first in enumerate(range(0, rows, ROWS_PER_FILE)):
        chosen = np.arange(first, min(first + ROWS_PER_FILE, rows))
        images = [{"bytes": variant(stored[of_scene[row]], row), "path": None} for row in chosen]
        others = scenes.remove_columns("image").select(of_scene[chosen]).flatten_indices()
        part = datasets.concatenate_datasets([datasets.Dataset.from_dict({"image": images}, features), others], axis=1)
        part = part.cast_column("image", datasets.Image())
        part.to_parquet(folder / "parquet" / f"part-{number:05d}.parquet")

    is_star = np.array(scenes["star"])[of_scene]
    for name in ("other", "star"):
        (folder / "files" / name).mkdir(parents=True)
    for row in range(rows):
        place = folder / "files" / ("star" if is_star[row] else "other") / f"{row:06d}.png"
        place.write_bytes(variant(stored[of_scene[row]], row))

    for name, order in (("parquet", np.arange(rows)), ("files", np.argsort(is_star, kind="stable"))):
        write_embeddings(folder, name, model, embeddings, of_scene[order])


def write_embeddings(
    folder: Path, name: str, model: VisionTextMSAE, embeddings: torch.Tensor, scenes: np.ndarray
) -> None:
    """Write the embeddings of scenes, each with other noise, as `hf-msae extract` would."""
    metadata = {
        **model.backbone.provenance(),
        "hook_points": ["image_embeds"],
        "dataset": str(folder / name),
        "dataset_split": "train",
        "image_column": "image",
    }
    noise = torch.Generator().manual_seed(0)
    with EmbeddingWriter(
        folder / f"embeddings-{name}", {"image_embeds": model.msae.config.d_in}, metadata=metadata
    ) as writer:
        for first in range(0, len(scenes), ROWS_PER_FILE):
            x = embeddings[torch.from_numpy(scenes[first : first + ROWS_PER_FILE])]
            writer.write({"image_embeds": x + 1e-3 * x.std() * torch.randn(x.shape, generator=noise)})


def opened(folder: Path, name: str, rows: int) -> dict[str, float]:
    """Open the explorer in a new process, visit three of its tabs, and measure seconds and megabytes."""
    options = ("--embeddings", str(folder / f"embeddings-{name}"), "--max_images", str(rows))
    with (
        tempfile.TemporaryDirectory() as place,
        serving(Path(place), str(folder / name), *options, patience=TIMEOUT) as served,
        sync_playwright() as driver,
    ):
        begin = time.perf_counter() - served.seconds
        urllib.request.urlopen(served.url).read()
        found = {"answers (s)": time.perf_counter() - begin, "of a processor (s)": spent(served.pid)}
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(1000 * TIMEOUT)
        panel = page.locator("div[role=tabpanel]:visible").first
        tiles = panel.locator(".msae-tiles")
        steps = {
            "page (s)": (lambda: page.goto(served.url), panel.locator("table.msae-bars")),
            "search (s)": (lambda: open_tab(page, "Search"), tiles.filter(has_text="After the change").locator("img")),
            "concepts (s)": (lambda: open_tab(page, "Concepts"), tiles.filter(has_text="middle").locator("img")),
            "a concept (s)": (
                lambda: choose(page, panel.get_by_label("Concept", exact=True), CONCEPT),
                panel.locator("h3", has_text=CONCEPT),
            ),
        }
        for step, (act, shown) in steps.items():
            begin = time.perf_counter()
            act()
            shown.first.wait_for()
            found[step] = time.perf_counter() - begin
        browser.close()
        memory = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{served.pid}/status").read_text())
        return found | {"in all (s)": spent(served.pid), "largest memory (MB)": int(memory[1]) / 1000}


def spent(pid: int) -> float:
    """Seconds of processor time that a process has taken."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="Folder of the collection, and of the caches.")
    parser.add_argument("--rows", type=int, default=100_000, help="Number of pictures, if they are to be made.")
    parser.add_argument("--kinds", nargs="+", default=["parquet", "files"], help="Which of the two to open.")
    parser.add_argument("--times", type=int, default=2, help="How often to open each.")
    args = parser.parse_args()
    folder = args.folder.absolute()
    if not (folder / "embeddings-files" / "activations.json").exists():
        make_collection(folder, args.rows)
    os.environ["HF_HOME"] = str(folder / "caches")
    for name in args.kinds:
        for time_ in range(args.times):
            found = opened(folder, name, args.rows)
            if not time_ and name == args.kinds[0]:
                print(f"| pictures | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
            print(
                f"| {name}, time {time_ + 1} | {' | '.join(f'{value:,.1f}' for value in found.values())} |", flush=True
            )


if __name__ == "__main__":
    main()
