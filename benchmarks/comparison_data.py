"""The data of benchmarks/pareto.py and benchmarks/design_choices.py, with classifiers and labels, and their flags."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from worlds import World, worlds_of

from hf_msae import MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.bias.classifiers import probe_columns
from hf_msae.embeddings import EmbeddingDataset, load_embeddings
from hf_msae.metrics import LinearClassifier
from hf_msae.scenes import CONCEPTS, GROUPS
from hf_msae.scenes.captions import CLASSIFIED_GROUPS, group_labels, truth_matrix, zero_shot_texts

EMBEDDINGS = "outputs/quickstart/embeddings"


@dataclass
class Data:
    """Embeddings for training and for testing, with classifiers and labels for the test data.

    Latents are named in `world`, if it is given, and their true names are counted.
    """

    train: EmbeddingDataset
    test: EmbeddingDataset
    classifiers: dict[str, LinearClassifier] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    truth: EmbeddingDataset | None = None
    world: World | None = None


def add_arguments(parser: argparse.ArgumentParser, output_dir: str) -> None:
    """Add the flags that both benchmarks share."""
    parser.add_argument(
        "--train_data", default=f"{EMBEDDINGS}/train", help="Embeddings to train on, as for load_embeddings."
    )
    parser.add_argument(
        "--eval_data", default=f"{EMBEDDINGS}/test", help="Held-out embeddings to measure on, as for load_embeddings."
    )
    parser.add_argument(
        "--label_columns", nargs="+", default=[],
        help="Columns of class labels in both datasets to train probes for. Embeddings of the scenes need none.",
    )  # fmt: skip
    parser.add_argument(
        "--world",
        help="Folder of a quickstart or of train_clipart_msae.py: its embeddings are used and true names counted.",
    )
    parser.add_argument("--output_dir", default=output_dir, help="Folder for models, tables and figures.")
    parser.add_argument("--num_latents", type=int, default=1024, help="Number of latents of each model.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44], help="Random seeds to train with.")
    parser.add_argument("--steps", type=int, default=800, help="Number of training steps of each model.")
    parser.add_argument("--batch_size", type=int, default=1024, help="Number of embeddings per training step.")
    parser.add_argument("--use_cpu", action="store_true", help="Train on the CPU even if there is a GPU.")


def open_data(arguments: argparse.Namespace) -> Data:
    """Open the data named by the flags and train probes on the training data."""
    if arguments.world is not None:
        arguments.train_data, arguments.eval_data = (f"{arguments.world}/embeddings/{s}" for s in ("train", "test"))
    for name in ("train_data", "eval_data"):
        path = getattr(arguments, name)
        if path.startswith(EMBEDDINGS) and not Path(path).exists():
            raise FileNotFoundError(
                f"{path} does not exist: create it with `make quickstart`, or pass --train_data and --eval_data"
            )
    train, test = load_embeddings(arguments.train_data), load_embeddings(arguments.eval_data)
    data = Data(train, test, *probe_columns(train, test, arguments.label_columns))
    data.world = worlds_of(arguments.world)[0] if arguments.world is not None else None
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


def geometric_median(data: EmbeddingDataset, steps: int = 50) -> torch.Tensor:
    """The point with the smallest mean distance to the embeddings, `(d,)` in float32, by Weiszfeld's algorithm."""
    x = data[np.arange(len(data))].double()
    median = x.mean(0)
    for _ in range(steps):
        weight = 1 / (x - median).norm(dim=1).clamp_min(1e-9)
        median = (weight[:, None] * x).sum(0) / weight.sum()
    return median.float()


def subset(data: EmbeddingDataset, rows: np.ndarray) -> EmbeddingDataset:
    """Some rows of the data, without copying them if they are on disk."""
    if data.dataset is None:
        return load_embeddings(data[rows])
    return load_embeddings(data.dataset.select(rows), data.column)


@torch.no_grad()
def start_from_embeddings(model: MSAEModel, data: EmbeddingDataset, seed: int) -> None:
    """Make random embeddings the dictionary of a new model, instead of random directions."""
    n, d = model.config.num_latents, model.config.d_in
    some = np.random.default_rng(seed).choice(len(data), n, replace=False)
    directions = torch.nn.functional.normalize(model.normalize(data[np.sort(some)]), dim=-1)
    model.decoder.copy_(directions)
    model.encoder.copy_(directions.T * min(1, 2 * d / n))  # as a new model's
