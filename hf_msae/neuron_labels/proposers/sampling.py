"""Sampling in which every row of a batch has its own seed, and keeping what prompts that begin alike share."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


class SeededSampling(LogitsProcessor):
    """Turns the likeliest token into a sampled one, by Gumbel noise: argmax(logits / T + g) has the softmax's law.

    `generate` itself draws all rows from one stream, so that a row depends on the others. Here each has its own seed,
    and its noise is drawn on the CPU, so that it is the same on every device. With a temperature T of 0, logits are
    left as they are. Rows do not begin with the tokens of `not_first`, in one call of `generate`.
    """

    def __init__(
        self, temperature: float, top_p: float, seeds: Sequence[int], not_first: Sequence[Sequence[int]] = ()
    ) -> None:
        self._not_first = not_first
        self._warpers = [TemperatureLogitsWarper(float(temperature)), TopPLogitsWarper(top_p)] if temperature else []
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return the logits (n, tokens) with each row's noise."""
        if self._not_first:
            scores = scores.clone()
            for row, tokens in enumerate(self._not_first):
                scores[row, list(tokens)] = -torch.inf
            self._not_first = ()
        if not self._warpers:
            return scores
        for warp in self._warpers:
            scores = warp(input_ids, scores)
        shape = scores.shape[1:]
        noise = torch.stack([torch.empty(shape).exponential_(generator=each) for each in self._generators])
        return scores.float() - noise.log().to(scores.device)


class StopAtText(StoppingCriteria):
    """Ends a row once it holds one of these texts, after `lengths` tokens, or None; prompts end at `start`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, start: int, texts: Sequence[str]) -> None:
        self._tokenizer, self._start, self._texts = tokenizer, start, texts
        self.lengths: dict[int, int | None] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        """Return which rows have ended."""
        written = input_ids[:, self._start :]
        for place, row in enumerate(written.tolist()):
            if self.lengths.get(place) is None:
                text = self._tokenizer.decode(row, skip_special_tokens=True)
                self.lengths[place] = len(row) if any(end in text for end in self._texts) else None
        return torch.tensor([length is not None for length in self.lengths.values()], device=input_ids.device)


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
        # Padding between the beginning and the rest would use up positions of a sliding window.
        window = getattr(self._model.config.get_text_config(), "sliding_window", None) or float("inf")
        if length < _WORTH_KEEPING or max(map(len, rows)) + most_new > window:
            return 0, None
        tokens = tuple(rows[0][:length])
        if tokens not in self._kept:
            if len(self._kept) == _MOST_KEPT:
                self._kept.clear()
            ids = torch.tensor([tokens], device=self._model.device)
            with torch.no_grad():
                self._kept[tokens] = self._model(input_ids=ids, use_cache=True).get("past_key_values")
        if not _is_plain(self._kept[tokens]):
            return 0, None
        cache = copy.deepcopy(self._kept[tokens])
        cache.batch_repeat_interleave(len(rows))
        return length, cache


def _common(first: list[int], second: list[int]) -> int:
    same = [a == b for a, b in zip(first, second, strict=False)]
    return same.index(False) if False in same else len(same)


def _is_plain(cache: object) -> bool:
    """Whether a cache is of attention alone; the states of recurrent layers would take in the padding."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    return isinstance(cache, DynamicCache) and all(type(layer) in plain for layer in cache.layers)
