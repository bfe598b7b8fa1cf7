"""The model and pictures that the explorer shows, from flags or from the environment of a Space."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from ..._utils.argument_parser import flag

DEFAULT_MODEL = "scenes-image"
DEFAULT_PATCH_MODEL = "scenes-patches"
DEFAULT_DATASET = "scenes:test:1000:7"
DEFAULT_DATASETS = {DEFAULT_MODEL: DEFAULT_DATASET, "clipart-image": "clipart:sample"}

_YES_OR_NO = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class ExplorerSettings:
    """What the explorer shows.

    Every field is a flag of `hf-msae demo` and `hf-msae push-space`, whose help text is in the field's metadata, and
    an environment variable of the page: MSAE_MODEL and so on.
    """

    _argument_group_name: ClassVar[str] = "explorer"

    model: str = flag("MSAE of pooled image embeddings: a folder, a Hub id or a released name.", DEFAULT_MODEL)
    dataset: str | None = flag(
        "Pictures to show and search: a folder of images, a dataset, or scenes:SPLIT:N. Defaults to those that the "
        "embeddings were extracted from, or to pictures of the package for its own models.",
        None,
    )
    split: str | None = flag("Split of the dataset, if it has several.", None)
    image_column: str | None = flag(
        "Column of the dataset with the pictures. Defaults to the one that the embeddings were extracted from, or to "
        "image.",
        None,
    )
    embeddings: str | None = flag(
        "Embeddings of the same pictures, as written by hf-msae extract. Without them, the pictures are embedded at "
        "every start.",
        None,
    )
    verify: bool = flag("Compare files of embeddings with their recorded checksums before they are first read.", True)
    patch_model: str | None = flag(
        "MSAE of a vision block of the same backbone, for maps of where in a picture a concept is. Defaults to none, "
        "or to scenes-patches for the default model.",
        None,
    )
    concepts: str | None = flag(
        "Parquet file of names written by `hf-msae name`, or the name of one that comes with the model. Defaults to "
        "the one with the most validated names.",
        None,
    )
    backbone: str | None = flag("Location of the backbone, if it is not the one that the MSAE names.", None)
    allow_other_backbone: bool = flag(
        "Use the backbone even if it is not the one that the MSAE was trained on.", False
    )
    max_images: int = flag("Maximum number of pictures to show and search.", 2000)
    edits: str | None = flag(
        "Folder of an edit written by Edit.save_pretrained, or of several such folders; a page of the tab Steer "
        "applies them to pictures.",
        None,
    )
    swordbench: str | None = flag(
        "Folder written by `hf-msae swordbench`, or its results.json, to show how well steering methods work.", None
    )

    def __post_init__(self):
        if self.max_images < 2:
            raise ValueError(f"max_images must be at least 2, got {self.max_images}")
        if self.patch_model is None and self.model == DEFAULT_MODEL:
            object.__setattr__(self, "patch_model", DEFAULT_PATCH_MODEL)
        if self.dataset is None and self.embeddings is None:
            object.__setattr__(self, "dataset", DEFAULT_DATASETS.get(self.model))

    def chosen(self) -> dict[str, Any]:
        """Return the settings that are not the defaults of their model."""
        defaults = {**asdict(ExplorerSettings(self.model)), "model": DEFAULT_MODEL}
        return {key: value for key, value in asdict(self).items() if value is not None and value != defaults[key]}

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
