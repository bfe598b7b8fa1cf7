"""Concepts of a classifier of embeddings: what each latent of an MSAE adds to them, and what their names are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from .._utils.evaluating import evaluation_mode
from ..bias.interventions import latent_directions, latents_to_test
from ..concepts.codes import open_embeddings
from ..concepts.table import ConceptTable, display_names, name_columns
from ..metrics.label_columns import column_labels

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

UNNAMED = "no validated name"
"""The concept of latents without one."""
REMAINDER = "not in the code"
"""The concept of what the latents do not say of an embedding."""
_MOST_LATENTS, _FEWEST_ROWS = 2400, 10
_BATCH = 4096


@dataclass(frozen=True, eq=False)
class ConceptSpace:
    """The columns of X as concepts: activations of latents, followed, for a model of embeddings, by a remainder.

    A model of embeddings x is a function of activations z and of what is left over, r: x = z directions + r. So
    everything that is done to columns, attributing predictions to them, changing them, leaving all but a few out, is
    done to concepts, and nothing that the MSAE does not reconstruct is lost.

    `latents` are those of the first m columns, `directions` what one unit of each adds to an embedding (m, d), None if
    the model is given the latents, and `expected` the names of concepts that predictions may depend on.
    """

    latents: np.ndarray
    table: ConceptTable | None = None
    directions: np.ndarray | None = None
    expected: Collection[str] = field(default=())

    def inputs(self, X: np.ndarray) -> np.ndarray:
        """Return what the model is given."""
        m = len(self.latents)
        return X if self.directions is None else X[:, :m] @ self.directions + X[:, m:]

    @cached_property
    def steps(self) -> np.ndarray:
        """What one unit of each latent adds to what the model is given."""
        return np.eye(len(self.latents)) if self.directions is None else self.directions

    @cached_property
    def names(self) -> pd.DataFrame:
        """The columns latent, name, validated, expected, and concept (what they are called) of the latents."""
        frame = pd.DataFrame({"latent": self.latents, **name_columns(self.table, self.latents.tolist())})
        frame["expected"] = frame["name"].isin(list(self.expected)) & frame["validated"]
        return frame.assign(concept=display_names(frame))

    def features(self) -> pd.DataFrame:
        """Return the feature table."""
        names = self.names
        shown = names["concept"].tolist()
        concepts = names["name"].where(names["validated"], UNNAMED).tolist()
        width = 0 if self.directions is None else self.directions.shape[1]
        table = pd.DataFrame(
            {
                "feature": shown + [f"remainder {i}" for i in range(width)],
                "transformation": ["latent"] * len(shown) + ["remainder"] * width,
                "concept": concepts + [REMAINDER] * width,
            }
        )
        return table.assign(band=np.nan, wavelength=np.nan, level=np.nan)

    def of_same_name(self, place: int) -> np.ndarray:
        """Return the places of the latents with the validated name of the one at `place`, or only this place."""
        names = self.names
        row = names.iloc[place]
        same = (names["name"] == row["name"]) & names["validated"]
        return np.flatnonzero(same) if row["validated"] else np.array([place])

    def tested(self, X: np.ndarray) -> np.ndarray:
        """Return the places of the latents whose effect is tested, as in a bias report."""
        total = np.zeros(1 + self.latents.max())
        total[self.latents] = X[:, : len(self.latents)].sum(axis=0)
        places = np.flatnonzero(np.isin(self.latents, latents_to_test(total, self.table)))
        return places[(X[:, places] > 0).any(axis=0)]


def concept_space(
    msae: MSAEModel, embeddings: EmbeddingDataset, table: ConceptTable | None, expected: Collection[str] = ()
) -> tuple[np.ndarray, ConceptSpace]:
    """Take embeddings apart into latents and a remainder: columns (n, m + d), and the space that they are in.

    Kept are the latents that are active in at least 10 rows, and the 2,400 with the largest activation of these; those
    with a validated name are always kept. The others count as remainder.
    """
    x = embeddings[:]
    embeddings.check_finite(x, range(len(x)))
    total, active = np.zeros(msae.config.num_latents), np.zeros(msae.config.num_latents, dtype=np.int64)
    for codes in _codes(msae, x):
        total += codes.sum(axis=0, dtype=np.float64)
        active += (codes > 0).sum(axis=0)
    total[active < _FEWEST_ROWS] = 0
    kept = np.argsort(-total, kind="stable")[:_MOST_LATENTS]
    kept = kept[total[kept] > 0]
    if table is not None and table.has_q_values:
        kept = np.union1d(kept, table.best_validated()["latent"].to_numpy(np.int64))
    kept = np.sort(kept)
    kept = kept[active[kept] > 0]
    directions = latent_directions(msae)[torch.from_numpy(kept)].double().numpy()
    values = np.concatenate([codes[:, kept].astype(np.float64) for codes in _codes(msae, x)])
    remainder = x.double().numpy() - values @ directions
    return np.concatenate([values, remainder], axis=1), ConceptSpace(kept, table, directions, expected)


def _codes(msae: MSAEModel, x: torch.Tensor) -> Iterator[np.ndarray]:
    """Yield the codes of some rows after the other: all at once, they would be many times larger than the rows."""
    with torch.no_grad(), evaluation_mode(msae):
        for part in x.split(_BATCH):
            yield msae.encode(part.to(msae.device)).float().cpu().numpy()


def read_concepts(
    X: Any, y: Any, groups: Any, features: Any, msae: MSAEModel | None, expected: Collection[str] | None
) -> tuple[Any, Any, Any, pd.DataFrame | None, ConceptSpace | None]:
    """Read what `red_team` is given of a classifier of embeddings or latents.

    Returns X, y, groups and the feature table as for any model, and the space of the concepts, None without concepts.
    """
    table = features if isinstance(features, ConceptTable) else None
    if msae is None and table is None:
        if expected:
            raise ValueError("expected names concepts: pass msae=, or a ConceptTable as features")
        return X, y, groups, features, None
    if msae is None:
        X = np.asarray(X, dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != len(table):
            raise ValueError(f"the table names {len(table)} latents, but X has the shape {X.shape}: pass whole codes")
        space = ConceptSpace(np.arange(len(table)), table, None, tuple(_words_of(y) if expected is None else expected))
        return X, y, groups, space.features(), space
    if features is not None and table is None:
        raise ValueError(f"with msae=, features are a ConceptTable or nothing, got a {type(features).__name__}")
    if table is not None and len(table) != msae.config.num_latents:
        raise ValueError(f"the table names {len(table)} latents, but the MSAE has {msae.config.num_latents}")
    embeddings = open_embeddings(msae, X)
    known = None
    if isinstance(y, str):
        numbers, classes = column_labels(embeddings, y)
        known = np.flatnonzero(numbers >= 0)
        y = pd.Series(pd.Categorical.from_codes(numbers[known], list(classes)), name=y)
    if isinstance(groups, str) or (isinstance(groups, list | tuple) and all(isinstance(each, str) for each in groups)):
        groups = {name: _labels(embeddings, name) for name in ([groups] if isinstance(groups, str) else groups)}
    X, space = concept_space(msae, embeddings, table, tuple(_words_of(y) if expected is None else expected))
    if known is not None and len(known) < len(X):
        X = X[known]
        if groups is not None:
            given = groups if isinstance(groups, Mapping | pd.DataFrame) else {"group": groups}
            groups = {name: np.asarray(labels)[known] for name, labels in given.items()}
    return X, y, groups, space.features(), space


def _labels(embeddings: EmbeddingDataset, column: str) -> np.ndarray:
    numbers, classes = column_labels(embeddings, column)
    return np.append(np.asarray(classes, dtype=object), "none")[numbers].astype(str)


def _words_of(y: Any) -> set[str]:
    """Return the names that a classifier's own concepts may have: those of the column and of the classes."""
    named = {str(y.name)} if isinstance(y, pd.Series) and y.name is not None else set()
    return named | set(np.unique(np.asarray(y).astype(str)).tolist())
