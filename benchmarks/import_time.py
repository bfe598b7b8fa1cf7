"""How long `import hf_msae` takes compared with `import transformers`, as medians over fresh processes.

python benchmarks/import_time.py --repeats 7
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

STATEMENTS = (
    "import transformers",
    "import hf_msae",
    "import transformers, hf_msae",
    "from transformers import AutoModel, PreTrainedModel",
    "import hf_msae; from transformers import AutoModel, PreTrainedModel",
    "from hf_msae import MSAEConfig, MSAEModel",
)
BASELINES = {
    "import hf_msae": "import transformers",
    "import transformers, hf_msae": "import transformers",
    "import hf_msae; from transformers import AutoModel, PreTrainedModel": STATEMENTS[3],
    "from hf_msae import MSAEConfig, MSAEModel": STATEMENTS[3],
}
MEASURE = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def seconds(statement: str) -> float:
    """Time of one statement in a fresh interpreter, without the start-up time of the interpreter."""
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", MEASURE.format(statement)]
    return float(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="Number of fresh processes per statement.")
    repeats = parser.parse_args().repeats

    for statement in STATEMENTS:  # fills the disk cache and writes the bytecode
        seconds(statement)
    # The statements take turns, so that a busy spell of the machine slows all of them.
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(repeats):
        for statement in STATEMENTS:
            times[statement].append(seconds(statement))
    medians = {statement: statistics.median(values) for statement, values in times.items()}

    print(f"Python {platform.python_version()}, transformers {version('transformers')}, torch {version('torch')}")
    print(f"{platform.system()} {platform.machine()}; median of {repeats} fresh processes\n")
    print("| statement | seconds | ratio to its baseline |\n|---|---:|---:|")
    for statement, median in medians.items():
        baseline = BASELINES.get(statement)
        ratio = f"{median / medians[baseline]:.2f}" if baseline else ""
        print(f"| `{statement}` | {median:.3f} | {ratio} |")


if __name__ == "__main__":
    main()
