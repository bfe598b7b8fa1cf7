"""How a latent is labeled on a page: by its name, and whether the name is validated."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from .._utils.wording import UNVALIDATED, marked
from .table import ConceptTable
from .validation import MAX_Q, Doubt, doubts, has_strength_test, rule

__all__ = ["MAX_Q", "UNVALIDATED", "Label", "Labels"]


@dataclass(frozen=True)
class Label:
    """The label of one latent."""

    latent: int
    name: str | None
    doubt: Doubt | None  # why the name is not validated

    @property
    def validated(self) -> bool:
        """Whether the latent has a name that passed its tests."""
        return self.name is not None and self.doubt is None

    def __str__(self) -> str:
        return f"latent {self.latent}" if self.name is None else self.name

    @property
    def marked(self) -> str:
        """The label, with `UNVALIDATED` after a name that is not validated."""
        return str(self) if self.name is None else marked(self.name, self.validated)


class Labels:
    """The labels of all latents, from a table of names or None.

    `validated` holds its rows with a validated name, best first; None if there are no names or no q-values.
    """

    def __init__(self, concepts: ConceptTable | None) -> None:
        self.concepts = concepts
        tested = concepts is not None and concepts.has_q_values
        self.validated: pd.DataFrame | None = concepts.validated() if tested else None
        self._labels: dict[int, tuple[str, Doubt | None]] = {}
        if concepts is not None:
            columns = concepts.frame["latent"], concepts.frame["name"], doubts(concepts.frame)
            rows = zip(*columns, strict=True)
            self._labels = {int(latent): (str(name), doubt) for latent, name, doubt in rows if not pd.isna(name)}

    @property
    def any_validated(self) -> bool:
        """Whether any name is validated."""
        return self.validated is not None and not self.validated.empty

    @property
    def has_strength_test(self) -> bool:
        """Whether names also have to be strong enough, and not only better than chance."""
        return self.concepts is not None and has_strength_test(self.concepts.frame)

    @property
    def rule(self) -> str:
        """What a validated name has to reach, in words; "" without names."""
        return "" if self.concepts is None else rule(self.concepts.frame)

    def __call__(self, latent: int) -> Label:
        """Return the label of a latent."""
        return Label(int(latent), *self._labels.get(int(latent), (None, None)))
