"""Which model and pictures the explorer shows, from flags or from the environment of a Space."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

DEFAULT_MODEL = "scenes-image"
DEFAULT_PATCH_MODEL = "scenes-patches"
DEFAULT_DATASET = "scenes:test:1000:7"


@dataclass(frozen=True)
class ExplorerSettings:
    """What the explorer shows. A Space sets the variables in capitals.

    Attributes:
        model: MSAE of pooled image embeddings: folder, Hub id or released name (MSAE_MODEL).
        dataset: its pictures, as `open_dataset` takes it (MSAE_DATASET).
        split: of the data set (MSAE_SPLIT).
        image_column: with the pictures (MSAE_IMAGE_COLUMN).
        embeddings: the embeddings of the same rows, as `load_embeddings` takes them, so that they need not be
            computed at the start (MSAE_EMBEDDINGS).
        patch_model: MSAE of a vision block of the same backbone, for maps of where a concept is. None: none, or
            "scenes-patches" beside the default model (MSAE_PATCH_MODEL).
        backbone: another place of the backbone (MSAE_BACKBONE).
        max_images: rows that are shown and searched, the first so many (MSAE_MAX_IMAGES).
    """

    model: str = DEFAULT_MODEL
    dataset: str = DEFAULT_DATASET
    split: str | None = None
    image_column: str = "image"
    embeddings: str | None = None
    patch_model: str | None = None
    backbone: str | None = None
    max_images: int = 2000

    def __post_init__(self):
        if self.max_images < 2:
            raise ValueError(f"max_images must be at least 2, got {self.max_images}")
        if self.patch_model is None and self.model == DEFAULT_MODEL:
            object.__setattr__(self, "patch_model", DEFAULT_PATCH_MODEL)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **told: Any) -> ExplorerSettings:
        """The settings that the variables give, and defaults for those that are not set; `told` wins over both.

        Raises:
            ValueError: a number that is none.
        """
        given = {}
        for field in fields(cls):
            value = environment.get(f"MSAE_{field.name.upper()}")
            if value:
                given[field.name] = value
        if "max_images" in given:
            if not given["max_images"].isdecimal():
                raise ValueError(f"MSAE_MAX_IMAGES={given['max_images']!r} is no number of images")
            given["max_images"] = int(given["max_images"])
        return cls(**{**given, **told})
