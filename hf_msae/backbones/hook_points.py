"""Where in a backbone embeddings are read and edited, found by the structure of its transformers model."""

from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

_BLOCK = re.compile(r"(vision|text)\.layers\.(0|[1-9]\d*)")
POOLED = {"image_embeds": "vision", "text_embeds": "text"}


@dataclass(frozen=True)
class HookPoint:
    """A place in a backbone."""

    name: str  # "image_embeds", "text_embeds", "vision.layers.{i}" or "text.layers.{i}"
    tower: str  # "vision" or "text"
    layer: int | None = None  # number of the block whose output tokens these are; None for pooled embeddings

    @classmethod
    def parse(cls, name: str) -> HookPoint:
        """Parse the name of a hook point.

        Raises:
            ValueError: No model has such a hook point.
        """
        if name in POOLED:
            return cls(name, POOLED[name])
        if found := _BLOCK.fullmatch(str(name)):
            return cls(name, found[1], int(found[2]))
        raise ValueError(
            f"unknown hook point {name!r}; choose image_embeds, text_embeds, vision.layers.{{i}} or text.layers.{{i}}"
        )


@dataclass(frozen=True)
class Site:
    """The module of a model whose output (batch, [tokens,] width) holds the embeddings of a hook point.

    `token` is the token that holds the pooled embedding, if the output has several.
    """

    module: nn.Module
    token: int | None = None

    def read(self, output: torch.Tensor) -> torch.Tensor:
        """Return the embeddings in the module's output."""
        return output if self.token is None else output[:, self.token]

    def write(self, output: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the module's output with other embeddings."""
        if self.token is None:
            return embeddings
        output = output.clone()
        output[:, self.token] = embeddings
        return output

    @contextmanager
    def hooked(self, function: Callable[[torch.Tensor], torch.Tensor | None], first: bool = True) -> Iterator[None]:
        """Call a function with the embeddings of every forward pass inside the block; what it returns replaces them.

        It returns None to keep them. With `first`, it runs before other hooks, so that the hidden states recorded by
        transformers are those the next block gets; otherwise after them, so that the function sees embeddings that
        other hooks have changed.
        """
        hook = _Hook(self, function)
        handle = self.module.register_forward_hook(hook, prepend=first)
        try:
            yield
        finally:
            hook.over = True
            handle.remove()


@dataclass(eq=False)
class _Hook:
    """What `Site.hooked` registers. Copies of the model made inside its block share it, so it ends for them, too."""

    site: Site
    function: Callable[[torch.Tensor], torch.Tensor | None]
    over: bool = False

    def __call__(self, module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor | None:
        changed = None if self.over else self.function(self.site.read(output))
        return None if changed is None else self.site.write(output, changed)

    def __deepcopy__(self, memo: dict) -> _Hook:
        return self

    def __reduce__(self) -> tuple:
        if self.over:  # a copy that was made in the block keeps it, without effect
            return _Hook, (None, None, True)
        raise pickle.PicklingError(
            "a model cannot be pickled while its latents are edited or its tokens are recorded, since another process "
            "would do neither: pickle it outside of the `with` block"
        )


def blocks_of(model: PreTrainedModel, tower: str) -> nn.ModuleList | None:
    """Return the blocks of a tower; None if the model has no such tower."""
    root = _tower(model, tower)
    encoder = getattr(root, "encoder", root)
    return getattr(encoder, "layers", getattr(encoder, "layer", None))


def find_site(model: PreTrainedModel, point: HookPoint) -> Site:
    """Find the module at a hook point.

    Pooled embeddings are taken where they are final: after the projection of CLIP models, the attention pooling
    (vision) or head (text) of SigLIP models, and the last norm of others.
    """
    blocks = blocks_of(model, point.tower)
    if blocks is None or (point.layer is not None and point.layer >= len(blocks)):
        has = f"no {point.tower} tower" if blocks is None else f"{len(blocks)} {point.tower} blocks"
        raise ValueError(f"{type(model).__name__} has {has}, so no hook point {point.name}")
    if point.layer is not None:
        return Site(blocks[point.layer])
    root = _tower(model, point.tower)
    projection = getattr(model, {"vision": "visual_projection", "text": "text_projection"}[point.tower], None)
    for module in (projection, getattr(root, "head", None), getattr(root, "post_layernorm", None)):
        if module is not None:
            return Site(module)
    return Site(root.layernorm, token=0)  # DINOv2: the CLS token, after the last norm


@contextmanager
def recording(model: PreTrainedModel, hook_points: Sequence[str]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Record the tokens that leave blocks, in every forward pass of the current thread.

    For each hook point there is a list to which every forward pass adds a float32 tensor (batch, tokens, width), on
    the model's device and with edits of the model included.
    """
    recorded: dict[str, list[torch.Tensor]] = {name: [] for name in hook_points}
    thread = threading.get_ident()

    def keep(parts: list[torch.Tensor], output: torch.Tensor) -> None:
        if threading.get_ident() == thread:  # other threads may use the model at the same time
            parts.append(output.detach().float())

    with ExitStack() as stack:
        for name, parts in recorded.items():
            site = find_site(model, HookPoint.parse(name))
            stack.enter_context(site.hooked(partial(keep, parts), first=False))
        yield recorded


def _tower(model: PreTrainedModel, tower: str) -> nn.Module | None:
    inner = getattr(model, f"{tower}_model", None)
    if inner is None and tower == "vision" and not hasattr(model, "text_model"):
        return model  # a vision model is its own tower
    return inner
