"""The files of a `ConceptIndex`: segments of rows, each whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .._utils.json_files import write_json

if TYPE_CHECKING:
    from tqdm.auto import tqdm

    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

INDEX_FILE = "index.json"
FORMAT_VERSION = 1


@dataclass
class IndexMetadata:
    """The content of `index.json`.

    Attributes:
        msae_sha256: `model_fingerprint` of the MSAE whose codes these are.
        num_latents: of it.
        width: of its embeddings.
        k: activations kept of each row.
        segments: rows in each of the folders segment-00000, segment-00001, ...
    """

    msae_sha256: str
    num_latents: int
    width: int
    k: int
    segments: list[int] = field(default_factory=list)
    format_version: int = FORMAT_VERSION

    def save(self, folder: Path) -> None:
        """Write the file atomically."""
        write_json(folder / INDEX_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> IndexMetadata:
        """Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of a newer version of the package.
        """
        if not (folder / INDEX_FILE).is_file():
            raise FileNotFoundError(f"{folder} holds no {INDEX_FILE}: build one with ConceptIndex.build")
        try:
            found = cls(**json.loads((folder / INDEX_FILE).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{folder / INDEX_FILE} is damaged ({error}): delete the folder and build the index again"
            ) from error
        if found.format_version > FORMAT_VERSION:
            raise ValueError(f"{folder} was written by a newer hf_msae (format {found.format_version}): install that")
        return found


class Segment:
    """Some consecutive rows, memory-mapped.

    Attributes:
        latents, values: (rows, k), the largest activations of each row, largest first; value 0 where there are fewer.
        offsets: (num_latents + 1,), where in the next two a latent's part begins.
        of_latent_rows, of_latent_values: for each latent the rows it is active in, and how much.
        lengths: (rows,), of the embeddings.
    """

    NAMES = ("latents", "values", "offsets", "of_latent_rows", "of_latent_values", "lengths")

    def __init__(self, folder: Path) -> None:
        for name in self.NAMES:
            try:
                setattr(self, name, np.load(folder / f"{name}.npy", mmap_mode="r"))
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{folder / name}.npy cannot be read ({error}): delete the folder and build the index again"
                ) from error

    def active(self, latent: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows that a latent is active in, and how much."""
        part = slice(int(self.offsets[latent]), int(self.offsets[latent + 1]))
        return self.of_latent_rows[part], self.of_latent_values[part]


def write_segment(
    folder: Path, latents: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, num_latents: int
) -> None:
    """Write a segment under a temporary name, then rename it; what was there before under that name goes."""
    narrow = np.uint16 if num_latents <= 2**16 else np.int32
    latents, values = (
        latents.numpy().astype(narrow),
        values.clamp(max=torch.finfo(torch.float16).max).numpy().astype(np.float16),
    )
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
        "lengths": lengths.numpy().astype(np.float32),
    }
    unfinished = folder.with_name(f".{folder.name}.tmp")
    for leftover in (unfinished, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(unfinished / f"{name}.npy", array)
    os.replace(unfinished, folder)


@torch.no_grad()
def encoded(
    msae: MSAEModel, acts: EmbeddingDataset, rows: range, k: int, batch_size: int, bar: tqdm
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents and values (rows, k), largest first, and the lengths of the embeddings (rows,)."""
    latents, values, lengths = [], [], []
    for first in range(rows.start, rows.stop, batch_size):
        x = acts[first : min(first + batch_size, rows.stop)]
        strongest, whose = msae.encode_topk(x.to(msae.device), k)
        latents.append(whose.cpu())
        values.append(strongest.float().cpu())
        lengths.append(torch.linalg.vector_norm(x, dim=1))
        bar.update(len(x))
    return torch.cat(latents), torch.cat(values), torch.cat(lengths)


def typical_activations(segments: Sequence[Segment], num_latents: int) -> np.ndarray:
    """The mean activation of each latent where it is active, 1 where it never is."""
    sums, counts = np.zeros(num_latents), np.zeros(num_latents)
    for segment in segments:
        number = np.diff(segment.offsets)
        latent = np.repeat(np.arange(len(number)), number)
        sums += np.bincount(latent, segment.of_latent_values.astype(np.float64), len(number))
        counts += number
    return np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)


def segment_folder(folder: Path, number: int) -> Path:
    """Where a segment lies in an index."""
    return folder / f"segment-{number:05d}"
