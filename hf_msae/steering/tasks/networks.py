"""The networks whose features tasks are made of: backbones, EfficientNet-Lite0 and one with random weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from ..._utils.fingerprint import weights_sha256
from ...backbones import Backbone, prepare_images
from ...backbones.efficientnet import NAME, efficientnet_features, load_efficientnet


class Network(Protocol):
    """What turns pictures into features."""

    name: str
    """Name for people."""

    def known_by(self) -> dict[str, str]:
        """Return all that the features depend on, apart from the pictures."""

    def provenance(self) -> dict[str, Any]:
        """Return what is recorded with the features, as JSON can hold it."""

    def features(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Return the features (n, d) of RGB pictures, float32."""


class BackboneNetwork:
    """A backbone, read at a hook point; tokens of a block are averaged, without those that are padding."""

    def __init__(self, backbone: Backbone | str | os.PathLike, hook_point: str = "image_embeds") -> None:
        self.backbone = backbone if isinstance(backbone, Backbone) else Backbone.from_pretrained(backbone)
        self.backbone.require(hook_point)
        if hook_point.startswith("text"):
            raise ValueError(f"tasks are made of pictures, but the hook point {hook_point!r} is for texts")
        self.hook_point = hook_point
        self.name = self.backbone.name_or_path or type(self.backbone.model).__name__

    def known_by(self) -> dict[str, str]:
        """Return the hashes of the weights and the image processor, the type and the hook point."""
        known, names = self.provenance(), ("class", "dtype", "weights_sha256", "processor_sha256")
        return {**{name: known[f"base_model_{name}"] for name in names}, "hook_point": self.hook_point}

    def provenance(self) -> dict[str, Any]:
        """Return what is known of the backbone, and the hook point."""
        return {**self.backbone.provenance(), "hook_point": self.hook_point}

    def features(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Return embeddings at the hook point."""
        found = self.backbone.read(self.hook_point, list(pictures))
        if found.ndim == 3:
            grids = self.backbone.patch_grids(prepare_images(self.backbone.image_processor, pictures))
            kept = [self.backbone.image_tokens(grid, found.shape[1]).to(found.device) for grid in grids]
            found = torch.stack([tokens[which].mean(0) for tokens, which in zip(found, kept, strict=True)])
        return found.cpu().numpy()


class EfficientNetwork:
    """EfficientNet-Lite0, trained on ImageNet: 1,280 features, averaged over places."""

    name = NAME

    def __init__(self) -> None:
        self.model = load_efficientnet()

    @cached_property
    def _sha256(self) -> str:
        return weights_sha256(self.model)

    def known_by(self) -> dict[str, str]:
        """Return the hash of the weights."""
        return {"class": NAME, "weights_sha256": self._sha256}

    def provenance(self) -> dict[str, Any]:
        """Return the name and the hash of the weights."""
        return {
            "base_model_name_or_path": NAME,
            "base_model_class": type(self.model).__name__,
            "base_model_weights_sha256": self._sha256,
            "hook_point": "pooled",
        }

    def features(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Return the features before the last layer."""
        return efficientnet_features(self.model, pictures)


class RandomNetwork:
    """One layer with random weights: the pixels of a small copy of the picture, projected at random, then a ReLU."""

    name = "random features"
    _SIDE = 24

    def __init__(self, width: int = 512, seed: int = 0) -> None:
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.width, self.seed = width, seed
        inputs = 3 * self._SIDE**2
        weights = np.random.default_rng(seed).standard_normal((inputs, width)) / np.sqrt(inputs)
        self._weights = weights.astype(np.float32)

    def known_by(self) -> dict[str, str]:
        """Return the width and the seed."""
        return {"class": self.name, "width": str(self.width), "seed": str(self.seed)}

    def provenance(self) -> dict[str, Any]:
        """Return the name, the width and the seed."""
        return {"base_model_name_or_path": self.name, "width": self.width, "seed": self.seed, "hook_point": "output"}

    def features(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Return the random features."""
        sides = (self._SIDE, self._SIDE)
        small = [np.asarray(picture.resize(sides, Image.Resampling.BOX), np.float32).ravel() for picture in pictures]
        return np.maximum((np.stack(small) / 127.5 - 1) @ self._weights, 0)
