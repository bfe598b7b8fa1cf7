"""Hierarchy: parents and children among the concepts, as nested lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...concepts import concept_hierarchy
from ...concepts.labels import Label, Labels

if TYPE_CHECKING:
    from ...concepts import ConceptHierarchy
    from ..context import Context

MAX_TREES = 40


@dataclass(frozen=True)
class Branch:
    """A concept and what is below it.

    Attributes:
        label: The latent.
        count: Rows in which it is active.
        together: Rows in which its parent is active too; None for a root, as the next two.
        share: The same as a share of its own rows.
        low: Lower end of the 95% interval of that share.
        children: The branches below, most frequent first.
    """

    label: Label
    count: int
    together: int | None = None
    share: float | None = None
    low: float | None = None
    children: list[Branch] = field(default_factory=list)


@dataclass(frozen=True)
class Hierarchy:
    """The section.

    Attributes:
        trees: The first `MAX_TREES`, by how often their roots are active.
        num_trees: Number of all trees.
        num_edges: Concepts that have a parent.
        num_concepts: Concepts considered: those that are active often enough.
        num_samples: Rows.
        k: Latents kept of each row.
        of_validated: Whether only latents with a validated name were considered.
    """

    trees: list[Branch]
    num_trees: int
    num_edges: int
    num_concepts: int
    num_samples: int
    k: int
    of_validated: bool


def build(context: Context) -> Hierarchy:
    """Arrange the validated concepts; all latents if no name is validated."""
    labels = context.labels
    of_validated = labels.validated is not None and len(labels.validated) > 0
    latents = labels.validated["latent"].tolist() if of_validated else None
    found = concept_hierarchy(
        context.msae,
        context.embeddings,
        labels.concepts,
        latents,
        k=context.settings.k,
        codes=context.survey.codes,
        progress=context.progress,
    )
    roots = found.children()
    trees = [_branch(found, labels, root) for root in roots[:MAX_TREES]]
    return Hierarchy(
        trees, len(roots), len(found.edges), len(found.concepts), found.num_samples, found.k, of_validated
    )


def _branch(found: ConceptHierarchy, labels: Labels, latent: int) -> Branch:
    count = int(found.concepts.set_index("latent").loc[latent, "count"])
    children = [_branch(found, labels, child) for child in found.children(latent)]
    edge = found.edges[found.edges["child"] == latent]
    if edge.empty:
        return Branch(labels(latent), count, children=children)
    above = edge.iloc[0]
    return Branch(
        labels(latent),
        count,
        int(above["together"]),
        float(above["parent_given_child"]),
        float(above["low"]),
        children,
    )
