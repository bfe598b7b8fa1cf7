"""Metrics of sparse autoencoders on embeddings: pure functions, streaming accumulators, and one evaluation of all.

Reconstruction metrics are in raw space. Every function's docstring gives its formula and source.
"""

from __future__ import annotations

from .accumulator import SumAccumulator
from .alignment import CknnaAccumulator, cknna
from .dictionary import decoder_orthogonality
from .evaluation import evaluate_msae
from .firing import SparsityAccumulator, dead_fraction, dead_latents, l0, sparsity
from .reconstruction import (
    ReconstructionAccumulator,
    cosine_similarity,
    cosine_similarity_centered,
    fvu,
    fvu_per_sample,
    normalized_mae,
)
from .result import EvaluationResult

__all__ = [
    "CknnaAccumulator",
    "EvaluationResult",
    "ReconstructionAccumulator",
    "SparsityAccumulator",
    "SumAccumulator",
    "cknna",
    "cosine_similarity",
    "cosine_similarity_centered",
    "dead_fraction",
    "dead_latents",
    "decoder_orthogonality",
    "evaluate_msae",
    "fvu",
    "fvu_per_sample",
    "l0",
    "normalized_mae",
    "sparsity",
]
