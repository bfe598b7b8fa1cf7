"""Concepts as texts: what counts as one, and which are the same."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

WordEmbeds = Callable[[Sequence[str]], "np.ndarray | torch.Tensor"]
"""Turns texts into embeddings (n, d), such as `Backbone.text_embeds` or what `load_word_embeds` returns."""

SYNONYM = 0.8
"""Concepts are the same if the words in which they differ have embeddings of at least this cosine."""

_MOST_WORDS, _MOST_LETTERS = 8, 60
_AROUND = " .,;:!?\"'`*_#-\u201c\u201d\u2018\u2019"  # the last four are curly quotation marks
_ARTICLES = ("a ", "an ", "the ", "some ")


def clean_concept(text: str) -> str:
    """Bring a concept that a model or person wrote to one form: one line, lower case, without quotes or article.

    What a model wrote is data: it is shown and drawn, and never used as a path, pattern or markup.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn") for letter in text):
        raise ValueError(f"a concept is one line without control characters, got {text!r:.80}")
    text = re.sub(r"\s+", " ", text).strip(_AROUND).casefold()
    for article in _ARTICLES:
        text = text.removeprefix(article)
    if not any(letter.isalpha() for letter in text):
        raise ValueError(f"a concept needs at least one word, got {text!r:.80}")
    if len(text) > _MOST_LETTERS or len(text.split()) > _MOST_WORDS:
        raise ValueError(f"a concept has at most {_MOST_WORDS} words and {_MOST_LETTERS} characters, got {text!r:.80}")
    return text


def concepts_among(words: Iterable[str]) -> list[str]:
    """Return those of some words that are concepts, cleaned and each once; numbers and long texts are left out."""
    found = {}
    for word in words:
        try:
            found[clean_concept(word)] = None
        except ValueError:  # no concept
            continue
    return list(found)


def one_line(text: str, most: int) -> str:
    """Return a text as one line without control characters, cut to a number of characters."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)
    return " ".join(text.split())[:most]


def same_words(concept: str) -> str:
    """Return a key that is equal for concepts that differ only in number or punctuation: "stars" and "Star!".

    It is for comparing alone: its words are stems, such as "hous" of "house" and "houses".
    """
    return " ".join(_stem(word) for word in split_words(clean_concept(concept)))


def split_words(text: str) -> list[str]:
    """Return the words of a text: letters, digits and _, with the marks that follow them.

    Without the marks, as in what `re` calls a word, the vowel signs of many scripts would separate words, and be lost.
    """
    found = [""]
    for letter in text:
        is_part = letter.isalnum() or letter == "_" or (found[-1] and unicodedata.category(letter)[0] == "M")
        if is_part:
            found[-1] += letter
        elif found[-1]:
            found.append("")
    return [word for word in found if word]


def form_of(text: str) -> str:
    """Return `same_words` of a concept, and a text that is none, such as a number, as it is."""
    try:
        return same_words(text)
    except ValueError:
        return text


_IRREGULAR = {
    **{"children": "child", "people": "person", "feet": "foot", "teeth": "tooth", "geese": "goose", "mice": "mouse"},
    **{"lice": "louse", "oxen": "ox", "dice": "die", "quizzes": "quiz", "cacti": "cactus", "fungi": "fungus"},
    **{"octopi": "octopus", "vertices": "vertex", "matrices": "matrix"},
}
_ALONE = frozenset("lens canvas atlas christmas news series species gas chaos cosmos tennis pancreas".split())
"""Singular words that end like plurals. Those that end in -ss, -us and -is are known by that."""


def _stem(word: str) -> str:
    """Cut off what a plural adds, and of a singular the same, where plurals do not say what it was."""
    word = _IRREGULAR.get(word, word)
    word = re.sub(r"men$", "man", word)
    if len(word) > 3 and word not in _ALONE and not word.endswith(("ss", "us", "is")):
        word = re.sub(r"([sxzo]|ch|sh)es$|s$", r"\1", word)
    elif word.endswith("sis"):
        return word[:-2]  # "oasis" as "oases"
    for ending, stem in (("ie", "y"), ("ve", "v"), ("lf", "lv"), ("eaf", "eav"), ("oaf", "oav"), ("ife", "iv")):
        if word.endswith(ending):
            return word.removesuffix(ending) + stem
    return re.sub(r"([sxzo]|ch|sh)e$", r"\1", word)


class KnownConcepts:
    """Remembers concepts, and recognizes them in another case, number or, with embeddings, wording.

    Two concepts are the same if the words in which they differ have at least the cosine `synonym`. What they share is
    left out: with it, "small red star" and "large red star" would be alike.
    """

    def __init__(self, word_embeds: WordEmbeds | None = None, synonym: float = SYNONYM) -> None:
        self.word_embeds, self.synonym = word_embeds, synonym
        self._concepts: dict[str, str] = {}

    def add(self, concept: str) -> None:
        """Remember a concept, unless it is known in another case or number."""
        self._concepts.setdefault(form_of(concept), concept)

    def find(self, concept: str) -> str | None:
        """Return the known concept that is the same as this one, or None."""
        if found := self._concepts.get(form_of(concept)):
            return found
        if self.word_embeds is None:
            return None
        pairs = {known: _what_differs(concept, known) for known in self._concepts.values()}
        pairs = {known: pair for known, pair in pairs.items() if all(pair)}  # "red star" is not "star"
        if not pairs:
            return None
        rows = unit_rows(self.word_embeds([text for pair in pairs.values() for text in pair])).reshape(
            len(pairs), 2, -1
        )
        cosines = (rows[:, 0] * rows[:, 1]).sum(axis=1)
        best = int(cosines.argmax())
        return list(pairs)[best] if cosines[best] >= self.synonym else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._concepts.values())


def _what_differs(concept: str, other: str) -> tuple[str, str]:
    words, others = ({_stem(word): word for word in split_words(each)} for each in (concept, other))
    only = [[each[stem] for stem in each if stem not in rest] for each, rest in ((words, others), (others, words))]
    return " ".join(only[0]), " ".join(only[1])


def unit_rows(embeddings: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return embeddings (n, d) as float64 of length 1; rows of zeros stay zero."""
    rows = np.asarray(
        embeddings.detach().float().cpu() if isinstance(embeddings, torch.Tensor) else embeddings, dtype=np.float64
    )
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


@lru_cache(maxsize=1)
def load_word_embeds() -> WordEmbeds:
    """Load the word embeddings of WordLlama (MIT), which are part of the package `wordllama`, 16 MB.

    Raises:
        ImportError: The package is not installed.
    """
    # The package configures the root logger, unless that has a handler: then every call of a service is printed.
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        import wordllama
    except ImportError as error:
        raise ImportError('embeddings of words need a package: pip install "hf_msae[label]"') from error
    finally:
        root.removeHandler(handler)
    # Without `cache_dir`, it looks for the tokenizer elsewhere, and then on the Hub.
    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    return lambda texts: model.embed(list(texts))
