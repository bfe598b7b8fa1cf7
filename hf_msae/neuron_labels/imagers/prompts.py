"""What a text-to-image model is asked for."""

from __future__ import annotations

import numpy as np

_ANGLES = ("seen from close up", "seen from far away", "seen from above", "seen from below", "seen at eye level")
_LIGHTS = ("in bright daylight", "in soft evening light", "in studio light", "in dim light", "against the light")

STYLES = ("plain", "photo")
"""Styles of prompts: "plain" is "a picture of ...", and "photo" a realistic photograph from an angle and in a light
that depend on the seed, so that what pictures of a concept share is the concept."""


class Prompts:
    """Makes the prompt of a concept and seed, in one of `STYLES`, or a text with {} in the concept's place.

    The concept is data: nothing in it is replaced.
    """

    def __init__(self, style: str = "plain") -> None:
        self.style = style if style in STYLES else filled(style, f"a style is one of {', '.join(STYLES)}, or")

    def __call__(self, concept: str, seed: int) -> str:
        """Return the prompt."""
        if self.style == "plain":
            return f"a picture of {concept}"
        if self.style == "photo":
            random = np.random.default_rng(seed)
            return f"a realistic photograph of {concept}, {random.choice(_ANGLES)}, {random.choice(_LIGHTS)}"
        return self.style.replace("{}", concept)


def filled(template: str, what: str = "a template is") -> str:
    """Return a template, which needs exactly one place for a concept."""
    if template.count("{}") != 1:
        raise ValueError(f"{what} a text with one {{}} in the concept's place, got {template!r}")
    return template
