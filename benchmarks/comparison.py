"""Train models at equal budgets and measure them, for benchmarks/pareto.py and benchmarks/design_choices.py."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import set_seed
from comparison_data import Data, geometric_median, start_from_embeddings
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar
from worlds import World

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae.embeddings import EmbeddingDataset
from hf_msae.metrics import evaluate_msae, seed_stability
from hf_msae.training.checkpointing import list_checkpoints
from hf_msae.training.interruption import TrainingInterrupted
from hf_msae.training.sweep import train_sweep

ALL = "all"


@dataclass
class Variant:
    """A model to train.

    Attributes:
        family: Name of the model's family. Models of one family share a line in the figure.
        config: Fields of MSAEConfig.
        learning_rate: Learning rate to train it with.
        ks: Granularities to measure it at, next to the full code. None measures the levels that it was trained at: the
            full code or, for prefixes, the numbers of the first latents.
        centered: Whether to subtract the mean of the embeddings.
        median_bias: Whether `pre_bias` starts at the geometric median of the embeddings.
    """

    family: str
    config: dict[str, Any]
    learning_rate: float
    ks: Sequence[int] | None = None
    centered: bool = True
    median_bias: bool = False


def compare(
    arguments: argparse.Namespace, variants: Mapping[str, Variant], data: Data, output_dir: Path
) -> pd.DataFrame:
    """Train and measure every variant with every seed. Seeds that are finished already are not trained again.

    Returns:
        A row for each variant, granularity and seed, with the columns variant, family, point, k, seed, learning_rate,
        loss (the training loss on the held-out data), the metrics, the means over the probes and over the zero-shot
        classifiers, cost (time of a step divided by that of the fastest variant with the same seed), stability (of the
        latents alive at that granularity, mean over the other seeds) and chance (the stability of random directions).
    """
    disable_progress_bar()
    check_variants(arguments, variants, data)
    output_dir.mkdir(parents=True, exist_ok=True)
    _check_settings(arguments, variants, output_dir)
    rows = []
    for seed in dict.fromkeys(arguments.seeds):
        finished = output_dir / f"seed-{seed}.json"
        if not finished.exists():
            write_json(finished, _train_seed(arguments, variants, data, output_dir / f"seed-{seed}", seed))
        rows += json.loads(finished.read_text())
    table = pd.DataFrame(rows)
    table["stability"], table["chance"] = stability(table, output_dir)
    table.to_csv(output_dir / "table.csv", index=False)
    return table


def check_variants(arguments: argparse.Namespace, variants: Mapping[str, Variant], data: Data) -> None:
    """Check all configs before any work is done.

    Raises:
        ValueError: If a variant's config is invalid. The message names the variant.
    """
    for name, variant in variants.items():
        try:
            MSAEConfig(d_in=data.train.width, num_latents=arguments.num_latents, **variant.config)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def run_reporting_errors(main: Callable[[], None]) -> None:
    """Call a benchmark's main, and report interruptions and errors that the user can fix in one line."""
    try:
        main()
    except TrainingInterrupted as interruption:
        print(f"\n{interruption}", file=sys.stderr)
        sys.exit(interruption.exit_code)
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; run the same command to continue")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _check_settings(arguments, variants: Mapping[str, Variant], output_dir: Path) -> None:
    """Refuse to mix results of different settings in one folder."""
    names = ("train_data", "eval_data", "label_columns", "steps", "batch_size", "num_latents")
    settings = {name: getattr(arguments, name) for name in names}
    settings |= {f"{name}: {key}": value for name, each in variants.items() for key, value in asdict(each).items()}
    settings = json.loads(json.dumps(settings))
    file = output_dir / "settings.json"
    if file.exists() and any(output_dir.glob("seed-*")):
        before = json.loads(file.read_text())
        for name in {**before, **settings}:
            if before.get(name) != settings.get(name):
                raise ValueError(
                    f"{output_dir} holds results with {name} {before.get(name)}, not {settings.get(name)}: choose "
                    f"another --output_dir, or delete this one"
                )
    write_json(file, settings)


