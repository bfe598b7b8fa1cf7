"""What language models are told, in text files with places to fill, and reading one concept out of their answers."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from importlib.resources import files

from ..words import clean_concept, one_line

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


_MOST_WORDS = 6
_SEVERAL = re.compile(r"[,;/\n]|\bor\b", re.IGNORECASE)
_PLAIN = re.compile(r"[\w\s'&.+-]+")
_REFUSALS = ("i ", "i'm ", "im ", "sorry", "as an ai", "as a language model", "cannot ", "can't ", "unable ")
_EMPTY = frozenset(
    ("none", "nothing", "unknown", "not available", "no idea", "concept", "new concept", "your concept", "answer")
)
MOST_REASONING = 2000
"""Characters of reasoning that are kept."""


class MalformedAnswerError(ValueError):
    """A language model's answer does not hold one usable concept; the message is written for the model."""


def parse_tagged(text: str) -> tuple[str, str]:
    """Read the concept and the reasoning, in tags as chat models are asked for; the latter may be empty."""
    _, end, rest = text.rpartition("</reasoning>")
    if not end:  # models that reason before they answer use a tag of their own
        _, _, rest = text.rpartition("</think>")
    before, start, tagged = rest.partition("<concept>")
    if not start:
        raise MalformedAnswerError("the tag concept is missing")
    concept, end, after = tagged.partition("</concept>")
    if not end:
        raise MalformedAnswerError("it ends before the closing tag of the concept; write less")
    if "<concept>" in after:
        raise MalformedAnswerError("it has more than one tag concept")
    reasoning = text[: len(text) - len(rest)] or before
    for tag in ("<reasoning>", "</reasoning>", "<think>", "</think>"):
        reasoning = reasoning.replace(tag, " ")
    return usable_concept(concept), one_line(reasoning, MOST_REASONING)


def parse_line(text: str) -> tuple[str, str]:
    """Read the completion of a line that ends with an opening quote: what comes before the closing one."""
    line, _, _ = text.partition("\n")
    return usable_concept(line.partition('"')[0]), ""


def usable_concept(text: str) -> str:
    """Return the concept that a text is, as `clean_concept` writes it."""
    text = text.strip()
    if _SEVERAL.search(text):
        raise MalformedAnswerError(f"give one concept, not several or a sentence: {one_line(text, 80)!r}")
    try:
        concept = clean_concept(text)
    except ValueError as error:
        raise MalformedAnswerError(str(error)) from error
    if len(concept.split()) > _MOST_WORDS:
        raise MalformedAnswerError(f"give a concept of one to four words, not {concept!r}")
    if not _PLAIN.fullmatch(concept):
        raise MalformedAnswerError(f"write the concept in plain letters, without punctuation or markup: {concept!r}")
    if concept in _EMPTY or concept.startswith(_REFUSALS):
        raise MalformedAnswerError(f"{concept!r} is not a concept that a picture can show; take your best guess")
    return concept
