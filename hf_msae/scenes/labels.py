"""The ground truth of scenes as class labels, and the texts of zero-shot classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .captions import WORDINGS
from .world import CONCEPTS, GROUPS

if TYPE_CHECKING:
    from datasets import Dataset

CLASSIFIED_GROUPS = ("shape", "colour", "fill", "background", "style")
ZERO_SHOT_TEMPLATES: dict[str, tuple[str, ...]] = {
    "shape": ("{}", "a picture of a {}"),
    "colour": ("a {} shape", "a picture of a {} shape"),
    "size": ("a {} shape", "a picture of a {} shape"),
    "fill": ("a {} shape", "a picture of a {} shape"),
    "position": ("a shape {}", "a picture of a shape {}"),
    "background": ("a shape {}", "a picture of a shape {}"),
    "style": ("{}", "{} of a shape"),
    "count": ("{}", "a picture of {}"),
    "frame": ("{}", "a shape {}"),
    "watermark": ("{}", "a shape {}"),
}


def group_labels(scenes: Dataset, group: str) -> np.ndarray:
    """Return which concept of a group each scene shows, as its number in `GROUPS[group]`; -1 for none or several."""
    truth = truth_matrix(scenes, GROUPS[group])
    return np.where(truth.sum(axis=1) == 1, truth.argmax(axis=1), -1)


def truth_matrix(scenes: Dataset, concepts: Sequence[str] = CONCEPTS) -> np.ndarray:
    """Return which concepts are true of each scene, as booleans (N, len(concepts))."""
    return scenes.select_columns(list(concepts)).to_pandas().to_numpy(dtype=bool)


def zero_shot_texts(text_embeds: Callable[[list[str]], torch.Tensor], group: str) -> torch.Tensor:
    """Return a text embedding for each concept of a group, averaged over templates (len(GROUPS[group]), d).

    `text_embeds` embeds prompts, such as `Backbone.from_pretrained("scenes").text_embeds`.
    """
    words, templates = GROUPS[group], ZERO_SHOT_TEMPLATES[group]
    prompts = [template.format(WORDINGS[word][0]) for word in words for template in templates]
    embeddings = torch.nn.functional.normalize(text_embeds(prompts).float(), dim=-1)
    return embeddings.reshape(len(words), len(templates), -1).mean(1)
