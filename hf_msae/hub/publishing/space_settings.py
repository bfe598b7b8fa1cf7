"""The model and pictures that the explorer shows, from flags or from the environment of a Space."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

DEFAULT_MODEL = "scenes-image"
DEFAULT_PATCH_MODEL = "scenes-patches"
DEFAULT_DATASET = "scenes:test:1000:7"
DEFAULT_DATASETS = {DEFAULT_MODEL: DEFAULT_DATASET, "clipart-image": "clipart:sample"}

_YES_OR_NO = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class ExplorerSettings:
    """What the explorer shows. A Space sets the environment variables in capitals.

    Attributes:
        model: MSAE of pooled image embeddings: folder, Hub id or released name (MSAE_MODEL).
        dataset: Dataset of pictures, as `open_dataset` takes it (MSAE_DATASET). Defaults to the one that the
            embeddings were extracted from, and without embeddings to pictures of the package for its own models.
        split: Split of the dataset (MSAE_SPLIT).
        image_column: Column of the pictures (MSAE_IMAGE_COLUMN).
        embeddings: Embeddings of the same rows, as `load_embeddings` takes them; computed at the start if unset
            (MSAE_EMBEDDINGS).
        verify: Compare files of embeddings with their recorded checksums before they are first read (MSAE_VERIFY).
        patch_model: MSAE of a vision block of the same backbone, for maps of where a concept is. Defaults to
            "scenes-patches" for the default model, and to none for others (MSAE_PATCH_MODEL).
        concepts: Table of names of the latents, a file or the name of one that comes with the model (MSAE_CONCEPTS).
        backbone: Another location of the backbone (MSAE_BACKBONE).
        allow_other_backbone: Use the backbone even if it is not the one that the MSAE was trained on
            (MSAE_ALLOW_OTHER_BACKBONE).
        max_images: Maximum number of rows that are shown and searched (MSAE_MAX_IMAGES).
        edits: Folder of an edit that `Edit.save_pretrained` wrote, or of several such folders, that visitors can apply
            to pictures (MSAE_EDITS).
        swordbench: Folder of results that `hf-msae swordbench` wrote, to show them (MSAE_SWORDBENCH).
    """

    model: str = DEFAULT_MODEL
    dataset: str | None = None
    split: str | None = None
    image_column: str = "image"
    embeddings: str | None = None
    verify: bool = True
    patch_model: str | None = None
    concepts: str | None = None
    backbone: str | None = None
    allow_other_backbone: bool = False
    max_images: int = 2000
    edits: str | None = None
    swordbench: str | None = None

    def __post_init__(self):
        if self.max_images < 2:
            raise ValueError(f"max_images must be at least 2, got {self.max_images}")
        if self.patch_model is None and self.model == DEFAULT_MODEL:
            object.__setattr__(self, "patch_model", DEFAULT_PATCH_MODEL)
        if self.dataset is None and self.embeddings is None:
            object.__setattr__(self, "dataset", DEFAULT_DATASETS.get(self.model))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **given: Any) -> ExplorerSettings:
        """Read the settings from environment variables; `given` overrides them.

        Raises:
            ValueError: MSAE_MAX_IMAGES is not a number, or a variable that says yes or no says something else.
        """
        found: dict[str, Any] = {}
        for field in fields(cls):
            if value := environment.get(f"MSAE_{field.name.upper()}"):
                found[field.name] = value
        for name in found.keys() & {"allow_other_backbone", "verify"}:
            if found[name].lower() not in _YES_OR_NO:
                raise ValueError(f"MSAE_{name.upper()}={found[name]!r} is neither of true and false")
            found[name] = _YES_OR_NO[found[name].lower()]
        if "max_images" in found:
            if not found["max_images"].isdecimal():
                raise ValueError(f"MSAE_MAX_IMAGES={found['max_images']!r} is not a number of images")
            found["max_images"] = int(found["max_images"])
        return cls(**{**found, **given})
