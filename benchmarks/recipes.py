"""Which recipe for an MSAE gives the most true names, and at what fidelity? On both worlds, over several seeds.

    python benchmarks/recipes.py --worlds outputs/clipart-42 outputs/quickstart --use_cpu
    python benchmarks/recipes.py --worlds outputs/clipart-42 outputs/quickstart --use_cpu --recipes "levels from 8"

Every recipe differs in one thing from the base, which is the recipe of the released models (levels of 16, 32, 64, ...
activations, reverse weights, learning rate 1e-2, 1,024 latents) with fewer steps. Latents are named from pictures, and
other pictures judge, as in benchmarks/naming.py: a validated name is true if the latent detects what it means at an
AUROC above 0.9. Several latents often have the same name, so the words among the true names count. They are counted in
the full code and, for an equal number of active latents, in the 32 largest activations of each picture. FVU and L0 are
those of held-out embeddings.

"pictures and texts" adds the embeddings of as many captions or titles to the training data, shifted to the mean of the
pictures (so without the modality gap) and scaled to their spread. Dictionaries that were not trained are compared:
random training pictures (and random directions), whose decoder is fitted by least squares, so that they have an FVU.

A file is written for each model, so an interrupted run continues, with more seeds or recipes if they are asked for.
The summary tells which recipes have more distinct true words with every seed than the base has with any, on both
worlds, at an FVU that is at most a tenth higher.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import set_seed
from comparison import (
    ALL,
    Variant,
    make_trainer,
    run_reporting_errors,
    true_names,
    write_json,
)
from comparison_data import Data, start_from_embeddings
from transformers.utils.logging import disable_progress_bar
from worlds import World, worlds_of

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.embeddings import EmbeddingDataset, load_embeddings
from hf_msae.metrics import evaluate_msae, progressive_ks

BASE = "base"
ACTIVE = 32
"""Active latents for which all recipes are compared."""
MORE_FVU = 1.1


@dataclass(frozen=True)
class Recipe:
    """How a recipe differs from the base.

    Attributes:
        config: Fields of MSAEConfig.
        learning_rate: Learning rate.
        steps: Number of steps, relative to the others'.
        texts: Whether texts are trained on, too.
        from_pictures: Whether the dictionary begins as random training pictures.
        trained: Whether the model is trained. Otherwise only its decoder is fitted.
    """

    config: dict[str, Any] = field(default_factory=dict)
    learning_rate: float = 1e-2
    steps: float = 1
    texts: bool = False
    from_pictures: bool = False
    trained: bool = True


def _levels(smallest: int) -> dict[str, Any]:
    return {"nesting_ks": progressive_ks(1024, smallest)}


_ONE_LEVEL = {"nesting": "none", "nesting_ks": None, "nesting_weights": "uniform"}
RECIPES = {
    BASE: Recipe(),
    "levels from 8": Recipe(_levels(8)),
    "levels from 64": Recipe(_levels(64)),
    "uniform weights": Recipe({"nesting_weights": "uniform"}),
    "L1": Recipe({"sparsity_coefficient": 5e-3}),
    "learning rate a tenth": Recipe(learning_rate=1e-3),
    "twice the steps": Recipe(steps=2),
    "256 latents": Recipe({"num_latents": 256, "nesting_ks": progressive_ks(256)}),
    "4,096 latents": Recipe({"num_latents": 4096, "nesting_ks": progressive_ks(4096)}),
    "pictures and texts": Recipe(texts=True),
    "begins as pictures": Recipe(from_pictures=True),
    "tied": Recipe({"tied": True}),
    "TopK@32": Recipe({**_ONE_LEVEL, "activation": "topk", "k": ACTIVE}),
    "BatchTopK@32": Recipe({**_ONE_LEVEL, "activation": "batch_topk", "k": ACTIVE}),
    "prefixes of BatchTopK@32": Recipe({**_ONE_LEVEL, "nesting": "prefix", "activation": "batch_topk", "k": ACTIVE}),
    "not trained: pictures": Recipe(_ONE_LEVEL, from_pictures=True, trained=False),
    "not trained: 4,096 pictures": Recipe({**_ONE_LEVEL, "num_latents": 4096}, from_pictures=True, trained=False),
    "not trained: directions": Recipe(_ONE_LEVEL, trained=False),
}


def with_texts(train: EmbeddingDataset, backbone: Backbone, file: Path) -> EmbeddingDataset:
    """Embeddings of the pictures and of their texts, without the gap between them."""
    if not file.exists():
        column = next(name for name in ("caption", "title") if name in train.dataset.column_names)
        texts = backbone.text_embeds(list(train.dataset[column]))
        pictures = train[:]
        centered, mean = texts - texts.mean(dim=0), pictures.mean(dim=0)
        scale = (pictures - mean).square().sum().sqrt() / centered.square().sum().sqrt()
        np.save(file, torch.cat([pictures, centered * scale + mean]).numpy())
    return load_embeddings(file)


def train_model(arguments: argparse.Namespace, recipe: Recipe, data: Data, folder: Path, seed: int) -> MSAEModel:
    """A model of a recipe, trained unless the recipe says otherwise."""
    base = {"num_latents": 1024, "nesting_ks": progressive_ks(1024), "nesting_weights": "reverse"}
    config = {**base, **recipe.config}
    steps = max(1, round(arguments.steps * recipe.steps))
    sizes = argparse.Namespace(**{**vars(arguments), "num_latents": config.pop("num_latents"), "steps": steps})
    trainer = make_trainer(sizes, Variant("", config, recipe.learning_rate), data, folder, seed)
    statistics = data.train.statistics()
    trainer.model.set_input_statistics(statistics.mean, statistics.input_scale)
    if recipe.from_pictures:
        start_from_embeddings(trainer.model, data.train, seed)
    if recipe.trained:
        trainer.train()
    return trainer.model.eval()


@torch.no_grad()
def fit_decoder(model: MSAEModel, train: torch.Tensor, k: int | None) -> MSAEModel:
    """A copy of the model with the decoder and bias that reconstruct best from k activations, by ridge regression."""
    code, u = model.encode(train, k).double(), model.normalize(train).double()
    mean_code, mean = code.mean(dim=0), u.mean(dim=0)
    code = code - mean_code
    second = code.T @ code
    second.diagonal().add_(1e-4 * second.diagonal().mean())
    decoder = torch.linalg.solve(second, code.T @ (u - mean))
    fitted = MSAEModel(MSAEConfig.from_dict(model.config.to_dict())).eval()
    fitted.load_state_dict(model.state_dict())
    fitted.decoder.copy_(decoder)
    bias = mean - mean_code @ decoder
    # The encoder subtracts the bias that the decoder adds, so the latents' biases make up for it.
    fitted.latent_bias.add_(((bias - model.pre_bias) @ model.encoder.double()).float())
    fitted.pre_bias.copy_(bias)
    return fitted


def measure(recipe: Recipe, model: MSAEModel, world: World, data: Data) -> Iterator[dict]:
    """Fidelity and names of a model, in the full code and with 32 activations."""
    fixed = recipe.config.get("k") is not None
    for k in [None] if fixed else [ACTIVE, None]:
        measured = model if recipe.trained else fit_decoder(model, data.train[:], k)
        ks = None if fixed else [k or model.config.num_latents]
        evaluation = evaluate_msae(measured, data.test, ks, cknna_batch_size=None, progress=False)
        figures = {name: getattr(evaluation, name) for name in ("fvu", "l0", "dead_latents")}
        yield {"k": str(ACTIVE if fixed else k or ALL), **figures, **true_names(model, world, k or ALL)}


def wins(table: pd.DataFrame) -> pd.DataFrame:
    """For each recipe, number of active latents and world, whether it wins over the base."""
    rows = []
    for (world, k), group in table.groupby(["world", "k"], sort=False):
        base = table[(table["world"] == world) & (table["recipe"] == BASE) & (table["k"] == k)]
        for recipe, each in group.groupby("recipe", sort=False):
            more = each["distinct words"].min() > base["distinct words"].max()
            faithful = each["fvu"].mean() <= MORE_FVU * base["fvu"].mean()
            rows.append({"recipe": recipe, "k": k, "world": world, "wins": more and faithful, "more words": more})
    return pd.DataFrame(rows).pivot(index=["recipe", "k"], columns="world", values=["wins", "more words"])


def show(table: pd.DataFrame) -> None:
    """Print means and ranges over seeds, and what wins."""
    columns = ["fvu", "l0", "dead_latents", "validated names", "true names", "distinct words"]

    def spread(values: pd.Series) -> str:
        mean, low, high = (f"{value:.3g}" for value in (values.mean(), values.min(), values.max()))
        return mean if low == high else f"{mean} ({low} to {high})"

    for (world, k), group in table.groupby(["world", "k"], sort=False):
        means = group.groupby("recipe", sort=False)[columns].agg(spread)
        print(f"\n{world}, k={k}, seeds {sorted(group['seed'].unique())}\n{means.to_string()}")
    print(f"\n{wins(table).to_string()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--worlds", nargs="+", required=True, help="Folders of a quickstart and of train_clipart_msae.py."
    )
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), help="Recipes to measure.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/recipes"), help="Folder for the results.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44], help="Random seeds to train with.")
    parser.add_argument("--steps", type=int, default=300, help="Number of training steps.")
    parser.add_argument("--batch_size", type=int, default=1024, help="Number of embeddings per training step.")
    parser.add_argument("--use_cpu", action="store_true", help="Train on the CPU even if there is a GPU.")
    arguments = parser.parse_args()
    disable_progress_bar()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    worlds, rows = {folder: worlds_of(folder)[0] for folder in arguments.worlds}, []
    for seed, name, (folder, world) in product(arguments.seeds, arguments.recipes, worlds.items()):
        recipe = RECIPES[name]
        file = arguments.output_dir / f"{world.backbone}-{name.replace(' ', '-')}-{arguments.steps}-{seed}.json"
        if not file.exists():
            train, test = (load_embeddings(f"{folder}/embeddings/{split}") for split in ("train", "test"))
            if recipe.texts:
                backbone = Backbone.from_pretrained(world.backbone)
                train = with_texts(train, backbone, arguments.output_dir / f"{world.backbone}-texts.npy")
            data = Data(train, test)
            set_seed(seed)
            with tempfile.TemporaryDirectory() as scratch:
                model = train_model(arguments, recipe, data, Path(scratch) / "run", seed)
            key = {"world": world.name, "recipe": name, "seed": seed}
            write_json(file, [{**key, **each} for each in measure(recipe, model, world, data)])
            print(file.name, flush=True)
        rows += json.loads(file.read_text())
    table = pd.DataFrame(rows)
    table.to_csv(arguments.output_dir / "table.csv", index=False)
    show(table)


if __name__ == "__main__":
    run_reporting_errors(main)