def write_json(path: Path, content: Any) -> None:
    """Write a file that is whole or not there."""
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_text(json.dumps(content, indent=2))
    temporary.replace(path)


def _train_seed(arguments, variants: Mapping[str, Variant], data: Data, folder: Path, seed: int) -> list[dict]:
    trainers = [
        make_trainer(arguments, variant, data, folder / _file(name), seed) for name, variant in variants.items()
    ]
    resumed = any(list_checkpoints(trainer.output_dir) for trainer in trainers)
    results = train_sweep(trainers, "last" if resumed else None)
    seconds = [getattr(result, "seconds_per_step", None) for result in results]
    timed = folder / "seconds_per_step.json"  # if models are only measured again, there are no steps to time
    if any(seconds) or not timed.exists():
        write_json(timed, seconds)
    seconds = json.loads(timed.read_text())
    fastest = min((each for each in seconds if each), default=None)
    rows = []
    for (name, variant), trainer, result, own in zip(
        variants.items(), tqdm(trainers, desc=f"measuring, seed {seed}"), results, seconds, strict=True
    ):
        if isinstance(result, FloatingPointError):
            print(f"{name}, seed {seed}: {result}", file=sys.stderr)
            continue
        trainer.save_model()
        n = arguments.num_latents
        ks = None if variant.ks is None else sorted({*(k for k in variant.ks if k < n), n})
        evaluation = evaluate_msae(
            trainer.model, data.test, ks, progress=False, classifiers=data.classifiers, labels=data.labels,
            encoder_embeds=data.truth, encoder=None if data.truth is None else "the truth about the scenes",
        )  # fmt: skip
        loss = _loss(trainer.model, data.test)
        levels = evaluation.by_width or evaluation.by_k
        for number, metrics in levels.items():
            k: int | str = int(number)
            if k == n or len(levels) == 1:
                k = ALL
            elif evaluation.by_width:
                k = f"first {k}"
            np.save(trainer.output_dir / f"alive-{k}.npy", _alive(trainer.model, data.test, k))
            rows.append(
                {
                    "variant": name,
                    "family": variant.family,
                    "point": f"{name}, k={k}" if variant.ks else name if k == ALL else f"{name}, {k}",
                    "k": k,
                    "seed": seed,
                    "learning_rate": variant.learning_rate,
                    "loss": loss,
                    **_figures(metrics),
                    **true_names(trainer.model, data.world, k),
                    "cost": own / fastest if own else None,
                }
            )
    return rows


