"""Hierarchy: parents and children among the concepts, as nested lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...concepts import concept_hierarchy

if TYPE_CHECKING:
    from ...concepts import ConceptHierarchy
    from ...concepts.labels import Labels
    from ..context import Context

_MAX_TREES = 40


def build(context: Context) -> dict[str, Any]:
    """Arrange the validated concepts, or all latents if no name is validated."""
    labels = context.labels
    found = concept_hierarchy(
        context.msae,
        context.embeddings,
        labels.concepts,
        labels.validated["latent"].tolist() if labels.any_validated else None,
        k=context.settings.k,
        codes=context.survey.codes,
        progress=context.progress,
    )
    roots = found.children()
    return {
        "found": found,
        "trees": [_branch(found, labels, root) for root in roots[:_MAX_TREES]],
        "num_trees": len(roots),
        "of_validated": labels.any_validated,
    }


def _branch(found: ConceptHierarchy, labels: Labels, latent: int) -> dict[str, Any]:
    """A concept, its edge to the parent (None for a root), and the branches below it."""
    edge = found.edges[found.edges["child"] == latent]
    return {
        "label": labels(latent),
        "count": int(found.concepts.set_index("latent").loc[latent, "count"]),
        "edge": None if edge.empty else edge.iloc[0],
        "children": [_branch(found, labels, child) for child in found.children(latent)],
    }
