"""The commands train and evaluate, run small."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


WIDTH, LATENTS = 16, 64


QUIET = ["--cknna_batch_size", "64", "--use_cpu", "--disable_tqdm"]


SMALL = [
    *("--num_latents", str(LATENTS), "--nesting_ks", "2", "8", str(LATENTS), "--max_steps", "30"),
    *("--learning_rate", "5e-3", "--logging_steps", "10", *QUIET),
]


def run(main, *argv):
    main([*map(str, argv), *QUIET])


def read_log(folder):
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


def steps_of(folder):
    """The records of training steps; the last of the log is that of the end."""
    return [record for record in read_log(folder) if "loss" in record]
