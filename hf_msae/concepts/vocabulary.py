"""The words that may become names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch


class Vocabulary:
    """An ordered list of distinct words or short phrases, with the prompts in which they are shown to a text encoder.

    Args:
        words: the candidates for names.
        templates: prompts with one `{}` for the word; the embeddings of a word's prompts are averaged.

    Raises:
        ValueError: no words, an empty word, a duplicate, or a template without `{}`.
        TypeError: a word that is not a string.
    """

    def __init__(self, words: Iterable[str], templates: Iterable[str] = ("{}",)):
        if isinstance(words, str):
            raise TypeError(f"words is a list of words, got the single string {words!r}")
        self.words: tuple[str, ...] = tuple(words)
        self.templates: tuple[str, ...] = (templates,) if isinstance(templates, str) else tuple(templates)
        if not self.words:
            raise ValueError("a vocabulary needs at least one word")
        seen: dict[str, int] = {}
        for place, word in enumerate(self.words):
            if not isinstance(word, str):
                raise TypeError(f"word {place} of the vocabulary is {word!r}, not a string")
            if not word.strip():
                raise ValueError(f"word {place} of the vocabulary is empty")
            if word in seen:
                raise ValueError(f"{word!r} stands twice in the vocabulary, at {seen[word]} and {place}")
            seen[word] = place
        for template in self.templates:
            if template.count("{}") != 1:
                raise ValueError(f"a template has one {{}} where the word goes, got {template!r}")
        if not self.templates:
            raise ValueError("a vocabulary needs at least one template; '{}' shows the bare word")

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __repr__(self) -> str:
        shown = ", ".join(self.words[:5]) + (", ..." if len(self) > 5 else "")
        return f"Vocabulary({len(self)} words: {shown})"

    def embed(self, text_embeds: Callable[[list[str]], torch.Tensor]) -> torch.Tensor:
        """Embed every word: unit-norm prompt embeddings, averaged over the templates.

        Args:
            text_embeds: takes prompts, returns (len(prompts), d); `Backbone.text_embeds` for one.

        Returns:
            (len(self), d) float32.
        """
        prompts = [template.format(word) for word in self.words for template in self.templates]
        embeds = torch.nn.functional.normalize(text_embeds(prompts).float(), dim=-1)
        return embeds.reshape(len(self), len(self.templates), -1).mean(1)
