"""Time and memory of every stage on many embeddings: an epoch of training, names, an index, a report.

    python benchmarks/scale.py --rows 10000 30000                            # a few minutes
    python benchmarks/scale.py --rows 10000 100000 1000000 --folder big      # hours; what is done is not done again

The embeddings are those of benchmarks/search.py, 768 wide and like those of CLIP; the MSAE has 24,576 latents. Latents
are named from 20,000 words that lie where embeddings are, with evidence from all of them.
The metrics of training and report are those of a sample of 50,000 embeddings at most. With --max_steps, training ends
before its epoch does; what an epoch takes follows from the seconds of a step in train.log.
Every stage is a process of its own. Memory is the largest amount that the process has for itself alone; pages of
mapped files, which the system takes back when it needs them, do not count. Times are of the whole process, and the
exponent says how they grow: 1 is in proportion to the rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from search import make_embeddings, write_embeddings

WIDTH, LATENTS, WORDS = 768, 24_576, 20_000
STAGES = ("train", "name", "index", "report")


def train(folder: Path, max_steps: int | None) -> None:
    from hf_msae.cli import main as command

    words = {
        "train_data": folder / "embeddings.npy", "output_dir": folder / "msae", "num_latents": LATENTS,
        "num_train_epochs": 1, "save_strategy": "no", "eval_strategy": "no", "overwrite_output_dir": True,
    }  # fmt: skip
    if max_steps:
        words["max_steps"] = max_steps
    command(["train", *(str(word) for name, value in words.items() for word in (f"--{name}", value))])


def name(folder: Path) -> None:
    from hf_msae import MSAEModel
    from hf_msae.concepts import Vocabulary, name_latents
    from hf_msae.embeddings import load_embeddings

    embeddings = load_embeddings(folder / "embeddings.npy")
    near = np.concatenate(list(make_embeddings(WORDS, WIDTH, seed=2)))
    words = torch.from_numpy(near)
    msae = MSAEModel.from_pretrained(folder / "msae")
    table = name_latents(msae, Vocabulary([f"word {i}" for i in range(WORDS)]), words, embeddings)
    table.save(folder / "msae" / "concepts" / "words.parquet")


def index(folder: Path) -> None:
    from hf_msae import MSAEModel
    from hf_msae.search import ConceptIndex

    ConceptIndex.build(folder / "index", MSAEModel.from_pretrained(folder / "msae"), folder / "embeddings.npy")


def report(folder: Path) -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    from hf_msae import MSAEModel, VisionTextMSAE
    from hf_msae.backbones import Backbone
    from hf_msae.concepts import ConceptTable
    from hf_msae.embeddings import load_embeddings
    from hf_msae.report import write_report

    config = SiglipVisionConfig(hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    backbone = Backbone(
        SiglipVisionModel(config), SiglipImageProcessorPil()
    )  # of this width; a report does not run it
    table = ConceptTable.load(folder / "msae" / "concepts" / "words.parquet")
    model = VisionTextMSAE(backbone, MSAEModel.from_pretrained(folder / "msae"), table)
    embeddings = load_embeddings(folder / "embeddings.npy")
    write_report(folder / "report.html", model, embeddings, index_folder=folder / "index")


def measured(stage: str, folder: Path, max_steps: int | None) -> dict[str, float]:
    """Run a stage in a process of its own; return its seconds, its CPU seconds and its peak of memory in GiB."""
    begun = time.monotonic()
    log = (folder / f"{stage}.log").open("w")
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
    if max_steps:
        command += ["--max_steps", str(max_steps)]
    process = psutil.Popen(command, stdout=log, stderr=log)
    peak = cpu = 0.0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if "RssAnon:" in status:  # a process that has just ended has none until it is asked for its exit code
            peak = max(peak, int(status.split("RssAnon:")[1].split()[0]) / 2**20)
            cpu = sum(process.cpu_times()[:2])
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{stage} failed, see {log.name}")
    return {"seconds": time.monotonic() - begun, "cpu": cpu, "GiB": peak}


def stages_of(rows: int, folder: Path, max_steps: int | None) -> list[dict[str, float | str]]:
    """Measure the stages that have not been measured in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (done := folder / "embeddings.done").exists():
        write_embeddings(folder / "embeddings.npy", rows, WIDTH)
        done.touch()
    found = []
    for stage in STAGES:
        file = folder / f"{stage}.json"
        if not file.exists():
            print(f"{rows:,} rows: {stage}", file=sys.stderr, flush=True)
            file.write_text(json.dumps(measured(stage, folder, max_steps)))
        found.append({"stage": stage, "rows": rows, **json.loads(file.read_text())})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 30_000], help="Numbers of embeddings.")
    parser.add_argument("--folder", type=Path, default=Path("outputs/scale"), help="Where everything is kept.")
    parser.add_argument("--max_steps", type=int, help="End training after so many steps (default: after an epoch).")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        settings = {"max_steps": arguments.max_steps} if arguments.stage == "train" else {}
        globals()[arguments.stage](arguments.folder, **settings)
        return
    found = []
    for rows in sorted(arguments.rows):
        found += stages_of(rows, arguments.folder / str(rows), arguments.max_steps)
    frame = pd.DataFrame(found).sort_values(["stage", "rows"], key=lambda column: column.map(_order))
    # Between one number of rows and the next: d log(seconds) / d log(rows).
    logs = np.log(frame[["seconds", "rows"]]).groupby(frame["stage"]).diff()
    frame["exponent"] = logs["seconds"] / logs["rows"]
    print(frame.to_string(index=False, float_format=lambda value: f"{value:.2f}", na_rep=""))


def _order(value: object) -> object:
    return STAGES.index(value) if value in STAGES else value


if __name__ == "__main__":
    main()
