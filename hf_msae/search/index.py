"""Search a data set by example, by concepts, and by example with some concepts changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .._utils.evaluating import evaluation_mode
from .._utils.fingerprint import accepted_fingerprints
from ..concepts.editing import LatentEdit, edit_embeddings, latent_of
from ..concepts.table import names_of
from ..embeddings import EmbeddingDataset, load_embeddings
from .approximate import ApproximateIndex
from .files import INDEX_FILE, IndexMetadata, Segment, encoded, segment_folder, typical_activations, write_segment
from .ranking import best_rows, rank_changes

if TYPE_CHECKING:
    from ..concepts.table import ConceptTable
    from ..model.modeling_msae import MSAEModel

_SEGMENT_ROWS = 2**18
_CHECKED_ROWS = 16  # of each segment, when an index is opened
_ONE_THREAD = 2**15 - 1  # numbers that torch copies without sharing the work, which on a busy machine takes far longer


class ConceptIndex:
    """The sparse codes of a data set, ready to be searched: exactly, or where asked for approximately.

    Embeddings stay where they are, and are read from there; codes are kept with their k largest activations, by row
    and by latent, in files that are mapped into memory.

    Args:
        folder: that `build` has written.
        msae: the MSAE it was built with.
        acts: the embeddings it was built of.
        concepts: names of the latents.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: it is damaged, of another MSAE, or of other embeddings; says what differs.

    Example:
        >>> index = ConceptIndex.build("index", msae, "embeddings/train", concepts=table)
        >>> index.by_concepts({"red": 1.0, "star": 1.0, "night": -0.5})
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        msae: MSAEModel,
        acts: EmbeddingDataset | str | os.PathLike,
        concepts: ConceptTable | None = None,
    ) -> None:
        self.folder = Path(folder).expanduser()
        self.msae, self.concepts = msae.eval(), concepts
        self.acts = acts if isinstance(acts, EmbeddingDataset) else load_embeddings(acts)
        self._metadata = IndexMetadata.load(self.folder)
        if self._metadata.msae_sha256 not in accepted_fingerprints(msae):
            raise ValueError(f"{self.folder} is an index of codes of another MSAE: build one of this")
        if len(self) > len(self.acts):
            raise ValueError(
                f"{self.folder} is an index of {len(self)} rows, but {self.acts.source} has {len(self.acts)}: "
                "delete it to build it anew"
            )
        numbers = range(len(self._metadata.segments))
        self._segments = [Segment(segment_folder(self.folder, number)) for number in numbers]
        self._starts = np.cumsum([0, *self._metadata.segments])
        self._check_embeddings()
        self._lengths = np.maximum(np.concatenate([segment.lengths for segment in self._segments]), 1e-12)
        self._approximate: ApproximateIndex | None = None
        self._typical = typical_activations(self._segments, self._metadata.num_latents)

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike,
        msae: MSAEModel,
        acts: EmbeddingDataset | str | os.PathLike,
        k: int = 32,
        concepts: ConceptTable | None = None,
        batch_size: int = 4096,
        progress: bool = True,
        approximate: bool = False,
    ) -> ConceptIndex:
        """Build an index, or go on with one: rows that are in it already are left as they are.

        So an interrupted build continues where it was, and rows that were appended to the embeddings are added.

        Args:
            folder: where; made if it is not there.
            msae: the MSAE.
            acts: raw embeddings, or anything `load_embeddings` accepts.
            k: activations kept of each row.
            concepts: names of the latents.
            batch_size: rows encoded at a time.
            progress: show a progress bar.
            approximate: then `add_approximate`, for approximate searches too.

        Raises:
            ValueError: the folder holds an index of another MSAE or k, or the widths differ.
        """
        folder = Path(folder).expanduser()
        acts = acts if isinstance(acts, EmbeddingDataset) else load_embeddings(acts)
        config = msae.config
        if acts.width != config.d_in:
            raise ValueError(f"{acts.source} has {acts.width} columns, but this MSAE takes {config.d_in}")
        if not 1 <= k <= config.num_latents:
            raise ValueError(f"k must be between 1 and num_latents={config.num_latents}, got {k}")
        fingerprints = accepted_fingerprints(msae)
        wanted = IndexMetadata(fingerprints[0], config.num_latents, config.d_in, k)
        if (folder / INDEX_FILE).is_file():
            found = IndexMetadata.load(folder)
            if found.msae_sha256 in fingerprints:
                found.msae_sha256 = fingerprints[0]
            for what in ("msae_sha256", "k"):
                if getattr(found, what) != getattr(wanted, what):
                    raise ValueError(
                        f"{folder} is an index with another {what} ({getattr(found, what)}, not "
                        f"{getattr(wanted, what)}): choose another folder"
                    )
            wanted = found
        folder.mkdir(parents=True, exist_ok=True)
        done = sum(wanted.segments)
        bar = tqdm(total=len(acts), initial=done, desc="indexing", unit="row", disable=not progress)
        with bar, evaluation_mode(msae):
            while done < len(acts):
                rows = range(done, min(done + _SEGMENT_ROWS, len(acts)))
                target = segment_folder(folder, len(wanted.segments))
                write_segment(target, *encoded(msae, acts, rows, k, batch_size, bar), config.num_latents)
                wanted.segments.append(len(rows))
                wanted.save(folder)
                done = rows.stop
        wanted.save(folder)
        index = cls(folder, msae, acts, concepts)
        if approximate:
            index.add_approximate(progress=progress)
        return index

    def add_approximate(self, lists: int | None = None, seed: int | None = None, progress: bool = True) -> None:
        """Build an approximate index beside the exact one, or go on with one: add the rows that it lacks.

        Args, and what is raised: as for `ApproximateIndex.extend`.
        """
        ApproximateIndex.extend(self.folder / "approximate", self.acts, self._segments, lists, seed, progress)
        self._approximate = None

    @property
    def approximate(self) -> ApproximateIndex:
        """What finds candidates in approximate searches; opened when it is first asked for."""
        if self._approximate is None:
            self._approximate = ApproximateIndex(self.folder / "approximate", self._metadata.width, self._segments)
        return self._approximate

    def __len__(self) -> int:
        return sum(self._metadata.segments)

    def __repr__(self) -> str:
        return f"ConceptIndex({str(self.folder)!r}, {len(self)} rows of {self.acts.source}, k={self._metadata.k})"

    # -- queries -------------------------------------------------------------------------------------------------

    def by_embedding(self, embedding: torch.Tensor, top: int = 10, approximate: bool = False) -> pd.DataFrame:
        """The rows of highest cosine with a raw embedding (d,), of an image or text: row, similarity.

        Approximately, a few of them may be missing and others stand in for them; similarities are exact all the same.
        """
        query = self._query(embedding)
        rows = self.approximate.candidates(query, top) if approximate else None
        return _best(self._cosines(query, rows), top, "similarity", rows)

    def by_concepts(self, concepts: Mapping[int | str, float], top: int = 10) -> pd.DataFrame:
        """The rows in which concepts are active: row, score.

        Args:
            concepts: latents, or names of some, and their weights; negative ones keep out.
            top: how many rows.

        Returns:
            Its score is the sum of weight times activation, each activation relative to what it is on average where
            the latent is active at all: "red" and "night" count alike though one of them be stronger by nature.

        Raises:
            ValueError: an unknown name or latent.
        """
        if not concepts:
            raise ValueError("there is nothing to search for: give concepts and weights")
        for key, weight in concepts.items():
            if not np.isfinite(weight):
                raise ValueError(f"the weight of {key!r} is {weight}, but has to be a finite number")
        scores = np.zeros(len(self), dtype=np.float32)
        for key, weight in concepts.items():
            latent = latent_of(key, self._metadata.num_latents, self.concepts)
            for start, segment in zip(self._starts, self._segments, strict=False):
                rows, values = segment.active(latent)
                scores[start + rows] += np.float32(weight / self._typical[latent]) * values  # each row once
        return _best(scores, top, "score")

    def by_edit(
        self,
        embedding: torch.Tensor,
        edits: Mapping[int | str, float],
        mode: str = "scale",
        top: int = 10,
        approximate: bool = False,
    ) -> pd.DataFrame:
        """What is like an embedding if some of its concepts were others ("like this, more striped, less red").

        Args:
            embedding: raw, (d,).
            edits: as for `VisionTextMSAE.edit`: latents or names, and values.
            mode: "scale", "set" or "add".
            top: how many rows.
            approximate: rank only the rows that an approximate search finds for the edited embedding or the one
                before, ten times `top` of each but at least 500. Similarities are exact; a rank is the place among
                these rows, so never beyond the exact one, and NA if it is beyond the number found of that embedding.

        Returns:
            Rows by the edited embedding, with those that it has driven out of the best `top` below: row, similarity,
            similarity_before, rank, rank_before (from 1), and rank_change (positive: has come up).
        """
        edit = LatentEdit.of(edits, self._metadata.num_latents, self.concepts, mode)
        changed = edit_embeddings(self.msae, embedding[None].to(self.msae.device), [edit])
        before = self._query(embedding)
        after = before if changed is None else self._query(changed[0])
        if not approximate:
            cosines = self._cosines(before)
            return rank_changes(cosines if after is before else self._cosines(after), cosines, top)
        found = [self.approximate.candidates(query, top) for query in (after, before)]
        rows = np.union1d(*found)
        cosines = [self._cosines(query, rows) for query in (after, before)]
        table = rank_changes(*cosines, top, known=[len(each) for each in found])
        return table.assign(row=rows[table["row"]])

    def code(self, row: int) -> pd.DataFrame:
        """The concepts of a row that the index keeps, strongest first: latent, name, activation."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} is out of range: the index has {len(self)} rows")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        segment, place = self._segments[number], row - int(self._starts[number])
        active = segment.values[place] > 0
        latents = segment.latents[place][active].astype(np.int64)
        frame = pd.DataFrame({"latent": latents, "name": names_of(self.concepts, latents.tolist())})
        return frame.assign(activation=segment.values[place][active].astype(np.float32))

    def shared(self, row: int, other: int) -> pd.DataFrame:
        """The concepts that two rows share, those first of which the weaker activation is strongest."""
        both = self.code(row).merge(self.code(other).drop(columns="name"), on="latent", suffixes=("", "_other"))
        weaker = both[["activation", "activation_other"]].min(axis=1)
        return both.loc[weaker.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _query(self, embedding: torch.Tensor) -> torch.Tensor:
        """The direction of an embedding."""
        if embedding.shape != (self._metadata.width,):
            raise ValueError(f"an embedding has shape ({self._metadata.width},), got {tuple(embedding.shape)}")
        query = torch.nn.functional.normalize(embedding.detach().float().cpu(), dim=0)
        if not query.any():
            raise ValueError("the embedding is zero: it has no direction to compare")
        return query

    def _cosines(self, query: torch.Tensor, rows: np.ndarray | None = None) -> np.ndarray:
        """With these rows, or every row of the index, (rows,): one product with the embeddings where they lie."""
        if rows is not None:
            few = max(1, _ONE_THREAD // self._metadata.width)
            parts = [self.acts[rows[first : first + few]] @ query for first in range(0, len(rows), few)]
            return torch.cat(parts).numpy() / self._lengths[rows]
        cosines = np.empty(len(self), dtype=np.float32)
        first = 0
        for block in self.acts.blocks():
            number = min(len(block), len(self) - first)
            if number <= 0:
                break
            cosines[first : first + number] = (block[:number] @ query).numpy()
            first += number
        return cosines / self._lengths

    def _check_embeddings(self) -> None:
        """Whether the embeddings are those that were indexed, as far as some of them tell."""
        for start, segment in zip(self._starts, self._segments, strict=False):
            places = np.unique(np.linspace(0, len(segment.lengths) - 1, _CHECKED_ROWS).astype(np.int64))
            x = self.acts[places + int(start)]
            with torch.no_grad():
                values = self.msae.encode_topk(x.to(self.msae.device), self._metadata.k)[0].float().cpu().numpy()
            lengths, stored = torch.linalg.vector_norm(x, dim=1).numpy(), segment.values[places].astype(np.float32)
            same = np.isclose(lengths, segment.lengths[places], rtol=1e-5)
            # Half precision, and the last bits of products, which depend on how many rows are encoded at a time.
            same &= np.isclose(values, stored, rtol=5e-3, atol=1e-2 * max(1e-6, stored.max())).all(axis=1)
            if not same.all():
                raise ValueError(
                    f"{self.folder} is an index of other embeddings: row {start + places[~same][0]} of "
                    f"{self.acts.source} is not the one that was indexed; delete {self.folder} to build it anew"
                )


def _best(scores: np.ndarray, top: int, name: str, rows: np.ndarray | None = None) -> pd.DataFrame:
    places = best_rows(scores, top)
    return pd.DataFrame({"row": places if rows is None else rows[places], name: scores[places]})
