"""What `train_scenes_backbone.py` trains: the small SigLIP of the scenes, how well it sees, and its model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import small_siglip
import torch
from jinja2 import Environment, StrictUndefined
from small_siglip import retrieval_accuracy
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerFast, SiglipModel, SiglipProcessor

from hf_msae._utils.json_files import write_text
from hf_msae.backbones import Backbone
from hf_msae.scenes import CONCEPTS, GROUPS, Scene, caption_scene, full_caption, render_array, sample_scene
from hf_msae.scenes.captions import WORDINGS, ZERO_SHOT_TEMPLATES, zero_shot_texts
from hf_msae.scenes.world import EXTRAS, GROUP_OF

WIDTH = 128
MAX_LENGTH = 48

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

A SigLIP small enough to ship inside the `hf_msae` package: {{ parameters }} parameters, {{ width }}-dimensional
embeddings, images of 96 x 96 pixels. It knows only the rendered scenes of `hf_msae.scenes`: shapes with a color, size,
fill and position, on backgrounds, in several styles. The ground truth of every image is known. It exists so that
everything in `hf_msae` can be run, tested and measured without a network.

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

From scratch, by `python training/train_scenes_backbone.py`, on a CPU ({{ training.threads }} threads,
torch {{ training.torch }}), on {{ "{:,}".format(training.num_scenes) }} rendered training scenes. Muon with a learning
rate of {{ training.matrix_learning_rate }} for the weight matrices, AdamW with {{ training.learning_rate }} for the
rest.

1. The image tower alone, {{ "{:,}".format(training.vision_steps) }} steps of {{ training.vision_batch_size }} images
   at a constant rate: a linear head, which is not kept, predicts the concepts of the scene from the image embeddings.
2. Both towers, {{ "{:,}".format(training.max_steps - training.vision_steps) }} steps of {{ training.batch_size }}
   image-caption pairs with cosine decay. Two losses are added to that of the head: SigLIP's pairwise sigmoid loss
   between images and captions, which are rewritten each time an image is used, omit details and use synonyms; and the
   same loss between all images of a batch and a short prompt for each concept.

It took {{ training.minutes }} minutes, not counting the rendering. Training uses the ground truth of the scenes, an
easier teacher than the web, so do not expect its embeddings to resemble those of a SigLIP trained on captions alone.
The weights are stored in half precision, and the figures below are those of the stored weights.

## How well it sees

On {{ "{:,}".format(num_scenes) }} held-out test scenes. Zero-shot accuracy is measured on the
{{ "{:,}".format(num_single_object_scenes) }} of them with a single object; all concepts of a group are candidates. The
oracle knows the true attributes; in retrieval it fails only when captions tie.

| zero-shot accuracy | scenes-siglip | chance | oracle |
|---|---|---|---|
{% for group, accuracy in zero_shot_accuracy.items() -%}
| {{ group }} | {{ accuracy | percent }} | {{ (1 / groups[group]) | percent }} | 100.0% |
{% endfor %}
| retrieval among 100, full captions | scenes-siglip | chance | oracle |
|---|---|---|---|
| image to caption, top 1 | {{ image_to_caption_top1_of_100|percent }} | 1.0% | {{ oracle_top1_of_100|percent }} |
| caption to image, top 1 | {{ caption_to_image_top1_of_100|percent }} | 1.0% | {{ oracle_top1_of_100|percent }} |

## Limits

It knows only rendered scenes and the words of their captions. It is not a model of photographs, and results on it say
nothing about CLIP or SigLIP checkpoints trained on the web.
"""


def build_processor(seed: int = 0) -> SiglipProcessor:
    """Create the image processor and tokenizer of a new scenes backbone."""
    captions = [caption_scene(sample_scene("train", seed, i)) for i in range(6000)]
    # So that no word or synonym is missing by chance.
    captions += [wording for wordings in WORDINGS.values() for wording in wordings for _ in range(20)]
    return small_siglip.build_processor(captions, vocab_size=1024, max_length=MAX_LENGTH)


def build_model(tokenizer: PreTrainedTokenizerFast) -> SiglipModel:
    """Create an untrained scenes backbone of 1.2 million parameters."""
    return small_siglip.build_model(tokenizer, WIDTH, num_heads=4, vision_layers=3)


