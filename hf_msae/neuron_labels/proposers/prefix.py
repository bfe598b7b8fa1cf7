"""Prompts begin alike: what a model computes of the beginning is kept."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

_WORTH_KEEPING = 16
"""Tokens; a shorter beginning is computed again."""
_MOST_KEPT = 4


class PrefixCache:
    """Keeps the keys and values of the tokens that prompts share; `heads` are their unchanging beginnings."""

    def __init__(self, model: PreTrainedModel, heads: Sequence[list[int]]) -> None:
        self._model, self._heads = model, heads
        self._kept: dict[tuple[int, ...], DynamicCache] = {}

    def shared(self, rows: Sequence[list[int]], most_new: int) -> tuple[int, DynamicCache | None]:
        """Return how many tokens need not be computed again, and their keys and values for a batch of these rows."""
        length = max(_common(rows[0], head) for head in self._heads)
        length = min(length, *(_common(rows[0], row) for row in rows), *(len(row) - 1 for row in rows))
        if length < _WORTH_KEEPING or max(map(len, rows)) + most_new > self._window:
            return 0, None
        tokens = tuple(rows[0][:length])
        if tokens not in self._kept:
            if len(self._kept) == _MOST_KEPT:
                self._kept.clear()
            self._kept[tokens] = self._computed(tokens)
        if not _is_plain(self._kept[tokens]):
            return 0, None
        cache = copy.deepcopy(self._kept[tokens])
        cache.batch_repeat_interleave(len(rows))
        return length, cache

    @property
    def _window(self) -> float:
        # Padding between the beginning and the rest would use up positions of a sliding window.
        return getattr(self._model.config.get_text_config(), "sliding_window", None) or float("inf")

    @torch.no_grad()
    def _computed(self, tokens: tuple[int, ...]) -> DynamicCache | None:
        ids = torch.tensor([tokens], device=self._model.device)
        return self._model(input_ids=ids, use_cache=True).get("past_key_values")


def _common(first: list[int], second: list[int]) -> int:
    """Return the length of the common beginning."""
    same = [a == b for a, b in zip(first, second, strict=False)]
    return same.index(False) if False in same else len(same)


def _is_plain(cache: object) -> bool:
    """Whether a cache is of attention alone; the states of recurrent layers would take in the padding."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    return isinstance(cache, DynamicCache) and all(type(layer) in plain for layer in cache.layers)
