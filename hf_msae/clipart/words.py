"""Titles and tags as words that say what a drawing shows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from .drawing import Drawing

NOT_CONTENT = frozenset(
    "hash magick theme icon theme unsorted special openclipart clipart clip art collection miscellany misc stock "
    "historic svg other various".split()
) | {"clip art", "icon theme", "lemon theme icon", "svg theme", "signs and symbols"}
"""Tags about the collection or the file, not about what a drawing shows."""

_SHARED_TITLE = 5
"""A title that so many drawings share is the name of a collection, and says nothing about one of them."""


def clean_tags(drawings: Sequence[Drawing]) -> list[tuple[str, ...]]:
    """Bring the tags of all drawings of a collection to one form, sorted and without repetitions.

    Tags are lower-cased, underscores become spaces, a plural becomes the singular where the collection has both, and
    a compound is written as the collection writes it most often ("northamerica" becomes "north america"). Tags that
    are numbers, names of authors or words of `NOT_CONTENT` are dropped.
    """
    authors = {normalize(drawing.author) for drawing in drawings}
    normalized = [{tag for tag in map(normalize, drawing.tags) if tag not in authors} for drawing in drawings]
    counts = Counter(tag for tags in normalized for tag in tags)
    spaced = _commonest_spelling(counts)
    singular = {tag: _singular(tag, spaced.values()) for tag in set(spaced.values())}
    return [tuple(sorted(filter(_is_content, {singular[spaced[tag]] for tag in tags}))) for tags in normalized]


def clean_titles(drawings: Sequence[Drawing]) -> list[str]:
    """Return a title for each drawing: its own, or words of its file's name where the title names a collection."""
    counts = Counter(normalize(drawing.title) for drawing in drawings)
    return [
        _words_of_name(drawing) if counts[normalize(drawing.title)] >= _SHARED_TITLE else normalize(drawing.title)
        for drawing in drawings
    ]


def normalize(text: str) -> str:
    """Lower-case a text and turn everything between its words into single spaces."""
    text = re.sub(r"<[^>]*>|&\w+;", " ", text.casefold())
    return " ".join(re.sub(r"[^\w'+&-]|_", " ", text).split())


def _is_content(tag: str) -> bool:
    return 1 < len(tag) <= 40 and not re.fullmatch(r"[\d\W]+", tag) and tag not in NOT_CONTENT


def _commonest_spelling(counts: Counter[str]) -> dict[str, str]:
    by_letters: dict[str, list[str]] = {}
    for tag in counts:
        by_letters.setdefault(re.sub(r"[\s-]", "", tag), []).append(tag)
    # Words written apart are what a text model knows; the more frequent of several ways, the first of equals.
    best = {key: max(sorted(tags), key=lambda tag: (" " in tag, counts[tag])) for key, tags in by_letters.items()}
    return {tag: best[re.sub(r"[\s-]", "", tag)] for tag in counts}


def _singular(tag: str, tags: Iterable[str]) -> str:
    known = set(tags)
    for plural, ending in (("ies", "y"), ("es", ""), ("s", "")):
        if tag.endswith(plural) and tag.removesuffix(plural) + ending in known:
            return tag.removesuffix(plural) + ending
    return tag


def _words_of_name(drawing: Drawing) -> str:
    name = drawing.path.rpartition("/")[2].partition(".")[0]
    author = normalize(drawing.author).split()
    words = re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).casefold().split()
    # File names end with the author's name, cut off somewhere, and a number.
    kept = [word for word in words if not word.isdigit() and not any(part.startswith(word) for part in author)]
    return " ".join(kept)
