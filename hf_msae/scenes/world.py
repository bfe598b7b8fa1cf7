"""What can be in a scene, and how scenes are drawn at random: the ground truth behind every picture and caption."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

# A change of anything that alters pictures or captions for a given seed bumps this number: cached data sets carry it.
WORLD_VERSION = 1

SHAPES = (
    *("circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond"),
    *("crescent", "arrow", "flower", "house", "bolt", "drop", "cloud"),
)
COLOURS = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "brown", "white", "black")
SIZES = ("small", "medium", "large")
FILLS = ("solid", "striped", "dotted", "checkered", "outlined")
POSITIONS = ("left", "right", "top", "bottom", "center")
BACKGROUNDS = (
    *("night", "beach", "meadow", "snow", "sea", "sunset"),
    *("forest", "desert", "bricks", "wood", "city", "paper"),
)
STYLES = ("clean", "blurry", "pixelated", "grainy", "vintage")
COUNTS = ("one", "two", "three")
EXTRAS = ("frame", "watermark")

OBJECT_GROUPS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "size": SIZES,
    "fill": FILLS,
    "position": POSITIONS,
}
SCENE_GROUPS: dict[str, tuple[str, ...]] = {"background": BACKGROUNDS, "style": STYLES, "count": COUNTS}
# Extras are yes/no concepts, each a group of its own: a picture can have a frame and a watermark.
GROUPS: dict[str, tuple[str, ...]] = {**OBJECT_GROUPS, **SCENE_GROUPS, **{extra: (extra,) for extra in EXTRAS}}
CONCEPTS: tuple[str, ...] = tuple(concept for members in GROUPS.values() for concept in members)
GROUP_OF: dict[str, str] = {concept: group for group, members in GROUPS.items() for concept in members}

SPLITS = ("train", "validation", "test")
_COUNT_PROBABILITIES = (0.4, 0.35, 0.25)
_STYLE_PROBABILITIES = (0.4, 0.15, 0.15, 0.15, 0.15)
_EXTRA_PROBABILITY = 0.15


@dataclass(frozen=True)
class SceneObject:
    """One thing in a scene; every field is a concept of the group of that name."""

    shape: str
    colour: str
    size: str
    fill: str
    position: str


@dataclass(frozen=True)
class Scene:
    """The ground truth of one picture. `index`, `seed` and `split` identify it; drawing it again gives the same."""

    objects: tuple[SceneObject, ...]
    background: str
    style: str
    frame: bool
    watermark: bool
    split: str = "train"
    seed: int = 0
    index: int = 0

    @property
    def count(self) -> str:
        return COUNTS[len(self.objects) - 1]

    @property
    def concepts(self) -> frozenset[str]:
        """Every concept that is true of the scene; an object's concept is true if any object has it."""
        present = {self.background, self.style, self.count}
        for thing in self.objects:
            present.update((thing.shape, thing.colour, thing.size, thing.fill, thing.position))
        present.update(extra for extra in EXTRAS if getattr(self, extra))
        return frozenset(present)


def scene_generator(split: str, seed: int, index: int, purpose: int) -> np.random.Generator:
    """A random stream for one purpose (0 content, 1 picture, 2 caption) of one scene.

    Streams are independent, so a scene does not change when another wording or picture of it is asked for, and
    scene 7 is the same whether 10 or 10,000 scenes are drawn.
    """
    return np.random.default_rng([seed, SPLITS.index(split), index, purpose])


def _any(members: Sequence[str], random: np.random.Generator) -> str:
    # Ten times as fast as Generator.choice, which makes an array of the members first.
    return members[random.integers(len(members))]


def _weighted(probabilities: Sequence[float], random: np.random.Generator) -> int:
    return min(int(np.searchsorted(np.cumsum(probabilities), random.random(), "right")), len(probabilities) - 1)


