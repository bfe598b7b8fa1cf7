"""From prepared rows to embeddings at several hook points, with one forward pass per tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch

from ..._utils.checks import check_integers
from .. import Backbone
from ..hook_points import HookPoint, recording
from .rows import ReadRows


@dataclass(frozen=True)
class TokenChoice:
    """Which tokens are kept at the hook points of blocks. Padding never is.

    Attributes:
        kind: "all", or "patches" to drop the class token and registers of images (texts keep all tokens).
        per_row: Maximum number of tokens per row, drawn without replacement; None keeps all.
        seed: Random seed of the draw. It depends on the seed and the row number only, so interruptions and the number
            of processes make no difference. (In a stream that several processes share, rows are numbered within each
            process's part.)
    """

    kind: str = "all"
    per_row: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("all", "patches"):
            raise ValueError(f"tokens is {self.kind!r}; choose all or patches")
        check_integers("tokens_per_row", tokens_per_row=(self.per_row, 1), seed=(self.seed, 0))

    def __call__(self, row: int, positions: torch.Tensor) -> torch.Tensor:
        """Return the positions to keep of a row's token positions, in ascending order."""
        if self.per_row is None or len(positions) <= self.per_row:
            return positions
        drawn = np.random.default_rng([self.seed, row]).choice(len(positions), self.per_row, replace=False)
        return positions[torch.from_numpy(np.sort(drawn))]


class Embedder:
    """Computes the embeddings at several hook points from one forward pass of each tower.

    Args:
        backbone: A backbone that has these hook points.
        hook_points: Pooled hook points and blocks.
        choice: Which tokens to keep at blocks.

    Attributes:
        columns: Hook point -> width.
        token_columns: The hook points of blocks.
        towers: The towers to run.
        extra_features: A column with the positions of the kept tokens for each tower whose blocks are read.
    """

    def __init__(self, backbone: Backbone, hook_points: Sequence[str], choice: TokenChoice) -> None:
        self.backbone, self.choice = backbone, choice
        points = [HookPoint.parse(name) for name in hook_points]
        self.columns = {name: backbone.width(name) for name in hook_points}
        self.towers = {point.tower for point in points}
        self._blocks: dict[str, list[str]] = {"vision": [], "text": []}
        for point in points:
            if point.layer is not None:
                self._blocks[point.tower].append(point.name)
        self.token_columns = [point.name for point in points if point.layer is not None]
        positions = datasets.List(datasets.Value("int32"))
        self.extra_features = {f"{tower}.tokens": positions for tower, names in self._blocks.items() if names}

    def __call__(self, read: ReadRows) -> tuple[dict[str, torch.Tensor | list[torch.Tensor]], dict[str, list]]:
        """Return the embeddings by hook point and the token positions, both with one entry per readable row."""
        embeddings: dict[str, torch.Tensor | list[torch.Tensor]] = {}
        extra: dict[str, list] = {}
        if read.pixels is not None:
            with recording(self.backbone.model, self._blocks["vision"]) as recorded:
                embeddings["image_embeds"] = self.backbone.embed_pixels(read.pixels)
            if recorded:
                grids, num_tokens = self.backbone.patch_grids(read.pixels), next(iter(recorded.values()))[0].shape[1]
                which = self.backbone.patch_positions if self.choice.kind == "patches" else self.backbone.image_tokens
                self._keep("vision", read, [which(grid, num_tokens) for grid in grids], recorded, embeddings, extra)
        if read.texts is not None:
            with recording(self.backbone.model, self._blocks["text"]) as recorded:
                embeddings["text_embeds"] = self.backbone.embed_texts(read.texts)
            if recorded:
                self._keep("text", read, self.backbone.text_tokens(read.texts), recorded, embeddings, extra)
        return {name: embeddings[name] for name in self.columns}, extra

    def _keep(self, tower, read, positions, recorded, embeddings, extra) -> None:
        kept = [self.choice(row, each) for row, each in zip(read.numbers, positions, strict=True)]
        extra[f"{tower}.tokens"] = [each.tolist() for each in kept]
        for name, (tokens,) in recorded.items():  # selected before they leave the device
            chosen = [row[each.to(row.device)] for row, each in zip(tokens, kept, strict=True)]
            embeddings[name] = list(torch.cat(chosen).cpu().split([len(each) for each in kept]))
