"""Prompts: text files with places that are filled by plain replacement."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from importlib.resources import files

from ..words import one_line

_PLACES = re.compile(r"\{(scores|avoid|rejected|problem)\}")
_MOST_LETTERS = 60
_MARKUP = str.maketrans("", "", "<>{}[]|\\`")


class Prompt:
    """A prompt file of this package, by its name without the ending."""

    def __init__(self, name: str) -> None:
        self.text = files("hf_msae.neuron_labels").joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")
        self.sha256 = hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def head(self) -> str:
        """What stands before the first place, and is the same in all prompts."""
        return _PLACES.split(self.text, maxsplit=1)[0]

    def fill(self, **values: str) -> str:
        """Put texts where their names stand in braces. Braces within the texts mean nothing."""
        return _PLACES.sub(lambda place: values[place.group(1)], self.text)


def plain(text: str) -> str:
    """Return a text without what could be a tag or a special token of a model."""
    return unicodedata.normalize("NFKC", text).translate(_MARKUP)


def quoted(concept: str) -> str:
    """Return a concept in quotes, on one line, without what could end the quotes or be markup."""
    return f'"{one_line(plain(concept).replace(chr(34), ""), _MOST_LETTERS)}"'


def score_lines(scores: Sequence[tuple[str, float]]) -> str:
    """Return a line for each concept with its score."""
    decimals = ".2f" if max((abs(score) for _, score in scores), default=1) >= 0.1 else ".2g"
    return "\n".join(f"{quoted(concept)} {score:{decimals}}" for concept, score in scores) or "(none)"


def concept_lines(concepts: Sequence[str]) -> str:
    """Return a line for each concept."""
    return "\n".join(map(quoted, concepts)) or "(none)"
