"""An approximate index by faiss: candidates for a query, found without looking at every row.

Why faiss: hnswlib has no wheels, and `Dataset.add_faiss_index` handles neither arrays nor tokens, cannot be continued
and does not check its files. Why inverted lists of binary codes rather than a graph (HNSW): for 200,000 rows of 768,
lists take 23 s to build on two cores and 27 MiB, and find 0.998 of the ten best in 4.5 ms; a graph of 8-bit codes
takes 146 s, 198 MiB and 3.6 ms. (For texts' neighbors among images, a graph finds more in the same time.)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from .._utils.atomic import atomic_path, make_folder
from .._utils.file_integrity import sha256_of
from .._utils.json_files import write_json
from ..embeddings import EmbeddingDataset
from .files import FORMAT_VERSION, Segment, read_metadata

APPROXIMATE_FILE = "approximate.json"
_TRAINED_FILE = "trained.faiss"
_TRAINING_ROWS = 40  # per list; below 39 faiss warns
_BATCH_ROWS = 2**14
_FEWEST_CANDIDATES = 500


@dataclass
class ApproximateMetadata:
    """The content of `approximate.json`."""

    width: int  # of the embeddings
    lists: int  # number of lists that rows are divided into
    seed: int  # random seed of the training rows and of k-means
    trained_rows: int  # number of rows when the centers of the lists were found
    trained_sha256: str  # of the file of the centers
    library: str  # that wrote the files, with its version
    parts: list[dict[str, str]] = field(default_factory=list)  # of each segment: hashes of its file and its lengths
    format_version: int = FORMAT_VERSION

    def save(self, folder: Path) -> None:
        """Write the file into `folder`."""
        write_json(folder / APPROXIMATE_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path, width: int, segments: Sequence[Segment]) -> ApproximateMetadata:
        """Read the file, and check that it belongs to the embeddings of the index."""
        missing = "build one with index.add_approximate()"
        found = read_metadata(cls, folder / APPROXIMATE_FILE, missing, _way_out(folder))
        try:
            lengths = [part["lengths_sha256"] for part in found.parts]
        except (TypeError, KeyError) as error:
            raise ValueError(f"{folder / APPROXIMATE_FILE} is damaged ({error}): {_way_out(folder)}") from error
        if found.width != width or lengths != [_hash_lengths(each) for each in segments[: len(lengths)]]:
            raise ValueError(f"{folder} was built from other embeddings: {_way_out(folder)}")
        return found


class ApproximateIndex:
    """Inverted lists of binary codes.

    k-means divides the unit embeddings into lists, and each embedding is kept as a code of one bit per dimension. A
    query is compared with the centers of the lists, then with the codes in the nearest lists; the rows found are
    candidates, to be compared with the embeddings themselves. The index is held in memory, width / 8 + 16 bytes per
    row (112 MB for a million rows of 768), and building it needs `40 * lists` embeddings in memory (250 MB). Rows that
    are added later go into the existing lists; if there are many, or they differ from the first, delete
    `approximate.json` and build the approximate index again.

    Source: Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate
    Nearest Neighbor Search" (2024); `IndexIVFRaBitQ` of faiss.

    Args:
        folder: Folder written by `extend`.
        width: Width of the embeddings.
        segments: Segments of the exact index.

    Attributes:
        metadata: Content of `approximate.json`.
        probes: Number of lists that a query looks into; you may change it. More lists find more and take longer. The
            default is a quarter of all lists, at least 16, because the neighbors of texts are spread over many lists.

    Raises:
        ImportError: faiss is not installed.
        FileNotFoundError: There is no approximate index.
        ValueError: The index is damaged, lacks rows, or belongs to other embeddings.
    """

    def __init__(self, folder: Path, width: int, segments: Sequence[Segment]) -> None:
        faiss = require_faiss()
        self.folder = folder
        self.metadata = ApproximateMetadata.load(folder, width, segments)
        if len(self.metadata.parts) < len(segments):
            held, rows = (sum(len(s.lengths) for s in segments[:stop]) for stop in (len(self.metadata.parts), None))
            raise ValueError(f"{folder} holds {held} of {rows} rows: call index.add_approximate() to add the others")
        self._index = _read(folder, _TRAINED_FILE, self.metadata.trained_sha256)
        for number, part in enumerate(self.metadata.parts):
            self._index.merge_from(_read(folder, _part_file(number), part.get("sha256")), 0)
        self._parameters = faiss.SearchParametersIVF
        self.probes = max(16, self.metadata.lists // 4)

    def __len__(self) -> int:
        return self._index.ntotal

    def __repr__(self) -> str:
        return f"ApproximateIndex({str(self.folder)!r}, {len(self)} rows, {self.metadata.lists} lists)"

    def candidates(self, query: torch.Tensor, top: int) -> np.ndarray:
        """Find rows, in ascending order, that contain most of the `top` nearest to a unit vector (d,).

        Codes of one bit give only a rough order, so there are ten times as many candidates, at least 500.

        Raises:
            ValueError: `probes` is not positive.
        """
        if self.probes < 1:
            raise ValueError(f"probes must be positive, got {self.probes}")
        number, probes = min(max(_FEWEST_CANDIDATES, 10 * top), len(self)), min(self.probes, self.metadata.lists)
        while True:
            parameters = self._parameters(nprobe=probes)
            rows = self._index.search(query[None].numpy(), number, params=parameters)[1][0]
            rows = rows[rows >= 0]  # -1 where the lists held fewer
            if len(rows) == number or probes == self.metadata.lists:
                return np.sort(rows)
            probes = min(2 * probes, self.metadata.lists)

    @staticmethod
    def extend(
        folder: Path,
        embeddings: EmbeddingDataset,
        segments: Sequence[Segment],
        lists: int | None = None,
        seed: int | None = None,
        progress: bool = True,
    ) -> None:
        """Write what is missing: the centers of the lists, then the codes segment by segment.

        A file appears complete or not at all, so an interrupted build continues where it stopped.

        Args:
            folder: Folder to write to; created if missing.
            embeddings: The embeddings.
            segments: Segments of the exact index.
            lists: Number of lists. Defaults to twice the root of the number of rows, with at least 40 rows for each.
            seed: Random seed. Defaults to 0.
            progress: Whether to show a progress bar.

        Raises:
            ImportError: faiss is not installed.
            ValueError: The index there has other lists, another seed or other embeddings, or is damaged.
        """
        faiss = require_faiss()
        starts = np.cumsum([0, *(len(segment.lengths) for segment in segments)])
        rows = int(starts[-1])
        if lists is not None and not 1 <= lists <= rows:
            raise ValueError(f"lists must be between 1 and the number of rows, {rows}, got {lists}")
        with tqdm(total=rows, desc="approximate index", unit="row", disable=not progress) as bar:
            if (folder / APPROXIMATE_FILE).is_file():
                found = ApproximateMetadata.load(folder, embeddings.width, segments)
                for what, wanted in (("lists", lists), ("seed", seed)):
                    if wanted is not None and wanted != getattr(found, what):
                        raise ValueError(
                            f"{folder} was built with {what}={getattr(found, what)}, not {wanted}: {_way_out(folder)}"
                        )
            else:
                lists = max(1, min(round(2 * math.sqrt(rows)), rows // _TRAINING_ROWS)) if lists is None else lists
                seed = 0 if seed is None else seed
                bar.set_postfix_str(f"k-means of {lists} lists")
                trained = _write(folder, _TRAINED_FILE, _trained(embeddings, rows, lists, seed))
                library = f"faiss {faiss.__version__}"
                found = ApproximateMetadata(embeddings.width, lists, seed, rows, trained, library)
                found.save(folder)
                bar.set_postfix_str("")
            bar.update(int(starts[len(found.parts)]))
            for number in range(len(found.parts), len(segments)):
                index = _read(folder, _TRAINED_FILE, found.trained_sha256)
                for first in range(starts[number], starts[number + 1], _BATCH_ROWS):
                    ids = np.arange(first, min(first + _BATCH_ROWS, starts[number + 1]))
                    index.add_with_ids(_unit(embeddings[first : ids[-1] + 1]), ids)
                    bar.update(len(ids))
                written = _write(folder, _part_file(number), index)
                found.parts.append({"sha256": written, "lengths_sha256": _hash_lengths(segments[number])})
                found.save(folder)


def require_faiss() -> ModuleType:
    """Return the module faiss; raise ImportError with how to install it if there is none."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError("approximate search needs faiss: pip install 'hf_msae[ann]'") from error
    return faiss


