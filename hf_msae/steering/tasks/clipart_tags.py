"""Drawings with two tags that go together."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...backbones import Backbone
from .drawings import drawings_with_tags
from .networks import BackboneNetwork
from .registry import register_task
from .task import Task


@register_task("clipart_tags")
def clipart_tags(
    num_rows: int = 2000,
    correlation: float = 0.9,
    seed: int = 0,
    target: str = "flag",
    bias: str = "sign",
    concepts: Sequence[str] | None = None,
    collection: str | os.PathLike | None = None,
    backbone: Backbone | str | os.PathLike = "clipart",
    hook_point: str = "image_embeds",
) -> Task:
    """Say whether a drawing has a tag that mostly goes together with another.

    This measures steering of a concept as people use it, with a label that means nearly the same. Training drawings
    are chosen so that the tags have the correlation, and test drawings so that as many have both, either and none:
    the rarest of these says how many there are. There are no counterfactuals.

    Args:
        num_rows: Number of drawings at most, half of them for training.
        correlation: Correlation of the tags in training; there is none in the test.
        seed: Random seed.
        target: Tag or category that is the label.
        bias: Tag or category that goes with it.
        concepts: Other tags. Defaults to the 10 most frequent ones.
        collection: Folder of a collection that `python -m hf_msae.clipart.build` made; None for the usual folder.
        backbone: A backbone, or what `Backbone.from_pretrained` loads.
        hook_point: Where it is read; tokens of a block are averaged.

    Returns:
        The task.

    Raises:
        ValueError: A combination of the tags is too rare, a number is out of range, or there is no such hook point.
        FileNotFoundError: The collection has not been built.
    """
    pictures = drawings_with_tags("clipart_tags", target, bias, concepts, num_rows, correlation, seed, collection)
    return pictures.task(BackboneNetwork(backbone, hook_point))
