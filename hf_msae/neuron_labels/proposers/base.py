"""What a proposer is asked and what it answers."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Request:
    """A question for one more concept.

    Attributes:
        scores: The concepts tried so far with their scores, best first.
        avoid: Concepts that must not be proposed again: those tried, and those that could not be drawn.
        merge: Ask for what the best concepts have in common, instead of a new idea.
        seed: Random seed of the answer.
    """

    scores: tuple[tuple[str, float], ...] = ()
    avoid: tuple[str, ...] = ()
    merge: bool = False
    seed: int = 0

    @property
    def sha256(self) -> str:
        """Identifies the request."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """A proposed concept, and what it cost.

    Attributes:
        concept: The concept, as `clean_concept` returns it; None if there was no usable answer.
        problem: Why there is none.
        reasoning: What the model wrote before its answer. It is data: escape it wherever it is shown.
        malformed: Number of answers that could not be used and were asked for again.
        calls: Number of calls of the language model.
        input_tokens: Tokens of all prompts.
        output_tokens: Tokens of all answers.
        cost: In the currency of the prices that the proposer was given.
        estimated: Whether tokens and cost are estimates, because a server did not say how many tokens there were.
    """

    concept: str | None
    problem: str = ""
    reasoning: str = ""
    malformed: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    estimated: bool = False


class Proposer(ABC):
    """Proposes what a neuron could respond to, given how well other concepts did.

    Attributes:
        is_language_model: Whether a language model answers.
    """

    is_language_model: ClassVar[bool] = True

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that the answers depend on, as JSON, without secrets."""

    @abstractmethod
    def propose(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer requests of several neurons together. The same request always gets the same answer if possible."""

    def check(self) -> None:  # noqa: B027  most always can
        """Raise an error if it could not answer, as for want of a key, before any work is done."""

    def first(self, number: int, seed: int = 0) -> list[str]:
        """Return concepts to start from, before anything is known."""
        return list(FIRST_CONCEPTS[:number])


FIRST_CONCEPTS = (
    *("person", "dog", "red", "building", "circle", "stripes", "tree", "water", "text", "night", "car", "food"),
    *("blue", "bird", "star", "flag", "round", "snow", "furniture", "fabric"),
)
"""What a search starts from without a vocabulary: things, materials, colors, shapes and light."""
