"""One forward pass a tower: from rows that are ready for a backbone to everything that is written of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch

from .. import Backbone
from ..hook_points import HookPoint
from .rows import ReadRows


@dataclass(frozen=True)
class TokenChoice:
    """Which tokens are kept at the hook points of blocks; never padding.

    Attributes:
        kind: "all", or "patches": without the class token and registers of images (of texts it means all).
        per_row: at most so many of a row, drawn without replacement; None keeps all.
        seed: which are drawn: it and the number of the row decide, so that interruptions and processes change nothing.
            (Of a stream that several processes share, rows are counted from the first of each part.)
    """

    kind: str = "all"
    per_row: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("all", "patches"):
            raise ValueError(f"tokens is {self.kind!r}; choose all or patches")
        if self.per_row is not None and self.per_row < 1:
            raise ValueError(f"tokens_per_row must be at least 1, or None for all, got {self.per_row}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")

    def __call__(self, row: int, positions: torch.Tensor) -> torch.Tensor:
        """The positions kept, ascending, of those that a row has."""
        if self.per_row is None or len(positions) <= self.per_row:
            return positions
        drawn = np.random.default_rng([self.seed, row]).choice(len(positions), self.per_row, replace=False)
        return positions[torch.from_numpy(np.sort(drawn))]


class Embedder:
    """Embeddings at several hook points from one forward pass of each tower.

    Args:
        backbone: with these hook points.
        hook_points: pooled or of blocks.
        choice: of tokens.

    Attributes:
        columns: hook point -> width.
        token_columns: the hook points of blocks.
        extra_features: for each tower with such, a column with the positions of the kept tokens.
    """

    def __init__(self, backbone: Backbone, hook_points: Sequence[str], choice: TokenChoice) -> None:
        self.backbone, self.choice = backbone, choice
        points = [HookPoint.parse(name) for name in hook_points]
        self.pooled = [point.name for point in points if point.layer is None]
        self.token_columns = [point.name for point in points if point.layer is not None]
        self.of_tower = {
            tower: [name for name in self.token_columns if HookPoint.parse(name).tower == tower]
            for tower in ("vision", "text")
        }
        self.towers = {point.tower for point in points}
        self.columns = {name: backbone.width(name) for name in hook_points}
        positions = datasets.List(datasets.Value("int32"))
        self.extra_features = {f"{tower}.tokens": positions for tower, names in self.of_tower.items() if names}

    def __call__(self, read: ReadRows) -> tuple[dict[str, torch.Tensor | list[torch.Tensor]], dict[str, list]]:
        """Embeddings by hook point, and positions of tokens, both with one entry a readable row."""
        embeddings: dict[str, torch.Tensor | list[torch.Tensor]] = {}
        extra: dict[str, list] = {}
        if read.pixels is not None:
            with self.backbone.recording(self.of_tower["vision"]) as recorded:
                embeddings["image_embeds"] = self.backbone.embed_pixels(read.pixels)
            if recorded:
                grids, num_tokens = self.backbone.patch_grids(read.pixels), next(iter(recorded.values()))[0].shape[1]
                which = self.backbone.patch_positions if self.choice.kind == "patches" else self.backbone.image_tokens
                self._keep("vision", read, [which(grid, num_tokens) for grid in grids], recorded, embeddings, extra)
        if read.texts is not None:
            with self.backbone.recording(self.of_tower["text"]) as recorded:
                embeddings["text_embeds"] = self.backbone.text_embeds(read.texts, batch_size=len(read.texts))
            if recorded:
                self._keep("text", read, self.backbone.text_tokens(read.texts), recorded, embeddings, extra)
        return {name: embeddings[name] for name in self.columns}, extra

    def _keep(self, tower, read, positions, recorded, embeddings, extra) -> None:
        kept = [self.choice(row, each) for row, each in zip(read.numbers, positions, strict=True)]
        extra[f"{tower}.tokens"] = [each.tolist() for each in kept]
        for name, (tokens,) in recorded.items():  # chosen before they leave the device
            chosen = [row[each.to(row.device)] for row, each in zip(tokens, kept, strict=True)]
            embeddings[name] = list(torch.cat(chosen).cpu().split([len(each) for each in kept]))
