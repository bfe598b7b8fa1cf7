"""The distribution of every latent's activations over a dataset: how strong is strong?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .._utils.atomic import atomic_path, make_folder
from .._utils.deprecation import renamed_arguments
from .codes import CodeBatch, Collector, Embeddings, collect_codes, open_embeddings

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel

_SHARES = 101


@dataclass(frozen=True)
class ActivationPercentiles:
    """Percentiles of each latent's activations over a dataset, zeros included.

    Attributes:
        values: The 0th to the 100th percentile of each latent, (n, 101).
        num_samples: Number of rows they were taken from.
    """

    values: torch.Tensor
    num_samples: int

    @classmethod
    @renamed_arguments(acts="embeddings")
    def of(
        cls,
        msae: MSAEModel,
        embeddings: Embeddings,
        max_samples: int = 20_000,
        seed: int = 0,
        progress: bool = True,
    ) -> ActivationPercentiles:
        """Take percentiles over a random sample of a dataset.

        Args:
            msae: The MSAE.
            embeddings: Embeddings to compare with, e.g. those the MSAE was trained on; anything `load_embeddings`
                accepts.
            max_samples: Largest number of rows to read.
            seed: Random seed of the sample.
            progress: Whether to show a progress bar.
        """
        embeddings = open_embeddings(msae, embeddings)
        rows = None
        if max_samples < len(embeddings):
            rows = np.sort(np.random.default_rng(seed).choice(len(embeddings), max_samples, replace=False))
        collector = PercentileCollector()
        return collect_codes(msae, embeddings, [collector], rows, progress=progress, description="percentiles")[0]

    def __call__(self, latents: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
        """Return the percentage of rows with a lower activation, for latents (m,) and an activation of each (m,)."""
        table = self.values[latents.cpu()].contiguous()
        activations = activations.float().cpu()[:, None].contiguous()
        above = torch.searchsorted(table, activations, side="left").clamp(1, _SHARES - 1)
        low, high = table.gather(1, above - 1), table.gather(1, above)
        inside = ((activations - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        return (above - 1 + inside)[:, 0]

    def save(self, path: str | os.PathLike) -> None:
        """Write the percentiles as safetensors."""
        from safetensors.torch import save_file

        path = Path(path)
        make_folder(path.parent)
        with atomic_path(path) as temporary:
            save_file({"values": self.values, "num_samples": torch.tensor(self.num_samples)}, temporary)

    @classmethod
    def load(cls, path: str | os.PathLike) -> ActivationPercentiles:
        """Read what `save` wrote."""
        from safetensors.torch import load_file

        tensors = load_file(Path(path).expanduser())
        return cls(tensors["values"], int(tensors["num_samples"]))


class PercentileCollector(Collector):
    """Collects `ActivationPercentiles`. Only activations above zero are kept in memory, 8 bytes each."""

    needs_latents = True

    def start(self, msae: MSAEModel, num_rows: int) -> None:
        """Allocate what is kept."""
        self._num_latents, self._num_rows = msae.config.num_latents, num_rows
        self._keys: list[np.ndarray] = []

    def update(self, batch: CodeBatch) -> None:
        """Take a batch."""
        # Positive floats are ordered like their bits, so one sort of latent and bits orders each latent's activations.
        codes = batch.latents.float().cpu()
        latents = codes.nonzero()[:, 1].numpy()
        self._keys.append((latents << 32) | codes[codes != 0].numpy().view(np.int32))

    def result(self) -> ActivationPercentiles:
        """Return the percentiles."""
        keys = np.concatenate(self._keys)
        self._keys.clear()
        keys.sort()
        ends = np.searchsorted(keys, (np.arange(self._num_latents) + 1) << 32)
        values = np.append(keys.astype(np.int32).view(np.float32), np.float32(0))  # the lower half of each key
        counts = np.diff(ends, prepend=0)
        position = np.linspace(0, 1, _SHARES) * (self._num_rows - 1)

        def ranked(place: np.ndarray) -> np.ndarray:
            """Each latent's activations of these ranks, ascending; the rows without an activation come first."""
            from_end = self._num_rows - place[None]
            return np.where(from_end <= counts[:, None], values[(ends[:, None] - from_end).clip(-1)], np.float32(0))

        low, high = np.floor(position).astype(np.int64), np.ceil(position).astype(np.int64)
        below, part = ranked(low), (position - low).astype(np.float32)
        percentiles = below + part * (ranked(high) - below)
        return ActivationPercentiles(torch.from_numpy(percentiles), self._num_rows)
