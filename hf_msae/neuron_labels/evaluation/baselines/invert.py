"""INVERT: the formula over true concepts that a neuron's activation detects best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from ..formulas import Atom, Compound, Formula
from ..measures import checked_presence, midranks
from .base import Baseline, as_frame, matching_activations

_LEAST_GAIN = 1e-9  # of a longer formula over a shorter one


@dataclass(frozen=True)
class _Candidate:
    formula: Formula
    images: np.ndarray  # that it is true of, bool (N,)
    area: float


class Invert(Baseline):
    """Labels by a beam search over formulas of true concepts.

    (Bykov et al., "Labeling Neural Representations with Inverse Recognition", NeurIPS 2023.)

    A formula joins concepts and their absence by AND and OR, and its score is the AUROC with which the activation
    detects the images it is true of. Each step extends the best formulas by one more concept. The best of all lengths
    is the label; of equally good ones, the shortest.

    The AUROC is that of the images that chose the formula, among many thousands, so it is too high: measure the label
    on other images. Formulas that are true of a handful of images win by luck where a neuron has no meaning; a
    smallest share above 0 keeps them out.

    Args:
        concepts: Names of the concepts (n,).
        presence: Which images show them, bool (N, n).
        max_length: Largest number of concepts in a formula.
        beam: Number of formulas that are kept at each length.
        fractions: Smallest and largest share of images that a formula may be true of, above 0; at most a half in
            INVERT.

    Raises:
        ValueError: Shapes differ, an option is out of range, or no concept is in so many images.
    """

    name: ClassVar[str] = "invert"

    def __init__(
        self,
        concepts: Sequence[str],
        presence: np.ndarray,
        max_length: int = 3,
        beam: int = 5,
        fractions: tuple[float, float] = (0.0, 0.5),
    ) -> None:
        presence = np.asarray(presence)
        if presence.dtype != bool or presence.ndim != 2 or presence.shape[1] != len(concepts):
            raise ValueError(
                f"presence must be booleans (N, {len(concepts)}), got {presence.dtype} of shape {presence.shape}"
            )
        checked_presence(presence)
        if max_length < 1 or beam < 1:
            raise ValueError(f"max_length and beam must be at least 1, got {max_length} and {beam}")
        if not 0 <= fractions[0] < fractions[1] <= 1:
            raise ValueError(f"fractions must ascend from 0 to 1, got {fractions}")
        self.concepts, self.presence = tuple(concepts), presence
        self.max_length, self.beam, self.fractions = max_length, beam, fractions
        self._columns = presence.astype(np.float64)
        shares = presence.mean(axis=0)
        if not self._allowed(np.concatenate([shares, 1 - shares]) * len(presence)).any():
            raise ValueError(f"no concept, and no absence of one, is in a share of images within {fractions}")

    def label(self, activations: np.ndarray) -> pd.DataFrame:
        """Label neurons by the text of a formula, with its AUROC as score."""
        found = self.formulas(activations)
        return as_frame(
            [None if each is None else str(each[0]) for each in found],
            np.array([np.nan if each is None else each[1] for each in found]),
        )

    def formulas(self, activations: np.ndarray) -> list[tuple[Formula, float] | None]:
        """Return the formula of each neuron and its AUROC; None for neurons whose activation does not vary."""
        activations = matching_activations(activations, len(self.presence))
        return [
            self._search(column) if np.ptp(column) else None for column in midranks(activations).T
        ]  # ranks vary where activations do

    def _search(self, ranks: np.ndarray) -> tuple[Formula, float]:
        everything = np.ones((1, len(ranks)), dtype=bool)
        beam = self._extended([_Candidate(Atom(""), everything[0], 0.0)], ranks, first=True)
        best = beam[0]
        for _ in range(self.max_length - 1):
            beam = self._extended(beam, ranks)
            if not beam:
                break
            if beam[0].area > best.area + _LEAST_GAIN:
                best = beam[0]
        return best.formula, best.area

    def _extended(self, beam: list[_Candidate], ranks: np.ndarray, first: bool = False) -> list[_Candidate]:
        images = np.stack([each.images for each in beam]).astype(np.float64)
        total, total_ranks, n = self._columns.sum(axis=0), ranks @ self._columns, len(ranks)
        both, both_ranks = images @ self._columns, (images * ranks) @ self._columns
        own, own_ranks = images.sum(axis=1)[:, None], (images @ ranks)[:, None]
        # Numbers of images, and sums of ranks, of: f AND c, f AND NOT c, f OR c, f OR NOT c.
        counts = np.stack([both, own - both, own + total - both, n - total + both])
        sums = np.stack(
            [
                both_ranks,
                own_ranks - both_ranks,
                own_ranks + total_ranks - both_ranks,
                ranks.sum() - total_ranks + both_ranks,
            ]
        )
        if first:  # the formula so far is true of every image
            counts, sums = counts[:2], sums[:2]
        with np.errstate(invalid="ignore", divide="ignore"):
            areas = (sums - counts**2 / 2) / (counts * (n - counts))
        areas = np.where(self._allowed(counts), areas, -np.inf)
        chosen, seen = [], {each.images.tobytes() for each in beam}
        for place in np.argsort(-areas, axis=None, kind="stable"):
            form, parent, concept = np.unravel_index(place, areas.shape)
            if len(chosen) == self.beam or areas[form, parent, concept] == -np.inf:
                break
            candidate = self._joined(beam[parent], int(form), int(concept), float(areas[form, parent, concept]), first)
            if candidate.images.tobytes() not in seen:  # another way to say the same
                seen.add(candidate.images.tobytes())
                chosen.append(candidate)
        return chosen

    def _joined(self, parent: _Candidate, form: int, concept: int, area: float, first: bool) -> _Candidate:
        atom = Atom(self.concepts[concept], negated=form % 2 == 1)
        column = self.presence[:, concept] ^ atom.negated
        if first:
            return _Candidate(atom, column, area)
        if form < 2:
            return _Candidate(Compound(parent.formula, "AND", atom), parent.images & column, area)
        return _Candidate(Compound(parent.formula, "OR", atom), parent.images | column, area)

    def _allowed(self, counts: np.ndarray) -> np.ndarray:
        low, high = (fraction * len(self.presence) for fraction in self.fractions)
        return (counts > 0) & (counts < len(self.presence)) & (counts >= low) & (counts <= high)
