"""The truth about scenes as class labels, and the texts of their zero-shot classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .backbone import ZERO_SHOT_TEMPLATES
from .captions import WORDINGS
from .world import CONCEPTS, GROUPS

if TYPE_CHECKING:
    from datasets import Dataset

CLASSIFIED_GROUPS = ("shape", "colour", "fill", "background", "style")


def group_labels(scenes: Dataset, group: str) -> np.ndarray:
    """Which concept of a group each scene shows: its number in `GROUPS[group]`, or -1 where it shows none or several.

    Args:
        scenes: of `load_scenes`, or embeddings extracted from it with its columns: (N rows).
        group: a key of `GROUPS`.
    """
    truth = scenes.select_columns(list(GROUPS[group])).to_pandas().to_numpy(dtype=bool)
    return np.where(truth.sum(axis=1) == 1, truth.argmax(axis=1), -1)


def truth_matrix(scenes: Dataset, concepts: Sequence[str] = CONCEPTS) -> np.ndarray:
    """Which concepts are true of each scene, bool (N, len(concepts))."""
    return scenes.select_columns(list(concepts)).to_pandas().to_numpy(dtype=bool)


def zero_shot_texts(text_embeds: Callable[[list[str]], torch.Tensor], group: str) -> torch.Tensor:
    """A text embedding for each concept of a group, templates averaged, (len(GROUPS[group]), d).

    Args:
        text_embeds: prompts -> (len(prompts), d); `Backbone.from_pretrained("scenes").text_embeds`.
        group: a key of `GROUPS` with several concepts.
    """
    words, templates = GROUPS[group], ZERO_SHOT_TEMPLATES[group]
    prompts = [template.format(WORDINGS[word][0]) for word in words for template in templates]
    embeds = torch.nn.functional.normalize(text_embeds(prompts).float(), dim=-1)
    return embeds.reshape(len(words), len(templates), -1).mean(1)
