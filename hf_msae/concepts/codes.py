"""The one pass over a data set: encode its embeddings in batches, and keep what is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from tqdm.auto import tqdm

from .._utils.evaluating import evaluation_mode
from ..embeddings import EmbeddingDataset, load_embeddings
from ..model.nested_topk import nested_codes, top_activations

if TYPE_CHECKING:
    import datasets

    from ..model.modeling_msae import MSAEModel

Embeddings: TypeAlias = "EmbeddingDataset | str | os.PathLike | datasets.Dataset | np.ndarray | torch.Tensor"


@dataclass(frozen=True)
class CodeBatch:
    """What a collector sees of one batch.

    Attributes:
        rows: Places of the batch among the rows of the pass.
        embeddings: Raw embeddings, float32 (B, d_in), on the CPU.
        latents: The full code (B, num_latents) on the model's device; None unless a collector needs it.
        values: The k largest activations (B, k), largest first and 0 beyond the positive ones, on the model's device;
            None unless the collector has a k.
        indices: The latents of `values`, int64 (B, k).
    """

    rows: slice
    embeddings: torch.Tensor
    latents: torch.Tensor | None
    values: torch.Tensor | None
    indices: torch.Tensor | None


class Collector:
    """Something to keep from a pass over a data set. Subclasses say what they need, and get only that.

    Attributes:
        needs_latents: Whether `update` reads the full code.
        k: How many of the largest activations `update` reads, or None.
    """

    needs_latents: bool = False
    k: int | None = None

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        """Prepare for a pass over `num_rows` rows."""

    def update(self, batch: CodeBatch) -> None:
        """Take what is needed from a batch. Batches come in the order of the rows."""
        raise NotImplementedError

    def result(self) -> Any:
        """Return what was collected."""
        raise NotImplementedError


@torch.no_grad()
def collect_codes(
    msae: MSAEModel,
    embeddings: Embeddings,
    collectors: Sequence[Collector],
    rows: range | np.ndarray | None = None,
    batch_size: int = 4096,
    progress: bool = True,
    description: str = "encoding",
) -> tuple[Any, ...]:
    """Encode embeddings once and feed every batch to all collectors.

    Each batch is encoded once, whatever the number of collectors: the largest activations of a batch are taken from
    its full code where that is needed too, and a collector with a smaller k gets a prefix of the largest k.

    Args:
        msae: The MSAE. It encodes in evaluation mode and is left in the mode it was in.
        embeddings: Embeddings of the MSAE's width: opened ones, or anything `load_embeddings` accepts.
        collectors: What to keep.
        rows: Rows to read, in this order. Default: all.
        batch_size: Rows encoded at a time.
        progress: Whether to show a progress bar.
        description: Label of the progress bar.

    Returns:
        The results of the collectors, in their order.

    Raises:
        ValueError: The embeddings have another width than the MSAE, or a collector's k is out of range.
    """
    embeddings = open_embeddings(msae, embeddings)
    num_rows = len(embeddings) if rows is None else len(rows)
    feed = CodeFeed(msae, collectors, num_rows)
    first = 0
    bar = tqdm(total=num_rows, desc=description, unit="row", disable=not progress)
    with bar, evaluation_mode(msae):
        for x in _batches(embeddings, rows, batch_size):
            feed.update(first, x)
            first += len(x)
            bar.update(len(x))
    return feed.results()


class CodeFeed:
    """Feeds batches to collectors: what `collect_codes` does, for a caller with a pass of its own.

    Args:
        msae: The MSAE, in evaluation mode while batches come.
        collectors: What to keep.
        num_rows: Rows that will come in all.

    Raises:
        ValueError: A collector's k is out of range.
    """

    def __init__(self, msae: MSAEModel, collectors: Sequence[Collector], num_rows: int) -> None:
        self.msae, self.collectors = msae, collectors
        ks = [collector.k for collector in collectors if collector.k is not None]
        for k in ks:
            if not 1 <= k <= msae.config.num_latents:
                raise ValueError(f"k must be between 1 and num_latents={msae.config.num_latents}, got {k}")
        self._widest = max(ks, default=None)
        self._needs_latents = any(collector.needs_latents for collector in collectors)
        for collector in collectors:
            collector.start(msae, num_rows)

    @torch.no_grad()
    def update(self, first: int, embeddings: torch.Tensor, full_code: torch.Tensor | None = None) -> None:
        """Feed a batch.

        Args:
            first: Place of its first row among the rows of the pass.
            embeddings: Raw embeddings (B, d_in).
            full_code: What `msae.full_code` gives for them, if the caller has it.
        """
        latents, values, indices = self._encode(embeddings.to(self.msae.device), full_code)
        place = slice(first, first + len(embeddings))
        for collector in self.collectors:
            few = (None, None) if collector.k is None else (values[:, : collector.k], indices[:, : collector.k])
            collector.update(CodeBatch(place, embeddings, latents if collector.needs_latents else None, *few))

    def results(self) -> tuple[Any, ...]:
        """Return the results of the collectors, in their order."""
        return tuple(collector.result() for collector in self.collectors)

    def _encode(
        self, x: torch.Tensor, full_code: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        msae, k = self.msae, self._widest
        if not self._needs_latents and full_code is None:
            return (None, None, None) if k is None else (None, *msae.encode_topk(x, k))
        full_code = msae.full_code(x) if full_code is None else full_code
        soft_cap = msae.config.soft_cap
        latents = nested_codes(full_code, [kept_activations(msae)], soft_cap)[0] if self._needs_latents else None
        return (latents, None, None) if k is None else (latents, *top_activations(full_code, k, soft_cap))


def open_embeddings(msae: MSAEModel, embeddings: Embeddings) -> EmbeddingDataset:
    """Open embeddings for an MSAE.

    Raises:
        ValueError: They have another width than the MSAE.
    """
    if not isinstance(embeddings, EmbeddingDataset):
        embeddings = load_embeddings(embeddings, hook_point=msae.config.hook_point)
    config = msae.config
    if embeddings.width != config.d_in:
        raise ValueError(
            f"embeddings have {embeddings.width} columns ({embeddings.source}), but this MSAE was trained on "
            f"{config.d_in} ({config.base_model_name_or_path}, {config.hook_point})"
        )
    return embeddings


def kept_activations(msae: MSAEModel) -> int:
    """The number of activations that `msae.encode(embeddings)` keeps at most: config.k, or the largest level."""
    config = msae.config
    if config.k is None or config.activation == "batch_topk":
        return config.nesting_ks[-1]
    return config.k


def _batches(embeddings: EmbeddingDataset, rows: range | np.ndarray | None, batch_size: int) -> Iterator[torch.Tensor]:
    if rows is None:
        yield from embeddings.batches(batch_size)
        return
    for first in range(0, len(rows), batch_size):
        part = rows[first : first + batch_size]
        contiguous = isinstance(part, range) and part.step == 1
        yield embeddings[part.start : part.stop] if contiguous else embeddings[np.asarray(part)]


@dataclass(frozen=True)
class Firing:
    """How often and how strongly every latent is active.

    Attributes:
        counts: Rows in whose full code the latent is active, int64 (n,).
        strong: Rows of which the latent is among the k strongest, int64 (n,).
        mean: Mean activation over all rows, float64 (n,).
        maximum: Largest activation, float32 (n,).
        num_samples: Rows read.
        k: How many latents of a row count as its strongest.
    """

    counts: np.ndarray
    strong: np.ndarray
    mean: np.ndarray
    maximum: np.ndarray
    num_samples: int
    k: int


class FiringCollector(Collector):
    """Collects `Firing`: sums only, so its memory does not grow with the data."""

    needs_latents = True

    def __init__(self, k: int = 1) -> None:
        self.k = k

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        """Allocate what is kept."""
        n, device = msae.config.num_latents, msae.device
        self._counts = torch.zeros(n, dtype=torch.int64, device=device)
        self._strong = torch.zeros(n, dtype=torch.int64, device=device)
        self._sum = np.zeros(n)
        self._maximum = torch.zeros(n, device=device)
        self._num_rows = num_rows

    def update(self, batch: CodeBatch) -> None:
        """Take a batch."""
        self._counts += batch.latents.count_nonzero(dim=0)
        self._strong += torch.bincount(batch.indices[batch.values > 0], minlength=len(self._strong))
        self._sum += batch.latents.sum(dim=0, dtype=torch.float64).cpu().numpy()
        self._maximum = torch.maximum(self._maximum, batch.latents.amax(dim=0).float())

    def result(self) -> Firing:
        """Return the counts and means."""
        counts, strong, maximum = (each.cpu().numpy() for each in (self._counts, self._strong, self._maximum))
        return Firing(counts, strong, self._sum / self._num_rows, maximum, self._num_rows, self.k)


@dataclass(frozen=True)
class LatentColumns:
    """What a few latents do in all rows.

    Attributes:
        latents: The latents, int64 (m,).
        values: Their activations in the full code, float32 (N, m).
        strong: Whether each is among the k strongest latents of the row, bool (N, m).
    """

    latents: np.ndarray
    values: np.ndarray
    strong: np.ndarray


class ColumnCollector(Collector):
    """Collects `LatentColumns`.

    Args:
        latents: The latents to keep.
        k: How many latents of a row count as its strongest.
    """

    needs_latents = True

    def __init__(self, latents: Sequence[int] | np.ndarray, k: int = 1) -> None:
        self.latents, self.k = np.array(latents, dtype=np.int64).reshape(-1), k  # a copy: torch wants it writable

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        """Allocate what is kept."""
        shape = (num_rows, len(self.latents))
        self._values, self._strong = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=bool)
        self._chosen = torch.from_numpy(self.latents).to(msae.device)

    def update(self, batch: CodeBatch) -> None:
        """Take a batch."""
        values = batch.latents[:, self._chosen]
        self._values[batch.rows] = values.float().cpu().numpy()
        strong = torch.zeros_like(batch.latents, dtype=torch.bool).scatter_(1, batch.indices, batch.values > 0)
        self._strong[batch.rows] = strong[:, self._chosen].cpu().numpy()

    def result(self) -> LatentColumns:
        """Return the columns."""
        return LatentColumns(self.latents, self._values, self._strong)


@dataclass(frozen=True)
class SparseCodes:
    """The k largest activations of every row.

    Attributes:
        values: Activations, largest first, 0 where fewer are positive: float32 (N, k).
        indices: Their latents, int64 (N, k).
    """

    values: torch.Tensor
    indices: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: tuple[slice, slice]) -> SparseCodes:
        """Some rows, and the first activations of each: `codes[:100, :8]`."""
        return SparseCodes(self.values[part], self.indices[part])

    @property
    def k(self) -> int:
        """Number of activations kept of each row."""
        return self.values.shape[1]


class SparseCollector(Collector):
    """Collects `SparseCodes`."""

    def __init__(self, k: int) -> None:
        self.k = k

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        """Allocate what is kept."""
        self._values = torch.empty(num_rows, self.k)
        self._indices = torch.empty(num_rows, self.k, dtype=torch.int64)

    def update(self, batch: CodeBatch) -> None:
        """Take a batch."""
        self._values[batch.rows], self._indices[batch.rows] = batch.values.float().cpu(), batch.indices.cpu()

    def result(self) -> SparseCodes:
        """Return the codes."""
        return SparseCodes(self._values, self._indices)


@dataclass(frozen=True)
class TopRows:
    """The rows that activate each latent most.

    Attributes:
        values: Activations, largest first: float32 (n, number); -1 where there are fewer rows.
        rows: Their rows, int64 (n, number).
        num_active: Rows in which each latent is active, int64 (n,).
    """

    values: np.ndarray
    rows: np.ndarray
    num_active: np.ndarray


class TopRowsCollector(Collector):
    """Collects `TopRows`.

    Args:
        number: How many rows to keep of each latent.
    """

    needs_latents = True

    def __init__(self, number: int) -> None:
        self.number = number

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        """Allocate what is kept."""
        n = msae.config.num_latents
        self._values = torch.full((n, self.number), -1.0)
        self._rows = torch.zeros(n, self.number, dtype=torch.int64)
        self._num_active = torch.zeros(n, dtype=torch.int64)

    def update(self, batch: CodeBatch) -> None:
        """Take a batch."""
        codes = batch.latents.float().cpu().T
        self._num_active += codes.count_nonzero(dim=1)
        top, rows = codes.topk(min(self.number, codes.shape[1]), dim=1)
        values = torch.cat([self._values, top], dim=1)
        self._values, kept = values.topk(self.number, dim=1)
        self._rows = torch.cat([self._rows, rows + batch.rows.start], dim=1).gather(1, kept)

    def result(self) -> TopRows:
        """Return the rows."""
        return TopRows(self._values.numpy(), self._rows.numpy(), self._num_active.numpy())
