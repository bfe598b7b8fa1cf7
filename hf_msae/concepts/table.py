"""The names of the latents, and the evidence for each."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .._utils.atomic import atomic_path, make_folder
from .._utils.wording import marked, with_number
from .table_values import check_values
from .validation import MAX_Q, doubts

_PROVENANCE = "hf_msae"
_REQUIRED = ("latent", "name", "similarity", "runner_up", "runner_up_similarity")
_EVIDENCE = ("p_value", "q_value", "validated")
_STRENGTH = {"labels": "auroc_low", "pictures": "agreement", "directions": "similarity"}
"""What names are based on -> the column that says how strong the evidence is."""


@dataclass(frozen=True)
class ConceptTable:
    """Names of latents: one row per latent, in the order of the latents.

    Columns: latent, name, similarity (cosine of the latent's direction and the name's text embedding), runner_up and
    runner_up_similarity (the second-best word). A name is a hypothesis; the runner-up shows how clear the choice was.
    `name_latents` adds ratio, p_value and q_value. With pictures, name and runner_up are those of `name_by_agreement`,
    whose figures are added, the name by direction alone is kept as direction_name, direction_similarity and
    direction_q_value, and `with_activation_names` adds activation_name, activation_score, num_active and agrees.
    A table of `name_by_labels` has auroc, auroc_low and auroc_high instead, and no similarities.

    Attributes:
        frame: The table.
        provenance: How the table was made, as far as known. It is saved with the table.
    """

    frame: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.frame, pd.DataFrame):
            raise TypeError(
                f"a ConceptTable is made of a DataFrame, got {type(self.frame).__name__}: load reads a file"
            )
        missing = [column for column in ("latent", "name") if column not in self.frame]
        if not set(_STRENGTH.values()) & set(self.frame):
            missing.append("similarity, by which the best latent of a name is found")
        if missing:
            raise ValueError(f"a ConceptTable needs more columns than {list(self.frame)}: {', '.join(missing)}")

    def __len__(self) -> int:
        return len(self.frame)

    def __contains__(self, key: int | str) -> bool:
        """Return whether the table has this latent, or a latent of this name."""
        return bool((self.frame["name" if isinstance(key, str) else "latent"] == key).any())

    __iter__ = None  # Python would ask for the latents 0, 1, ... until there is none; use `frame.itertuples()`

    def __repr__(self) -> str:
        best = self.best(10)
        best = best.assign(validated=doubts(best).isna())
        title = f"ConceptTable({len(self)} latents, {self.frame['name'].nunique()} distinct names)"
        return f"{title}\n{to_text(best, '{:.3f}')}"

    def __getitem__(self, key: int | str) -> pd.DataFrame:
        """Return the row of a latent, or the rows of a name, best first.

        Raises:
            KeyError: There is no such latent, or no latent of that name.
        """
        column = "name" if isinstance(key, str) else "latent"
        rows = self.frame[self.frame[column] == key]
        if rows.empty:
            raise KeyError(f"no latent has the {column} {key!r} in this table of {len(self)} latents")
        return _strongest_first(rows)

    def latent_of(self, name: str) -> int:
        """Return the latent whose evidence for this name is strongest.

        Raises:
            ValueError: No latent has this name; the message has similar names, or the best ones.
        """
        try:
            return int(self[name]["latent"].iloc[0])
        except KeyError:
            names = self.best()["name"].tolist()
            near = difflib.get_close_matches(name, names, n=3)
            hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"names are {', '.join(names[:5])}, ..."
            raise ValueError(
                f"no latent is named {name!r}; {hint} (`hf-msae demo` and ConceptTable.best() list all {len(names)})"
            ) from None

    def best(self, n: int | None = None) -> pd.DataFrame:
        """Return the best latent of each name, strongest first; only the first `n` if given."""
        return _best_of_each_name(_strongest_first(self.frame), n)

    @property
    def evidence(self) -> str:
        """What the names are based on: "labels", "pictures" or "directions"."""
        return next(kind for kind, column in _STRENGTH.items() if column in self.frame)

    @property
    def strength(self) -> pd.Series:
        """How strong the evidence for the name of each latent is; comparable within a table only."""
        return self.frame[_STRENGTH[self.evidence]]

    @property
    def has_q_values(self) -> bool:
        """Whether the names have been tested, so that they can be validated."""
        return "q_value" in self.frame

    def validated(self, q: float = MAX_Q) -> pd.DataFrame:
        """Return the latents whose names are validated at this false discovery rate, strongest first.

        A name is validated if its q-value is at most `q` and, where it has evidence from pictures or labels, the
        lower end of its AUROC's interval is at least 0.9.

        Raises:
            ValueError: The table has no q-values, or `q` is not between 0 and 1.
        """
        if not 0 < q <= 1:
            raise ValueError(f"q must lie between 0 and 1, got {q}")
        self._column("q_value")
        return _strongest_first(self.frame[doubts(self.frame, q).isna()])

    def best_validated(self, q: float = MAX_Q, n: int | None = None) -> pd.DataFrame:
        """Return the best latent of each validated name, strongest first; only the first `n` if given.

        Raises:
            ValueError: As `validated`.
        """
        return _best_of_each_name(self.validated(q), n)

    def best_available(self, q: float = MAX_Q) -> tuple[pd.DataFrame, bool]:
        """Return `best_validated` and True, or `best` and False if no name is validated or none was tested."""
        found = self.best_validated(q) if self.has_q_values else self.frame[:0]
        return (self.best(), False) if found.empty else (found, True)

    def by_rule(self, min_similarity: float = 0.42, min_ratio: float = 2.0) -> pd.DataFrame:
        """Return the latents that pass fixed thresholds, strongest first.

        Prefer `validated`: cosines differ between backbones, and so should thresholds. The defaults are attributed to
        the MSAE paper, but neither its text nor its code contains them.
        """
        return _strongest_first(
            self.frame[(self.frame["similarity"] >= min_similarity) & (self._column("ratio") >= min_ratio)]
        )

    def with_activation_names(self, found: pd.DataFrame) -> ConceptTable:
        """Add the names found by `name_by_activations`, and whether the two names agree.

        Raises:
            ValueError: `found` has another number of latents.
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
        """Return a copy of the table with the columns in a fixed order.

        The first are latent, name, similarity, runner_up, runner_up_similarity, p_value, q_value and validated:
        whether q_value is at most 0.05 and, for names with evidence from pictures or labels, zero_shot_auroc_low or
        auroc_low at least 0.9; False where there is no q-value. All others follow.
        """
        frame = self.frame.copy()
        for column in ("p_value", "q_value"):
            if column not in frame:
                frame[column] = np.nan
        frame["validated"] = doubts(frame).isna()
        first = [*_REQUIRED, *_EVIDENCE]
        return frame[[*first, *(column for column in frame if column not in first)]]

    def save(self, path: str | os.PathLike) -> None:
        """Write the table as parquet."""
        path = Path(path)
        make_folder(path.parent)
        frame = self.frame.copy(deep=False)
        frame.attrs = {_PROVENANCE: self.provenance}  # pandas writes them into the file's metadata
        with atomic_path(path) as temporary:
            frame.to_parquet(temporary, index=False)

    @classmethod
    def load(cls, path: str | os.PathLike) -> ConceptTable:
        """Read a table that `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a concept table, or a value in it is not what its column has to hold.
        """
        try:
            frame = pd.read_parquet(path)
        except (ValueError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{path} cannot be read as parquet: {' '.join(str(error).split())}") from error
        missing = [column for column in _REQUIRED if column not in frame]
        if missing:
            raise ValueError(f"{path} is not a concept table: it has no column {', '.join(missing)}")
        check_values(frame, path)
        provenance = frame.attrs.pop(_PROVENANCE, {})
        return cls(frame, provenance if isinstance(provenance, dict) else {})

    @classmethod
    def from_columns(
        cls,
        names: Sequence[str | None],
        similarity: np.ndarray,
        runner_up: Sequence[str | None],
        runner_up_similarity: np.ndarray,
        **further: np.ndarray,
    ) -> ConceptTable:
        """Build a table from columns with one entry per latent."""
        numbers = {"runner_up_similarity": runner_up_similarity, **further}
        frame = pd.DataFrame(
            {
                "latent": np.arange(len(names)),
                "name": names,
                "similarity": np.asarray(similarity, np.float64),
                "runner_up": runner_up,
                **{name: np.asarray(values, np.float64) for name, values in numbers.items()},
            }
        )
        return cls(frame)


def check_table(concepts: Any) -> None:
    """Raise TypeError unless `concepts` are a ConceptTable or None."""
    if not isinstance(concepts, ConceptTable | None):
        raise TypeError(
            f"concepts must be a ConceptTable, got {type(concepts).__name__}: ConceptTable.load(path) reads one, and "
            "ConceptTable(frame) makes one of a DataFrame"
        )


def name_columns(concepts: ConceptTable | None, latents: Sequence[int]) -> dict[str, list]:
    """Return the columns name and validated of some latents; None and False for those that a table, or none, lacks."""
    check_table(concepts)
    if concepts is None:
        return {"name": [None] * len(latents), "validated": [False] * len(latents)}
    rows = concepts.frame.set_index("latent").reindex(list(latents))  # of a part of a table, some may be missing
    names = [None if pd.isna(name) else name for name in rows["name"]]
    return {"name": names, "validated": doubts(rows).isna().tolist()}


def display_name(name: str | None, latent: int, validated: bool = True) -> str:
    """Return a latent's name and number, for figures and text; a name that is not validated is marked."""
    return with_number("latent" if pd.isna(name) else marked(str(name), validated), latent)


def display_names(frame: pd.DataFrame, prefix: str = "") -> list[str]:
    """Return `display_name` of every row of a table with the columns latent, name and (in newer ones) validated."""
    validated = frame.get(f"{prefix}validated", pd.Series(True, frame.index))
    columns = frame[f"{prefix}name"], frame[f"{prefix}latent"], validated
    return [display_name(*row) for row in zip(*columns, strict=True)]


def to_text(frame: pd.DataFrame, float_format: str, columns: Sequence[str] | None = None) -> str:
    """Write a table of latents as text: names that are not validated are marked, an empty column is left out."""
    frame = frame.copy() if columns is None else frame[[each for each in columns if each in frame]].copy()
    for name in ("name", "other_name"):
        validated = (
            frame.pop(name.replace("name", "validated")) if name.replace("name", "validated") in frame else None
        )
        if name not in frame:
            continue
        if frame[name].isna().all():
            del frame[name]
        elif validated is not None:
            pairs = zip(frame[name], validated, strict=True)
            frame[name] = ["" if pd.isna(each) else marked(str(each), sure) for each, sure in pairs]
    return frame.to_string(index=False, float_format=float_format.format)


def _strongest_first(rows: pd.DataFrame) -> pd.DataFrame:
    by = next(column for column in _STRENGTH.values() if column in rows)
    return rows.sort_values(by, ascending=False, kind="stable")


def _best_of_each_name(ordered: pd.DataFrame, n: int | None) -> pd.DataFrame:
    distinct = ordered[ordered["name"].notna()].drop_duplicates("name").reset_index(drop=True)
    return distinct if n is None else distinct.head(n)
