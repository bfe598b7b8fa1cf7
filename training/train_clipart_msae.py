"""Train the small MSAE in this package on image embeddings of the clip art's SigLIP, on a CPU.

    python training/train_clipart_msae.py --icons outputs/icons --output_dir outputs/clipart-42 --seed 42

It is trained on the drawings and icons that the SigLIP was trained on, and evaluated on drawings by other authors.
Names come from the tags that at least 5 of the training drawings have, most frequent first. The folder holds the model
with metrics, names, figure, record and card, and the embeddings of all splits.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import torch
from accelerate.utils import set_seed
from datasets import Dataset, concatenate_datasets, load_from_disk
from train_scenes_msaes import draw

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae.backbones import Backbone
from hf_msae.backbones.extraction import extract_activations
from hf_msae.clipart import load_clipart
from hf_msae.concepts import ConceptTable, Vocabulary, name_latents
from hf_msae.embeddings import load_embeddings
from hf_msae.hub.publishing.card import write_model_card
from hf_msae.metrics import progressive_ks
from hf_msae.training import finish
from hf_msae.training.record import command_line

NAME = "clipart-image"
MIN_TAG_COUNT = 5


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--icons", type=Path, required=True, help="folder that clipart_icons.py wrote")
    parser.add_argument("--backbone", default="clipart", help="folder of the SigLIP (default: the one in the package)")
    parser.add_argument("--num_latents", type=int, default=1024)
    parser.add_argument("--num_train_epochs", type=float, default=40)
    parser.add_argument("--learning_rate", type=float, default=1e-2)
    parser.add_argument("--batch_size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    (arguments.output_dir / "embeddings").mkdir(parents=True, exist_ok=True)
    backbone = Backbone.from_pretrained(arguments.backbone)
    embeddings = embed(backbone, arguments)
    msae = train(embeddings, arguments)
    table = name(msae, backbone, embeddings["train"])
    table.save(arguments.output_dir / "concepts" / "clipart.parquet")
    print(table.best(20).to_string(float_format="{:.3f}".format))
    write_model_card(arguments.output_dir, model_name=NAME, released=True, replace_card=True)


def embed(backbone: Backbone, arguments: argparse.Namespace) -> dict:
    """Embed the training drawings, followed by the icons, and the drawings by other authors."""
    drawings = load_clipart("train")
    icons = load_from_disk(str(arguments.icons))
    shared = ["image", "title"]
    parts: dict[str, Dataset] = {
        "train": concatenate_datasets([drawings.select_columns(shared), icons.select_columns(shared)]),
        "validation": load_clipart("validation").select_columns(shared),
        "test": load_clipart("test").select_columns(shared),
    }
    found = {}
    for split, data in parts.items():
        folder = arguments.output_dir / "embeddings" / split
        source = f"clipart:{split}" + (" and icons" if split == "train" else "")
        extract_activations(backbone, data, folder, batch_size=256, metadata={"dataset": source})
        found[split] = load_embeddings(folder)
    return found


def train(embeddings: dict, arguments: argparse.Namespace) -> MSAEModel:
    """Train and evaluate the model, and draw its quality."""
    config = MSAEConfig(
        d_in=embeddings["train"].width,
        num_latents=arguments.num_latents,
        nesting_ks=progressive_ks(arguments.num_latents),
        nesting_weights="reverse",
    )
    run = MSAETrainingArguments(
        output_dir=str(arguments.output_dir / "run"),
        overwrite_output_dir=True,
        per_device_train_batch_size=arguments.batch_size,
        num_train_epochs=arguments.num_train_epochs,
        learning_rate=arguments.learning_rate,
        save_strategy="no",
        seed=arguments.seed,
        use_cpu=True,
    )
    set_seed(arguments.seed)
    trainer = MSAETrainer(MSAEModel(config), run, embeddings["train"], embeddings["test"])
    trainer.train()
    command = command_line("python training/train_clipart_msae.py", sys.argv[1:])
    evaluation = finish(trainer, output_dir=arguments.output_dir, command=command)
    print(evaluation)
    draw(evaluation, arguments.output_dir / "quality_against_k.png")
    return MSAEModel.from_pretrained(arguments.output_dir)


def name(msae: MSAEModel, backbone: Backbone, embeddings) -> ConceptTable:
    """Name latents by the tags of the training drawings."""
    drawings = load_clipart("train")
    counts = Counter(tag for tags in drawings["tags"] for tag in tags)
    tags = [tag for tag, count in counts.most_common() if count >= MIN_TAG_COUNT]
    vocabulary = Vocabulary(tags, order="frequency")
    pictures: torch.Tensor = embeddings[: len(drawings)]
    table = name_latents(msae, vocabulary, vocabulary.embed(backbone), pictures, progress=False)
    return ConceptTable(table.frame, {**table.provenance, "vocabulary": "tags", "backbone": backbone.name_or_path})


if __name__ == "__main__":
    main()
