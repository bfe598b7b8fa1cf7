"""Sparsity against fidelity of every family of sparse autoencoders, at equal budgets, with seeds.

    python benchmarks/pareto.py --output_dir outputs/pareto                 # on the embeddings of the quickstart
    python benchmarks/pareto.py --train_data my/train --eval_data my/test --output_dir outputs/pareto --steps 2000

All models of a seed see the same batches in the same order (they are trained as one sweep), with the same optimizer,
number of steps and width. MSAEs give a whole curve, from the code's largest k activations for every k; the other
families one point for each model. Writes pareto.csv (one row a point and seed), pareto.md (means and spreads) and
pareto.png. Interrupted, the same command goes on; finished seeds are not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate.utils import set_seed

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae.activations import load_activations
from hf_msae.checkpointing import list_checkpoints
from hf_msae.interruption import TrainingInterrupted
from hf_msae.metrics import evaluate_msae
from hf_msae.plotting import PALETTE, new_figure, save_figure
from hf_msae.sweep import train_sweep

EMBEDDINGS = "outputs/quickstart/embeddings"
FIGURES = {"fvu": "FVU", "cknna": "CKNNA", "cosine_similarity": "cosine", "dead_latents": "dead"}


def variants(n: int, ks: list[int]) -> dict[str, dict[str, Any]]:
    """Settings by name, "family@setting"."""
    levels = [k for k in (2**power for power in range(3, 20)) if k < n] + [n]
    found: dict[str, dict[str, Any]] = {
        "MSAE, uniform": {"nesting_ks": levels},
        "MSAE, reverse": {"nesting_ks": levels, "nesting_weights": "reverse"},
        "MSAE, reverse, L1": {"nesting_ks": levels, "nesting_weights": "reverse", "sparsity_coefficient": 5e-3},
    }
    for coefficient in (3e-3, 1e-2, 3e-2, 1e-1):
        found[f"ReLU@{coefficient:g}"] = {"nesting": "none", "sparsity_coefficient": coefficient}
    for coefficient in (1e-3, 3e-3, 1e-2, 3e-2):
        found[f"JumpReLU@{coefficient:g}"] = {
            "activation": "jump_relu", "nesting": "none", "sparsity_coefficient": coefficient,
        }  # fmt: skip
    for k in ks:
        found[f"TopK@{k}"] = {"activation": "topk", "nesting": "none", "k": k}
        found[f"BatchTopK@{k}"] = {"activation": "batch_topk", "nesting": "none", "k": k}
        found[f"prefixes of BatchTopK@{k}"] = {"activation": "batch_topk", "nesting": "prefix", "k": k}
    return found


def train_seed(arguments: argparse.Namespace, seed: int, train, test) -> list[dict[str, Any]]:
    """The rows of pareto.csv for one seed."""
    ks = [int(k) for k in arguments.ks]
    settings = variants(arguments.num_latents, ks)
    trainers = []
    for name, config in settings.items():
        folder = Path(arguments.output_dir) / f"seed-{seed}" / name.replace(", ", "-").replace(" ", "-")
        set_seed(seed)
        model = MSAEModel(MSAEConfig(d_in=train.width, num_latents=arguments.num_latents, **config))
        args = MSAETrainingArguments(
            str(folder), per_device_train_batch_size=arguments.batch_size, max_steps=arguments.steps, seed=seed,
            learning_rate=arguments.learning_rate, save_steps=max(1, arguments.steps // 4), save_total_limit=1,
            logging_steps=max(1, arguments.steps // 10), use_cpu=arguments.use_cpu,
        )  # fmt: skip
        trainers.append(MSAETrainer(model, args, train))
    resumed = any(list_checkpoints(trainer.output_dir) for trainer in trainers)
    results = train_sweep(trainers, "last" if resumed else None)
    rows = []
    for name, trainer, result in zip(settings, trainers, results, strict=True):
        family = name.split("@")[0]
        if isinstance(result, FloatingPointError):
            print(f"{name}, seed {seed}: {result}", file=sys.stderr)
            continue
        levels = sorted({*ks, arguments.num_latents}) if family.startswith("MSAE") else None
        evaluation = evaluate_msae(trainer.model, test, ks=levels, progress=False)
        for k, metrics in evaluation.by_k.items():
            point = name if levels is None else f"{name}@{k if int(k) < arguments.num_latents else 'all'}"
            rows.append({"seed": seed, "family": family, "point": point, **metrics})
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread (lowest to highest seed) of each point."""
    shown = [name for name in FIGURES if name in table]
    rows = []
    for (family, point), group in table.groupby(["family", "point"], sort=False):
        row = {"point": point, "seeds": len(group), "L0": f"{group['l0'].mean():.1f}"}
        for name in shown:
            digits = 0 if name == "dead_latents" else 4
            row[FIGURES[name]] = f"{group[name].mean():.{digits}f} ({group[name].min():.{digits}f} to "
            row[FIGURES[name]] += f"{group[name].max():.{digits}f})"
        rows.append((family, group["l0"].mean(), row))
    return pd.DataFrame([row for *_, row in sorted(rows, key=lambda entry: entry[:2])])


