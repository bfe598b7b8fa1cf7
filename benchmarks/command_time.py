"""How long commands take compared with `import torch, transformers` and with one bare forward pass of the backbone.

python benchmarks/command_time.py --repeats 5
python benchmarks/command_time.py --package ../older  # the same for another clone of the repository

Every measurement is a fresh process. CPU seconds (of all its threads) say more than elapsed time where other
programs run on the same machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = "import torch, transformers"
FORWARD = "a bare forward pass"
# What a person would write without this package: load the SigLIP and its processor, and embed a picture.
BARE = """
import sys, torch
from PIL import Image
from transformers import AutoModel, AutoProcessor
model, processor = AutoModel.from_pretrained(sys.argv[1]), AutoProcessor.from_pretrained(sys.argv[1], backend="pil")
with torch.no_grad():
    model.get_image_features(**processor(images=Image.open(sys.argv[2]), return_tensors="pt"))
"""
COMMAND = "import sys; from hf_msae.cli import main; main(sys.argv[1:])"


def measure(arguments: list[str], package: Path) -> tuple[float, float]:
    """Run Python with these arguments, and return the elapsed and the CPU seconds."""
    environment = {**os.environ, "PYTHONPATH": str(package), "HF_HUB_OFFLINE": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=package, env=environment, check=True, capture_output=True)
    elapsed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="Number of fresh processes per program.")
    parser.add_argument("--package", type=Path, default=ROOT, help="Clone of the repository to measure.")
    parser.add_argument("--pictures", type=int, default=0, help="Also explain this many pictures in one command.")
    args = parser.parse_args()
    package = args.package.resolve()

    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, str(ROOT))
        from hf_msae.scenes import render_scene, sample_scene

        for number in range(max(1, args.pictures)):
            render_scene(sample_scene("test", 0, number)).save(f"{folder}/{number}.png")
        explain = ["-c", COMMAND, "explain", "scenes-image", "--image"]
        programs = {
            IMPORTS: ["-c", IMPORTS],
            FORWARD: ["-c", BARE, str(package / "hf_msae/scenes/siglip"), f"{folder}/0.png"],
            "hf-msae explain --help": ["-c", COMMAND, "explain", "--help"],
            "hf-msae train --help": ["-c", COMMAND, "train", "--help"],
            "hf-msae explain, one picture": [*explain, f"{folder}/0.png"],
        }
        if args.pictures:
            programs[f"hf-msae explain, {args.pictures} pictures"] = [
                *explain,
                folder,
                "--output",
                f"{folder}/seen.csv",
            ]
        for arguments in programs.values():  # fills the disk cache and writes the bytecode
            measure(arguments, package)
        # The programs take turns, so that a busy spell of the machine slows all of them.
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for _ in range(args.repeats):
            for name, arguments in programs.items():
                found[name].append(measure(arguments, package))
    medians = {
        name: [statistics.median(values) for values in zip(*pairs, strict=True)] for name, pairs in found.items()
    }

    print(f"Python {platform.python_version()}, transformers {version('transformers')}, torch {version('torch')}")
    print(f"{platform.system()} {platform.machine()}; median of {args.repeats} fresh processes\n")
    print("| program | seconds | CPU seconds | CPU / imports | CPU / forward pass |\n|---|---:|---:|---:|---:|")
    for name, (elapsed, cpu) in medians.items():
        ratios = " | ".join(f"{cpu / medians[base][1]:.2f}" for base in (IMPORTS, FORWARD))
        print(f"| `{name}` | {elapsed:.2f} | {cpu:.2f} | {ratios} |")


if __name__ == "__main__":
    main()
