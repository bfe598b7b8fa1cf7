"""Measure the quickstart's MSAE over several seeds, with its own settings or changed ones.

    python benchmarks/quickstart_quality.py --embeddings outputs/quickstart/embeddings --seeds 42 43 44
    python benchmarks/quickstart_quality.py --embeddings outputs/quickstart/embeddings --set nesting_weights=reverse

Needs the embeddings that `make quickstart` writes. Each `--set NAME=VALUE` changes a field of MSAEConfig or of
MSAETrainingArguments. Values are read as YAML.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from accelerate.utils import set_seed

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae.cli.quickstart import QuickstartArguments
from hf_msae.cli.quickstart_steps import model_config, training_arguments
from hf_msae.embeddings import load_embeddings

_SHOWN = ("fvu", "cosine_similarity", "cosine_similarity_centered", "l0", "sparsity", "dead_fraction", "cknna")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--embeddings", type=Path, default=Path("outputs/quickstart/embeddings"), help="Folder of the embeddings."
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44], help="Random seeds to train with.")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="Settings of the model or of training to change."
    )
    arguments = parser.parse_args()
    changes = {name: _read(value) for name, value in (item.split("=", 1) for item in arguments.set)}
    of_model = {name: changes.pop(name) for name in list(changes) if name in MSAEConfig.own_fields()}
    train, test = (load_embeddings(arguments.embeddings / split) for split in ("train", "test"))

    rows = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            settings = QuickstartArguments(output_dir=folder, num_train_scenes=len(train), seed=seed)
            settings.num_latents = of_model.get("num_latents", settings.num_latents)
            config = model_config(settings, train.width)
            config = MSAEConfig(**{name: getattr(config, name) for name in MSAEConfig.own_fields()} | of_model)
            run = dataclasses.asdict(training_arguments(settings)) | {"eval_strategy": "no", "eval_steps": None}
            run |= changes
            set_seed(seed)
            trainer = MSAETrainer(MSAEModel(config), MSAETrainingArguments(**run), train)
            begun = time.monotonic()
            result = trainer.train()
            metrics = trainer.evaluate(test).to_dict()
        row = {"seed": seed, "steps": result.global_step, "seconds": time.monotonic() - begun}
        smallest = metrics["by_k"][min(metrics["by_k"], key=int)]
        rows.append({**row, **{key: metrics[key] for key in _SHOWN}, "fvu, smallest k": smallest["fvu"]})
    frame = pd.DataFrame(rows).set_index("seed")
    if len(frame) > 1:
        frame = pd.concat([frame, frame.agg(["mean", "std"])])
    print(f"\n{len(test)} held-out embeddings, full code, {of_model | changes or 'settings of the quickstart'}")
    print(frame.to_string(float_format=lambda value: f"{value:.4g}"))


def _read(text: str) -> Any:
    """Parse a value as YAML, but read numbers such as 1e-3, which YAML takes for a string."""
    try:
        return float(text) if "e" in text else yaml.safe_load(text)
    except ValueError:
        return yaml.safe_load(text)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
