"""Train the three small MSAEs in this package on embeddings of the scenes' SigLIP, on a CPU.

    scenes-image    on image_embeds, as the quickstart
    scenes-text     on text_embeds of captions
    scenes-patches  on the tokens that leave the last vision block, one per patch, to locate concepts in an image

Each is written with its metrics, names, figure, record and card to hf_msae/scenes/msae/NAME. The first two are named
by `name_latents` on training scenes. The tokens of a block are in another space than texts, so scenes-patches is named
by the images that activate its latents. Since the concepts in a scene are known, the table
of names also says how well each latent detects held-out scenes with the concept in its name (auroc).

--names_only names existing models and writes their cards; --cards_only writes only the cards, from the files in the
folders.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae.backbones import Backbone
from hf_msae.backbones.extraction import extract_activations
from hf_msae.concepts import ConceptTable, Vocabulary, name_latents
from hf_msae.embeddings import EmbeddingDataset, load_embeddings
from hf_msae.hub.publishing.card import write_model_card
from hf_msae.metrics import EvaluationResult, progressive_ks
from hf_msae.plotting import plot_quality_against_k, save_figure
from hf_msae.scenes import CONCEPTS, load_scenes
from hf_msae.scenes.captions import WORDINGS, truth_matrix
from hf_msae.training import finish
from hf_msae.training.record import command_line

ROOT = Path(__file__).parents[1]
RELEASES = ROOT / "hf_msae" / "scenes" / "msae"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Release:
    """The embeddings of a model and the number of passes over them."""

    hook_point: str
    num_train_epochs: float


MODELS = {
    "scenes-image": Release("image_embeds", num_train_epochs=40),
    "scenes-text": Release("text_embeds", num_train_epochs=40),
    # The last block separates concepts better than the one before (docs/backbones.md). An image has 36 patches.
    "scenes-patches": Release("vision.layers.2", num_train_epochs=2),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), help="models to train (default: all)"
    )
    parser.add_argument("--output_dir", type=Path, default=RELEASES, help="output folder (default: in the package)")
    parser.add_argument("--work_dir", type=Path, default=ROOT / "outputs" / "scenes_msaes", help="embeddings folder")
    parser.add_argument("--num_train_scenes", type=int, default=20_000)
    parser.add_argument("--num_eval_scenes", type=int, default=5_000)
    parser.add_argument("--num_latents", type=int, default=1024)
    parser.add_argument("--learning_rate", type=float, default=1e-2)
    parser.add_argument("--batch_size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--num_workers", "--num_proc", type=int, default=2, help="processes that render scenes")
    parser.add_argument("--names_only", action="store_true", help="only name existing models and write their cards")
    parser.add_argument("--cards_only", action="store_true", help="only write the cards of existing models")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if not arguments.cards_only:
        arguments.work_dir.mkdir(parents=True, exist_ok=True)
        backbone = Backbone.from_pretrained("scenes")
        sizes = {"train": arguments.num_train_scenes, "test": arguments.num_eval_scenes}
        scenes = {
            split: load_scenes(split, sizes[split], arguments.seed, num_proc=arguments.num_workers) for split in SPLITS
        }
        embed(backbone, scenes, arguments)
        for name in arguments.models:
            print(f"\n{name}", flush=True)
            release(name, backbone, scenes, arguments)
    for name in arguments.models:
        write_model_card(arguments.output_dir / name, model_name=name, released=True, replace_card=True)


def embed(backbone: Backbone, scenes: dict, arguments: argparse.Namespace) -> None:
    """Extract all hook points of both splits, with the labels of the scenes."""
    for split, data in scenes.items():
        extract_activations(
            backbone,
            data,
            arguments.work_dir / split,
            text_column="caption",
            hook_points=("image_embeds", "text_embeds", MODELS["scenes-patches"].hook_point),
            tokens="patches",
            batch_size=256,
            metadata={"dataset": f"scenes:{split}:{len(data)}:{arguments.seed}"},
        )


def release(name: str, backbone: Backbone, scenes: dict, arguments: argparse.Namespace) -> None:
    """Train, evaluate and name one model."""
    folder, model = arguments.output_dir / name, MODELS[name]
    embeddings = {split: load_embeddings(arguments.work_dir / split, model.hook_point) for split in SPLITS}
    if not arguments.names_only:
        train(name, folder, embeddings, arguments)
    msae = MSAEModel.from_pretrained(folder)
    if "layers" in model.hook_point:
        table = name_patches(msae, embeddings["train"], backbone, arguments.work_dir)
    else:
        table = name_pooled(msae, embeddings["train"], backbone)
    auroc = detects(msae, table, embeddings["test"], truth_of(scenes["test"], model.hook_point))
    table = ConceptTable(table.frame.assign(auroc=auroc), table.provenance)
    table.save(folder / "concepts" / "scenes.parquet")
    print(table.best(20).to_string(float_format="{:.3f}".format))


def train(name: str, folder: Path, embeddings: dict[str, EmbeddingDataset], arguments: argparse.Namespace) -> None:
    """Train and evaluate one model, and draw its quality."""
    model = MODELS[name]
    # The best levels and weights for few latents, by benchmarks/design_choices.py.
    config = MSAEConfig(
        d_in=embeddings["train"].width,
        num_latents=arguments.num_latents,
        nesting_ks=progressive_ks(arguments.num_latents),
        nesting_weights="reverse",
        hook_point=model.hook_point,
    )
    run = MSAETrainingArguments(
        output_dir=str(arguments.work_dir / name),
        overwrite_output_dir=True,
        per_device_train_batch_size=arguments.batch_size,
        num_train_epochs=model.num_train_epochs,
        learning_rate=arguments.learning_rate,
        save_strategy="no",
        seed=arguments.seed,
        use_cpu=True,
    )
    set_seed(arguments.seed)
    trainer = MSAETrainer(MSAEModel(config), run, embeddings["train"], embeddings["test"])
    trainer.train()
    command = command_line("python training/train_scenes_msaes.py", sys.argv[1:])
    evaluation = finish(trainer, output_dir=folder, command=command)
    print(evaluation)
    draw(evaluation, folder / "quality_against_k.png")


def draw(evaluation: EvaluationResult, file: Path) -> None:
    """Plot quality against k with 64 colors, which take a third of the bytes."""
    with Image.open(save_figure(plot_quality_against_k(evaluation.to_dict()), file)) as image:
        small = image.convert("RGB").quantize(64)
    small.save(file, optimize=True)


def name_pooled(msae: MSAEModel, embeddings: EmbeddingDataset, backbone: Backbone) -> ConceptTable:
    """Name latents by the words that agree with their activations."""
    vocabulary = Vocabulary.of_scenes()
    words = vocabulary.embed(backbone)
    table = name_latents(msae, vocabulary, words, embeddings, progress=False)
    return ConceptTable(table.frame, {**table.provenance, "vocabulary": "scenes", "backbone": backbone.name_or_path})


def name_patches(msae: MSAEModel, embeddings: EmbeddingDataset, backbone: Backbone, work_dir: Path) -> ConceptTable:
    """Name latents by the images that activate them.

    The name of a latent is the word whose cosines with image embeddings are most correlated with the largest
    activations of the latent over the patches of the images; similarity is this correlation. There are no p- and
    q-values, since the correlations by chance are unknown.
    """
    vocabulary = Vocabulary.of_scenes()
    images = load_embeddings(work_dir / "train", "image_embeds")
    words, images = vocabulary.embed(backbone), images[:]
    cosines = F.normalize(images - images.mean(0), dim=-1) @ F.normalize(words - words.mean(0), dim=-1).T
    active = strongest(msae, embeddings)
    alive = active.std(dim=0) > 0
    standard = [F.normalize(each - each.mean(0), dim=0) for each in (active, cosines)]
    best, which = (standard[0].T @ standard[1]).topk(2, dim=1)
    names, others = ([vocabulary.words[i] for i in which[:, place].tolist()] for place in (0, 1))
    names, others = ([name if it else None for name, it in zip(each, alive, strict=True)] for each in (names, others))
    table = ConceptTable.from_columns(names, best[:, 0].numpy(), others, best[:, 1].numpy())
    how = "correlation of the largest activation over the patches of an image with the cosine of image and word"
    return ConceptTable(
        table.frame.assign(num_active=(active > 0).sum(dim=0).numpy()),
        {"similarity": how, "words": len(vocabulary), "templates": list(vocabulary.templates), "vocabulary": "scenes"},
    )


def strongest(msae: MSAEModel, embeddings: EmbeddingDataset) -> torch.Tensor:
    """Return the largest activation of each latent over the embeddings of a row, (rows, latents)."""
    rows = torch.from_numpy(np.asarray(embeddings.dataset_rows()))
    found, first = torch.zeros(int(rows[-1]) + 1, msae.config.num_latents), 0
    with torch.no_grad():
        for x in embeddings.batches(8192):
            where = rows[first : first + len(x), None].expand(-1, found.shape[1])
            found.scatter_reduce_(0, where, msae.encode(x), "amax")
            first += len(x)
    return found


def truth_of(scenes, hook_point: str) -> dict[str, np.ndarray]:
    """Return which scenes have each concept; for texts, which captions mention it."""
    if hook_point != "text_embeds":
        return dict(zip(CONCEPTS, truth_matrix(scenes).T, strict=True))
    captions = scenes["caption"]
    said = {concept: re.compile(rf"\b(?:{'|'.join((concept, *WORDINGS[concept]))})\b") for concept in CONCEPTS}
    return {concept: np.array([bool(how.search(text)) for text in captions]) for concept, how in said.items()}


def detects(
    msae: MSAEModel, table: ConceptTable, embeddings: EmbeddingDataset, truth: dict[str, np.ndarray]
) -> list[float]:
    """Return the AUROC of each latent for the concept in its name; NaN without a name."""
    active = strongest(msae, embeddings).numpy()
    return [
        roc_auc_score(truth[name], active[:, latent]) if name in truth else float("nan")
        for latent, name in zip(table.frame["latent"], table.frame["name"], strict=True)
    ]


if __name__ == "__main__":
    main()
