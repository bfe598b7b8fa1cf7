"""Metrics of sparse autoencoders on embeddings: pure functions, streaming accumulators and one evaluation of all.

Reconstruction metrics are in raw space. Every function's docstring states its formula and source.
"""

from __future__ import annotations

from .accumulator import SumAccumulator
from .alignment import CknnaAccumulator, cknna
from .classification import (
    ClassificationAccumulator,
    LinearClassifier,
    accuracy_drop,
    probe_agreement,
    probe_kl,
)
from .dictionary import SeedStability, decoder_orthogonality, seed_stability
from .evaluation import evaluate_msae
from .firing import SparsityAccumulator, dead_fraction, dead_latents, l0, sparsity
from .monosemanticity import Monosemanticity, MonosemanticityAccumulator, monosemanticity
from .progressive import progressive_ks, seed_stability_by_level, sparse_probing_by_level
from .reconstruction import (
    ReconstructionAccumulator,
    cosine_similarity,
    cosine_similarity_centered,
    fvu,
    fvu_per_sample,
    normalized_mae,
    relative_reconstruction_bias,
)
from .result import EvaluationResult
from .sparse_probing import SparseProbing, sparse_probing


def __getattr__(name: str):
    # Imported on demand: importing `evaluate` takes a second.
    if name == "module_path":
        from .modules import module_path

        return module_path
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "CknnaAccumulator",
    "ClassificationAccumulator",
    "EvaluationResult",
    "LinearClassifier",
    "Monosemanticity",
    "MonosemanticityAccumulator",
    "ReconstructionAccumulator",
    "SeedStability",
    "SparseProbing",
    "SparsityAccumulator",
    "SumAccumulator",
    "accuracy_drop",
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
    "module_path",
    "monosemanticity",
    "normalized_mae",
    "probe_agreement",
    "probe_kl",
    "progressive_ks",
    "relative_reconstruction_bias",
    "seed_stability",
    "seed_stability_by_level",
    "sparse_probing",
    "sparse_probing_by_level",
    "sparsity",
]
