"""Formulas over concepts, such as "red AND NOT circle": their text, and the images they are true of."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import numpy as np

OPERATORS = ("AND", "OR", "NOT")
_MOST_PARTS = 100


@dataclass(frozen=True)
class Atom:
    """A concept, or its absence if `negated`."""

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
    """Two formulas that must both be true, or of which one must; `negated` if the whole must be false."""

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
    """
    # These are Python's rules for its own operators, so its parser reads the formula, with numbers in place of names.
    names, parts = [], []
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        if word in (*OPERATORS, "(", ")"):
            parts.append(word.lower())
        elif parts and parts[-1].isdigit():
            names[-1] += f" {word}"
        else:
            parts.append(str(len(names)))
            names.append(word)
    if len(parts) > _MOST_PARTS:
        raise ValueError(f"a formula has at most {_MOST_PARTS} parts, got {len(parts)}: {text!r:.80}")
    try:
        return _formula(ast.parse(" ".join(parts), mode="eval").body, names)
    except (SyntaxError, TypeError) as error:
        raise ValueError(f"this is not a formula of concepts: {text!r:.80}") from error


def _formula(node: ast.expr, names: list[str]) -> Formula:
    match node:
        case ast.Constant(value=number):
            return Atom(names[number])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            found = _formula(operand, names)
            return replace(found, negated=not found.negated)
        case ast.BoolOp(op=op, values=values):
            operator = "AND" if isinstance(op, ast.And) else "OR"
            parts = (_formula(value, names) for value in values)
            return reduce(lambda left, right: Compound(left, operator, right), parts)
    raise TypeError(f"{type(node).__name__} is no part of a formula")  # such as a call, "a (b)"
