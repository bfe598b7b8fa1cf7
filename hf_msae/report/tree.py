"""Parents and children among the concepts, as nested lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..concepts import concept_hierarchy
from ..concepts.labels import Label, Labels

if TYPE_CHECKING:
    from ..concepts import ConceptHierarchy
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

MAX_TREES = 40


@dataclass(frozen=True)
class Branch:
    """A concept and what is below it.

    Attributes:
        label: of the latent.
        count: rows it is active in.
        together, share, low: of a child: rows in which its parent is active too, as a number, as a share of its own,
            and the lower end of the share's 95% interval; None of a root.
        children: most frequent first.
    """

    label: Label
    count: int
    together: int | None = None
    share: float | None = None
    low: float | None = None
    children: list[Branch] = field(default_factory=list)


@dataclass(frozen=True)
class Hierarchy:
    """Attributes:
    trees: the first `MAX_TREES`, by how often their roots are active.
    num_trees: how many there are.
    num_edges: concepts that have a parent.
    num_concepts: looked at: those that are active often enough.
    num_samples: rows.
    k: latents kept of each row.
    of_validated: whether only latents with a validated name were looked at.
    """

    trees: list[Branch]
    num_trees: int
    num_edges: int
    num_concepts: int
    num_samples: int
    k: int
    of_validated: bool


def hierarchy_of(msae: MSAEModel, acts: EmbeddingDataset, labels: Labels, k: int, progress: bool) -> Hierarchy:
    """The hierarchy of the validated concepts; of all latents where no name is validated."""
    of_validated = labels.validated is not None and len(labels.validated) > 0
    latents = labels.validated["latent"].tolist() if of_validated else None
    found = concept_hierarchy(msae, acts, labels.concepts, latents, k=k, progress=progress)
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
