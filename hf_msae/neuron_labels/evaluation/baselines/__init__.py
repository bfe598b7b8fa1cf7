"""Other methods that give neurons labels, behind one interface, to compare with."""

from .agreement import Agreement
from .base import Baseline
from .clip_dissect import ClipDissect
from .cosine import VocabularyCosine
from .invert import Invert

__all__ = ["Agreement", "Baseline", "ClipDissect", "Invert", "VocabularyCosine"]
