"""How a latent is labeled on a page: by its name, and whether the name is validated."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from .._utils.wording import UNVALIDATED, marked
from .table import MAX_Q, ConceptTable

__all__ = ["MAX_Q", "UNVALIDATED", "Label", "Labels"]


@dataclass(frozen=True)
class Label:
    """The label of one latent."""

    latent: int
    name: str | None
    validated: bool  # whether the name is better than chance

    def __str__(self) -> str:
        return f"latent {self.latent}" if self.name is None else self.name

    @property
    def marked(self) -> str:
        """The label, with `UNVALIDATED` after a name that may be due to chance."""
        return str(self) if self.name is None else marked(self.name, self.validated)


class Labels:
    """The labels of all latents.

    Args:
        concepts: The names, or None.

    Attributes:
        concepts: The names, or None.
        validated: The rows of `concepts` with a validated name, best first; None if there are no names or no
            q-values.
    """

    def __init__(self, concepts: ConceptTable | None) -> None:
        self.concepts = concepts
        tested = concepts is not None and concepts.has_q_values
        self.validated: pd.DataFrame | None = concepts.validated() if tested else None
        self._validated = set() if self.validated is None else set(self.validated["latent"].tolist())
        names = {} if concepts is None else concepts.frame.set_index("latent")["name"].dropna().to_dict()
        self._names = {latent: str(name) for latent, name in names.items()}

    @property
    def any_validated(self) -> bool:
        """Whether any name is validated."""
        return bool(self._validated)

    def __call__(self, latent: int) -> Label:
        """Return the label of a latent."""
        return Label(int(latent), self._names.get(int(latent)), int(latent) in self._validated)
