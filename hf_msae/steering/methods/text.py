"""The direction of a name in the text tower of a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from ..data import NotDefinedError, as_array
from ..direction import Direction
from ..edit import register
from ..provenance import backbone_of, origin_of

if TYPE_CHECKING:
    from typing import Self

    from ...backbones import Backbone
    from ...embeddings import EmbeddingDataset
    from ...vision_text import VisionTextMSAE

HOOK_POINT = "image_embeds"
"""Where images and texts share a space."""


def embeddings_of(
    name: str, backbone: Backbone | VisionTextMSAE | None, X: np.ndarray | torch.Tensor | EmbeddingDataset, method: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return embeddings of images as float64 (n, d) and where they are from, for a method that reads a name."""
    if backbone is None:
        raise ValueError(f"{method} reads the name with the text tower of a backbone: pass it")
    if not name.strip():
        raise ValueError(f"{method} needs a name to read, but got {name!r}")
    values = as_array(X)
    return values, origin_of(X, values.shape[1], backbone, HOOK_POINT)


@register("text")
@dataclass
class TextDirection(Direction):
    """The direction of a name: the unit embedding of a text that has it, minus the mean of neutral texts.

    It needs no labels: `fit_by_name(name, backbone, X)`. As texts are subtracted from a text, what sets texts apart
    from images drops out. Without labels, the means m+ and m- of `Direction` are unknown: the mean of all <x, v> plus
    and minus one standard deviation stands in for them.

    Attributes:
        template: Text with one {} for the name.
        neutral: Texts without the concept.
    """

    needs: ClassVar[str] = "a name"

    template: str = "a photo of {}"
    neutral: Sequence[str] = ("a photo", "a picture", "an image")

    def __post_init__(self):
        if not self.neutral or isinstance(self.neutral, str):
            raise ValueError(f"neutral has to be a list of texts, but is {self.neutral!r}")
        self.neutral = tuple(self.neutral)
        if self.template.count("{}") != 1:
            raise ValueError(f"the template needs exactly one {{}} for the name, but is {self.template!r}")

    def fit_by_name(
        self,
        name: str,
        backbone: Backbone | VisionTextMSAE | None,
        X: np.ndarray | torch.Tensor | EmbeddingDataset,
        seed: int = 0,
    ) -> Self:
        """Learn from a name, and from where embeddings without labels lie along its direction."""
        values, known = embeddings_of(name, backbone, X, self.method)
        backbone = backbone_of(backbone)
        texts = F.normalize(backbone.text_embeds([self.template.format(name), *self.neutral]).double().cpu(), dim=-1)
        direction = (texts[0] - texts[1:].mean(dim=0)).numpy()
        if not (length := np.linalg.norm(direction)) > 1e-6:
            raise NotDefinedError(f"the text of {name!r} has the same embedding as the neutral texts")
        along = values @ (direction / length)
        if not (spread := along.std()) > 0:
            raise NotDefinedError(f"all embeddings lie at the same place along {name!r}")
        levels = along.mean() + np.array([-spread, spread])
        found = {"direction": direction / length, "center": along.mean(), "levels": levels}
        self._keep(found, values.shape[1], {**known, "concept": name})
        return self

    def _direction(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> np.ndarray:
        raise NotDefinedError("text is fitted by name: call fit_by_name(name, backbone, X)")
