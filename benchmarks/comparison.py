"""What benchmarks/pareto.py and benchmarks/design_choices.py share: models trained at equal budgets, and measured."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import set_seed
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae.backbones import Backbone
from hf_msae.bias.classifiers import probe_columns
from hf_msae.embeddings import EmbeddingDataset, load_embeddings
from hf_msae.metrics import LinearClassifier, evaluate_msae, seed_stability
from hf_msae.scenes import CONCEPTS, GROUPS
from hf_msae.scenes.labels import CLASSIFIED_GROUPS, group_labels, truth_matrix, zero_shot_texts
from hf_msae.training.checkpointing import list_checkpoints
from hf_msae.training.interruption import TrainingInterrupted
from hf_msae.training.sweep import train_sweep

EMBEDDINGS = "outputs/quickstart/embeddings"
ALL = "all"


@dataclass
class Variant:
    """A model to train.

    Attributes:
        family: models of one family share a line of a figure.
        config: fields of MSAEConfig.
        learning_rate: of its training.
        ks: granularities to measure it at; None: the full code alone.
        centred: whether the embeddings' mean is taken off.
        median_bias: whether pre_bias begins at their geometric median.
    """

    family: str
    config: dict[str, Any]
    learning_rate: float
    ks: Sequence[int] | None = None
    centred: bool = True
    median_bias: bool = False


@dataclass
class Data:
    """Embeddings to train and to measure on, and what is known about the latter."""

    train: EmbeddingDataset
    test: EmbeddingDataset
    classifiers: dict[str, LinearClassifier] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    truth: EmbeddingDataset | None = None


def add_arguments(parser: argparse.ArgumentParser, output_dir: str) -> None:
    """The flags of both benchmarks."""
    parser.add_argument("--train_data", default=f"{EMBEDDINGS}/train", help="what load_embeddings takes")
    parser.add_argument("--eval_data", default=f"{EMBEDDINGS}/test", help="held out")
    parser.add_argument(
        "--label_columns", nargs="+", default=[],
        help="columns of both with class labels, to train probes for (embeddings of the scenes bring their own)",
    )  # fmt: skip
    parser.add_argument("--output_dir", default=output_dir)
    parser.add_argument("--num_latents", type=int, default=1024)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch_size", type=int, default=1024)
    parser.add_argument("--use_cpu", action="store_true")


def open_data(arguments: argparse.Namespace) -> Data:
    """The data that the flags name, with probes trained on the training part."""
    for name in ("train_data", "eval_data"):
        path = getattr(arguments, name)
        if path.startswith(EMBEDDINGS) and not Path(path).exists():
            raise FileNotFoundError(
                f"{path} is not there: `make quickstart` makes it; or give --train_data, --eval_data"
            )
    train, test = load_embeddings(arguments.train_data), load_embeddings(arguments.eval_data)
    data = Data(train, test, *probe_columns(train, test, arguments.label_columns))
    if _of_scenes(train) and _of_scenes(test):
        backbone, rows = Backbone.from_pretrained("scenes"), train[np.arange(len(train))]
        for group in CLASSIFIED_GROUPS:
            texts = zero_shot_texts(backbone.text_embeds, group)
            zero_shot = LinearClassifier.zero_shot(
                texts, GROUPS[group], logit_scale=float(backbone.model.logit_scale.detach().exp())
            )
            probe = LinearClassifier.fit(rows, group_labels(train.dataset, group), GROUPS[group])
            labels = group_labels(test.dataset, group)
            data.classifiers |= {f"probe {group}": probe, f"zero-shot {group}": zero_shot}
            data.labels |= {f"probe {group}": labels, f"zero-shot {group}": labels}
        data.truth = load_embeddings(truth_matrix(test.dataset).astype(np.float32))
    return data


def _of_scenes(data: EmbeddingDataset) -> bool:
    return data.dataset is not None and set(CONCEPTS) <= set(data.dataset.column_names)


def compare(
    arguments: argparse.Namespace, variants: Mapping[str, Variant], data: Data, output_dir: Path
) -> pd.DataFrame:
    """
    Train every variant with every seed, and measure it; what is done already is not done again.

    Returns:
        A row for each variant, granularity and seed: variant, family, point, k, seed, learning_rate, loss (what the
        variant was trained to lower, on the held-out data), the metrics, the means of those of the probes and of the
        zero-shot classifiers, cost (time of a step by that of the fastest variant of its seed), stability (mean over
        the other seeds; of the latents that are alive at that granularity) and chance (that of random directions).
    """
    disable_progress_bar()
    check_variants(arguments, variants, data)
    output_dir.mkdir(parents=True, exist_ok=True)
    _check_settings(arguments, variants, output_dir)
    rows = []
    for seed in dict.fromkeys(arguments.seeds):
        finished = output_dir / f"seed-{seed}.json"
        if not finished.exists():
            _write_json(finished, _train_seed(arguments, variants, data, output_dir / f"seed-{seed}", seed))
        rows += json.loads(finished.read_text())
    table = pd.DataFrame(rows)
    table["stability"], table["chance"] = stability(table, output_dir)
    table.to_csv(output_dir / "table.csv", index=False)
    return table


def check_variants(arguments: argparse.Namespace, variants: Mapping[str, Variant], data: Data) -> None:
    """Find a model that cannot be before any work is done.

    Raises:
        ValueError: names it.
    """
    for name, variant in variants.items():
        try:
            MSAEConfig(d_in=data.train.width, num_latents=arguments.num_latents, **variant.config)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def run_reporting_errors(main: Callable[[], None]) -> None:
    """Call a benchmark's main; what a user can mend or go on from ends it with one line."""
    try:
        main()
    except TrainingInterrupted as interruption:
        print(f"\n{interruption}", file=sys.stderr)
        sys.exit(interruption.exit_code)
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command goes on")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _check_settings(arguments, variants: Mapping[str, Variant], output_dir: Path) -> None:
    """Results of other settings are not to be mixed with these."""
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
                    f"another --output_dir, or delete it"
                )
    _write_json(file, settings)


