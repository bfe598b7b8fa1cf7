"""Texts about scenes, such as captions, as what must hold in a scene."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import permutations

from .captions import WORDINGS
from .world import CONCEPTS, COUNTS, EXTRAS, GROUP_OF, OBJECT_GROUPS, Scene, SceneObject

PARSER_VERSION = 1
"""Goes up when a text is read in another way than before: pictures of concepts depend on it."""

# Words for concepts that captions do not use, but people and language models do.
_MORE_WORDS = {
    **{"middle": "center", "centre": "center", "centered": "center", "ocean": "sea", "waves": "sea", "gold": "yellow"},
    **{"brick": "bricks", "wooden": "wood", "planks": "wood", "snowy": "snow", "skyline": "city", "dunes": "desert"},
    **{"unsharp": "blurry", "blurred": "blurry", "blocky": "pixelated", "pixels": "pixelated", "noisy": "grainy"},
    **{"stripes": "striped", "dots": "dotted", "spots": "dotted", "checked": "checkered", "outline": "outlined"},
    **{"framed": "frame", "watermarked": "watermark", "circular": "circle", "triangular": "triangle"},
}
_NUMBERS = {"one": 1, "two": 2, "three": 3, "single": 1, "1": 1, "2": 2, "3": 3}
_NOUNS = frozenset("shape shapes object objects thing things something figure figures form forms".split())
_ARTICLES = frozenset(("a", "an", "the", "some", "any"))
_SEPARATORS = frozenset((",", "and", "&"))
_FILLERS = _ARTICLES | frozenset(
    "of in on at with under before among to into this that is are it there has having shaped colored coloured color "
    "colour style background scene picture pictures image images photo photos photograph drawing drawings".split()
)


@dataclass(frozen=True)
class SceneDescription:
    """What must hold in a scene: concepts by group, of each object that is described and of the scene."""

    objects: tuple[dict[str, str], ...] = ()
    scene: dict[str, str] = field(default_factory=dict)

    @property
    def concepts(self) -> frozenset[str]:
        """All concepts that it names."""
        return frozenset(self.scene.values()).union(*(thing.values() for thing in self.objects))

    @property
    def parts(self) -> tuple[tuple[int | None, str, str], ...]:
        """Every condition as (number of the described object or None for the scene, group, concept)."""
        of_objects = [(i, *part) for i, thing in enumerate(self.objects) for part in sorted(thing.items())]
        return (*of_objects, *((None, *part) for part in sorted(self.scene.items())))

    def holds(self, scene: Scene) -> bool:
        """Whether it is true of a scene, with another object for each that is described."""
        return all(_has(scene, *part) for part in self.scene.items()) and any(
            all(map(fits, self.objects, things)) for things in permutations(scene.objects, len(self.objects))
        )


def fits(described: dict[str, str], thing: SceneObject) -> bool:
    """Whether an object has all concepts of a description of one."""
    return all(getattr(thing, group) == concept for group, concept in described.items())


def parse_scene(text: str) -> SceneDescription:
    """Read a text about scenes, such as a caption, a name of a concept, or "two small red stars on a beach".

    Words in front of a shape belong to one object, and so does a position behind it. Commas, "and" and articles
    separate objects. A number says how many objects there are if it stands alone or with "shapes" or "objects", and
    otherwise how many there are at least of what follows it. A plural says the same as a singular.

    Raises:
        ValueError: The text has words that scenes do not know, contradicts itself, or is empty; the message names
            them.
    """
    phrases = _phrases(text)
    if unknown := [phrase for phrase in phrases if _kind(phrase) is None]:
        raise ValueError(
            f"scenes do not know {', '.join(map(repr, dict.fromkeys(unknown)))}, in {text!r:.80}; their words are in "
            "hf_msae.scenes.captions.WORDINGS"
        )
    if not phrases:
        raise ValueError(f"the text {text!r:.80} has no words")
    reader = _Reader(text)
    for phrase in phrases:
        reader.read(phrase)
    return reader.finish()


class _Reader:
    """Collects concepts word by word; `thing` is the object that the text is at."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.objects: list[dict[str, str]] = []
        self.scene: dict[str, str] = {}
        self.thing: dict[str, str] = {}
        self.number: int | None = None
        self.has_noun = self.is_separated = False

    def read(self, phrase: str) -> None:
        kind = _kind(phrase)
        if kind == "separator":
            if self.has_noun or self.number is not None:
                self.close()
            self.is_separated = True
            return
        if kind == "number":
            self.close()
            self.number = _NUMBERS[phrase]
        elif phrase in _ARTICLES and self.has_noun:
            self.close()
        elif kind == "noun":
            self.has_noun = True
        elif kind == "concept":
            self._add(_concept_of(phrase))
        self.is_separated = False

    def close(self) -> None:
        if self.thing:
            self.objects.extend(dict(self.thing) for _ in range(self.number or 1))
        elif self.number is not None:
            self._set(self.scene, "count", COUNTS[self.number - 1])
        self.thing, self.number, self.has_noun = {}, None, False

    def finish(self) -> SceneDescription:
        self.close()
        places = [thing["position"] for thing in self.objects if "position" in thing]
        if twice := next((place for place in places if places.count(place) > 1), None):
            self._refuse(f"there is one object at most at the {twice}")
        most = COUNTS.index(self.scene["count"]) + 1 if "count" in self.scene else len(COUNTS)
        if len(self.objects) > most:
            self._refuse(f"it describes {len(self.objects)} objects, of {most} at most")
        return SceneDescription(tuple(self.objects), self.scene)

    def _add(self, concept: str) -> None:
        group = GROUP_OF[concept]
        if group not in OBJECT_GROUPS:
            self._set(self.scene, group, concept)
            return
        if self.is_separated and self.thing.get(group, concept) != concept:  # "red, blue": two objects
            self.close()
        self._set(self.thing, group, concept)
        self.has_noun |= group == "shape"

    def _set(self, found: dict[str, str], group: str, concept: str) -> None:
        if found.setdefault(group, concept) != concept:
            self._refuse(f"{found[group]!r} and {concept!r} cannot be true together")

    def _refuse(self, why: str) -> None:
        raise ValueError(f"no scene can show {self.text!r:.80}: {why}")


