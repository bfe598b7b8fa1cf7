"""The pictures of `train_clipart_backbone.py`, how well the SigLIP of the clip art sees, and its model card."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from clipart_icons import SETS
from datasets import Dataset
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scipy.stats import rankdata
from small_siglip import retrieval_accuracy
from torch.nn.functional import normalize

from hf_msae._utils.json_files import write_text
from hf_msae.backbones import Backbone
from hf_msae.clipart.build import same_hands

_NUM_RESAMPLES = 200


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures and what is known of each.

    Attributes:
        pixels: RGB values, uint8 (number, height, width, 3).
        rows: For each picture its title, tags, category and, if known, author.
    """

    pixels: np.ndarray
    rows: list[dict]

    @classmethod
    def of(cls, dataset: Dataset) -> Pictures:
        """Decode a dataset of drawings or icons."""
        columns = [name for name in ("title", "tags", "category", "author") if name in dataset.column_names]
        rows = dataset.select_columns(columns).to_list()
        for row in rows:  # of a path such as "animals/sea-birds"
            row["category"] = row["category"].rpartition("/")[2].replace("-", " ").replace("_", " ")
        return cls(np.stack([np.asarray(image.convert("RGB")) for image in dataset["image"]]), rows)


def evaluate_backbone(backbone: Backbone, pictures: Pictures, min_count: int = 10) -> dict:
    """Measure how well tags are found, with an interval over authors, and retrieval among 100.

    Args:
        backbone: The backbone.
        pictures: Drawings by authors that it was not trained on.
        min_count: Tags on fewer drawings are left out.
    """
    images = normalize(backbone.image_embeds(list(pictures.pixels), 128), dim=-1)
    tags_of = [set(row["tags"]) for row in pictures.rows]
    counts = Counter(tag for tags in tags_of for tag in tags)
    tags = sorted(tag for tag, count in counts.items() if count >= min_count)
    scores = (images @ normalize(backbone.text_embeds(tags), dim=-1).T).numpy()
    truth = np.array([[tag in own for tag in tags] for own in tags_of])
    areas = _aurocs(scores, truth)
    hands, authors = np.unique(same_hands([row["author"] for row in pictures.rows]), return_inverse=True)
    drawings_of = [np.flatnonzero(authors == author) for author in range(len(hands))]
    random = np.random.default_rng(0)
    resampled = []
    for _ in range(_NUM_RESAMPLES):
        drawn = np.concatenate([drawings_of[i] for i in random.integers(0, len(hands), len(hands))])
        resampled.append(np.nanmean(_aurocs(scores[drawn], truth[drawn])))
    captions = [", ".join([row["title"], *row["tags"]]) for row in pictures.rows]
    similarity = images @ normalize(backbone.text_embeds(captions), dim=-1).T
    low, high = np.quantile(resampled, (0.025, 0.975))
    return {
        "num_parameters": sum(parameter.numel() for parameter in backbone.model.parameters()),
        "width": images.shape[1],
        "num_drawings": len(pictures.rows),
        "num_authors": len(hands),
        "num_resamples": _NUM_RESAMPLES,
        "min_count": min_count,
        "tag_auroc": float(areas.mean()),
        "tag_auroc_low": float(low),
        "tag_auroc_high": float(high),
        "tags": {tag: round(float(area), 3) for tag, area in zip(tags, areas, strict=True)},
        "image_to_caption_top1_of_100": retrieval_accuracy(similarity),
    }


def _aurocs(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """AUROC of each column, by its ranks; NaN where only one class is there."""
    ranks, positives = rankdata(scores, axis=0), truth.sum(0)
    areas = (ranks * truth).sum(0) - positives * (positives + 1) / 2
    pairs = positives * (len(truth) - positives)
    return np.divide(areas, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def write_backbone_card(folder: Path, metrics: dict) -> None:
    """Write README.md into the folder of a trained backbone.

    Args:
        folder: Folder of the model.
        metrics: What `evaluate_backbone` returned, with the arguments, minutes and torch version as `training`.
    """
    ranked = sorted(metrics["tags"].items(), key=lambda item: item[1])
    shown = [", ".join(f"{tag} {area:.2f}" for tag, area in part) for part in (ranked[:-9:-1], ranked[:8])]
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["digits"] = "{:.3f}".format
    text = environment.get_template("clipart_card.md").render(**metrics, sets=SETS, best=shown[0], worst=shown[1])
    write_text(folder / "README.md", text)
