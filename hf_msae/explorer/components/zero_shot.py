"""Zero-shot classifiers of a visitor's own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...concepts import Vocabulary
from ...metrics import LinearClassifier

if TYPE_CHECKING:
    from ..explorer import Explorer


def zero_shot(explorer: Explorer, labels: Sequence[str], templates: Sequence[str] = ("{}",)) -> LinearClassifier:
    """What the backbone makes of labels that exclude each other: a softmax over its scaled cosines with them.

    The bias that SigLIP adds to every logit is the same for all labels, and so changes nothing in a softmax.

    Args:
        explorer: with the backbone.
        labels: distinct words.
        templates: prompts with one {} for the label; where there are several, their embeddings are averaged.

    Raises:
        VisitorError: the backbone has no text tower.
    """
    embeds = Vocabulary(labels, templates).embed(explorer.embed_texts)
    scale = getattr(explorer.model.backbone.model, "logit_scale", None)
    scale = 100.0 if scale is None else float(scale.detach().exp())
    return LinearClassifier.zero_shot(embeds.cpu(), list(labels), logit_scale=scale)
