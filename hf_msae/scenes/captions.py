"""Texts of scenes: captions in many wordings, from three words to a full description, and prompts of concepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .world import CONCEPTS, GROUPS, Scene, SceneObject, scene_generator

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

# The first wording names the concept; the others are synonyms that only captions use.
WORDINGS: dict[str, tuple[str, ...]] = {
    **{concept: (concept,) for concept in CONCEPTS},
    "circle": ("circle", "disc"),
    "triangle": ("triangle", "pyramid"),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
    "diamond": ("diamond", "rhombus"),
    "crescent": ("crescent", "moon"),
    "flower": ("flower", "blossom"),
    "house": ("house", "cottage"),
    "bolt": ("bolt", "lightning"),
    "drop": ("drop", "droplet"),
    "red": ("red", "scarlet"),
    "yellow": ("yellow", "golden"),
    "turquoise": ("turquoise", "cyan"),
    "blue": ("blue", "navy"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "small": ("small", "tiny", "little"),
    "medium": ("medium", "midsize"),
    "large": ("large", "big", "huge"),
    "solid": ("solid", "plain"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "checkered": ("checkered", "chequered"),
    "outlined": ("outlined", "hollow"),
    "left": ("on the left", "to the left"),
    "right": ("on the right", "to the right"),
    "top": ("at the top", "up top"),
    "bottom": ("at the bottom", "down at bottom"),
    "center": ("in the center", "in the middle"),
    "night": ("under the night sky", "at night"),
    "beach": ("on a beach", "at a sandy beach"),
    "meadow": ("in a meadow", "on a grassy meadow"),
    "snow": ("in the snow", "on a snowy hill"),
    "sea": ("in the sea", "in ocean waves"),
    "sunset": ("at sunset", "before a sunset"),
    "forest": ("in a forest", "among forest trees"),
    "desert": ("in a desert", "in desert dunes"),
    "bricks": ("on bricks", "before a brick wall"),
    "wood": ("on wood", "on wooden planks"),
    "city": ("in a city", "before a city skyline"),
    "paper": ("on paper", "on lined paper"),
    "clean": ("a clean picture", "a clean image", "a sharp clean photo"),
    "blurry": ("a blurry picture", "a blurry image", "an unsharp blurry photo"),
    "pixelated": ("a pixelated picture", "a pixelated image", "a blocky pixelated photo"),
    "grainy": ("a grainy picture", "a grainy image", "a noisy grainy photo"),
    "vintage": ("a vintage picture", "a vintage image", "an old vintage photo"),
    "frame": ("with a frame", "in a frame"),
    "watermark": ("with a watermark", "under a watermark"),
}
_NOUNS = {"one": ("one shape", "one object"), "two": ("two shapes", "two objects"), "three": ("three shapes",)}
_PLAIN_STARTS = ("a picture", "an image", "a photo")


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


class _Writer:
    """Writes one caption; mentions each optional detail with probability `mention`."""

    def __init__(self, random: np.random.Generator, mention: float, synonyms: bool):
        self.random, self.mention, self.synonyms = random, mention, synonyms

    def says(self) -> bool:
        return self.mention >= 1 or self.random.random() < self.mention

    def word(self, concept: str) -> str:
        options = WORDINGS[concept]
        if not self.synonyms or len(options) == 1 or self.random.random() < 0.5:
            return options[0]
        return str(self.random.choice(options[1:]))

    def thing(self, thing: SceneObject) -> str:
        details = [self.word(value) for value in (thing.size, thing.fill, thing.colour) if self.says()]
        noun = self.word(thing.shape) if self.mention >= 1 or self.random.random() < 0.85 else "shape"
        phrase = _article(" ".join([*details, noun]))
        return f"{phrase} {self.word(thing.position)}" if self.says() else phrase

    def caption(self, scene: Scene) -> str:
        objects = list(scene.objects)
        if self.mention < 1:
            objects = [objects[i] for i in self.random.permutation(len(objects))]
            objects = [thing for i, thing in enumerate(objects) if i == 0 or self.random.random() < 0.75]
        listing = ", ".join(self.thing(thing) for thing in objects[:-1])
        last = self.thing(objects[-1])
        listing = f"{listing} and {last}" if listing else last
        all_there = len(objects) == len(scene.objects)
        if all_there and (self.mention >= 1 or self.random.random() < 0.4):
            nouns = _NOUNS[scene.count]
            count = nouns[0] if not self.synonyms else str(self.random.choice(nouns))
            listing = f"{count}, {listing},"
        place = f" {self.word(scene.background)}" if self.says() else ""
        extras = [self.word(extra) for extra in ("frame", "watermark") if getattr(scene, extra) and self.says()]
        start = self.word(scene.style) if self.says() else str(self.random.choice(_PLAIN_STARTS))
        bare = self.mention < 1 and self.random.random() < 0.35 and start in _PLAIN_STARTS
        text = f"{listing}{place}" if bare else f"{start} of {listing}{place}"
        return " ".join([text, *extras]).rstrip(",")


def full_caption(scene: Scene, synonyms: bool = False) -> str:
    """Describe everything that is true of the scene in one sentence."""
    return _Writer(scene_generator(scene.split, scene.seed, scene.index, 3), 1.0, synonyms).caption(scene)


def caption_scene(scene: Scene, random: np.random.Generator | None = None) -> str:
    """Write a caption as a person might: with omissions, synonyms and varied order.

    The scene's own random generator is the default, so its caption is always the same.
    """
    random = random if random is not None else scene_generator(scene.split, scene.seed, scene.index, 2)
    style = random.random()
    if style < 0.2:  # a few words about one object
        return _short_caption(scene, random)
    mention = 1.0 if style > 0.6 else float(random.uniform(0.35, 0.9))
    return _Writer(random, mention, synonyms=True).caption(scene)


def _short_caption(scene: Scene, random: np.random.Generator) -> str:
    writer = _Writer(random, 0.5, synonyms=True)
    thing = scene.objects[int(random.integers(len(scene.objects)))]
    choice = int(random.integers(6))
    if choice == 5:
        return str(random.choice(sorted(scene.concepts)))
    if choice == 0:
        return f"{_article(writer.word(thing.colour))} {writer.word(thing.shape)}"
    if choice == 1:
        return f"{_article(writer.word(thing.shape))} {writer.word(scene.background)}"
    if choice == 2:
        return f"{_article(writer.word(thing.fill))} {writer.word(thing.shape)}"
    if choice == 3:
        return f"{_article(writer.word(thing.size))} {writer.word(thing.colour)} shape {writer.word(thing.position)}"
    return f"{writer.word(scene.style)} of something {writer.word(scene.background)}"


CLASSIFIED_GROUPS = ("shape", "colour", "fill", "background", "style")
ZERO_SHOT_TEMPLATES: dict[str, tuple[str, ...]] = {
    "shape": ("{}", "a picture of a {}"),
    "colour": ("a {} shape", "a picture of a {} shape"),
    "size": ("a {} shape", "a picture of a {} shape"),
    "fill": ("a {} shape", "a picture of a {} shape"),
    "position": ("a shape {}", "a picture of a shape {}"),
    "background": ("a shape {}", "a picture of a shape {}"),
    "style": ("{}", "{} of a shape"),
    "count": ("{}", "a picture of {}"),
    "frame": ("{}", "a shape {}"),
    "watermark": ("{}", "a shape {}"),
}


def group_labels(scenes: Dataset, group: str) -> np.ndarray:
    """Return which concept of a group each scene shows, as its number in `GROUPS[group]`; -1 for none or several."""
    truth = truth_matrix(scenes, GROUPS[group])
    return np.where(truth.sum(axis=1) == 1, truth.argmax(axis=1), -1)


def truth_matrix(scenes: Dataset, concepts: Sequence[str] = CONCEPTS) -> np.ndarray:
    """Return which concepts are true of each scene, as booleans (N, len(concepts))."""
    return scenes.select_columns(list(concepts)).to_pandas().to_numpy(dtype=bool)


def zero_shot_texts(text_embeds: Callable[[list[str]], torch.Tensor], group: str) -> torch.Tensor:
    """Return a text embedding for each concept of a group, averaged over templates (len(GROUPS[group]), d).

    `text_embeds` embeds prompts, such as `Backbone.from_pretrained("scenes").text_embeds`.
    """
    import torch  # only here: processes that render scenes need none of it

    words, templates = GROUPS[group], ZERO_SHOT_TEMPLATES[group]
    prompts = [template.format(WORDINGS[word][0]) for word in words for template in templates]
    embeddings = torch.nn.functional.normalize(text_embeds(prompts).float(), dim=-1)
    return embeddings.reshape(len(words), len(templates), -1).mean(1)