def _has(scene: Scene, group: str, concept: str) -> bool:
    return getattr(scene, group) is True if concept in EXTRAS else getattr(scene, group) == concept


def _known_phrases() -> dict[tuple[str, ...], str]:
    """Return the concept of each phrase: what captions say, that without its first small words, and single words."""
    known = {(concept,): concept for concept in CONCEPTS if GROUP_OF[concept] != "count"}
    known |= {(word,): concept for word, concept in _MORE_WORDS.items()}
    for concept, wordings in WORDINGS.items():
        for wording in wordings if GROUP_OF[concept] != "count" else ():
            words = tuple(wording.split())
            known[words] = concept
            while len(words) > 1 and words[0] in _FILLERS:
                known[words := words[1:]] = concept
    return known


_KNOWN = _known_phrases()
_LONGEST = max(map(len, _KNOWN))


def _phrases(text: str) -> list[str]:
    """Divide a text into the longest phrases that are known, and single words."""
    words = re.findall(r"[^\W_]+|[,&]|[^\w\s.;:!?'\"-]", text.casefold())
    phrases, place = [], 0
    while place < len(words):
        lengths = range(min(_LONGEST, len(words) - place), 1, -1)
        length = next((n for n in lengths if tuple(words[place : place + n]) in _KNOWN), 1)
        phrases.append(" ".join(words[place : place + length]))
        place += length
    return phrases


def _concept_of(phrase: str) -> str | None:
    if (concept := _KNOWN.get(tuple(phrase.split()))) is not None:
        return concept
    endings = (("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("s", ""))
    singular = [phrase.removesuffix(end) + last for end, last in endings if phrase.endswith(end)]
    return next((_KNOWN[(word,)] for word in singular if (word,) in _KNOWN), None)


def _kind(phrase: str) -> str | None:
    if phrase in _SEPARATORS:
        return "separator"
    if phrase in _NUMBERS:
        return "number"
    if phrase in _NOUNS:
        return "noun"
    if _concept_of(phrase) is not None:
        return "concept"
    return "filler" if phrase in _FILLERS else None
