"""What a latent is called on the page, and whether the name has passed its test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from . import ConceptTable

MAX_Q = 0.05
"""The false discovery rate at which a name counts as validated."""


@dataclass(frozen=True)
class Label:
    """Attributes:
    latent: its number.
    name: None where it has none.
    validated: whether the name is more than chance.
    """

    latent: int
    name: str | None
    validated: bool

    def __str__(self) -> str:
        return f"latent {self.latent}" if self.name is None else self.name


class Labels:
    """The labels of all latents.

    Args:
        concepts: their names, or None.

    Attributes:
        validated: the rows of `concepts` with a validated name, most similar first; None where there are no names or
            no q-values.
    """

    def __init__(self, concepts: ConceptTable | None) -> None:
        self.concepts = concepts
        has_q = concepts is not None and "q_value" in concepts.frame
        self.validated: pd.DataFrame | None = concepts.validated(MAX_Q) if has_q else None
        self._sure = set() if self.validated is None else set(self.validated["latent"].tolist())
        names = {} if concepts is None else concepts.frame.set_index("latent")["name"].to_dict()
        self._names = {latent: str(name) for latent, name in names.items() if not pd.isna(name)}

    def __call__(self, latent: int) -> Label:
        return Label(int(latent), self._names.get(int(latent)), int(latent) in self._sure)
