"""Which concepts are part of which: parents and children by what is active together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.stats import binomtest
from tqdm.auto import tqdm

from .explanation import names_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel
    from .table import ConceptTable


@dataclass(frozen=True)
class ConceptHierarchy:
    """What `concept_hierarchy` found.

    Attributes:
        concepts: one row a latent that is active often enough: latent, name, level, count (samples it is active in).
        edges: one row a child: parent, parent_name, child, child_name, together (samples in which both are active),
            parent_given_child and child_given_parent (shares), low (lower end of the 95% confidence interval of
            parent_given_child), lift (parent_given_child by the parent's share of all samples).
        num_samples: of the data.
        k: activations of each code.
    """

    concepts: pd.DataFrame
    edges: pd.DataFrame
    num_samples: int
    k: int

    def children(self, parent: int | None = None) -> list[int]:
        """The children of a latent, most frequent first; without one the concepts that have no parent but children."""
        count = self.concepts.set_index("latent")["count"]
        if parent is None:
            found = set(self.edges["parent"]) - set(self.edges["child"])
        else:
            found = set(self.edges.loc[self.edges["parent"] == parent, "child"])
        return sorted(found, key=lambda latent: (-count[latent], latent))

    def __str__(self) -> str:
        head = f"{len(self.edges)} of {len(self.concepts)} concepts have a parent"
        lines = [self._line(latent, depth) for latent, depth in self._order()]
        return "\n".join([f"{head} ({self.num_samples} samples, k={self.k})", *lines])

    def plot(self, title: str | None = None) -> Figure:
        """The trees, each concept under its parent, with how sure that is."""
        from ..plotting import plot_tree

        shown = self.edges.set_index("child")
        rows = [
            (self._name(latent), depth, float(shown.loc[latent, "parent_given_child"]) if depth else None)
            for latent, depth in self._order()
        ]
        return plot_tree(rows, title or f"Concepts by what is active together (k={self.k})")

    def _order(self) -> list[tuple[int, int]]:
        """(latent, depth) of the trees, parents before their children."""
        found: list[tuple[int, int]] = []
        waiting = [(latent, 0) for latent in reversed(self.children())]
        while waiting:
            latent, depth = waiting.pop()
            found.append((latent, depth))
            waiting += [(child, depth + 1) for child in reversed(self.children(latent))]
        return found

    def _name(self, latent: int) -> str:
        name = self.concepts.set_index("latent").loc[latent, "name"]
        return f"{'latent' if name is None or pd.isna(name) else name} · {latent}"

    def _line(self, latent: int, depth: int) -> str:
        if not depth:
            return f"{self._name(latent)} ({self.concepts.set_index('latent').loc[latent, 'count']})"
        edge = self.edges.set_index("child").loc[latent]
        return (
            f"{'   ' * depth}{self._name(latent)}: in {edge['parent_given_child']:.0%} of {edge['together']} with its "
            f"parent, at least {edge['low']:.0%}"
        )


def concept_hierarchy(
    msae: MSAEModel,
    acts: EmbeddingDataset,
    concepts: ConceptTable | None = None,
    latents: Sequence[int] | None = None,
    k: int = 32,
    min_parent: float = 0.9,
    max_child: float = 0.5,
    min_lift: float = 2.0,
    min_count: int = 20,
    batch_size: int = 4096,
    progress: bool = True,
) -> ConceptHierarchy:
    """Parents and children: a concept's parent is active nearly whenever the concept is, and often without it.

    Args:
        msae: the MSAE.
        acts: its embeddings.
        concepts: names of its latents.
        latents: those to look at, e.g. `table.validated()["latent"]`; by default all.
        k: activations of each code. Of full codes nearly everything is active with everything.
        min_parent: lowest share of the child's samples in which the parent is active; the lower end of its 95%
            confidence interval has to reach it.
        max_child: highest share of the parent's samples in which the child is active.
        min_lift: how many times as often as anywhere the parent has to be active with the child: what is always active
            is the parent of nothing.
        min_count: samples that a concept has to be active in.
        batch_size: samples encoded at a time.
        progress: show a progress bar.

    Returns:
        Of several parents a concept has the rarest, the most specific one; so the edges make trees. The `level` of a
        concept is the smallest of the MSAE's levels whose code has it in at least half of the samples in which it is
        active.

    Raises:
        ValueError: a latent or k out of range, or shares that make no sense.
    """
    n = msae.config.num_latents
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and num_latents={n}, got {k}")
    if not (0 < min_parent < 1 and 0 < max_child <= 1):
        raise ValueError(f"min_parent and max_child are shares, got {min_parent} and {max_child}")
    chosen = np.arange(n) if latents is None else np.unique(np.asarray(list(latents), dtype=np.int64))
    if len(chosen) and not 0 <= chosen[0] <= chosen[-1] < n:
        raise ValueError(f"latents are numbers from 0 to {n - 1}, got {chosen[0] if chosen[0] < 0 else chosen[-1]}")
    active, level = _active(msae, acts, chosen, k, batch_size, progress)
    counts = np.asarray(active.sum(axis=0)).ravel().astype(np.int64)
    often = np.flatnonzero(counts >= min_count)
    names = names_of(concepts, chosen[often].tolist())
    frame = pd.DataFrame({"latent": chosen[often], "name": names, "level": level[often], "count": counts[often]})
    together = (active[:, often].T @ active[:, often]).tocoo()
    records = {}
    for child, parent, number in sorted(zip(together.row, together.col, together.data, strict=True)):
        of_child, of_parent = counts[often[child]], counts[often[parent]]
        share = number / of_child
        if child == parent or share < min_parent or number / of_parent > max_child:
            continue
        lift = share / (of_parent / len(acts))
        low = binomtest(int(number), int(of_child)).proportion_ci(method="wilson").low
        rarest = records.get(child, {"of_parent": np.inf})["of_parent"]
        if lift >= min_lift and low >= min_parent and of_parent < rarest:
            records[child] = {
                "of_parent": of_parent,
                "parent": int(chosen[often[parent]]),
                "parent_name": names[parent],
                "child": int(chosen[often[child]]),
                "child_name": names[child],
                "together": int(number),
                "parent_given_child": float(share),
                "child_given_parent": float(number / of_parent),
                "low": float(low),
                "lift": float(lift),
            }
    columns = ["parent", "parent_name", "child", "child_name", "together"]
    columns += ["parent_given_child", "child_given_parent", "low", "lift"]
    return ConceptHierarchy(frame, pd.DataFrame(list(records.values()), columns=columns), len(acts), k)


@torch.no_grad()
def _active(
    msae: MSAEModel, acts: EmbeddingDataset, latents: np.ndarray, k: int, batch_size: int, progress: bool
) -> tuple[sparse.csc_matrix, np.ndarray]:
    """Which of the latents are active in which samples (N, m), and the level of each latent (m,)."""
    n = msae.config.num_latents
    levels = np.array(sorted({min(level, k) for level in msae.config.nesting_ks} | {k}))
    place = np.full(n, -1)
    place[latents] = np.arange(len(latents))
    at_level = np.zeros((len(latents), len(levels)), dtype=np.int64)
    rows, columns, first = [], [], 0
    was_training = msae.training
    msae.eval()
    with tqdm(total=len(acts), desc="active together", unit="row", disable=not progress) as bar:
        for x in acts.batches(batch_size):
            values, whose = (each.cpu().numpy() for each in msae.encode_topk(x.to(msae.device), k))
            which = place[whose]
            row, rank = np.nonzero((values > 0) & (which >= 0))
            rows.append(row + first)
            columns.append(which[row, rank])
            np.add.at(at_level, (columns[-1], np.searchsorted(levels, rank + 1)), 1)
            first += len(x)
            bar.update(len(x))
    msae.train(was_training)
    row, column = np.concatenate(rows), np.concatenate(columns)
    active = sparse.csc_matrix((np.ones(len(row), dtype=np.int64), (row, column)), shape=(len(acts), len(latents)))
    enters = np.cumsum(at_level, axis=1) * 2 >= at_level.sum(axis=1, keepdims=True)
    return active, levels[enters.argmax(axis=1)]
