"""What can be in a scene, and how scenes are sampled: the ground truth of every image and caption."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

# To be increased by every change of the images or captions of a seed; part of the fingerprint of cached datasets.
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
# Each extra is a group of its own: an image can have both a frame and a watermark.
GROUPS: dict[str, tuple[str, ...]] = {**OBJECT_GROUPS, **SCENE_GROUPS, **{extra: (extra,) for extra in EXTRAS}}
CONCEPTS: tuple[str, ...] = tuple(concept for members in GROUPS.values() for concept in members)
GROUP_OF: dict[str, str] = {concept: group for group, members in GROUPS.items() for concept in members}

SPLITS = ("train", "validation", "test")
_COUNT_PROBABILITIES = (0.4, 0.35, 0.25)
_STYLE_PROBABILITIES = (0.4, 0.15, 0.15, 0.15, 0.15)
_EXTRA_PROBABILITY = 0.15


@dataclass(frozen=True)
class SceneObject:
    """An object in a scene; every field is a concept of the group with that name."""

    shape: str
    colour: str
    size: str
    fill: str
    position: str


@dataclass(frozen=True)
class Scene:
    """The ground truth of one image, which `split`, `seed` and `index` identify."""

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
        """The number of objects, as a concept."""
        return COUNTS[len(self.objects) - 1]

    @property
    def concepts(self) -> frozenset[str]:
        """Every concept that is true of the scene or of any of its objects."""
        present = {self.background, self.style, self.count}
        for thing in self.objects:
            present.update((thing.shape, thing.colour, thing.size, thing.fill, thing.position))
        present.update(extra for extra in EXTRAS if getattr(self, extra))
        return frozenset(present)


def scene_generator(split: str, seed: int, index: int, purpose: int) -> np.random.Generator:
    """Return the random generator for one purpose (0 content, 1 image, 2 caption, 3 full caption) of one scene.

    The generators are independent, so scene 7 is the same whether 10 or 10,000 scenes are sampled.
    """
    return np.random.default_rng([seed, SPLITS.index(split), index, purpose])


def _any(members: Sequence[str], random: np.random.Generator) -> str:
    # Ten times faster than Generator.choice, which first makes an array of the members.
    return members[random.integers(len(members))]


def _weighted(probabilities: Sequence[float], random: np.random.Generator) -> int:
    return min(int(np.searchsorted(np.cumsum(probabilities), random.random(), "right")), len(probabilities) - 1)


def check_correlations(correlations: Mapping[tuple[str, str], float] | None) -> dict[tuple[str, str], float]:
    """Validate `{(if_present, then): probability}` of settable concepts and return it as a dict of floats."""
    checked: dict[tuple[str, str], float] = {}
    for pair, probability in (correlations or {}).items():
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise ValueError(f"the key of a correlation is a pair (if_present, then), got {pair!r}")
        for concept in pair:
            if concept not in GROUP_OF:
                near = difflib.get_close_matches(str(concept), CONCEPTS, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; the concepts are {', '.join(CONCEPTS)}"
                raise ValueError(f"unknown concept {concept!r} in correlation {pair!r}{hint}")
        cause, effect = pair
        if GROUP_OF[cause] == GROUP_OF[effect]:
            raise ValueError(f"both concepts of correlation {pair!r} belong to the group {GROUP_OF[cause]!r}")
        if GROUP_OF[effect] in ("position", "count"):
            raise ValueError(
                f"correlation {pair!r}: {effect!r} is a {GROUP_OF[effect]}, which cannot come second; swap the pair "
                "or choose a concept of another group"
            )
        if isinstance(probability, str) or not 0.0 <= float(probability) <= 1.0:
            raise ValueError(f"correlation {pair!r} has probability {probability!r}; it must be between 0 and 1")
        checked[cause, effect] = float(probability)
    return checked


def sample_scene(
    split: str, seed: int, index: int, correlations: Mapping[tuple[str, str], float] | None = None
) -> Scene:
    """Sample scene `index` of a split.

    Without correlations, all groups are independent (but objects of a scene have distinct positions).
    `correlations={("star", "yellow"): 0.9}` sets P(yellow | star) = 0.9. If both concepts belong to objects, this is
    the rate among objects that are stars; if one belongs to the scene, it is the rate among images, as given by the
    columns of `load_scenes`. Everything else keeps its base rate. Rules are applied in order; a later rule about the
    same group overrides an earlier one.
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
    """Return a counterfactual: the same scene with or without a concept of any group except position and count.

    To add it, one object (or the scene) gets it. To remove it, all objects that have it get another concept of its
    group. The choice depends only on the scene and the concept.
    """
    group = GROUP_OF.get(concept)
    if group is None or group in ("position", "count"):
        why = "there is no such concept" if group is None else f"it is a {group}"
        raise ValueError(f"{concept!r} cannot be set: {why}")
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
    """Set the effect with this probability if the cause holds in a sampled scene."""
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
    """Give the effect to one of the owners, or to none."""
    group = GROUP_OF[effect]
    having = [owner for owner in owners if owner[group] == effect]
    if wanted and not having:
        owners[random.integers(len(owners))][group] = effect
    elif not wanted:
        others = [other for other in GROUPS[group] if other != effect]
        for owner in having:
            owner[group] = _any(others, random)