def make_trainer(arguments, variant: Variant, data: Data, folder: Path, seed: int) -> MSAETrainer:
    """A trainer of a new model."""
    set_seed(seed)
    model = MSAEModel(MSAEConfig(d_in=data.train.width, num_latents=arguments.num_latents, **variant.config))
    statistics = data.train.statistics()
    if not variant.centered:
        squared = statistics.mean_squared_distance + statistics.mean.square().sum()
        model.set_input_statistics(torch.zeros(data.train.width), (data.train.width / squared) ** 0.5)
    if variant.median_bias:
        if variant.centered:
            model.set_input_statistics(statistics.mean, statistics.input_scale)
        with torch.no_grad():
            model.pre_bias.copy_(model.normalize(geometric_median(data.train)))
    args = MSAETrainingArguments(
        str(folder), per_device_train_batch_size=arguments.batch_size, max_steps=arguments.steps, seed=seed,
        learning_rate=variant.learning_rate, save_steps=max(1, arguments.steps // 4), save_total_limit=1,
        logging_steps=max(1, arguments.steps // 10), use_cpu=arguments.use_cpu,
    )  # fmt: skip
    return MSAETrainer(model, args, data.train)


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of one level as a flat row, with means over the probes and over the zero-shot classifiers."""
    row = {name: value for name, value in metrics.items() if name != "classifiers"}
    for kind in ("probe", "zero-shot"):
        found = [each for name, each in metrics["classifiers"].items() if name.startswith(kind)]
        for key in ("agreement", "kl", "accuracy_drop"):
            values = [each[key] for each in found if each[key] is not None]
            if values:
                row[f"{kind} {key}"] = float(np.mean(values))
    return row


def true_names(model: MSAEModel, world: World | None, k: int | str) -> dict[str, int]:
    """How many names are validated at granularity k, how many of these are true, and how many words they are."""
    if world is None:
        return {}
    before = model.config.k
    try:
        model.config.k = before if isinstance(k, str) else k
        names = world.judged_names(model.eval())
    finally:
        model.config.k = before
    if isinstance(k, str) and k != ALL:
        names = names[names["latent"] < int(k.removeprefix("first "))]
    true = names[names["true"]]
    return {"validated names": len(names), "true names": len(true), "distinct words": true["name"].nunique()}


@torch.no_grad()
def untrained_names(data: Data, num_latents: int, seeds: Sequence[int]) -> pd.DataFrame:
    """True names of dictionaries that were not trained: of random directions, and of random training embeddings."""
    rows, statistics = [], data.train.statistics()
    for seed in seeds:
        set_seed(seed)
        model = MSAEModel(MSAEConfig(d_in=data.train.width, num_latents=num_latents, nesting="none"))
        model.set_input_statistics(statistics.mean, statistics.input_scale)
        rows.append({"dictionary": "random directions", "seed": seed, **true_names(model, data.world, ALL)})
        start_from_embeddings(model, data.train, seed)
        rows.append({"dictionary": "random embeddings", "seed": seed, **true_names(model, data.world, ALL)})
    return pd.DataFrame(rows)


@torch.no_grad()
def stability(table: pd.DataFrame, output_dir: Path) -> tuple[list[float | None], list[float | None]]:
    """Stability of the latents alive in each row, and that of as many random directions.

    Both are means over the other seeds.
    """
    found: dict[tuple, list[tuple[float, float]]] = {}
    points = list(table.groupby(["variant", "point"], sort=False))
    several = table["seed"].nunique() > 1
    for (_, point), group in tqdm(points, desc="matching latents across seeds", disable=not several):
        alive = {row.seed: _alive_directions(output_dir, row) for row in group.itertuples()} if several else {}
        random = {seed: np.random.default_rng(seed).normal(size=each.shape) for seed, each in alive.items()}
        for one, other in combinations(sorted(alive), 2):
            if len(alive[one]) and len(alive[other]):
                value = seed_stability(alive[one], alive[other]).mean_cosine
                chance = seed_stability(random[one], random[other]).mean_cosine
                for seed in (one, other):
                    found.setdefault((point, seed), []).append((value, chance))
    means = {key: np.mean(values, axis=0).tolist() for key, values in found.items()}
    pairs = [means.get((row.point, row.seed), (None, None)) for row in table.itertuples()]
    return [value for value, _ in pairs], [chance for _, chance in pairs]


@torch.no_grad()
def _loss(model: MSAEModel, data: EmbeddingDataset) -> float:
    """Mean training loss over the data."""
    model.eval()
    parts = [(len(batch), model(batch.to(model.device), return_loss=True).loss) for batch in data.batches(4096)]
    return float(sum(rows * loss for rows, loss in parts) / len(data))


@torch.no_grad()
def _alive(model: MSAEModel, data: EmbeddingDataset, k: int | str) -> np.ndarray:
    """Which latents fire on the data at granularity k, "all" or "first 128", as booleans `(n,)`."""
    most = None if isinstance(k, str) else k
    codes = (model.encode(batch.to(model.device), most) for batch in data.batches(4096))
    alive = torch.stack([(code > 0).any(0) for code in codes]).any(0).cpu().numpy()
    if isinstance(k, str) and k != ALL:
        alive[int(k.removeprefix("first ")) :] = False
    return alive


def _alive_directions(output_dir: Path, row: Any) -> torch.Tensor:
    """Directions of the latents that fire on the held-out data."""
    folder = output_dir / f"seed-{row.seed}" / _file(row.variant)
    return MSAEModel.from_pretrained(folder).dictionary[torch.from_numpy(np.load(folder / f"alive-{row.k}.npy"))]


def _file(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-").replace("@", "-")
