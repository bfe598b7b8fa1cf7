"""Latents of an MSAE, scaled by how much a text speaks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from ..data import NotDefinedError
from ..edit import register
from ..msae_edit import MSAEEdit
from ..provenance import backbone_of
from .text import embeddings_of

if TYPE_CHECKING:
    from typing import Self

    from ...backbones import Backbone
    from ...embeddings import EmbeddingDataset
    from ...vision_text import VisionTextMSAE

DIVERSE = (
    *("animal", "apple", "beach", "bird", "boat", "bottle", "building", "car", "cat", "chair", "child", "city"),
    *("cloud", "dog", "door", "drawing", "face", "fire", "flower", "food", "forest", "fruit", "grass", "hand"),
    *("horse", "house", "light", "machine", "man", "map", "mountain", "night", "number", "painting", "people"),
    *("phone", "plant", "river", "road", "room", "shop", "sign", "sky", "snow", "sport", "street", "sun", "table"),
    *("text", "tool", "toy", "train", "tree", "water", "window", "woman"),
)
"""Everyday words that a name is compared with."""


@register("sem")
@dataclass
class ScoredModulation(MSAEEdit):
    """Scale each latent by how much the text of a name speaks for it, without labels.

    Texts are moved to where embeddings of images lie, centered and with their mean length, and encoded. Let p_j be
    the share of diverse texts in which latent j is less active than in the text of the name, and q_j the largest such
    share over the names to keep; z the code of x, m its median and h its mean over active rows:

        s_j = (1 + q_j - p_j)^2
        score(x) = sum over j of (1 - s_j) z_j
        remove(x): z_j becomes s_j z_j + (1 - s_j) m_j           where s_j < 1
        add(x, amount): z_j becomes z_j + amount (1 - s_j) h_j   where s_j < 1

    So latents that say nothing of the name stay as they are. (After the modulation of Guimard et al., "SEM", CVPR
    Findings 2026, which changes embeddings of texts, and makes latents stronger that speak for a name to keep. Here
    they stay as they are; this, `add` and the use on images are ours.)

    Attributes:
        msae: As for `MSAEEdit`.
        keep_residual: As for `MSAEEdit`.
        k: As for `MSAEEdit`.
        template: Text with one {} for the name.
        keep: Names whose latents to keep, such as the labels of a classifier.
        diverse: Names to compare with.
    """

    needs: ClassVar[str] = "a name and an MSAE"

    template: str = "a photo of {}"
    keep: Sequence[str] = ()
    diverse: Sequence[str] = DIVERSE

    def __post_init__(self):
        super().__post_init__()
        for option in ("keep", "diverse"):
            if isinstance(getattr(self, option), str):
                raise ValueError(f"{option} has to be a list of names, but is {getattr(self, option)!r}")
        self.keep, self.diverse = tuple(self.keep), tuple(self.diverse)
        if len(self.diverse) < 2:
            raise ValueError(f"diverse has to hold at least two names, but is {self.diverse!r}")
        if self.template.count("{}") != 1:
            raise ValueError(f"the template needs exactly one {{}} for the name, but is {self.template!r}")

    def fit_by_name(
        self,
        name: str,
        backbone: Backbone | VisionTextMSAE | None,
        X: np.ndarray | torch.Tensor | EmbeddingDataset,
        seed: int = 0,
    ) -> Self:
        """Learn from a name, and from embeddings of images without labels."""
        values, known = embeddings_of(name, backbone, X, self.method)
        self.check_embeddings(known, values.shape[1])
        backbone = backbone_of(backbone)
        names = [name, *self.keep, *(each for each in self.diverse if each not in (name, *self.keep))]
        texts = F.normalize(
            backbone.text_embeds([self.template.format(each) for each in names]).double().cpu(), dim=-1
        )
        moved = texts.numpy() - texts.numpy().mean(axis=0)
        if not (spread := np.linalg.norm(moved, axis=1).mean()) > 1e-5:
            raise NotDefinedError(f"the text of {name!r} has the same embedding as the diverse texts")
        length = np.linalg.norm(values - values.mean(axis=0), axis=1).mean()
        codes = self._codes(values.mean(axis=0) + length / spread * moved)
        of_name, of_keep, diverse = np.split(codes, [1, 1 + len(self.keep)])
        shares = [(diverse < code).mean(axis=0) for code in (*of_name, *of_keep)]
        scales = np.minimum(1, (1 + np.max([0 * shares[0], *shares[1:]], axis=0) - shares[0]) ** 2)
        if not (scales < 1).any():
            raise NotDefinedError(f"the text of {name!r} speaks for no latent of the MSAE")
        found = [_middles(codes) for _, codes in self._code_blocks(values)]
        medians, means = (np.concatenate(each) for each in zip(*found, strict=True))
        learned = {"scales": scales, "medians": medians, "means": means}
        self._keep(learned, values.shape[1], {**known, "concept": name})
        return self

    def _fit(self, X: np.ndarray, concept: np.ndarray, seed: int, others: np.ndarray) -> dict[str, np.ndarray]:
        raise NotDefinedError("sem is fitted by name: call fit_by_name(name, backbone, X)")

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        codes = self._model_for(x).encode(x, self.k)
        return codes @ (1 - self._get("scales", codes))

    def _remove(self, x: torch.Tensor) -> torch.Tensor:
        def change(codes: torch.Tensor) -> torch.Tensor:
            scales = self._get("scales", codes)
            return scales * codes + (1 - scales) * self._get("medians", codes)

        return self._with_code(x, change)

    def _add(self, x: torch.Tensor, amount: float) -> torch.Tensor:
        def change(codes: torch.Tensor) -> torch.Tensor:
            return codes + amount * (1 - self._get("scales", codes)) * self._get("means", codes)

        return self._with_code(x, change)


def _middles(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median of each latent, and its mean over the rows in which it is active."""
    return np.median(codes, axis=0), codes.sum(axis=0) / np.maximum(1, (codes > 0).sum(axis=0))
