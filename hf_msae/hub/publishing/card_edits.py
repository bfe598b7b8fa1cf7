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

import logging
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from .card_parts import Card, Piece, digest_of, digest_of_value, dump_metadata, parse_card

logger = logging.getLogger(__name__)

RESULTS_TASK = "Sparse reconstruction of embeddings"
"""The task of our entries in a card's model-index, by which they are told from others."""

_UNITED = ("tags", "datasets")
# Sections that must be true of what lies beside the card: of a model, of many models, of embeddings.
_FIGURES = ("quality", "models", "embeddings")
_MUST_HOLD = (*_FIGURES, "licence")
_EARLIER = """
### Earlier note

Somebody wrote this into the card when other figures or terms stood here; it speaks of those, not of what is beside
this card now.

"""


def assemble_card(metadata: dict[str, Any], sections: dict[str, str]) -> str:
    """A fresh card.

    Args:
        metadata: for its YAML.
        sections: name -> Markdown, in their order.
    """
    pieces = []
    for name, text in sections.items():
        text = f"\n{text.strip()}\n\n"  # Markdown beside a comment needs the empty lines
        pieces += [Piece("\n"), Piece(text, name, digest_of(text))]
    values = {key: digest_of_value(value) for key, value in metadata.items()}
    return str(Card(metadata, dump_metadata(metadata), pieces, list(sections), values, lead="\n"))


def is_edited(card: str) -> bool:
    """Whether anything in a card is not as it was generated: a section, the metadata, or text beside the sections."""
    parsed = parse_card(card)
    if parsed.sections is None:
        return True
    changed = {key for key, value in parsed.metadata.items() if parsed.values.get(key) != digest_of_value(value)}
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
    new, old = parse_card(fresh), parse_card(existing)
    metadata = _merge_metadata(new, old, ours)
    if metadata == old.metadata and list(metadata) == list(old.metadata):
        text = old.yaml  # with its comments and its style
    else:
        text = (
            new.yaml if metadata == new.metadata and list(metadata) == list(new.metadata) else dump_metadata(metadata)
        )
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
    value = parse_card(card).metadata.get("license") or ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _merge_pieces(new: Card, old: Card) -> tuple[list[Piece], set[str]]:
    """The body, and the names of sections that were ours and are no longer needed."""
    fresh = {piece.name: piece for piece in new.pieces if piece.name}
    renewed = {piece.name for piece in old.pieces if piece.is_untouched}
    pieces: list[Piece] = []
    removed = set()
    for piece in old.pieces:
        if piece.name is None:
            pieces.append(piece)
        elif piece.name in fresh and (piece.is_untouched or digest_of(piece.text) == fresh[piece.name].digest):
            pieces.append(fresh[piece.name])
        elif piece.is_untouched:
            removed.add(piece.name)
            if pieces and pieces[-1].name is None and not pieces[-1].text.strip():
                pieces.pop()  # the empty line before it
        elif piece.name in fresh and piece.name in _MUST_HOLD and piece.digest != fresh[piece.name].digest:
            if piece.name not in renewed:  # unless a copy of it is
                pieces.append(fresh[piece.name])
                renewed.add(piece.name)
            pieces.append(Piece(_EARLIER + _quoted(piece.text)))
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
            pieces[index:index] = [Piece("\n"), fresh[name]]
        elif after:
            index = where.index(after[0])
            pieces[index:index] = [fresh[name], Piece("\n")]
        else:
            pieces += [Piece("\n"), fresh[name]]
    return pieces, removed


def _quoted(text: str) -> str:
    return "".join(f"> {line}".rstrip() + "\n" for line in text.strip().splitlines()) + "\n"


def _ending_with_newline(pieces: list[Piece]) -> list[Piece]:
    text = "".join(piece.text for piece in pieces)
    return [Piece(text if not text or text.endswith("\n") else f"{text}\n")] if text else []


def _is_ours(card: Card, key: str) -> bool:
    """Whether a value of the metadata is as it was generated."""
    return key in card.metadata and card.values.get(key) == digest_of_value(card.metadata[key])


def _merge_metadata(new: Card, old: Card, ours: Collection[str]) -> dict[str, Any]:
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


def _in_order(new: Card, old: Card) -> bool:
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
