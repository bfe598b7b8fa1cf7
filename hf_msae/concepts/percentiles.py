"""How strong is strong? The distribution of every latent's activations over a data set."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

_SHARES = 101
_CHUNK_ENTRIES = 2**26


@dataclass(frozen=True)
class ActivationPercentiles:
    """Percentiles of each latent's activations, those that are zero included.

    Attributes:
        values: (n, 101), the 0th to the 100th.
        num_samples: rows they were taken of.
    """

    values: torch.Tensor
    num_samples: int

    @classmethod
    @torch.no_grad()
    def of(
        cls, msae: MSAEModel, acts: EmbeddingDataset, max_samples: int = 20_000, seed: int = 0, progress: bool = True
    ) -> ActivationPercentiles:
        """Take them of a random sample of the data, a part of the latents at a time.

        Args:
            msae: the MSAE.
            acts: its embeddings, those it was trained on for one.
            max_samples: rows to draw, if there are more.
            seed: which.
            progress: show a progress bar.
        """
        rng = np.random.default_rng(seed)
        number = min(max_samples, len(acts))
        rows = np.sort(rng.choice(len(acts), number, replace=False)) if number < len(acts) else np.arange(number)
        n = msae.config.num_latents
        values, shares = torch.empty(n, _SHARES), np.linspace(0, 1, _SHARES)
        size = max(1, _CHUNK_ENTRIES // number)
        starts = range(0, n, size)
        for first in tqdm(starts, desc="percentiles", unit="part", disable=not progress or len(starts) < 3):
            parts = [
                msae.encode(acts[some].to(msae.device))[:, first : first + size].float().cpu()
                for some in np.array_split(rows, -(-number // 4096))
            ]
            values[first : first + size] = torch.from_numpy(np.quantile(torch.cat(parts).numpy(), shares, axis=0).T)
        return cls(values, number)

    def __call__(self, latents: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
        """Share of samples, in percent, whose activation is lower; of (m,) latents with (m,) activations."""
        table = self.values[latents.cpu()].contiguous()
        activations = activations.float().cpu()[:, None].contiguous()
        above = torch.searchsorted(table, activations, side="left").clamp(1, _SHARES - 1)
        low, high = table.gather(1, above - 1), table.gather(1, above)
        inside = ((activations - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        return (above - 1 + inside)[:, 0]

    def save(self, path: str | os.PathLike) -> None:
        """Write them as safetensors."""
        from safetensors.torch import save

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.tmp")
        unfinished.write_bytes(save({"values": self.values, "num_samples": torch.tensor(self.num_samples)}))
        os.replace(unfinished, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> ActivationPercentiles:
        """Read what `save` wrote."""
        from safetensors.torch import load_file

        tensors = load_file(path)
        return cls(tensors["values"], int(tensors["num_samples"]))
