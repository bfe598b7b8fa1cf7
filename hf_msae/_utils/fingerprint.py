"""The fingerprint of a model, which tells its metrics, names and indexes from another model's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

COMPUTING_FIELDS = ("activation", "k", "nesting", "nesting_ks", "nesting_widths", "soft_cap", "tied")
"""The fields of an MSAE's config that change what the same weights compute."""


def model_fingerprint(model: nn.Module) -> str:
    """SHA-256 of what a model computes with, as 64 hexadecimal digits.

    It covers all parameters and persistent buffers with their names, shapes and dtypes and, for an MSAE, the config
    fields in `COMPUTING_FIELDS`. Saving and loading a model keeps its fingerprint; converting it to another dtype
    changes it, because the model then computes something else.
    """
    config = getattr(model, "config", None)
    settings = {name: getattr(config, name) for name in COMPUTING_FIELDS if hasattr(config, name)}
    return _sha256(model, f"{json.dumps(settings, sort_keys=True)}\n", end="\n")


def weights_sha256(model: nn.Module, dtype: torch.dtype | None = None) -> str:
    """SHA-256 of the weights alone, as they are or converted to another floating-point type."""
    return _sha256(model, dtype=dtype)


def accepted_fingerprints(model: nn.Module) -> tuple[str, str]:
    """The fingerprint of an MSAE, and what version 0.1 wrote into an index in its place."""
    return model_fingerprint(model), weights_sha256(model)


def array_fingerprint(values: np.ndarray) -> str:
    """Digest of an array (n, ...) that other rows or another order change, but rounding in the last bits does not.

    The same embeddings or activations, computed with another batch size or number of threads, differ in these. The
    digest is of eight random projections, with three decimals of their typical size.
    """
    rows = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    random = np.random.default_rng(0)
    signs = random.choice([-1.0, 1.0], (8, len(rows))), random.choice([-1.0, 1.0], (rows.shape[1], 8))
    found = ((signs[0] @ rows) * signs[1].T).sum(axis=1) / (np.linalg.norm(rows) or 1.0)
    size = f"{np.shape(values)} {np.linalg.norm(rows):.3g}"
    return hashlib.sha256(f"{size} {np.round(found, 3) + 0.0}".encode()).hexdigest()


@torch.no_grad()
def _sha256(model: nn.Module, prefix: str = "", end: str = "", dtype: torch.dtype | None = None) -> str:
    digest = hashlib.sha256(prefix.encode())
    for name, tensor in _tensors(sorted(model.state_dict().items())):
        tensor = tensor.to(dtype) if tensor.is_floating_point() and dtype else tensor
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}{end}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(values: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a state dict. Quantized layers keep theirs in tuples, with types that say nothing more."""
    for name, value in values:
        if isinstance(value, tuple | list):
            yield from _tensors((f"{name}.{place}", each) for place, each in enumerate(value))
        elif isinstance(value, torch.Tensor):
            yield name, value.dequantize() if value.is_quantized else value