def _write_json(path: Path, content: Any) -> None:
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_text(json.dumps(content, indent=2))
    temporary.replace(path)


def _train_seed(arguments, variants: Mapping[str, Variant], data: Data, folder: Path, seed: int) -> list[dict]:
    trainers = [_trainer(arguments, variant, data, folder / _file(name), seed) for name, variant in variants.items()]
    resumed = any(list_checkpoints(trainer.output_dir) for trainer in trainers)
    results = train_sweep(trainers, "last" if resumed else None)
    seconds = [getattr(result, "seconds_per_step", None) for result in results]
    timed = folder / "seconds_per_step.json"  # a run that is only measured again has no steps to time
    if any(seconds) or not timed.exists():
        _write_json(timed, seconds)
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
        ks = [n] if variant.ks is None else sorted({*(k for k in variant.ks if k < n), n})
        evaluation = evaluate_msae(
            trainer.model, data.test, ks, progress=False, classifiers=data.classifiers, labels=data.labels,
            encoder_embeds=data.truth, encoder=None if data.truth is None else "the truth about the scenes",
        )  # fmt: skip
        loss = _loss(trainer.model, data.test)
        for number, metrics in evaluation.by_k.items():
            k = ALL if int(number) == n else int(number)
            np.save(trainer.output_dir / f"alive-{k}.npy", _alive(trainer.model, data.test, int(number)))
            rows.append(
                {
                    "variant": name,
                    "family": variant.family,
                    "point": name if variant.ks is None else f"{name}, k={k}",
                    "k": k,
                    "seed": seed,
                    "learning_rate": variant.learning_rate,
                    "loss": loss,
                    **_figures(metrics),
                    "cost": own / fastest if own else None,
                }
            )
    return rows


def _trainer(arguments, variant: Variant, data: Data, folder: Path, seed: int) -> MSAETrainer:
    set_seed(seed)
    model = MSAEModel(MSAEConfig(d_in=data.train.width, num_latents=arguments.num_latents, **variant.config))
    statistics = data.train.statistics()
    if not variant.centred:
        squared = statistics.mean_squared_distance + statistics.mean.square().sum()
        model.set_input_statistics(torch.zeros(data.train.width), (data.train.width / squared) ** 0.5)
    if variant.median_bias:
        if variant.centred:
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
    """The metrics of one level in a flat row, those of classifiers as means over the probes and the zero-shot ones."""
    row = {name: value for name, value in metrics.items() if name != "classifiers"}
    for kind in ("probe", "zero-shot"):
        found = [each for name, each in metrics["classifiers"].items() if name.startswith(kind)]
        for key in ("agreement", "kl", "accuracy_drop"):
            values = [each[key] for each in found if each[key] is not None]
            if values:
                row[f"{kind} {key}"] = float(np.mean(values))
    return row


def geometric_median(data: EmbeddingDataset, steps: int = 50) -> torch.Tensor:
    """The point of least mean distance to the embeddings, by Weiszfeld's iteration; (d,) in float32."""
    x = data[np.arange(len(data))].double()
    median = x.mean(0)
    for _ in range(steps):
        weight = 1 / (x - median).norm(dim=1).clamp_min(1e-9)
        median = (weight[:, None] * x).sum(0) / weight.sum()
    return median.float()


def subset(data: EmbeddingDataset, rows: np.ndarray) -> EmbeddingDataset:
    """Some rows of the data, which stay on disk where they are."""
    if data.dataset is None:
        return load_embeddings(data[rows])
    return load_embeddings(data.dataset.select(rows), data.column)


@torch.no_grad()
def stability(table: pd.DataFrame, output_dir: Path) -> tuple[list[float | None], list[float | None]]:
    """
    For each row, the mean over other seeds of the stability of the latents that are alive there; and what random
    directions in their place would reach.
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
    """The mean of the training loss over the data."""
    model.eval()
    parts = [(len(batch), model(batch.to(model.device), return_loss=True).loss) for batch in data.batches(4096)]
    return float(sum(rows * loss for rows, loss in parts) / len(data))


@torch.no_grad()
def _alive(model: MSAEModel, data: EmbeddingDataset, k: int) -> np.ndarray:
    """Which latents fire on the data with granularity k, bool (n,)."""
    return (
        torch.stack([(model.encode(batch.to(model.device), k) > 0).any(0) for batch in data.batches(4096)])
        .any(0)
        .cpu()
        .numpy()
    )


def _alive_directions(output_dir: Path, row: Any) -> torch.Tensor:
    """The directions of the latents that fire on the held-out data."""
    folder = output_dir / f"seed-{row.seed}" / _file(row.variant)
    return MSAEModel.from_pretrained(folder).dictionary[torch.from_numpy(np.load(folder / f"alive-{row.k}.npy"))]


def _file(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-").replace("@", "-")
