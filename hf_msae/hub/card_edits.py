"""A card that is written again keeps what people have changed in it.

Every generated section stands between comments, which a rendered page does not show:

    <!-- hf_msae:quality 1a2b3c4d -->
    ...
    <!-- /hf_msae:quality -->

The eight digits are a hash of the section as it was generated: where it still fits, nobody has touched the section.
The first comment, `<!-- hf_msae:generated ... -->`, lists all sections and the hashes of the metadata's values: what
is missing was deleted by someone, and what differs was changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

logger = logging.getLogger(__name__)

RESULTS_TASK = "Sparse reconstruction of embeddings"
"""The task of our entries in a card's model-index, by which they are told from others."""

_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_GENERATED = re.compile(r"^<!-- hf_msae:generated ([^\n]*?) ?-->[ \t]*$", re.MULTILINE)
_OPEN = re.compile(r"<!-- hf_msae:([\w-]+) ([0-9a-f]{8}) -->\s*")
_CLOSE = re.compile(r"<!-- /hf_msae:([\w-]+) -->\s*")
_UNITED = ("tags", "datasets")
# Sections that must be true of what lies beside the card: of a model, of many models, of embeddings.
_FIGURES = ("quality", "models", "embeddings")
_MUST_HOLD = (*_FIGURES, "licence")
_EARLIER = """
### Earlier note

Somebody wrote this into the card when other figures or terms stood here; it speaks of those, not of what is beside
this card now.

"""


@dataclass(frozen=True)
class _Piece:
    """A stretch of a card's body: a section, or the text between two of them (which has no name)."""

    text: str
    name: str | None = None
    digest: str = ""

    @property
    def is_untouched(self) -> bool:
        return self.name is not None and _digest(self.text) == self.digest

    def __str__(self) -> str:
        if self.name is None:
            return self.text
        return f"<!-- hf_msae:{self.name} {self.digest} -->\n{self.text}<!-- /hf_msae:{self.name} -->\n"


@dataclass(frozen=True)
class _Card:
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
    pieces: list[_Piece]
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


def assemble_card(metadata: dict[str, Any], sections: dict[str, str]) -> str:
    """A fresh card.

    Args:
        metadata: for its YAML.
        sections: name -> Markdown, in their order.
    """
    pieces = []
    for name, text in sections.items():
        text = f"\n{text.strip()}\n\n"  # Markdown beside a comment needs the empty lines
        pieces += [_Piece("\n"), _Piece(text, name, _digest(text))]
    values = {key: _digest_of_value(value) for key, value in metadata.items()}
    return str(_Card(metadata, _dump(metadata), pieces, list(sections), values, lead="\n"))


def is_edited(card: str) -> bool:
    """Whether anything in a card is not as it was generated: a section, the metadata, or text beside the sections."""
    parsed = _parse(card)
    if parsed.sections is None:
        return True
    changed = {key for key, value in parsed.metadata.items() if parsed.values.get(key) != _digest_of_value(value)}
    named = [piece.name for piece in parsed.pieces if piece.name is not None]
    return bool(
        changed
        or set(parsed.values) - set(parsed.metadata)
        or named != parsed.sections
        or parsed.lead.strip()
        or any(not piece.is_untouched if piece.name else piece.text.strip() for piece in parsed.pieces)
    )


