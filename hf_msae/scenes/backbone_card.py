"""The card of the scenes' SigLIP, written from its measured figures."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, StrictUndefined

from .._utils.json_files import write_text

_TEMPLATE = """\
---
library_name: transformers
license: apache-2.0
pipeline_tag: zero-shot-image-classification
tags:
- siglip
- synthetic
---

# scenes-siglip

A SigLIP small enough to travel inside the `hf_msae` package: {{ parameters }} parameters, {{ width }}-dimensional
embeddings, pictures of 96 x 96 pixels. It sees one world only, the rendered scenes of `hf_msae.scenes` (shapes with
colour, size, fill and position, before backgrounds, in several styles), where the truth about every picture is known.
It exists so that everything in `hf_msae` can be run, tested and measured without a network.

```python
from transformers import AutoModel, AutoProcessor
from hf_msae.scenes import load_scenes
from hf_msae.scenes.backbone import BACKBONE_DIR

model = AutoModel.from_pretrained(BACKBONE_DIR)
processor = AutoProcessor.from_pretrained(BACKBONE_DIR, backend="pil")
image = load_scenes("test", 1)[0]["image"]
inputs = processor(images=image, text=["a red shape", "a blue shape"], padding="max_length", return_tensors="pt")
print(model(**inputs).logits_per_image)
```

## How it was trained

From nothing, by `python training/train_scenes_backbone.py`, on a CPU ({{ training.threads }} threads,
torch {{ training.torch }}), on {{ "{:,}".format(training.num_scenes) }} rendered training scenes. Muon at
{{ training.matrix_learning_rate }} for the weight matrices, AdamW at {{ training.learning_rate }} for the rest.

1. The image tower alone, {{ "{:,}".format(training.vision_steps) }} steps of {{ training.vision_batch_size }} pictures
   at a constant rate: a linear head, which is not kept, reads the concepts of the scene off the image embeddings.
2. Both towers, {{ "{:,}".format(training.max_steps - training.vision_steps) }} steps of {{ training.batch_size }}
   picture-caption pairs with cosine decay. To the head's loss come SigLIP's pairwise sigmoid loss between pictures
   and captions, which are written anew each time a picture is seen, leave details out and use synonyms; and the same
   between all pictures of a batch and a short prompt for each concept, which is true of some of them.

It took {{ training.minutes }} minutes, rendering aside. That the truth about the scenes is used makes this an easier
teacher than the web: do not take its embeddings for those of a SigLIP trained on captions alone. The weights are
stored in half precision, and the figures below are those of the stored weights.

## How well it sees

On {{ "{:,}".format(num_scenes) }} held-out test scenes. Zero-shot accuracy is measured on the
{{ "{:,}".format(num_single_object_scenes) }} of them with a single object; choices are all concepts of the group. The
oracle reads the true attributes, so it is right about every attribute; in retrieval it fails only where captions tie.

| zero-shot accuracy | scenes-siglip | chance | oracle |
|---|---|---|---|
{% for group, accuracy in zero_shot_accuracy.items() -%}
| {{ group }} | {{ accuracy | percent }} | {{ (1 / groups[group]) | percent }} | 100.0% |
{% endfor %}
| retrieval among 100, full captions | scenes-siglip | chance | oracle |
|---|---|---|---|
| picture to caption, top 1 | {{ image_to_caption_top1_of_100|percent }} | 1.0% | {{ oracle_top1_of_100|percent }} |
| caption to picture, top 1 | {{ caption_to_image_top1_of_100|percent }} | 1.0% | {{ oracle_top1_of_100|percent }} |

## Limits

It knows nothing but rendered scenes and the words of their captions; other words are pieces to it. It is no model of
photographs, and figures reached on it say nothing about CLIP or SigLIP checkpoints trained on the web.
"""


def write_backbone_card(folder: Path, metrics: dict) -> None:
    """Write README.md into a trained backbone's folder.

    Args:
        folder: where the model lies.
        metrics: what `evaluate_backbone` returned, with `training` (the arguments, minutes, threads, torch) beside it.
    """
    from .backbone import WIDTH
    from .world import GROUPS

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["percent"] = "{:.1%}".format
    parameters = f"{metrics['num_parameters'] / 1e6:.1f} million"
    groups = {group: len(members) for group, members in GROUPS.items()}
    text = environment.from_string(_TEMPLATE).render(**metrics, parameters=parameters, width=WIDTH, groups=groups)
    write_text(folder / "README.md", text)
