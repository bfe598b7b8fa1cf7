"""What `train_clipart_backbone.py` needs: the pictures, how well the SigLIP of the clip art sees, and its model card."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from clipart_icons import SETS
from datasets import Dataset
from jinja2 import Environment, StrictUndefined
from scipy.stats import rankdata
from small_siglip import retrieval_accuracy
from torch.nn.functional import normalize

from hf_msae._utils.json_files import write_text
from hf_msae.backbones import Backbone
from hf_msae.clipart.build import same_hands

_NUM_RESAMPLES = 200

_TEMPLATE = """\
---
library_name: transformers
license: apache-2.0
pipeline_tag: zero-shot-image-classification
tags:
- siglip
- clip-art
---

# clipart-siglip

A SigLIP small enough to ship inside the `hf_msae` package: {{ "%.1f" | format(num_parameters / 1e6) }} million
parameters, {{ width }}-dimensional embeddings, images of 96 x 96 pixels. It was trained on drawings that several
hundred people made and tagged: its texts and images lie apart, its tags are long-tailed, and it is often wrong. It exists so that what `hf_msae` claims about names, search and bias can be tested on such a model
without a network.

```python
from hf_msae.backbones import Backbone
from hf_msae.clipart import load_clipart

backbone = Backbone.from_pretrained("clipart")
images = backbone.image_embeds(load_clipart("test")["image"])  # python -m hf_msae.clipart.build renders the drawings
print(images @ backbone.text_embeds(["a bird", "a car"]).T)
```

## How it was trained

From scratch, by `python training/train_clipart_backbone.py`, on a CPU (torch {{ training.torch }}), in
{{ training.minutes }} minutes: {{ "{:,}".format(training.max_steps) }} steps of {{ training.batch_size }} pictures,
half of them from {{ "{:,}".format(training.drawings) }} drawings of the
[Open Clip Art Library](https://openclipart.org) (public domain) with their authors' titles and tags, half from
{{ "{:,}".format(training.icons) }} icons and emoji with their names and keywords:

| icons | author | license |
|---|---|---|
{% for name, (version, author, license) in sets.items() -%}
| {{ name }} {{ version }} | {{ author }} | {{ license }} |
{% endfor %}
The losses are SigLIP's sigmoid loss between pictures and captions, and between pictures and single tags. Texts are
padded to the full length and have no mask, as in SigLIP. The weights are stored in half precision, and the figures
below are those of the stored weights.

## How well it sees

On {{ "{:,}".format(num_drawings) }} drawings of the Open Clip Art Library by {{ num_authors }} authors none of whose
drawings it was trained on. Intervals are 95% percentile intervals over authors, drawn with replacement
{{ num_resamples }} times.

| | clipart-siglip | chance |
|---|---|---|
| AUROC of a tag, mean of {{ tags | length }} tags on at least {{ min_count }} drawings | {{ tag_auroc | digits }} ({{ tag_auroc_low | digits }} to {{ tag_auroc_high | digits }}) | 0.500 |
| picture to title and tags, top 1 of 100 | {{ image_to_caption_top1_of_100 | digits }} | 0.010 |

Best: {{ best }}. Worst: {{ worst }}.

## Limits

It has seen a few thousand drawings, so it finds things of a familiar look and misses most others. It is no model of
photographs.
"""


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
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["digits"] = "{:.3f}".format
    text = environment.from_string(_TEMPLATE).render(**metrics, sets=SETS, best=shown[0], worst=shown[1])
    write_text(folder / "README.md", text)