def merge_card(fresh: str, existing: str, ours: Collection[str] = ()) -> str:
    """The card as it would be written now, with what people have changed in the one that is there.

    - A section that nobody has touched is replaced. A touched one stays as it is, with a warning. A deleted one stays
      deleted. One that is new is put in its place.
    - Touched sections of figures and of the licence stay as long as these do. When they change, the section is
      renewed, and what somebody wrote is quoted below it as an earlier note: old figures never stand as if they were
      current.
    - Text beside the sections stays where it is.
    - Of the metadata, values that were changed, added or deleted stay so; changed tags and data sets are united with
      the fresh ones. Our results in the model-index are renewed, those of others stay.
    - A card without our comments keeps its text, and gets the metadata that it lacks, and the section of figures at
      its end, which stays away if somebody deletes it.

    Args:
        fresh: of `assemble_card`.
        existing: the card that is there.
        ours: keys of the metadata whose fresh value beats what people have made of it.

    Raises:
        ValueError: the metadata of `existing` cannot be read.
    """
    windows = "\r\n" in existing
    new, old = _parse(fresh), _parse(existing)
    metadata = _merge_metadata(new, old, ours)
    if metadata == old.metadata and list(metadata) == list(old.metadata):
        text = old.yaml  # with its comments and its style
    else:
        text = new.yaml if metadata == new.metadata and list(metadata) == list(new.metadata) else _dump(metadata)
    if old.sections is None and "<!-- hf_msae:" not in existing:  # somebody's own: of all sections it lacks but one
        missing = [name for name in new.sections if name not in _FIGURES]
        old = replace(old, sections=missing, pieces=_ending_with_newline(old.pieces))
    # Without the first comment nobody knows what was deleted: then nothing is put in.
    known_sections = new.sections if old.sections is None else old.sections
    pieces, removed = _merge_pieces(new, replace(old, sections=known_sections))
    merged = replace(old, metadata=metadata, yaml=text, pieces=pieces)
    if old.sections is not None:
        known = [name for name in old.sections if name not in new.sections and name not in removed]
        # Of what was changed the old hash stays, so that it counts as changed for ever.
        values = {
            key: new.values.get(key) if key in ours or _is_ours(old, key) or key not in old.values else old.values[key]
            for key in dict.fromkeys([*new.values, *old.values])
        }
        values = {key: digest for key, digest in values.items() if digest}
        merged = replace(merged, sections=[*new.sections, *known], values=values)
    result = str(merged)
    return result.replace("\n", "\r\n") if windows else result


def agree_on_licence(merge: Callable[[str], str], render: Callable[..., str]) -> str:
    """A merged card whose text names the licence that its metadata name, whoever has changed them.

    Args:
        merge: what makes the card from a fresh one.
        render: makes the fresh one; takes `told_license`, what its text says.
    """
    fresh = render()
    text = merge(fresh)
    told = _licence_of(text)
    return text if told == _licence_of(fresh) else merge(render(told_license=told))


def _licence_of(card: str) -> str:
    value = _parse(card).metadata.get("license") or ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _parse(card: str) -> _Card:
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
        return _Card(metadata, text, _pieces(body))
    names, _, values = generated.group(1).partition("|")
    hashes = dict(word.split("=", 1) for word in values.split() if "=" in word)
    lead, rest = body[: generated.start()], body[generated.end() :].removeprefix("\n")
    return _Card(metadata, text, _pieces(rest), names.split(), hashes, lead)


def _pieces(body: str) -> list[_Piece]:
    """Sections, and the text between them. A comment without its other half is text."""
    pieces, text, opened = [], [], None
    for line in body.splitlines(keepends=True):
        begins, ends = _OPEN.fullmatch(line), _CLOSE.fullmatch(line)
        if begins:
            opened = (len(text), begins.group(1), begins.group(2))
        elif ends and opened is not None and ends.group(1) == opened[1]:
            place, name, digest = opened
            pieces += [_Piece("".join(text[:place])), _Piece("".join(text[place + 1 :]), name, digest)]
            text, opened = [], None
            continue
        text.append(line)
    return [piece for piece in [*pieces, _Piece("".join(text))] if piece.name or piece.text]


def _merge_pieces(new: _Card, old: _Card) -> tuple[list[_Piece], set[str]]:
    """The body, and the names of sections that were ours and are no longer needed."""
    fresh = {piece.name: piece for piece in new.pieces if piece.name}
    renewed = {piece.name for piece in old.pieces if piece.is_untouched}
    pieces: list[_Piece] = []
    removed = set()
    for piece in old.pieces:
        if piece.name is None:
            pieces.append(piece)
        elif piece.name in fresh and (piece.is_untouched or _digest(piece.text) == fresh[piece.name].digest):
            pieces.append(fresh[piece.name])
        elif piece.is_untouched:
            removed.add(piece.name)
            if pieces and pieces[-1].name is None and not pieces[-1].text.strip():
                pieces.pop()  # the empty line before it
        elif piece.name in fresh and piece.name in _MUST_HOLD and piece.digest != fresh[piece.name].digest:
            if piece.name not in renewed:  # unless a copy of it is
                pieces.append(fresh[piece.name])
                renewed.add(piece.name)
            pieces.append(_Piece(_EARLIER + _quoted(piece.text)))
            logger.warning(
                "the section %r of the card was edited, and what it is about has changed since: it is renewed, and "
                "the edited one is quoted below it",
                piece.name,
            )
        else:
            pieces.append(piece)
            logger.warning(
                "the section %r of the card was edited and stays as it is: see to it that its figures still hold",
                piece.name,
            )
    # An unfinished section is in the text: it is there, though not ours to touch. For figures it cannot stand.
    unfinished = set(re.findall(r"<!-- hf_msae:([\w-]+) ", "".join(map(str, pieces))))
    there = {piece.name for piece in pieces} | (unfinished - set(_FIGURES))
    deleted = set(old.sections) - (unfinished & set(_FIGURES))
    names = list(fresh)
    for place, name in enumerate(names):
        if name in there or name in deleted:
            continue
        before = [each for each in names[:place] if each in {piece.name for piece in pieces}]
        after = [each for each in names[place + 1 :] if each in {piece.name for piece in pieces}]
        where = [piece.name for piece in pieces]
        if before:
            index = len(where) - where[::-1].index(before[-1])
            pieces[index:index] = [_Piece("\n"), fresh[name]]
        elif after:
            index = where.index(after[0])
            pieces[index:index] = [fresh[name], _Piece("\n")]
        else:
            pieces += [_Piece("\n"), fresh[name]]
    return pieces, removed


