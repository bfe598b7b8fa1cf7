"""Train the three small MSAEs of the scenes' SigLIP that come with the package, on a CPU.

    scenes-image    of image_embeds, as the quickstart's
    scenes-text     of text_embeds: captions
    scenes-patches  of the tokens that leave the last vision block, one for each patch: where in a picture something is

Each is written as a complete run into hf_msae/scenes/msae/NAME: model, metrics, names, figure, record and card. The
first two are named by words whose text embeddings point where their latents do. Tokens of a block live in another
space than texts, so scenes-patches is named by the pictures that activate its latents. What is in a picture is known,
and for every latent the table says how well its activation tells held-out scenes that its name is true of (auroc).

--cards_only renders the cards anew from the files in the folders.
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
from hf_msae.scenes.captions import WORDINGS
from hf_msae.scenes.labels import truth_matrix
from hf_msae.training.record import TrainingRecord, command_line

ROOT = Path(__file__).parents[1]
RELEASES = ROOT / "hf_msae" / "scenes" / "msae"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Release:
    """What is trained, and for how many passes over its embeddings."""

    hook_point: str
    num_train_epochs: float


MODELS = {
    "scenes-image": Release("image_embeds", num_train_epochs=40),
    "scenes-text": Release("text_embeds", num_train_epochs=40),
    # The last block tells concepts apart better than the one before: docs/backbones.md. A picture has 36 patches.
    "scenes-patches": Release("vision.layers.2", num_train_epochs=2),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="which (default: all)")
    parser.add_argument("--output_dir", type=Path, default=RELEASES, help="where to (default: into the package)")
    parser.add_argument("--work_dir", type=Path, default=ROOT / "outputs" / "scenes_msaes", help="for the embeddings")
    parser.add_argument("--num_train_scenes", type=int, default=20_000)
    parser.add_argument("--num_eval_scenes", type=int, default=5_000)
    parser.add_argument("--num_latents", type=int, default=1024)
    parser.add_argument("--learning_rate", type=float, default=1e-2)
    parser.add_argument("--batch_size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--num_proc", type=int, default=2, help="processes that render")
    parser.add_argument("--cards_only", action="store_true", help="write the cards of what is there, train nothing")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if not arguments.cards_only:
        backbone = Backbone.from_pretrained("scenes")
        sizes = {"train": arguments.num_train_scenes, "test": arguments.num_eval_scenes}
        scenes = {
            split: load_scenes(split, sizes[split], arguments.seed, num_proc=arguments.num_proc) for split in SPLITS
        }
        embed(backbone, scenes, arguments)
        for name in arguments.models:
            print(f"\n{name}", flush=True)
            release(name, backbone, scenes, arguments)
    for name in arguments.models:
        write_model_card(arguments.output_dir / name, model_name=name, released=True, replace_card=True)


def embed(backbone: Backbone, scenes: dict, arguments: argparse.Namespace) -> None:
    """All hook points of both splits in one pass, with the truth about the scenes beside them."""
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
    """Train, measure, name and record one model."""
    folder, model = arguments.output_dir / name, MODELS[name]
    embeddings = {split: load_embeddings(arguments.work_dir / split, model.hook_point) for split in SPLITS}
    # Levels and weights as benchmarks/design_choices.py has found them best for few latents.
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
    result = trainer.train()
    trainer.save_model(folder)

    trainer.model = msae = MSAEModel.from_pretrained(folder)  # what is measured is what was written
    evaluation = trainer.evaluate().with_data(held_out=True)
    evaluation.save(folder / "metrics.json")
    print(evaluation)

    if "layers" in model.hook_point:
        table = name_patches(msae, embeddings["train"], backbone, arguments.work_dir)
    else:
        table = name_pooled(msae, embeddings["test"], backbone)
    auroc = detects(msae, table, embeddings["test"], truth_of(scenes["test"], model.hook_point))
    table = ConceptTable(table.frame.assign(auroc=auroc), table.provenance)
    table.save(folder / "concepts" / "scenes.parquet")
    print(table.best(20).to_string(float_format="{:.3f}".format))

    draw(evaluation, folder / "quality_against_k.png")
    command = command_line("python training/train_scenes_msaes.py", sys.argv[1:])
    of_data = (embeddings["train"], embeddings["test"])
    TrainingRecord.of(run, *of_data, command, result, (None, None), msae.config, evaluation.model_sha256).save(folder)


def draw(evaluation: EvaluationResult, file: Path) -> None:
    """Quality against k, in 64 colours, which are enough for it and take a third of the bytes."""
    with Image.open(save_figure(plot_quality_against_k(evaluation.to_dict()), file)) as image:
        small = image.convert("RGB").quantize(64)
    small.save(file, optimize=True)


def name_pooled(msae: MSAEModel, acts: EmbeddingDataset, backbone: Backbone) -> ConceptTable:
    """Names by the words that point where latents do, and by what activates them."""
    vocabulary = Vocabulary.of_scenes()
    words = vocabulary.embed(backbone)
    table = name_latents(msae, vocabulary, words, acts, progress=False)
    return ConceptTable(table.frame, {**table.provenance, "vocabulary": "scenes", "backbone": backbone.name_or_path})


def name_patches(msae: MSAEModel, acts: EmbeddingDataset, backbone: Backbone, work_dir: Path) -> ConceptTable:
    """Names by the pictures that activate latents.

    Of every picture there are each latent's largest activation over its patches, and the cosine of its image embedding
    with each word. The name of a latent is the word whose cosines are correlated most with its activations; similarity
    is that correlation. There are no p- and q-values, since nothing says what correlations chance would give.
    """
    vocabulary = Vocabulary.of_scenes()
    images = load_embeddings(work_dir / "train", "image_embeds")
    words, pictures = vocabulary.embed(backbone), images[:]
    cosines = F.normalize(pictures - pictures.mean(0), dim=-1) @ F.normalize(words - words.mean(0), dim=-1).T
    active = strongest(msae, acts)
    alive = active.std(dim=0) > 0
    standard = [F.normalize(each - each.mean(0), dim=0) for each in (active, cosines)]
    best, which = (standard[0].T @ standard[1]).topk(2, dim=1)
    names, others = ([vocabulary.words[i] for i in which[:, place].tolist()] for place in (0, 1))
    names, others = ([name if it else None for name, it in zip(each, alive, strict=True)] for each in (names, others))
    table = ConceptTable.from_columns(names, best[:, 0].numpy(), others, best[:, 1].numpy())
    how = "correlation of the largest activation over a picture's patches with the picture's cosine with the word"
    return ConceptTable(
        table.frame.assign(num_active=(active > 0).sum(dim=0).numpy()),
        {"similarity": how, "words": len(vocabulary), "templates": list(vocabulary.templates), "vocabulary": "scenes"},
    )


def strongest(msae: MSAEModel, acts: EmbeddingDataset) -> torch.Tensor:
    """Each latent's largest activation over a row's embeddings, (rows, latents)."""
    rows = torch.from_numpy(np.asarray(acts.dataset_rows()))
    found, first = torch.zeros(int(rows[-1]) + 1, msae.config.num_latents), 0
    with torch.no_grad():
        for x in acts.batches(8192):
            where = rows[first : first + len(x), None].expand(-1, found.shape[1])
            found.scatter_reduce_(0, where, msae.encode(x), "amax")
            first += len(x)
    return found


def truth_of(scenes, hook_point: str) -> dict[str, np.ndarray]:
    """For each concept, of which scenes it is true; for texts, which captions say it."""
    if hook_point != "text_embeds":
        return dict(zip(CONCEPTS, truth_matrix(scenes).T, strict=True))
    captions = scenes["caption"]
    said = {concept: re.compile(rf"\b(?:{'|'.join((concept, *WORDINGS[concept]))})\b") for concept in CONCEPTS}
    return {concept: np.array([bool(how.search(text)) for text in captions]) for concept, how in said.items()}


def detects(msae: MSAEModel, table: ConceptTable, acts: EmbeddingDataset, truth: dict[str, np.ndarray]) -> list[float]:
    """How well each latent's activation tells the rows that its name is true of: AUROC; NaN of what has no name."""
    active = strongest(msae, acts).numpy()
    return [
        roc_auc_score(truth[name], active[:, latent]) if name in truth else float("nan")
        for latent, name in zip(table.frame["latent"], table.frame["name"], strict=True)
    ]


if __name__ == "__main__":
    main()