def plot(table: pd.DataFrame):
    """FVU and CKNNA against L0, a line a family through the means over seeds, with bars for the spread."""
    figure, axes = new_figure(1, 2, width=4.2, height=3.4)
    styles = [(color, marker) for marker in ("o", "s") for color in PALETTE]
    for axis, metric in zip(axes[0], ("fvu", "cknna"), strict=True):
        for (family, of_family), (color, marker) in zip(table.groupby("family", sort=False), styles, strict=False):
            points = of_family.groupby("point").agg({"l0": "mean", metric: ["mean", "min", "max"]})
            points = points.sort_values(("l0", "mean"))
            mean = points[metric, "mean"]
            spread = [mean - points[metric, "min"], points[metric, "max"] - mean]
            axis.errorbar(points["l0", "mean"], mean, spread, label=family, color=color, marker=marker, capsize=2)
        axis.set_xscale("log")
        axis.set_xlabel("L0, active latents (log)")
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel("FVU (log): lower is better")
    axes[0, 1].set_ylabel("CKNNA with the embeddings: higher is better")
    axes[0, 0].legend(fontsize=7)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data", default=f"{EMBEDDINGS}/train", help="what load_activations takes")
    parser.add_argument("--eval_data", default=f"{EMBEDDINGS}/test", help="held out")
    parser.add_argument("--output_dir", default="outputs/pareto")
    parser.add_argument("--num_latents", type=int, default=1024)
    parser.add_argument("--ks", nargs="+", default=["8", "16", "32", "64", "128"], help="activations to keep")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch_size", type=int, default=1024)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--use_cpu", action="store_true")
    arguments = parser.parse_args()
    train, test = load_activations(arguments.train_data), load_activations(arguments.eval_data)
    output_dir = Path(arguments.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in arguments.seeds:
        finished = output_dir / f"seed-{seed}.json"
        if not finished.exists():
            try:
                found = train_seed(arguments, seed, train, test)
            except TrainingInterrupted as interruption:
                print(f"\n{interruption}", file=sys.stderr)
                sys.exit(interruption.exit_code)
            temporary = finished.with_name(f".tmp-{finished.name}")
            temporary.write_text(json.dumps(found))
            temporary.replace(finished)
        rows += json.loads(finished.read_text())
    table = pd.DataFrame(rows)
    table.to_csv(output_dir / "pareto.csv", index=False)
    means = summary(table)
    lines = [means.columns, ["---"] * len(means.columns), *means.to_numpy()]
    (output_dir / "pareto.md").write_text("".join(f"| {' | '.join(map(str, line))} |\n" for line in lines))
    save_figure(plot(table), output_dir / "pareto.png")
    print(means.to_string(index=False))
    print(f"\n{output_dir} holds pareto.csv, pareto.md and pareto.png")


if __name__ == "__main__":
    main()