def concept_prompts(random: np.random.Generator) -> list[str]:
    """Return a short prompt for each of `CONCEPTS`, with a random wording and template, or the bare word."""
    prompts = []
    for concept in CONCEPTS:
        templates = ZERO_SHOT_TEMPLATES[GROUP_OF[concept]]
        wording = WORDINGS[concept][random.integers(len(WORDINGS[concept]))]
        choice = int(random.integers(len(templates) + 1))
        prompts.append(concept if choice == len(templates) else templates[choice].format(wording))
    return prompts


def pixels_from_arrays(pictures: np.ndarray) -> torch.Tensor:
    """Process images of the right size as the image processor does: (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def zero_shot_accuracy(backbone: Backbone, scenes: Sequence[Scene], images: torch.Tensor) -> dict[str, float]:
    """Accuracy of choosing each attribute of single-object scenes by text similarity, averaged over templates.

    Args:
        backbone: The backbone.
        scenes: The ground truth; scenes with more than one object are left out.
        images: L2-normalized image embeddings of the scenes (len(scenes), WIDTH).
    """
    single = [i for i, scene in enumerate(scenes) if len(scene.objects) == 1]
    accuracy = {}
    for group, words in GROUPS.items():
        if len(words) == 1 or group == "count":
            continue  # nothing to choose from
        texts = normalize(zero_shot_texts(backbone.text_embeds, group), dim=-1)
        chosen = (images[single] @ texts.T).argmax(-1).tolist()
        truth = [next(j for j, word in enumerate(words) if word in scenes[i].concepts) for i in single]
        accuracy[group] = float(np.mean(np.equal(chosen, truth)))
    return accuracy


def oracle_similarity(scenes: Sequence[Scene]) -> torch.Tensor:
    """Return the similarities (n, n) of an oracle that knows the attributes: how many facts of a caption hold.

    A full caption states the attributes of the scene, object by object. Each object of a caption is compared with the
    best-fitting object of the image.
    """

    def facts(scene: Scene) -> tuple[set[str], list[tuple[str, ...]]]:
        extras = {extra for extra in EXTRAS if getattr(scene, extra)}
        around = {scene.background, scene.style, scene.count} | extras
        return around, [(o.shape, o.colour, o.size, o.fill, o.position) for o in scene.objects]

    described = [facts(scene) for scene in scenes]
    scores = torch.zeros(len(scenes), len(scenes))
    for i, (seen, things) in enumerate(described):
        for j, (stated, objects) in enumerate(described):
            if i // 100 != j // 100:
                continue  # never compared
            right = len(stated & seen) - len(seen ^ stated)
            right += sum(max(sum(a == b for a, b in zip(o, t, strict=True)) for t in things) for o in objects)
            scores[i, j] = right - 5 * len(objects)
    return scores


def evaluate_backbone(backbone: Backbone, num_scenes: int = 3000, seed: int = 0) -> dict:
    """Zero-shot accuracy per attribute (single-object scenes) and top-1 retrieval among 100, on test scenes."""
    scenes = [sample_scene("test", seed, i) for i in range(num_scenes)]
    images = normalize(backbone.image_embeds([render_array(scene) for scene in scenes], 256), dim=-1)
    captions = normalize(backbone.text_embeds([full_caption(scene) for scene in scenes]), dim=-1)
    similarity = images @ captions.T
    return {
        "num_scenes": num_scenes,
        "num_parameters": sum(p.numel() for p in backbone.model.parameters()),
        "num_single_object_scenes": sum(len(scene.objects) == 1 for scene in scenes),
        "zero_shot_accuracy": zero_shot_accuracy(backbone, scenes, images),
        "image_to_caption_top1_of_100": retrieval_accuracy(similarity),
        "caption_to_image_top1_of_100": retrieval_accuracy(similarity.T),
        "oracle_top1_of_100": retrieval_accuracy(oracle_similarity(scenes)),
        "concept_vocabulary": len(CONCEPTS),
    }


def write_backbone_card(folder: Path, metrics: dict) -> None:
    """Write README.md into the folder of a trained backbone.

    Args:
        folder: Folder of the model.
        metrics: What `evaluate_backbone` returned, with the arguments, minutes, threads and torch version of the
            training as `training`.
    """
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["percent"] = "{:.1%}".format
    parameters = f"{metrics['num_parameters'] / 1e6:.1f} million"
    groups = {group: len(members) for group, members in GROUPS.items()}
    text = environment.from_string(_TEMPLATE).render(**metrics, parameters=parameters, width=WIDTH, groups=groups)
    write_text(folder / "README.md", text)
