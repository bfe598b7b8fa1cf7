"""A card, taken apart into its metadata, its generated sections and what people have written between them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_GENERATED = re.compile(r"^<!-- hf_msae:generated ([^\n]*?) ?-->[ \t]*$", re.MULTILINE)
_OPEN = re.compile(r"<!-- hf_msae:([\w-]+) ([0-9a-f]{8}) -->\s*")
_CLOSE = re.compile(r"<!-- /hf_msae:([\w-]+) -->\s*")


@dataclass(frozen=True)
class Piece:
    """A stretch of a card's body: a section, or the text between two of them (which has no name)."""

    text: str
    name: str | None = None
    digest: str = ""

    @property
    def is_untouched(self) -> bool:
        """Whether it is a section as it was generated."""
        return self.name is not None and digest_of(self.text) == self.digest

    def __str__(self) -> str:
        if self.name is None:
            return self.text
        return f"<!-- hf_msae:{self.name} {self.digest} -->\n{self.text}<!-- /hf_msae:{self.name} -->\n"


@dataclass(frozen=True)
class Card:
    """A card, taken apart.

    Attributes:
        metadata: what the YAML says.
        yaml: the YAML as it stands there.
        sections: all that were ever generated; None in a card of someone else.
        values: metadata key -> hash of its value as generated.
        pieces: of the body, behind the first comment.
        lead: of the body, before it.
    """

    metadata: dict[str, Any]
    yaml: str
    pieces: list[Piece]
    sections: list[str] | None = None
    values: dict[str, str] = field(default_factory=dict)
    lead: str = ""

    def __str__(self) -> str:
        front = f"---\n{self.yaml.strip()}\n---\n" if self.yaml.strip() else ""
        if self.sections is None:
            return front + "".join(map(str, self.pieces))
        values = " ".join(f"{key}={digest}" for key, digest in self.values.items())
        generated = f"<!-- hf_msae:generated {' '.join(self.sections)} | {values} -->\n"
        return front + self.lead + generated + "".join(map(str, self.pieces))


def parse_card(card: str) -> Card:
    """Take a card apart; `str` of the result puts it together again.

    Raises:
        ValueError: its metadata cannot be read.
    """
    card = card.replace("\r\n", "\n").removeprefix("\ufeff")
    front = _FRONT_MATTER.match(card)
    text, body = (front.group(1), card[front.end() :]) if front else ("", card)
    try:
        metadata = yaml.safe_load(text) if text.strip() else {}
    except yaml.YAMLError as error:
        raise ValueError(
            f"the metadata between the lines --- of the card (README.md) is not valid YAML: "
            f"{' '.join(str(error).split())}; mend it, or delete the file"
        ) from error
    if not isinstance(metadata, dict):
        raise ValueError(f"the metadata of the card (README.md) is {type(metadata).__name__}, not 'key: value' lines")
    generated = _GENERATED.search(body)
    if generated is None:
        return Card(metadata, text, _pieces(body))
    names, _, values = generated.group(1).partition("|")
    hashes = dict(word.split("=", 1) for word in values.split() if "=" in word)
    lead, rest = body[: generated.start()], body[generated.end() :].removeprefix("\n")
    return Card(metadata, text, _pieces(rest), names.split(), hashes, lead)


def _pieces(body: str) -> list[Piece]:
    """Sections, and the text between them. A comment without its other half is text."""
    pieces, text, opened = [], [], None
    for line in body.splitlines(keepends=True):
        begins, ends = _OPEN.fullmatch(line), _CLOSE.fullmatch(line)
        if begins:
            opened = (len(text), begins.group(1), begins.group(2))
        elif ends and opened is not None and ends.group(1) == opened[1]:
            place, name, digest = opened
            pieces += [Piece("".join(text[:place])), Piece("".join(text[place + 1 :]), name, digest)]
            text, opened = [], None
            continue
        text.append(line)
    return [piece for piece in [*pieces, Piece("".join(text))] if piece.name or piece.text]


def digest_of(text: str) -> str:
    """Of a section; blanks at the ends of lines and empty lines around it, which editors change, do not count."""
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return hashlib.sha256(lines.encode()).hexdigest()[:8]


def digest_of_value(value: Any) -> str:
    """Of a value of the metadata."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def dump_metadata(metadata: dict[str, Any]) -> str:
    """Metadata as YAML, in their order."""
    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000) if metadata else ""
