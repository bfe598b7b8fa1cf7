"""Pictures drawn by the renderer of the scenes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from PIL import Image

from ...scenes.parsing import PARSER_VERSION, SceneDescription, fits, parse_scene
from ...scenes.renderer import render_scene
from ...scenes.world import (
    COUNTS,
    EXTRAS,
    GROUPS,
    OBJECT_GROUPS,
    POSITIONS,
    WORLD_VERSION,
    Scene,
    SceneObject,
    sample_scene,
)
from .base import CannotDrawError, Imager

_FIRST_INDEX = 2**96  # of the imager's scenes; a dataset of `load_scenes` would need as many rows to reach them
_MOST_SEEDS = 2**32


class ScenesImager(Imager):
    """Draws scenes in which a concept holds and everything else varies as in `load_scenes`.

    What a concept says is read by `hf_msae.scenes.parsing.parse_scene`; concepts that say the same, such as "red star"
    and "scarlet stars", get the same pictures. Scenes are numbered from 2^96 on, so none is one of a dataset.

    In the pictures without a concept, each seed lacks one of its parts, in turn: of "red star on a beach", the red
    stars of one scene get another color, those of the next another shape, and the third is elsewhere than on a beach.
    For a position, the object there moves, and for a count, an object comes or goes. All else stays.

    Args:
        seed: Random seed of the scenes.
    """

    def __init__(self, seed: int = 0) -> None:
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        self.seed = int(seed)

    @property
    def settings(self) -> dict[str, Any]:
        """The versions of the world and of the parser of concepts, and the seed."""
        return {"imager": "scenes", "world": WORLD_VERSION, "parser": PARSER_VERSION, "seed": self.seed}

    def draw(self, concept: str, seeds: Sequence[int]) -> list[Image.Image]:
        """Draw scenes with the concept."""
        return [render_scene(scene) for scene in self.scenes(concept, seeds)]

    def draw_pairs(self, concept: str, seeds: Sequence[int]) -> tuple[list[Image.Image], list[Image.Image]]:
        """Draw scenes with the concept, and the same scenes without it, if it is not true of every scene."""
        description = _read(concept)
        if not description.parts:
            raise CannotDrawError(f"no scene lacks {concept!r}")
        scenes = self.scenes(concept, seeds)
        without = [_without(scene, description, seed) for scene, seed in zip(scenes, seeds, strict=True)]
        return [render_scene(scene) for scene in scenes], [render_scene(scene) for scene in without]

    def scenes(self, concept: str, seeds: Sequence[int]) -> list[Scene]:
        """Return the scenes that `draw` draws; raises CannotDrawError as it does."""
        description = _read(concept)
        meaning = json.dumps([description.objects, description.scene], sort_keys=True)
        number = int.from_bytes(hashlib.sha256(meaning.encode()).digest()[:8], "big")
        if wrong := [seed for seed in seeds if not 0 <= seed < _MOST_SEEDS]:
            raise ValueError(f"seeds are from 0 to {_MOST_SEEDS - 1}, got {wrong[0]}")
        return [self._scene(description, _FIRST_INDEX + number * _MOST_SEEDS + int(seed)) for seed in seeds]

    def _scene(self, description: SceneDescription, index: int) -> Scene:
        scene = sample_scene("test", self.seed, index)
        random = np.random.default_rng([self.seed, index, 0])
        count = max(len(scene.objects), len(description.objects))
        if "count" in description.scene:
            count = COUNTS.index(description.scene["count"]) + 1
        things = list(_with_number(scene.objects, count, random))
        places = random.permutation(count)[: len(description.objects)]
        for place, described in zip(places, description.objects, strict=True):
            placeless = {group: concept for group, concept in described.items() if group != "position"}
            things[place] = replace(things[place], **placeless)
        for place, described in zip(places, description.objects, strict=True):
            if "position" in described:
                _move(things, int(place), described["position"])
        of_scene = {
            group: True if group in EXTRAS else concept
            for group, concept in description.scene.items()
            if group != "count"
        }
        return replace(scene, objects=tuple(things), **of_scene)


def _read(concept: str) -> SceneDescription:
    try:
        return parse_scene(concept)
    except ValueError as error:
        raise CannotDrawError(str(error)) from error


def _move(things: list[SceneObject], place: int, position: str) -> None:
    """Move an object; one that is in its way takes its place."""
    for other, thing in enumerate(things):
        if other != place and thing.position == position:
            things[other] = replace(thing, position=things[place].position)
    things[place] = replace(things[place], position=position)


def _with_number(things: Sequence[SceneObject], number: int, random: np.random.Generator) -> tuple[SceneObject, ...]:
    """Return the first objects, or all and random ones at free positions."""
    things = list(things[:number])
    while len(things) < number:
        new = {group: str(random.choice(members)) for group, members in OBJECT_GROUPS.items()}
        things.append(SceneObject(**{**new, "position": str(random.choice(_free(things)))}))
    return tuple(things)


def _free(things: Sequence[SceneObject]) -> list[str]:
    return [position for position in POSITIONS if position not in {thing.position for thing in things}]


def _without(scene: Scene, description: SceneDescription, seed: int) -> Scene:
    random = np.random.default_rng([scene.seed, scene.index, 1])
    number, group, concept = description.parts[seed % len(description.parts)]
    if group in EXTRAS:
        return replace(scene, **{group: False})
    if group == "count":
        other = int(random.choice([n for n in range(1, len(COUNTS) + 1) if n != len(scene.objects)]))
        return replace(scene, objects=_with_number(scene.objects, other, random))
    if number is None:
        return replace(scene, **{group: _other(group, concept, random)})
    things = list(scene.objects)
    for place, thing in enumerate(things):
        if fits(description.objects[number], thing):
            other = str(random.choice(_free(things))) if group == "position" else _other(group, concept, random)
            things[place] = SceneObject(**{**asdict(thing), group: other})
    return replace(scene, objects=tuple(things))


def _other(group: str, concept: str, random: np.random.Generator) -> str:
    return str(random.choice([other for other in GROUPS[group] if other != concept]))
