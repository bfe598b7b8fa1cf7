"""The files of a `ConceptIndex`: segments of rows, each of which is complete or absent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import numpy as np
import torch

from .._utils.atomic import atomic_path, is_leftover, make_folder, remove
from .._utils.cache import cache_folder, cache_root
from .._utils.fingerprint import accepted_fingerprints, model_fingerprint
from .._utils.json_files import from_json, write_json
from ..concepts.collectors import SparseCodes

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

INDEX_FILE = "index.json"
FORMAT_VERSION = 1
REBUILD = f"build an index in another folder, or delete {INDEX_FILE} and the segments in this one first"
_CHUNK = 2**18
"""Activations that are read into memory at once."""
_Metadata = TypeVar("_Metadata")


@dataclass
class IndexMetadata:
    """The content of `index.json`."""

    msae_sha256: str  # `model_fingerprint` of the MSAE that made the codes
    num_latents: int
    width: int  # of the embeddings
    k: int  # activations kept of each row
    segments: list[int] = field(default_factory=list)  # rows in each of segment-00000, segment-00001, ...
    format_version: int = FORMAT_VERSION

    def save(self, folder: Path) -> None:
        """Write the file into `folder`."""
        write_json(folder / INDEX_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> IndexMetadata:
        """Read the file of `folder`."""
        file = folder / INDEX_FILE
        found = read_metadata(cls, file, "build an index with ConceptIndex.build", REBUILD)
        for name, value in (("width", found.width), ("num_latents", found.num_latents), ("k", found.k)):
            if value < 1 or (name == "k" and value > found.num_latents):
                raise ValueError(f"{file} is damaged ({name} is {value}): {REBUILD}")
        if min(found.segments, default=1) < 1:
            raise ValueError(f"{file} is damaged (segments has {min(found.segments)} rows): {REBUILD}")
        return found

    @classmethod
    def to_continue(cls, folder: Path, msae: MSAEModel, k: int) -> IndexMetadata:
        """Return what a build in `folder` continues from: the index there, or an empty one."""
        fingerprint, *older = accepted_fingerprints(msae)
        wanted = cls(fingerprint, msae.config.num_latents, msae.config.d_in, k)
        if not (folder / INDEX_FILE).is_file():
            return wanted
        found = cls.load(folder)
        if found.msae_sha256 in older:
            found.msae_sha256 = fingerprint
        for name in ("msae_sha256", "k"):
            if getattr(found, name) != getattr(wanted, name):
                raise ValueError(
                    f"{folder} was built with another {name} ({getattr(found, name)}, not {getattr(wanted, name)}): "
                    "choose another folder"
                )
        return found


def read_metadata(kind: type[_Metadata], file: Path, missing: str, way_out: str) -> _Metadata:
    """Read a dataclass with a `format_version` from a JSON file, which may be another program's.

    `missing` and `way_out` say what to do if there is no such file, and if it is damaged.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file.parent} has no {file.name}: {missing}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged, or not of hf_msae ({error}): choose another folder") from error
    ours = [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    if not isinstance(content, dict) or (lacking := [name for name in ours if name not in content]):
        what = f"no {lacking[0]!r}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(f"{file} was not written by hf_msae (it holds {what}): choose another folder")
    version = content.get("format_version", FORMAT_VERSION)
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ValueError(f"{file} was written by a newer hf_msae (format {version}): upgrade hf_msae")
    try:
        return from_json(kind, content, file)
    except ValueError as error:
        raise ValueError(f"{error}: {way_out}") from error


class Segment:
    """Consecutive rows of an index, memory-mapped from the folder that `write_segment` wrote.

    By row, `latents` and `values` (rows, k) are the largest activations, 0 where a row has fewer. By latent, `offsets`
    says where its part of `of_latent_rows` and `of_latent_values` begins, in which it is active. `lengths` are norms
    of embeddings.
    """

    NAMES = ("latents", "values", "offsets", "of_latent_rows", "of_latent_values", "lengths")
    _INTEGERS = ("latents", "offsets", "of_latent_rows")

    def __init__(self, folder: Path, rows: int, metadata: IndexMetadata) -> None:
        self._folder, num_latents = folder, metadata.num_latents
        self.offsets = self._open("offsets", (num_latents + 1,))
        active = (int(self.offsets[-1]),)
        self.latents = self._open("latents", (rows, metadata.k))
        self.values = self._open("values", (rows, metadata.k))
        self.of_latent_rows = self._open("of_latent_rows", active)
        self.of_latent_values = self._open("of_latent_values", active)
        self.lengths = self._open("lengths", (rows,))
        self.sums = np.zeros(num_latents)
        for start in range(0, active[0], _CHUNK):
            part = slice(start, start + _CHUNK)
            latents = np.repeat(np.arange(num_latents), np.diff(self.offsets.clip(part.start, part.stop)))
            self.sums += np.bincount(latents, self.of_latent_values[part].astype(np.float64), num_latents)

    def _open(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Open an array of a known shape."""
        try:
            array = np.lib.format.open_memmap(self._folder / f"{name}.npy", mode="r")
        except (ValueError, EOFError, OSError, OverflowError, TypeError, SyntaxError) as error:  # a damaged header
            self._refuse(name, str(error))
        if array.shape != shape or array.dtype.kind not in ("iu" if name in self._INTEGERS else "f"):
            self._refuse(name, f"it has the shape {array.shape} and type {array.dtype}, expected {shape}")
        return array

    def _refuse(self, name: str, problem: str) -> NoReturn:
        problem = " ".join(problem.split())
        raise ValueError(f"{self._folder / name}.npy cannot be read ({problem}): {REBUILD}")

    def active(self, latent: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows in which a latent is active, and its activations there."""
        part = slice(int(self.offsets[latent]), int(self.offsets[latent + 1]))
        return self.of_latent_rows[part], self.of_latent_values[part]


def write_segment(folder: Path, codes: SparseCodes, lengths: np.ndarray, num_latents: int) -> None:
    """Write a segment, replacing what an interrupted build may have left there."""
    latents = codes.indices.numpy().astype(np.uint16 if num_latents <= 2**16 else np.int32)
    values = codes.values.clamp(max=torch.finfo(torch.float16).max).numpy().astype(np.float16)
    flat, active = latents.ravel(), values.ravel() > 0
    order = np.argsort(flat[active], kind="stable")
    places = np.flatnonzero(active)[order]
    counts = np.bincount(flat[active], minlength=num_latents)
    arrays = {
        "latents": latents,
        "values": values,
        "offsets": np.concatenate([[0], np.cumsum(counts)]),
        "of_latent_rows": (places // latents.shape[1]).astype(np.int32),
        "of_latent_values": values.ravel()[places],
        "lengths": lengths,
    }
    remove_segment(folder)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)


def remove_segment(folder: Path) -> None:
    """Remove a segment, if there is one."""
    if not folder.exists():
        return
    known = {f"{name}.npy" for name in Segment.NAMES}
    if folder.is_symlink() or not folder.is_dir() or not {file.name for file in folder.iterdir()} <= known:
        raise FileExistsError(f"{folder} was not written by this index: choose another folder for the index")
    remove(folder)


def check_claimable(folder: Path) -> None:
    """Create the folder of an index if it does not exist; raises as `claimed_folder`."""
    make_folder(folder)
    others = sorted(file.name for file in folder.iterdir() if not is_leftover(file, [INDEX_FILE]))
    if others and not (folder / INDEX_FILE).is_file():
        raise FileExistsError(
            f"{folder} holds {others[0]}, but no {INDEX_FILE}, so it is not an index: choose a new or empty folder"
        )


@contextmanager
def claimed_folder(folder: Path, metadata: IndexMetadata) -> Iterator[None]:
    """Create the folder of an index, and mark it as one with `index.json`, before the block adds segments to it.

    If the block refuses the data with a ValueError, what it has added is removed.
    """
    check_claimable(folder)
    if not (folder / INDEX_FILE).is_file():
        metadata.save(folder)
    there = list(metadata.segments)
    try:
        yield
    except ValueError:
        added, metadata.segments = range(len(there), len(metadata.segments)), there
        metadata.save(folder)
        for number in added:
            remove_segment(segment_folder(folder, number))
        if not there:
            (folder / INDEX_FILE).unlink()
        raise


def lengths_of(embeddings: torch.Tensor) -> np.ndarray:
    """Return the norms of embeddings (N, d), float32 (N,)."""
    return torch.linalg.vector_norm(embeddings, dim=1).numpy()


def typical_activations(segments: Sequence[Segment], num_latents: int) -> np.ndarray:
    """Return the mean activation of each latent over the rows in which it is active; 1 if there are none."""
    sums, counts = np.zeros(num_latents), np.zeros(num_latents)
    for segment in segments:
        sums += segment.sums
        counts += np.diff(segment.offsets)
    return np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)


def segment_folder(folder: Path, number: int) -> Path:
    """Return the folder of a segment."""
    return folder / f"segment-{number:05d}"


def default_folder(msae: MSAEModel, embeddings: EmbeddingDataset, k: int) -> Path:
    """Return the folder in the cache where the index of an MSAE and its embeddings is kept if no other is chosen.

    Splits of a dataset have the same source, but not the same first row.
    """
    source = Path(embeddings.source).expanduser()
    where = str(source.resolve()) if source.exists() else embeddings.source
    first = hashlib.sha256(embeddings[:1].numpy().tobytes()).hexdigest()
    identity = "\n".join([model_fingerprint(msae), where, str(embeddings.column), str(k), first])
    name = hashlib.sha256(identity.encode()).hexdigest()[:24]
    there = cache_root() / "indexes" / name  # which may be read-only
    return there if there.is_dir() else cache_folder("indexes") / name
