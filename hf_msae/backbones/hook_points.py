"""Where in a backbone embeddings can be read and edited, found by the structure of its transformers model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

_BLOCK = re.compile(r"(vision|text)\.layers\.(0|[1-9]\d*)")
POOLED = {"image_embeds": "vision", "text_embeds": "text"}


@dataclass(frozen=True)
class HookPoint:
    """A place in a backbone.

    Attributes:
        name: "image_embeds", "text_embeds", "vision.layers.{i}" or "text.layers.{i}".
        tower: "vision" or "text".
        layer: number of the block whose outgoing tokens these are; None for pooled embeddings.
    """

    name: str
    tower: str
    layer: int | None = None

    @classmethod
    def parse(cls, name: str) -> HookPoint:
        """Raises:
        ValueError: `name` is no hook point of any model.
        """
        if name in POOLED:
            return cls(name, POOLED[name])
        if found := _BLOCK.fullmatch(str(name)):
            return cls(name, found[1], int(found[2]))
        raise ValueError(
            f"unknown hook point {name!r}; there are image_embeds, text_embeds, vision.layers.{{i}}, text.layers.{{i}}"
        )


@dataclass(frozen=True)
class Site:
    """The module of a model whose output holds a hook point's embeddings.

    Attributes:
        module: its output is a tensor (batch, [tokens,] width).
        token: the only token that is meant, where the output has several but the hook point is pooled.
    """

    module: nn.Module
    token: int | None = None

    def read(self, output: torch.Tensor) -> torch.Tensor:
        """The embeddings within the module's output."""
        return output if self.token is None else output[:, self.token]

    def write(self, output: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """The module's output with other embeddings."""
        if self.token is None:
            return embeddings
        output = output.clone()
        output[:, self.token] = embeddings
        return output

    @contextmanager
    def hooked(self, function: Callable[[torch.Tensor], torch.Tensor | None], first: bool = True) -> Iterator[None]:
        """Call `function` with the embeddings of every forward pass; what it returns, if anything, takes their place.

        Args:
            function: takes and returns (batch, [tokens,] width); or returns None.
            first: before other hooks, so that what transformers records as hidden states is what the next block gets;
                otherwise after them, so that it sees what they have made of the embeddings.
        """

        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor | None:
            changed = function(self.read(output))
            return None if changed is None else self.write(output, changed)

        handle = self.module.register_forward_hook(hook, prepend=first)
        try:
            yield
        finally:
            handle.remove()


def blocks_of(model: PreTrainedModel, tower: str) -> nn.ModuleList | None:
    """The blocks of a tower; None if the model has no such tower."""
    root = _tower(model, tower)
    encoder = getattr(root, "encoder", root)
    return getattr(encoder, "layers", getattr(encoder, "layer", None))


def find_site(model: PreTrainedModel, point: HookPoint) -> Site:
    """The site of a hook point.

    Pooled embeddings are taken where they are ready: behind the projection of CLIP models, behind the attention
    pooling (vision) or the head (text) of SigLIP models, behind the last norm of others.

    Raises:
        ValueError: the model does not have it.
    """
    root = _tower(model, point.tower)
    if root is None:
        raise ValueError(f"{type(model).__name__} has no {point.tower} tower, so no hook point {point.name}")
    if point.layer is not None:
        blocks = blocks_of(model, point.tower)
        if blocks is None or point.layer >= len(blocks):
            raise ValueError(
                f"{type(model).__name__} has {len(blocks or ())} {point.tower} blocks, so no hook point {point.name}"
            )
        return Site(blocks[point.layer])
    projection = getattr(model, {"vision": "visual_projection", "text": "text_projection"}[point.tower], None)
    for module in (projection, getattr(root, "head", None), getattr(root, "post_layernorm", None)):
        if module is not None:
            return Site(module)
    return Site(root.layernorm, token=0)  # DINOv2: the CLS token among all, behind the last norm


def _tower(model: PreTrainedModel, tower: str) -> nn.Module | None:
    inner = getattr(model, f"{tower}_model", None)
    if inner is None and tower == "vision" and not hasattr(model, "text_model"):
        return model  # a vision model without a frame around it
    return inner
