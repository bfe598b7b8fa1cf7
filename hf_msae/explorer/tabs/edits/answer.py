"""What a saved edit reads in a picture, and what changes when its concept is removed or added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...inputs import read_choice, read_number
from ...kept import Kept
from ..search.answer import SHOWN, Found, moved
from ..steer.answer import Steered, probabilities

if TYPE_CHECKING:
    from ....steering import Edit
    from ...explorer import Explorer

LEAST, MOST = -2.0, 2.0
"""Range of amounts: -1 removes the concept, 1 adds it."""
_scores = Kept(32)


@dataclass(frozen=True)
class Edited(Steered):
    """What an edit does to an embedding. There may be no labels."""

    edit: str  # its name
    method: str
    amount: float  # a number from `LEAST` to `MOST`
    score: float  # how much of the concept the edit reads before
    score_after: float
    num_below: int  # how many pictures of the collection have a lower score than before
    num_compared: int
    dose: float  # size of the change, relative to the embedding

    @property
    def changed(self) -> bool:
        """Whether the embedding has changed."""
        return self.dose > 0


@torch.no_grad()
def apply_edit(
    explorer: Explorer, embedding: torch.Tensor, name: object, amount: object, labels: Sequence[str] = ()
) -> tuple[Edited, Found]:
    """Remove or add the concept of an edit in a raw embedding (d,), and find the nearest pictures before and after.

    An amount t below 0 gives x + |t| (remove(x) - x), as the doses of SwordBench, and one above 0 gives add(x, t).
    """
    edit = explorer.edits[read_choice(name, explorer.edits, "edit")]
    amount = read_number(amount, LEAST, MOST, "The amount")
    before = embedding.float().cpu()
    after = _changed(edit, before, amount)
    score, of_all = float(edit.score(before)), scores(explorer, name)
    found = Edited(
        tuple(labels),
        *(probabilities(explorer, [before, after], labels) if labels else ((), ())),
        changes=(),
        similarity=float(torch.cosine_similarity(before.double(), after.double(), dim=0)),
        edit=name,
        method=edit.method,
        amount=amount,
        score=score,
        score_after=float(edit.score(after)),
        num_below=int((of_all < score).sum()),
        num_compared=len(of_all),
        dose=float((after - before).norm() / before.norm()),
    )
    return found, moved(explorer.index.by_change(before, after, SHOWN))


def _changed(edit: Edit, embedding: torch.Tensor, amount: float) -> torch.Tensor:
    if amount > 0:
        return edit.add(embedding, amount)
    return embedding - amount * (edit.remove(embedding) - embedding) if amount else embedding


def scores(explorer: Explorer, name: str) -> np.ndarray:
    """How much of an edit's concept it reads in each picture of the collection, (N,)."""
    return _scores.get((explorer, name), lambda: explorer.edits[name].score(explorer.embeddings[:]).numpy())


def example(explorer: Explorer, name: str) -> int:
    """The picture in which an edit reads most of its concept."""
    return int(scores(explorer, name).argmax())
