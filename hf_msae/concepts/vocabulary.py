"""The words that may become names."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from datasets import Dataset

    from ..backbones import Backbone


class Vocabulary:
    """An ordered list of distinct words or short phrases, with the prompts in which they are shown to a text encoder.

    Args:
        words: the candidates for names.
        templates: prompts with one `{}` for the word; the embeddings of a word's prompts are averaged.
        order: what their order is by, e.g. "frequency"; for the reader alone.

    Raises:
        ValueError: no words, an empty word, a duplicate, or a template without `{}`.
        TypeError: a word that is not a string.
    """

    def __init__(self, words: Iterable[str], templates: Iterable[str] = ("{}",), order: str | None = None):
        if isinstance(words, str):
            raise TypeError(f"words is a list of words, got the single string {words!r}")
        self.words: tuple[str, ...] = tuple(words)
        self.templates: tuple[str, ...] = (templates,) if isinstance(templates, str) else tuple(templates)
        self.order = order
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

    @classmethod
    def from_file(
        cls, path: str | os.PathLike, templates: Iterable[str] = ("{}",), limit: int | None = None
    ) -> Vocabulary:
        """Words of a text file, one a line, in its order; empty lines and repetitions are left out.

        Args:
            path: UTF-8 text.
            templates: as for `Vocabulary`.
            limit: how many of the first words to take.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no UTF-8 text or holds no words.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no vocabulary file {path}")
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no UTF-8 text: {error}") from error
        words = list(dict.fromkeys(filter(None, map(str.strip, lines))))[:limit]
        if not words:
            raise ValueError(f"{path} holds no words")
        return cls(words, templates, order=f"as in {path.name}")

    @classmethod
    def from_dataset(
        cls, dataset: Dataset, column: str, templates: Iterable[str] = ("{}",), limit: int | None = None
    ) -> Vocabulary:
        """The distinct strings of a data set's column, most frequent first; lists of strings count word by word.

        Raises:
            ValueError: there is no such column, or it holds no strings.
        """
        if column not in dataset.column_names:
            raise ValueError(f"the data set has no column {column!r}, only {', '.join(dataset.column_names)}")
        counts: Counter[str] = Counter()
        for value in dataset[column]:
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(each, str) or each is None for each in values):
                raise ValueError(f"column {column!r} holds {value!r:.80}, which is no string")
            counts.update(each.strip() for each in values if each and each.strip())
        if not counts:
            raise ValueError(f"column {column!r} holds no words")
        return cls([word for word, _ in counts.most_common(limit)], templates, order="frequency")

    @classmethod
    def of_scenes(cls) -> Vocabulary:
        """The concepts of `hf_msae.scenes`, in the prompts that its SigLIP knows."""
        from ..scenes import CONCEPTS

        return cls(CONCEPTS, ("{}", "a {} shape", "a picture of something {}"), order="group")

    def filtered(
        self, min_letters: int = 3, stop_words: bool | Iterable[str] = True, sensitive: Iterable[str] = ()
    ) -> Vocabulary:
        """A vocabulary without words that make no names.

        Args:
            min_letters: words with fewer letters go; lists of frequent words are full of pieces like "th" and "s".
            stop_words: words of grammar to leave out ("the", "however"); True for scikit-learn's English list.
            sensitive: words not to call anything by, whatever their case; also within phrases.

        Raises:
            ValueError: nothing is left.
        """
        if stop_words is True:
            from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS as stop_words
        stopped = {word.lower() for word in stop_words or ()}
        unwanted = {word.lower() for word in sensitive}
        words = [
            word
            for word in self.words
            if sum(map(str.isalpha, word)) >= min_letters
            and word.lower() not in stopped
            and word.lower() not in unwanted
            and not unwanted & set(word.lower().split())
        ]
        if not words:
            raise ValueError(f"none of the {len(self)} words is left: the filters are too strict")
        return Vocabulary(words, self.templates, self.order)

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __repr__(self) -> str:
        shown = ", ".join(self.words[:5]) + (", ..." if len(self) > 5 else "")
        return f"Vocabulary({len(self)} words: {shown})"

    def embed(
        self, text_embeds: Backbone | Callable[[list[str]], torch.Tensor], cache_dir: str | os.PathLike | None = None
    ) -> torch.Tensor:
        """Embed every word: unit-norm prompt embeddings, averaged over the templates.

        Args:
            text_embeds: a [`Backbone`], of which the embeddings are kept for the next time; or what takes prompts and
                returns (len(prompts), d).
            cache_dir: where they are kept; by default `hf_msae/vocabularies` in HF_HOME.

        Returns:
            (len(self), d) float32.
        """
        from ..backbones import Backbone

        if not isinstance(text_embeds, Backbone):
            return self._embed(text_embeds)
        from huggingface_hub import constants
        from safetensors.torch import load_file, save_file

        folder = Path(cache_dir or Path(constants.HF_HOME) / "hf_msae" / "vocabularies").expanduser()
        identity = json.dumps([self.words, self.templates, text_embeds.provenance()], sort_keys=True)
        file = folder / f"{hashlib.sha256(identity.encode()).hexdigest()}.safetensors"
        if file.is_file():
            return load_file(file)["embeds"]
        embeds = self._embed(text_embeds.text_embeds).cpu().contiguous()
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{file.name}.{os.getpid()}")
        save_file({"embeds": embeds}, unfinished)
        os.replace(unfinished, file)
        return embeds

    def _embed(self, text_embeds: Callable[[list[str]], torch.Tensor]) -> torch.Tensor:
        prompts = [template.format(word) for word in self.words for template in self.templates]
        embeds = torch.nn.functional.normalize(text_embeds(prompts).float(), dim=-1)
        return embeds.reshape(len(self), len(self.templates), -1).mean(1)
