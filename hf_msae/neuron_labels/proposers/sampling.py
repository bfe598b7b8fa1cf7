"""Sampling in which every row of a batch has its own seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper


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