def _quoted(text: str) -> str:
    return "".join(f"> {line}".rstrip() + "\n" for line in text.strip().splitlines()) + "\n"


def _ending_with_newline(pieces: list[_Piece]) -> list[_Piece]:
    text = "".join(piece.text for piece in pieces)
    return [_Piece(text if not text or text.endswith("\n") else f"{text}\n")] if text else []


def _is_ours(card: _Card, key: str) -> bool:
    """Whether a value of the metadata is as it was generated."""
    return key in card.metadata and card.values.get(key) == _digest_of_value(card.metadata[key])


def _merge_metadata(new: _Card, old: _Card, ours: Collection[str]) -> dict[str, Any]:
    merged = dict(old.metadata)
    for key in [key for key in old.metadata if key not in new.metadata and _is_ours(old, key)]:
        del merged[key]
    for key, value in new.metadata.items():
        if key not in merged:
            if key not in old.values or key in ours:  # else someone has taken it out
                merged[key] = value
        elif key == "model-index":
            merged[key] = _merge_results(value, merged[key])
        elif _is_ours(old, key) or key in ours:
            merged[key] = value
        elif key in _UNITED and isinstance(merged[key], list) and isinstance(value, list):
            merged[key] = [*merged[key], *(each for each in value if each not in merged[key])]
    if "model-index" in merged and "model-index" not in new.metadata:
        merged["model-index"] = _merge_results([], merged["model-index"])
        if not merged["model-index"]:
            del merged["model-index"]
    same = set(merged) == set(new.metadata)
    return {key: merged[key] for key in new.metadata} if same and _in_order(new, old) else merged


def _in_order(new: _Card, old: _Card) -> bool:
    """Whether nobody has put the keys that both have into an order of their own."""
    both = [key for key in old.metadata if key in new.metadata]
    return both == [key for key in new.metadata if key in old.metadata]


def _merge_results(fresh: list[dict], existing: Any) -> list[dict]:
    """A model-index with our results renewed, and those of others kept."""
    if not isinstance(existing, list):
        return fresh
    kept = []
    for entry in existing:
        results = entry.get("results") if isinstance(entry, dict) else None
        if not isinstance(results, list):
            kept.append(entry)
            continue
        others = [result for result in results if not _is_our_result(result)]
        if others or not results:
            kept.append({**entry, "results": others})
    names = {entry.get("name"): entry for entry in kept if isinstance(entry, dict)}
    merged = []
    for entry in fresh:
        other = names.get(entry["name"])
        if other is not None:
            kept.remove(other)
            entry = {**other, **entry, "results": [*entry["results"], *other["results"]]}
        merged.append(entry)
    return [*merged, *kept]


def _is_our_result(result: Any) -> bool:
    task = result.get("task") if isinstance(result, dict) else None
    return isinstance(task, dict) and task.get("name") == RESULTS_TASK


def _digest(text: str) -> str:
    """Of a section; blanks at the ends of lines and empty lines around it, which editors change, do not count."""
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return hashlib.sha256(lines.encode()).hexdigest()[:8]


def _digest_of_value(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _dump(metadata: dict[str, Any]) -> str:
    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000) if metadata else ""
