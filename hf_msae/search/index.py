"""Search a dataset by example, by concepts, and by example with some concepts changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from transformers.utils import logging

from .._utils.checks import check_integers
from .._utils.deprecation import renamed_arguments, warn_renamed
from .._utils.fingerprint import accepted_fingerprints
from .._utils.tensors import as_tensor
from ..concepts.codes import Embeddings, collect_codes, open_embeddings
from ..concepts.collectors import RowCollector, SparseCodes, SparseCollector
from ..concepts.editing import LatentEdit, edit_embeddings, pairs_of, values_of_latents
from ..concepts.table import ConceptTable, check_table, name_columns
from ..model.checks import check_k
from .approximate import ApproximateIndex
from .files import (
    REBUILD,
    IndexMetadata,
    Segment,
    claimed_folder,
    lengths_of,
    segment_folder,
    typical_activations,
    write_segment,
)
from .ranking import best_table, rank_changes

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

logger = logging.get_logger(__name__)

_SEGMENT_ROWS = 2**18
_CHECKED_ROWS = 16  # of each segment, when an index is opened
_ONE_THREAD = 2**15 - 1  # torch copies this many numbers in one thread; on a busy machine several take far longer


class ConceptIndex:
    """The sparse codes of a dataset, ready to be searched, exactly or approximately.

    The embeddings stay where they are and are read from there. Of each code the k largest activations are kept, by row
    and by latent, in memory-mapped files.

    Args:
        folder: Folder written by `build`.
        msae: The MSAE that the index was built with.
        embeddings: The embeddings that were indexed; anything `load_embeddings` accepts.
        concepts: Names of the latents.

    Raises:
        FileNotFoundError: There is no index.
        ValueError: The index is damaged, or belongs to another MSAE or other embeddings.

    Example:
        >>> index = ConceptIndex.build("index", msae, "embeddings/train", concepts=table)
        >>> index.by_concepts({"red": 1.0, "star": 1.0, "night": -0.5})
    """

    @renamed_arguments(acts="embeddings")
    def __init__(
        self,
        folder: str | os.PathLike,
        msae: MSAEModel,
        embeddings: Embeddings,
        concepts: ConceptTable | None = None,
    ) -> None:
        self._open(folder, msae, embeddings, concepts)
        if len(self) < len(self.embeddings):
            logger.warning(
                f"{self.folder} holds {len(self)} of the {len(self.embeddings)} rows of {self.embeddings.source}, and "
                "others are not found: ConceptIndex.build adds them"
            )

    def _open(
        self, folder: str | os.PathLike, msae: MSAEModel, embeddings: Embeddings, concepts: ConceptTable | None
    ) -> None:
        check_table(concepts)
        self.folder = Path(folder).expanduser()
        self.msae, self.concepts = msae.eval(), concepts
        self.embeddings = open_embeddings(msae, embeddings)
        self._metadata = IndexMetadata.load(self.folder)
        if self._metadata.msae_sha256 not in accepted_fingerprints(msae):
            raise ValueError(f"{self.folder} was built with another MSAE: build an index with this one")
        if len(self) > len(self.embeddings):
            raise ValueError(
                f"{self.folder} has {len(self)} rows, but {self.embeddings.source} has {len(self.embeddings)}: "
                f"{REBUILD}"
            )
        if not self._metadata.segments:
            raise ValueError(f"{self.folder} has no rows: its build was interrupted, call ConceptIndex.build again")
        self._segments = [
            Segment(segment_folder(self.folder, number), rows, self._metadata)
            for number, rows in enumerate(self._metadata.segments)
        ]
        self._starts = np.cumsum([0, *self._metadata.segments])
        self._check_embeddings()
        self._lengths = np.maximum(np.concatenate([segment.lengths for segment in self._segments]), 1e-12)
        self._approximate: ApproximateIndex | None = None
        self._typical = typical_activations(self._segments, self._metadata.num_latents)

    @property
    def acts(self) -> EmbeddingDataset:
        """The old name of `embeddings`."""
        warn_renamed("ConceptIndex.acts", "ConceptIndex.embeddings")
        return self.embeddings

    @classmethod
    @renamed_arguments(acts="embeddings")
    def build(
        cls,
        folder: str | os.PathLike,
        msae: MSAEModel,
        embeddings: Embeddings,
        k: int = 32,
        concepts: ConceptTable | None = None,
        batch_size: int = 4096,
        progress: bool = True,
        approximate: bool = False,
        codes: SparseCodes | None = None,
    ) -> ConceptIndex:
        """Build an index, or continue one: rows that are already in it stay as they are.

        An interrupted build continues where it stopped, and rows that were appended to the embeddings are added.

        Args:
            folder: Folder to write to; created if missing.
            msae: The MSAE.
            embeddings: Embeddings to index; anything `load_embeddings` accepts.
            k: Number of activations to keep of each row.
            concepts: Names of the latents.
            batch_size: Rows encoded at a time.
            progress: Whether to show progress bars.
            approximate: Whether to call `add_approximate` as well.
            codes: The largest activations of these embeddings, at least k of each row, if they are at hand from
                `SparseCollector`. Defaults to encoding the embeddings.

        Raises:
            FileExistsError: The folder holds something else than an index.
            FileNotFoundError: The folder and more than one of its parents do not exist.
            ValueError: The folder holds an index of another MSAE or k, or the embeddings do not fit or are not finite.
        """
        check_table(concepts)
        folder = Path(folder).expanduser()
        embeddings = open_embeddings(msae, embeddings)
        k = check_k(k, msae.config)
        if codes is not None and (codes.k < k or len(codes) != len(embeddings)):
            raise ValueError(f"codes have {len(codes)} rows of {codes.k}, but {len(embeddings)} of k={k} are needed")
        metadata = IndexMetadata.to_continue(folder, msae, k)
        if 0 < sum(metadata.segments) < len(embeddings):
            cls.__new__(cls)._open(folder, msae, embeddings, None)  # checks that its rows are the first of these
        with claimed_folder(folder, metadata):
            for done in range(sum(metadata.segments), len(embeddings), _SEGMENT_ROWS):
                rows = range(done, min(done + _SEGMENT_ROWS, len(embeddings)))
                collectors = [RowCollector(lambda batch: lengths_of(batch.embeddings))]
                collectors += [SparseCollector(k)] if codes is None else []
                lengths, *found = collect_codes(msae, embeddings, collectors, rows, batch_size, progress, "indexing")
                few = found[0] if codes is None else codes[rows.start : rows.stop, :k]
                write_segment(segment_folder(folder, len(metadata.segments)), few, lengths, metadata.num_latents)
                metadata.segments.append(len(rows))
                metadata.save(folder)
        index = cls(folder, msae, embeddings, concepts)
        if approximate:
            index.add_approximate(progress=progress)
        return index

    def add_approximate(self, lists: int | None = None, seed: int | None = None, progress: bool = True) -> None:
        """Build the approximate index, or add the rows that it lacks; see `ApproximateIndex.extend`."""
        ApproximateIndex.extend(self.folder / "approximate", self.embeddings, self._segments, lists, seed, progress)
        self._approximate = None

    @property
    def approximate(self) -> ApproximateIndex:
        """The index that approximate searches find candidates with; opened on first use."""
        if self._approximate is None:
            self._approximate = ApproximateIndex(self.folder / "approximate", self._metadata.width, self._segments)
        return self._approximate

    def __len__(self) -> int:
        return sum(self._metadata.segments)

    def __repr__(self) -> str:
        return (
            f"ConceptIndex({str(self.folder)!r}, {len(self)} rows of {self.embeddings.source}, k={self._metadata.k})"
        )

    def by_embedding(
        self, embedding: torch.Tensor | np.ndarray, top: int = 10, approximate: bool = False
    ) -> pd.DataFrame:
        """Find the rows with the highest cosine to a raw embedding (d,) of an image or text: row, similarity.

        An approximate search may miss a few of them and return the next best; the similarities are exact.
        """
        check_integers(top=(top, 1))
        query = self._query(embedding)
        rows = self.approximate.candidates(query, top) if approximate else None
        return best_table(self._cosines(query, rows), top, "similarity", rows)

    def by_concepts(self, concepts: Mapping[int | str, float], top: int = 10) -> pd.DataFrame:
        """Find the rows in which concepts are active: row, score.

        The score is the sum of weights (by latent or name; negative ones lower the score) times activations. Each
        activation is divided by the latent's mean over the rows in which it is active, so that concepts count alike
        although some are stronger by nature.

        Raises:
            ValueError: A name or latent is unknown or given twice, or a weight is not finite.
        """
        pairs = pairs_of("concepts", concepts)
        if not pairs:
            raise ValueError("there is nothing to search for: pass concepts and weights")
        weights = values_of_latents(pairs, self._metadata.num_latents, self.concepts)
        scores = np.zeros(len(self), dtype=np.float32)
        for latent, weight in weights.items():
            for start, segment in zip(self._starts, self._segments, strict=False):
                rows, values = segment.active(latent)
                scores[start + rows] += np.float32(weight / self._typical[latent]) * values  # each row once
        return best_table(scores, top, "score")

    def by_edit(
        self,
        embedding: torch.Tensor | np.ndarray,
        edits: Mapping[int | str, float],
        mode: str = "scale",
        top: int = 10,
        approximate: bool = False,
    ) -> pd.DataFrame:
        """Find rows like an embedding with some concepts changed ("like this, but more striped, less red").

        Args:
            embedding: Raw embedding (d,).
            edits: Values by latent or name, as for `VisionTextMSAE.edit`.
            mode: "scale", "set" or "add".
            top: As for `by_change`.
            approximate: As for `by_change`.

        Returns:
            What `by_change` returns.
        """
        edit = LatentEdit.of(edits, self._metadata.num_latents, self.concepts, mode)
        embedding = as_tensor(embedding)
        changed = edit_embeddings(self.msae, embedding[None].to(self.msae.device), [edit])
        return self.by_change(embedding, embedding if changed is None else changed[0], top, approximate)

    def by_change(
        self,
        embedding: torch.Tensor | np.ndarray,
        changed: torch.Tensor | np.ndarray,
        top: int = 10,
        approximate: bool = False,
    ) -> pd.DataFrame:
        """Find rows like an embedding that was changed in any way, such as by `hf_msae.steering.Edit.remove`.

        Args:
            embedding: Raw embedding (d,).
            changed: The same after the change (d,).
            top: Number of rows.
            approximate: Whether to rank only the rows that an approximate search finds for the embedding before or
                after the change: ten times `top` for each, but at least 500. Similarities are exact. A rank is the
                place among these rows, so it is never below the exact one, and NA where it exceeds their number.

        Returns:
            The best rows after the change, and the rows that it has driven out of the best: row, similarity,
            similarity_before, rank, rank_before (from 1), and rank_change (positive if the row has come up).
        """
        check_integers(top=(top, 1))
        before = self._query(embedding)
        after = before if changed is embedding else self._query(changed)
        if not approximate:
            cosines = self._cosines(before)
            return rank_changes(cosines if after is before else self._cosines(after), cosines, top)
        found = [self.approximate.candidates(query, top) for query in (after, before)]
        rows = np.union1d(*found)
        cosines = [self._cosines(query, rows) for query in (after, before)]
        table = rank_changes(*cosines, top, known=[len(each) for each in found])
        return table.assign(row=rows[table["row"]])

    def code(self, row: int) -> pd.DataFrame:
        """Return the concepts that the index keeps of a row, strongest first: latent, name, validated, activation."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} is out of range: the index has {len(self)} rows")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        segment, place = self._segments[number], row - int(self._starts[number])
        active = segment.values[place] > 0
        latents = segment.latents[place][active].astype(np.int64)
        frame = pd.DataFrame({"latent": latents, **name_columns(self.concepts, latents.tolist())})
        return frame.assign(activation=segment.values[place][active].astype(np.float32))

    def sparse_codes(self) -> SparseCodes:
        """Return the activations that the index keeps of all rows, with the precision of float16."""
        values = np.concatenate([segment.values for segment in self._segments]).astype(np.float32)
        latents = np.concatenate([segment.latents for segment in self._segments]).astype(np.int64)
        return SparseCodes(torch.from_numpy(values), torch.from_numpy(latents))

    def shared(self, row: int, other: int) -> pd.DataFrame:
        """Return the concepts that two rows share, in descending order of the weaker activation."""
        of_other = self.code(other)[["latent", "activation"]]
        both = self.code(row).merge(of_other, on="latent", suffixes=("", "_other"))
        weaker = both[["activation", "activation_other"]].min(axis=1)
        return both.loc[weaker.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)

    def _query(self, embedding: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Return an embedding scaled to unit length."""
        embedding = as_tensor(embedding)
        if embedding.shape != (self._metadata.width,):
            raise ValueError(f"an embedding has shape ({self._metadata.width},), got {tuple(embedding.shape)}")
        embedding = embedding.detach().float().cpu()
        if not embedding.isfinite().all():
            raise ValueError("the embedding holds NaN or infinite values: it has no direction to compare")
        query = torch.nn.functional.normalize(embedding, dim=0)
        if not query.any():
            raise ValueError("the embedding is zero: it has no direction to compare")
        return query

    def _cosines(self, query: torch.Tensor, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the cosines with these rows, or with every row of the index, (rows,)."""
        if rows is not None:
            few = max(1, _ONE_THREAD // self._metadata.width)
            parts = [self.embeddings[rows[first : first + few]] @ query for first in range(0, len(rows), few)]
            return torch.cat(parts).numpy() / self._lengths[rows]
        cosines = np.empty(len(self), dtype=np.float32)
        first = 0
        for block in self.embeddings.blocks():
            number = min(len(block), len(self) - first)
            if number <= 0:
                break
            cosines[first : first + number] = (block[:number] @ query).numpy()
            first += number
        return cosines / self._lengths

    def _check_embeddings(self) -> None:
        """Compare some rows with the index, and raise ValueError if they are not the rows that were indexed."""
        for start, segment in zip(self._starts, self._segments, strict=False):
            places = np.unique(np.linspace(0, len(segment.lengths) - 1, _CHECKED_ROWS).astype(np.int64))
            x = self.embeddings[places + int(start)]
            self.embeddings.check_finite(x, places + int(start))
            with torch.no_grad():
                values = self.msae.encode_topk(x.to(self.msae.device), self._metadata.k)[0].float().cpu().numpy()
            stored = segment.values[places].astype(np.float32)
            same = np.isclose(lengths_of(x), segment.lengths[places], rtol=1e-5)
            # Half precision, and the last bits of products, which depend on how many rows are encoded at a time.
            same &= np.isclose(values, stored, rtol=5e-3, atol=1e-2 * max(1e-6, stored.max())).all(axis=1)
            if not same.all():
                raise ValueError(
                    f"{self.folder} was built from other embeddings: row {start + places[~same][0]} of "
                    f"{self.embeddings.source} is not the one that was indexed: {REBUILD}"
                )
