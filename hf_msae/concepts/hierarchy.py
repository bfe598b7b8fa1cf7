"""Which concepts are part of which: parents and children by what is active together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from .._utils.deprecation import renamed_arguments
from ..metrics.levels import own_levels
from ..model.checks import check_k
from ..statistics import Result, wilson_interval
from .codes import Embeddings, collect_codes, open_embeddings
from .collectors import SparseCodes, SparseCollector
from .editing import latents_of
from .table import ConceptTable, check_table, display_name, name_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..model.modeling_msae import MSAEModel

_CHILDREN = 512  # held at a time with all their parents
_EDGE_COLUMNS = "parent parent_name child child_name together parent_given_child child_given_parent low lift".split()


@dataclass(frozen=True)
class ConceptHierarchy(Result):
    """The trees that `concept_hierarchy` found.

    Attributes:
        concepts: One row per latent that is active often enough: latent, name, validated, level, count (samples it is
            active in).
        edges: One row per child: parent, parent_name, child, child_name, together (samples in which both are active),
            parent_given_child and child_given_parent (shares), low (lower end of the 95% confidence interval of
            parent_given_child), lift (parent_given_child divided by the parent's share of all samples).
        num_samples: Number of samples.
        k: Number of activations in each code.
    """

    concepts: pd.DataFrame = field(metadata={"columns": ["latent", "name", "validated", "level", "count"]})
    edges: pd.DataFrame = field(metadata={"columns": _EDGE_COLUMNS})
    num_samples: int
    k: int

    def children(self, parent: int | None = None) -> list[int]:
        """Return the children of a latent, most frequent first; without a latent, the roots of all trees."""
        return self._children.get(parent, [])

    @cached_property
    def _children(self) -> dict[int | None, list[int]]:
        found: dict[int | None, list[int]] = {None: list(set(self.edges["parent"]) - set(self.edges["child"]))}
        for parent, child in zip(self.edges["parent"], self.edges["child"], strict=True):
            found.setdefault(int(parent), []).append(int(child))
        count = self.concepts.set_index("latent")["count"]
        return {
            key: sorted(map(int, each), key=lambda latent: (-count[latent], latent)) for key, each in found.items()
        }

    def verdict(self) -> str:
        """Say in one sentence how many concepts have a parent."""
        found = f"{len(self.edges)} of {len(self.concepts)} concepts have a parent"
        return f"{found} ({self.num_samples} samples, k={self.k})"

    def __str__(self) -> str:
        counts, edges, lines = self.concepts.set_index("latent")["count"], self.edges.set_index("child"), []
        for latent, depth in self._order():
            line = f"{'   ' * depth}{self._name(latent)}"
            if depth:
                edge = edges.loc[latent]
                share, low = edge["parent_given_child"], edge["low"]
                lines.append(f"{line}: in {share:.0%} of {edge['together']} with its parent, at least {low:.0%}")
            else:
                lines.append(f"{line} ({counts[latent]})")
        return "\n".join([self.verdict(), *lines])

    def plot(self, title: str | None = None) -> Figure:
        """Draw the trees: each concept under its parent, with the share of its samples that have the parent."""
        from ..plotting import plot_tree

        edges = self.edges.set_index("child")
        rows = [
            (self._name(latent), depth, float(edges.loc[latent, "parent_given_child"]) if depth else None)
            for latent, depth in self._order()
        ]
        return plot_tree(rows, title or f"Concepts by what is active together (k={self.k})")

    def _order(self) -> list[tuple[int, int]]:
        """Return (latent, depth) of all trees, parents before their children."""
        found: list[tuple[int, int]] = []
        waiting = [(latent, 0) for latent in reversed(self.children())]
        while waiting:
            latent, depth = waiting.pop()
            found.append((latent, depth))
            waiting += [(child, depth + 1) for child in reversed(self.children(latent))]
        return found

    def _name(self, latent: int) -> str:
        row = self.concepts.set_index("latent").loc[latent]
        return display_name(row["name"], latent, row.get("validated", True))


@renamed_arguments(acts="embeddings", latents="indices")
def concept_hierarchy(
    msae: MSAEModel,
    embeddings: Embeddings,
    concepts: ConceptTable | None = None,
    indices: Iterable[int | str] | None = None,
    k: int = 32,
    min_parent: float = 0.9,
    max_child: float = 0.5,
    min_lift: float = 2.0,
    min_count: int = 20,
    batch_size: int = 4096,
    progress: bool = True,
    codes: SparseCodes | None = None,
) -> ConceptHierarchy:
    """Find parents and children: the parent is active nearly whenever the child is, and often without it.

    A concept with several parents keeps the rarest, which is the most specific, so that the edges form trees. The
    `level` of a concept is the smallest of the MSAE's levels (a k, or a width of a prefix of the dictionary) whose
    code has it in at least half of the samples in which it is active.

    Args:
        msae: The MSAE.
        embeddings: Embeddings of the MSAE's backbone; anything `load_embeddings` accepts.
        concepts: Names of the latents.
        indices: Latents to consider, by number or name as `latent_of` reads them, e.g.
            `table.validated()["latent"]`. Defaults to all.
        k: Number of activations in each code. In full codes, nearly everything is active together.
        min_parent: Lowest share of the child's samples in which the parent is active; the lower end of its 95%
            confidence interval (Wilson) must reach it.
        max_child: Highest share of the parent's samples in which the child is active.
        min_lift: How many times as often as on average the parent must be active with the child. A latent that is
            always active is therefore not a parent.
        min_count: Smallest number of samples in which a concept must be active.
        batch_size: Rows encoded at a time.
        progress: Whether to show a progress bar.
        codes: The largest activations of these embeddings, at least k of each row, if they are at hand from
            `SparseCollector`. Defaults to encoding the embeddings.

    Raises:
        ValueError: A latent, name, k or share is out of range.
    """
    check_table(concepts)
    n, k = msae.config.num_latents, check_k(k, msae.config)
    if not (0 < min_parent < 1 and 0 < max_child <= 1):
        raise ValueError(f"min_parent and max_child are shares, got {min_parent} and {max_child}")
    chosen = np.arange(n) if indices is None else latents_of(indices, n, concepts)
    if codes is None:
        embeddings, collectors = open_embeddings(msae, embeddings), [SparseCollector(k)]
        (codes,) = collect_codes(
            msae, embeddings, collectors, batch_size=batch_size, progress=progress, description="active together"
        )
    elif codes.k < k:
        raise ValueError(f"codes have {codes.k} activations per row, but k={k}")
    levels, of_dictionary = own_levels(msae.config)
    active, level = _active(codes[:, :k], chosen, n, levels)
    if of_dictionary:
        level = np.array(levels)[np.searchsorted(levels, chosen + 1)]
    counts = np.asarray(active.sum(axis=0)).ravel().astype(np.int64)
    often = np.flatnonzero(counts >= min_count)
    kept, active, counts = chosen[often], active[:, often], counts[often]
    of_kept = name_columns(concepts, kept.tolist())
    frame = pd.DataFrame({"latent": kept, **of_kept, "level": level[often], "count": counts})

    child, parent, together = _often_together(active, counts, min_parent)
    names = np.array(of_kept["name"], dtype=object)
    edges = pd.DataFrame(
        {
            "parent": kept[parent],
            "parent_name": names[parent],
            "child": kept[child],
            "child_name": names[child],
            "together": together,
            "parent_given_child": together / counts[child],
            "child_given_parent": together / counts[parent],
            "low": wilson_interval(together, counts[child])[0],
            "lift": together / counts[child] / (counts[parent] / len(codes)),
            "parent_count": counts[parent],
        }
    )
    fits = (edges["low"] >= min_parent) & (edges["lift"] >= min_lift) & (edges["child_given_parent"] <= max_child)
    edges = edges[fits]
    edges = edges.sort_values(["child", "parent_count", "parent"]).drop_duplicates("child")  # the rarest parent
    return ConceptHierarchy(frame, edges[_EDGE_COLUMNS].reset_index(drop=True), len(codes), k)


def _often_together(
    active: sparse.csc_matrix, counts: np.ndarray, min_parent: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs in which the parent is active in at least the share `min_parent` of the child's samples.

    They are columns of `active` (N, m), the child's and the parent's, and the samples in which both are active. Of
    thousands of latents nearly all pairs are active together at times, so few children are held at a time.
    """
    found = []
    for start in range(0, active.shape[1], _CHILDREN):
        pairs = (active[:, start : start + _CHILDREN].T @ active).tocoo()
        child, parent = pairs.row + start, pairs.col
        # The lower end of the interval, which decides, lies below the share.
        often = (child != parent) & (pairs.data >= (1 - 1e-9) * min_parent * counts[child])
        found.append((child[often], parent[often], pairs.data[often]))
    return tuple(map(np.concatenate, zip(*found, strict=True))) if found else (np.empty(0, dtype=int),) * 3


def _active(
    codes: SparseCodes, latents: np.ndarray, num_latents: int, levels: Sequence[int]
) -> tuple[sparse.csc_matrix, np.ndarray]:
    """Return which of the latents are active in which samples (N, m), and the level of each latent (m,)."""
    levels = np.array(sorted({min(level, codes.k) for level in levels} | {codes.k}))
    place = np.full(num_latents, -1)
    place[latents] = np.arange(len(latents))
    which = place[codes.indices.numpy()]
    row, rank = np.nonzero((codes.values.numpy() > 0) & (which >= 0))
    column = which[row, rank]
    at_level = np.zeros((len(latents), len(levels)), dtype=np.int64)
    np.add.at(at_level, (column, np.searchsorted(levels, rank + 1)), 1)
    active = sparse.csc_matrix((np.ones(len(row), dtype=np.int64), (row, column)), shape=(len(codes), len(latents)))
    enters = np.cumsum(at_level, axis=1) * 2 >= at_level.sum(axis=1, keepdims=True)
    return active, levels[enters.argmax(axis=1)]
