"""What labelling may cost, and what it did cost."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields


class BudgetSpentError(RuntimeError):
    """Going on would cost more than the budget allows; what was found so far is kept."""


@dataclass(frozen=True)
class Budget:
    """Limits of a run, for all neurons together; None is without limit.

    Attributes:
        calls: Calls of the language model. Those that repeat a malformed answer or a failed call may exceed it.
        tokens: Tokens of prompts and answers. The last answers may exceed it, since they are counted afterwards.
        images: Pictures that are made. A label takes at least `images_per_concept + confirm_images` of them.
        seconds: Time. Labels that were found in time are still confirmed.
        cost: Money, in the currency of the prices that the proposer and the imager were given. Pictures do not exceed
            it, the last answers may.

    Raises:
        ValueError: A limit is not positive.
    """

    calls: int | None = None
    tokens: int | None = None
    images: int | None = None
    seconds: float | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is not None and not limit > 0:
                raise ValueError(f"the budget of {field.name} must be positive, got {limit!r}")


@dataclass
class Spent:
    """What was spent. `tokens` are those of prompts (`input_tokens`) and answers (`output_tokens`)."""

    calls: int = 0
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    cost: float = 0.0


class Meter:
    """Counts what is spent, and says when the budget does not allow more."""

    def __init__(self, budget: Budget | None = None, price: float = 0.0) -> None:
        self.price = price
        self.budget, self.spent = budget or Budget(), Spent()
        self.kept_back = 0  # pictures that searches must leave, so that what they find can be confirmed
        self.is_overtime = False  # confirms what was found in time
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since the meter was made."""
        return time.monotonic() - self._start

    def reserve(self, **more: float) -> None:
        """Raise BudgetSpentError unless `more` can be spent."""
        for name, limit in asdict(self.budget).items():
            if limit is None:
                continue
            if name == "seconds":
                if self.seconds >= limit and not self.is_overtime:
                    raise BudgetSpentError(f"{limit:g} seconds are over")
                continue
            planned = more.get(name, 0)
            if planned and name in ("images", "cost"):
                planned += self.kept_back * (1 if name == "images" else self.price)
            elif name in ("tokens", "cost") and more.get("calls"):  # those of a call are known only afterwards
                planned = 1e-9 + (self.kept_back * self.price if name == "cost" else 0)
            if planned and getattr(self.spent, name) + planned > limit:
                kept = (
                    f", {self.kept_back} pictures kept to confirm labels"
                    if name in ("images", "cost") and self.kept_back
                    else ""
                )
                spent = getattr(self.spent, name)
                asked = f"{more[name]:g} more" if more.get(name) else "more"
                raise BudgetSpentError(
                    f"the budget of {limit:g} {name} does not allow {asked} ({spent:g} spent{kept})"
                )

    def spend(self, **more: float) -> None:
        """Count what was spent."""
        for name, amount in more.items():
            setattr(self.spent, name, getattr(self.spent, name) + amount)

    def to_dict(self) -> dict[str, float]:
        """Return what was spent, with the time."""
        return {**asdict(self.spent), "seconds": round(self.seconds, 3)}
