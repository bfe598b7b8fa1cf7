"""Whether a model fits the rows it was trained on alone: one rule for training, the report and the doctor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OVERFITTED = 1.5
"""A model fits its training rows alone if the FVU of held-out rows is more than this many times theirs
(docs/training.md says on which runs this was chosen)."""
LEAST_DIFFERENCE = 0.005
"""Of two FVUs: below, their ratio means nothing."""


def overfitting(metrics: Mapping[str, Any]) -> str | None:
    """Return a sentence about a model that has overfitted, by its metrics.json; None where it has not."""
    fvu, trained_on = metrics.get("fvu"), metrics.get("train_fvu")
    if fvu is None or trained_on is None or fvu <= OVERFITTED * trained_on or fvu - trained_on <= LEAST_DIFFERENCE:
        return None
    figures = f"The FVU of held-out rows is {fvu:.4f}, but that of training rows is {trained_on:.4f}"
    return f"{figures}: the model has overfitted."
