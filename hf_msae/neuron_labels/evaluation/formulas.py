"""Formulas over concepts, such as "red AND NOT circle": their text, and the images they are true of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

OPERATORS = ("AND", "OR", "NOT")
_MOST_PARTS = 100


@dataclass(frozen=True)
class Atom:
    """A concept, or its absence.

    Attributes:
        concept: Name of the concept.
        negated: Whether it must be absent.
    """

    concept: str
    negated: bool = False

    def __str__(self) -> str:
        return f"NOT {self.concept}" if self.negated else self.concept

    @property
    def concepts(self) -> tuple[str, ...]:
        """The concepts in it."""
        return (self.concept,)

    def evaluate(self, column: Callable[[str], np.ndarray]) -> np.ndarray:
        """Return the images it is true of (N,), given those each concept is in."""
        return ~column(self.concept) if self.negated else column(self.concept)


@dataclass(frozen=True)
class Compound:
    """Two formulas that must both be true, or of which one must.

    Attributes:
        left: A formula.
        operator: "AND" or "OR".
        right: Another one.
        negated: Whether the whole must be false.
    """

    left: Formula
    operator: Literal["AND", "OR"]
    right: Formula
    negated: bool = False

    def __str__(self) -> str:
        # A chain of the same operator needs no brackets: "a AND b AND c".
        left, right = (
            f"({part})"
            if isinstance(part, Compound) and not part.negated and part.operator != self.operator
            else str(part)
            for part in (self.left, self.right)
        )
        text = f"{left} {self.operator} {right}"
        return f"NOT ({text})" if self.negated else text

    @property
    def concepts(self) -> tuple[str, ...]:
        """The concepts in it, each once."""
        return tuple(dict.fromkeys(self.left.concepts + self.right.concepts))

    def evaluate(self, column: Callable[[str], np.ndarray]) -> np.ndarray:
        """Return the images it is true of (N,), given those each concept is in."""
        left, right = self.left.evaluate(column), self.right.evaluate(column)
        found = left & right if self.operator == "AND" else left | right
        return ~found if self.negated else found


Formula = Atom | Compound


def parse_formula(text: str) -> Formula:
    """Read a formula: names of concepts with AND, OR and NOT in capitals, and brackets.

    NOT binds most, then AND, then OR. Everything between operators is one name, whatever it holds.

    Raises:
        ValueError: It is not a formula.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._parts = text, []
        for word in text.replace("(", " ( ").replace(")", " ) ").split():
            is_name = word not in (*OPERATORS, "(", ")")
            if is_name and self._parts and self._parts[-1][0]:
                self._parts[-1] = (True, f"{self._parts[-1][1]} {word}")
            else:
                self._parts.append((is_name, word))
        if len(self._parts) > _MOST_PARTS:
            raise ValueError(f"a formula has at most {_MOST_PARTS} parts, got {len(self._parts)}: {text!r:.80}")

    def parse(self) -> Formula:
        found = self._either()
        if self._parts:
            raise self._error()
        return found

    def _either(self) -> Formula:
        found = self._both()
        while self._take("OR"):
            found = Compound(found, "OR", self._both())
        return found

    def _both(self) -> Formula:
        found = self._single()
        while self._take("AND"):
            found = Compound(found, "AND", self._single())
        return found

    def _single(self) -> Formula:
        if self._take("NOT"):
            found = self._single()
            if isinstance(found, Atom):
                return Atom(found.concept, not found.negated)
            return Compound(found.left, found.operator, found.right, not found.negated)
        if self._take("("):
            found = self._either()
            if not self._take(")"):
                raise self._error()
            return found
        if self._parts and self._parts[0][0]:
            return Atom(self._parts.pop(0)[1])
        raise self._error()

    def _take(self, operator: str) -> bool:
        if self._parts and self._parts[0] == (False, operator):
            self._parts.pop(0)
            return True
        return False

    def _error(self) -> ValueError:
        where = f"at {self._parts[0][1]!r}" if self._parts else "at its end"
        return ValueError(f"this is not a formula of concepts, {where}: {self._text!r:.80}")