def check_correlations(correlations: Mapping[tuple[str, str], float] | None) -> dict[tuple[str, str], float]:
    """Validate `{(if_present, then): probability}` and return it as a plain dict.

    Raises:
        ValueError: an unknown concept, a probability outside [0, 1], a pair within one group, or a consequence that
            cannot be set freely (positions are kept apart and the count fixes how many objects there are).
    """
    checked: dict[tuple[str, str], float] = {}
    for pair, probability in (correlations or {}).items():
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise ValueError(f"a correlation is keyed by a pair (if_present, then), got {pair!r}")
        for concept in pair:
            if concept not in GROUP_OF:
                near = difflib.get_close_matches(str(concept), CONCEPTS, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; the concepts are {', '.join(CONCEPTS)}"
                raise ValueError(f"unknown concept {concept!r} in correlation {pair!r}{hint}")
        cause, effect = pair
        if GROUP_OF[cause] == GROUP_OF[effect]:
            raise ValueError(
                f"correlation {pair!r} joins two concepts of one group, {GROUP_OF[cause]!r}; take two groups"
            )
        if GROUP_OF[effect] in ("position", "count"):
            raise ValueError(
                f"correlation {pair!r}: {effect!r} is a {GROUP_OF[effect]}, which cannot be a consequence; "
                f"swap the pair or take a concept of another group"
            )
        if isinstance(probability, str) or not 0.0 <= float(probability) <= 1.0:
            raise ValueError(f"correlation {pair!r} has probability {probability!r}; it must be between 0 and 1")
        checked[cause, effect] = float(probability)
    return checked


def sample_scene(
    split: str, seed: int, index: int, correlations: Mapping[tuple[str, str], float] | None = None
) -> Scene:
    """Draw scene `index` of a split.

    Without correlations every group is independent of every other (objects of one scene have distinct positions).
    `correlations={("star", "yellow"): 0.9}` makes P(yellow | star) = 0.9. Where both concepts belong to objects, this
    is the rate among objects that are stars; where one belongs to the scene, it is the rate among pictures, as the
    columns of `load_scenes` tell it. Everything else keeps its base rate. Rules are applied in order, and a later rule
    about the same group has the last word.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    random = scene_generator(split, seed, index, 0)
    count = 1 + _weighted(_COUNT_PROBABILITIES, random)
    positions = random.permutation(len(POSITIONS))[:count]
    objects = [
        {
            **{group: _any(OBJECT_GROUPS[group], random) for group in ("shape", "colour", "size", "fill")},
            "position": POSITIONS[place],
        }
        for place in positions
    ]
    scene: dict = {
        "background": _any(BACKGROUNDS, random),
        "style": STYLES[_weighted(_STYLE_PROBABILITIES, random)],
        **{extra: bool(random.random() < _EXTRA_PROBABILITY) for extra in EXTRAS},
    }
    for (cause, effect), probability in (correlations or {}).items():
        _apply_correlation(scene, objects, cause, effect, probability, random)
    return Scene(
        objects=tuple(SceneObject(**thing) for thing in objects), **scene, split=split, seed=seed, index=index
    )


def with_concept(scene: Scene, concept: str, present: bool = True) -> Scene:
    """The same scene with a concept or without it: what a picture would show if just this were another.

    Where it is to be there and is not, one object gets it (or the scene); where it is not to be there and is, those
    that have it get another of its group. Which, depends on the scene and the concept alone.

    Args:
        scene: left as it is.
        concept: of any group but position and count, which cannot be set alone.
        present: whether it is to be there.

    Raises:
        ValueError: there is no such concept, or it is a position or count.
    """
    group = GROUP_OF.get(concept)
    if group is None or group in ("position", "count"):
        raise ValueError(f"{concept!r} is no concept that can be set: {'unknown' if group is None else f'a {group}'}")
    if concept in EXTRAS:
        return replace(scene, **{concept: present})
    random = np.random.default_rng([scene.seed, SPLITS.index(scene.split), scene.index, CONCEPTS.index(concept)])
    if group in SCENE_GROUPS:
        owner = {group: getattr(scene, group)}
        _set_effect([owner], concept, present, random)
        return replace(scene, **owner)
    objects = [asdict(thing) for thing in scene.objects]
    _set_effect(objects, concept, present, random)
    return replace(scene, objects=tuple(SceneObject(**thing) for thing in objects))


def _apply_correlation(scene: dict, objects: list[dict], cause: str, effect: str, probability: float, random) -> None:
    """Make P(effect | cause) = probability in a drawn scene where the cause holds; change nothing elsewhere."""
    cause_group, effect_group = GROUP_OF[cause], GROUP_OF[effect]
    if cause_group in OBJECT_GROUPS:
        causes = [thing for thing in objects if thing[cause_group] == cause]
        if effect_group in OBJECT_GROUPS:
            for thing in causes:
                _set_effect([thing], effect, bool(random.random() < probability), random)
            return
    elif cause_group == "count":
        causes = [cause] if COUNTS[len(objects) - 1] == cause else []
    else:
        causes = [cause] if scene[cause_group] is True or scene[cause_group] == cause else []
    if not causes:
        return
    wanted = bool(random.random() < probability)
    if effect in EXTRAS:
        scene[effect] = wanted
    else:
        _set_effect(objects if effect_group in OBJECT_GROUPS else [scene], effect, wanted, random)


def _set_effect(owners: list[dict], effect: str, wanted: bool, random: np.random.Generator) -> None:
    """Let one of `owners` have the effect, or none of them."""
    group = GROUP_OF[effect]
    having = [owner for owner in owners if owner[group] == effect]
    if wanted and not having:
        owners[random.integers(len(owners))][group] = effect
    elif not wanted:
        others = [other for other in GROUPS[group] if other != effect]
        for owner in having:
            owner[group] = _any(others, random)