def _trained(embeddings: EmbeddingDataset, rows: int, lists: int, seed: int) -> Any:
    """Return empty lists with the centers that k-means finds in a sample of the rows."""
    faiss = require_faiss()
    index = faiss.index_factory(embeddings.width, f"IVF{lists},RaBitQ", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed
    sample = np.random.default_rng(seed).choice(rows, min(rows, lists * _TRAINING_ROWS), replace=False)
    index.train(_unit(embeddings[np.sort(sample)]))
    return index


def _unit(embeddings: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(embeddings, dim=1).numpy()


def _write(folder: Path, name: str, index: Any) -> str:
    """Write a file, and return its SHA-256."""
    make_folder(folder)
    with atomic_path(folder / name) as temporary:
        require_faiss().write_index(index, str(temporary))
        return sha256_of(temporary)


def _read(folder: Path, name: str, sha256: str | None) -> Any:
    if not (folder / name).is_file():
        raise ValueError(f"{folder / name} is missing: {_way_out(folder)}")
    if sha256_of(folder / name) != sha256:
        raise ValueError(f"{folder / name} is damaged or of another index (SHA-256 differs): {_way_out(folder)}")
    try:
        return require_faiss().read_index(str(folder / name))
    except RuntimeError as error:  # undamaged, so of a version that this one cannot read
        raise ValueError(f"faiss {require_faiss().__version__} cannot read {name}: {_way_out(folder)}") from error


def _hash_lengths(segment: Segment) -> str:
    return hashlib.sha256(np.ascontiguousarray(segment.lengths)).hexdigest()


def _part_file(number: int) -> str:
    return f"segment-{number:05d}.faiss"


def _way_out(folder: Path) -> str:
    return f"delete {folder / APPROXIMATE_FILE} and call index.add_approximate()"
