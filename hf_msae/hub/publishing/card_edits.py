"""Cards that people have edited: how to recognize them, and what of them stays.

A generated card ends with a hidden comment, `<!-- hf_msae:card TEXT METADATA -->`, that holds a hash of its text and
one of its metadata. If a hash no longer fits, a person has edited that part, and it is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from huggingface_hub import CardData, RepoCard
from transformers.utils import logging

logger = logging.get_logger(__name__)

RESULTS_TASK = "Sparse reconstruction of embeddings"
"""Task of our entries in a card's model-index, which tells them from other people's."""

_MARK = re.compile(r"\n*<!-- hf_msae:card (\w+) (\w+) -->\s*\Z")
# Version 0.1 enclosed every section in comments with its hash, and listed sections and metadata in a first comment.
_V0_1_HEAD = re.compile(r"<!-- hf_msae:generated ([\w -]+)\| ?([^\n]*?) ?-->")
_V0_1_SECTION = re.compile(r"<!-- hf_msae:([\w-]+) ([0-9a-f]{8}) -->[ \t]*\n(.*?)<!-- /hf_msae:\1 -->", re.DOTALL)


def finish_card(metadata: Mapping[str, Any], text: str) -> str:
    """Assemble a generated card, with the comment that later shows whether it was edited."""
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    card = RepoCard(f"---\n{{}}\n---\n\n{text}\n\n<!-- hf_msae:card {_digest(text)} {_digest_data(metadata)} -->\n")
    card.data = CardData(**metadata)
    return str(card)


def is_edited(card: str) -> bool:
    """Whether a person has changed the text or the metadata of a card, or has written it."""
    return _untouched(_parse(card, "the card")) != (True, True)


def update_card(
    existing: str | None,
    render: Callable[[str | None], str],
    license: str | None = None,
    name: str = "README.md",
    replace: bool = False,
) -> str:
    """Return the card that replaces an existing one, which `name` names in messages; None or "" if there is none.

    A part that nobody has edited, text or metadata, is generated anew by `render`, which takes the license of the
    weights ("": none, None: the default). An edited text is kept as it is. Edited metadata are kept and completed; of
    their model-index, our results are renewed and those of others stay. `license` replaces that of the existing card,
    and `replace` ignores that card.
    """
    if replace or existing is None or not existing.strip():
        return render(license)
    old = _parse(existing, name)
    same_text, same_data = _untouched(old)
    theirs, was_generated = old.data.get("license"), "<!-- hf_msae:" in old.text
    shown = license
    if license is None and (theirs or was_generated):
        shown = ", ".join(theirs) if isinstance(theirs, list) else theirs or ""
    fresh = RepoCard(render(shown))
    metadata = fresh.data.to_dict()
    if not same_data:
        metadata = _merge_metadata(metadata, old.data.to_dict(), license)
    if same_text or not old.text.strip():
        text = fresh.text
    else:
        text = old.text
        if same_data and (mark := _MARK.search(text)):
            text = f"{text[: mark.start(2)]}{_digest_data(metadata)}{text[mark.end(2) :]}"
        logger.warning(
            f"the text of {name} was edited, so it stays as it is, figures included; its metadata are up to date. "
            "replace_card=True (--replace_card) generates the whole card anew"
        )
    old.data, old.text = CardData(**metadata), text
    old._original_order = list(metadata)
    result = str(old)
    return result.replace("\n", "\r\n") if "\r\n" in existing else result


def _parse(text: str, name: str) -> RepoCard:
    text = text.replace("\r\n", "\n").removeprefix("\ufeff")
    try:
        return RepoCard(text if text.lstrip().startswith("---") else f"---\n{{}}\n---\n{text}")
    except (ValueError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the metadata of {name} cannot be read ({reason}): repair it or move it away") from error


def _untouched(card: RepoCard) -> tuple[bool, bool]:
    """Whether the text is as it was generated, and whether the metadata are."""
    data = card.data.to_dict()
    if mark := _MARK.search(card.text):
        return _digest(card.text[: mark.start()]) == mark[1], _digest_data(data) == mark[2]
    head = _V0_1_HEAD.search(card.text)
    if head is None:
        return False, False
    sections = _V0_1_SECTION.findall(card.text)
    rest = _V0_1_SECTION.sub("", card.text.replace(head[0], ""))
    same_text = [name for name, _, _ in sections] == head[1].split() and not rest.strip()
    same_text = same_text and all(_digest(text)[:8] == digest for _, digest, text in sections)
    recorded = dict(word.split("=", 1) for word in head[2].split() if "=" in word)
    return same_text, recorded == {key: _digest_data(value)[:8] for key, value in data.items()}


def _digest(text: str) -> str:
    """Hash of a text without the blanks at the ends of lines, which editors change."""
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _digest_data(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _merge_metadata(fresh: dict[str, Any], old: dict[str, Any], license: str | None) -> dict[str, Any]:
    merged = {**old, **{key: value for key, value in fresh.items() if key not in old}}
    for key in ("tags", "datasets"):
        if isinstance(old.get(key), list) and isinstance(fresh.get(key), list):
            merged[key] = list(dict.fromkeys([*old[key], *fresh[key]]))
    if license:
        merged["license"] = license
    merged["model-index"] = _merge_results(fresh.get("model-index") or [], old.get("model-index"))
    return {key: value for key, value in merged.items() if value not in (None, [])}


def _merge_results(fresh: list[dict[str, Any]], old: Any) -> list[Any]:
    """A model-index with our results renewed and those of others kept."""
    merged = {entry["name"]: entry for entry in fresh}
    for entry in old if isinstance(old, list) else []:
        others = [each for each in entry.get("results") or [] if not _is_ours(each)]
        if others:
            name = entry.get("name")
            merged[name] = {**entry, "results": [*merged.get(name, {}).get("results", []), *others]}
    return list(merged.values())


def _is_ours(result: Mapping[str, Any]) -> bool:
    return (result.get("task") or {}).get("name") == RESULTS_TASK
