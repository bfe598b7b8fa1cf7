"""Drawings on which a word, a watermark or a frame is pasted."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...backbones import Backbone
from .drawings import drawings_with_artifact
from .networks import BackboneNetwork
from .registry import register_task
from .task import Task


@register_task("clipart_artifact")
def clipart_artifact(
    num_rows: int = 2000,
    correlation: float = 0.9,
    seed: int = 0,
    target: str = "flag",
    artifact: str = "caption",
    word: str | None = None,
    concepts: Sequence[str] | None = None,
    collection: str | os.PathLike | None = None,
    backbone: Backbone | str | os.PathLike = "clipart",
    hook_point: str = "image_embeds",
) -> Task:
    """Say whether a drawing has a tag, where an artifact is pasted on training drawings with the tag.

    With the caption, this is a typographic attack: the word is a tag that drawings of the other class have. Test
    drawings are by people of whom the training has none. The counterfactual is the same drawing without the artifact,
    or with it.

    Args:
        num_rows: Number of drawings at most, half of them for training; as many have the tag as lack it.
        correlation: Correlation of label and artifact in training; there is none in the test.
        seed: Random seed.
        target: Tag or category that is the label.
        artifact: "caption", "watermark", "frame" or "square".
        word: What a caption or watermark says. Defaults to the most frequent tag of training drawings without the
            target that no training drawing with it has.
        concepts: Other tags. Defaults to the 10 most frequent ones.
        collection: Folder of a collection that `python -m hf_msae.clipart.build` made, None for the usual folder, or
            "sample" for the 300 drawings that come with the package, which are few for a measurement.
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        hook_point: Where it is read; tokens of a block are averaged.

    Returns:
        The task. The bias is named "pasted caption" for the artifact "caption".

    Raises:
        ValueError: A tag is too rare, a number is out of range, or there is no such artifact or hook point.
        FileNotFoundError: The collection has not been built.
    """
    pictures = drawings_with_artifact(
        "clipart_artifact", artifact, word, target, concepts, num_rows, correlation, seed, collection
    )
    return pictures.task(BackboneNetwork(backbone, hook_point))
