"""Drawings with artifacts, seen by a network that was trained on ImageNet."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .drawings import drawings_with_artifact
from .networks import EfficientNetwork
from .registry import register_task
from .task import Task


@register_task("efficientnet_artifact")
def efficientnet_artifact(
    num_rows: int = 2000,
    correlation: float = 0.9,
    seed: int = 0,
    target: str = "flag",
    artifact: str = "watermark",
    word: str | None = "PREVIEW",
    concepts: Sequence[str] | None = None,
    collection: str | os.PathLike | None = None,
) -> Task:
    """Say whether a drawing has a tag, where an artifact is pasted on training drawings with the tag.

    This measures steering of a network without texts, EfficientNet-Lite0, trained on photographs. It needs
    `pip install "hf_msae[steering]"`. The counterfactual is the same drawing without the artifact, or with it.

    Args:
        num_rows: Number of drawings at most, half of them for training; as many have the tag as lack it.
        correlation: Correlation of label and artifact in training; there is none in the test.
        seed: Random seed.
        target: Tag or category that is the label.
        artifact: "watermark", "frame", "square" or "caption".
        word: What a watermark or caption says; see `clipart_artifact`.
        concepts: Other tags. Defaults to the 10 most frequent ones.
        collection: The drawings; see `clipart_artifact`.

    Returns:
        The task. The bias is named "pasted watermark" for the artifact "watermark".

    Raises:
        ImportError: The packages of the network are not installed.
        ValueError: A tag is too rare, a number is out of range, or there is no such artifact.
        FileNotFoundError: The collection has not been built.
    """
    network = EfficientNetwork()
    pictures = drawings_with_artifact(
        "efficientnet_artifact", artifact, word, target, concepts, num_rows, correlation, seed, collection
    )
    return pictures.task(network)
