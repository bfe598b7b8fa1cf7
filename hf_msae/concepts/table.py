"""What every latent is called, and on what evidence."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_PROVENANCE = "hf_msae"


@dataclass(frozen=True)
class ConceptTable:
    """Names of latents: one row a latent, in the order of the latents.

    Columns: latent, name, similarity (cosine of the latent's direction and the name's text embedding), runner_up and
    runner_up_similarity (the second-best word). A name is a hypothesis, and the runner-up tells how clear it was.
    `name_latents` adds ratio, p_value and q_value, `with_activation_names` activation_name, activation_score,
    num_active and agrees.

    Attributes:
        frame: the table.
        provenance: how it was made, as far as known; goes into the file and comes back from it.
    """

    frame: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return f"ConceptTable({len(self)} latents, {self.frame['name'].nunique()} distinct names)\n{self.best(10)}"

    def __getitem__(self, key: int | str) -> pd.DataFrame:
        """The row of a latent's number, or the rows of a name, best first.

        Raises:
            KeyError: no such latent, or no latent of that name.
        """
        column = "name" if isinstance(key, str) else "latent"
        rows = self.frame[self.frame[column] == key]
        if rows.empty:
            raise KeyError(f"no latent has the {column} {key!r} in this table of {len(self)} latents")
        return rows.sort_values("similarity", ascending=False)

    def best(self, n: int | None = None) -> pd.DataFrame:
        """The best latent of each name, most similar first; the `n` first of them."""
        ordered = self.frame.sort_values("similarity", ascending=False, kind="stable")
        distinct = ordered.drop_duplicates("name").reset_index(drop=True)
        return distinct if n is None else distinct.head(n)

    def validated(self, q: float = 0.05) -> pd.DataFrame:
        """The latents whose names are more than chance, at this false discovery rate, most similar first.

        Raises:
            ValueError: the table has no q-values, or `q` is no share.
        """
        if not 0 < q <= 1:
            raise ValueError(f"q is a share between 0 and 1, got {q}")
        rows = self.frame[self._column("q_value") <= q]
        return rows.sort_values("similarity", ascending=False, kind="stable")

    def by_rule(self, min_similarity: float = 0.42, min_ratio: float = 2.0) -> pd.DataFrame:
        """The latents that pass fixed thresholds, most similar first.

        These thresholds are told of the MSAE paper, but stand in neither its text nor its code that we could check;
        cosines differ from backbone to backbone, and so should thresholds: prefer `validated`.
        """
        rows = self.frame[(self.frame["similarity"] >= min_similarity) & (self._column("ratio") >= min_ratio)]
        return rows.sort_values("similarity", ascending=False, kind="stable")

    def with_activation_names(self, found: pd.DataFrame) -> ConceptTable:
        """This table with the names of `name_by_activations` beside its own, and whether they agree.

        Raises:
            ValueError: they are names of another number of latents.
        """
        if len(found) != len(self):
            raise ValueError(f"there are activation names of {len(found)} latents, but the table has {len(self)}")
        added = [name for name in found if name != "latent"]
        frame = self.frame.drop(columns=[*added, "agrees"], errors="ignore").merge(found, on="latent", how="left")
        return replace(self, frame=frame.assign(agrees=frame["name"] == frame["activation_name"]))

    def _column(self, name: str) -> pd.Series:
        if name not in self.frame:
            raise ValueError(f"this table has no column {name}: name the latents again with name_latents")
        return self.frame[name]

    def to_pandas(self) -> pd.DataFrame:
        """A copy as a DataFrame."""
        return self.frame.copy()

    def save(self, path: str | os.PathLike) -> None:
        """Write the table as parquet."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.tmp")
        frame = self.frame.copy(deep=False)
        frame.attrs = {_PROVENANCE: self.provenance}  # pandas writes them into the file's metadata
        frame.to_parquet(unfinished, index=False)
        os.replace(unfinished, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> ConceptTable:
        """Read a table that `save` wrote."""
        frame = pd.read_parquet(path)
        missing = {"latent", "name", "similarity", "runner_up", "runner_up_similarity"} - set(frame.columns)
        if missing:
            raise ValueError(f"{path} is no concept table: it has no column {', '.join(sorted(missing))}")
        provenance = frame.attrs.pop(_PROVENANCE, {})
        return cls(frame, provenance)

    @classmethod
    def from_columns(
        cls,
        names: list[str],
        similarity: np.ndarray,
        runner_up: list[str | None],
        second: np.ndarray,
        **further: np.ndarray,
    ) -> ConceptTable:
        """Build a table from one entry a latent."""
        frame = pd.DataFrame(
            {
                "latent": np.arange(len(names)),
                "name": names,
                "similarity": np.asarray(similarity, np.float64),
                "runner_up": runner_up,
                "runner_up_similarity": np.asarray(second, np.float64),
                **{name: np.asarray(values, np.float64) for name, values in further.items()},
            }
        )
        return cls(frame)
