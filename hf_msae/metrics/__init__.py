"""Metrics of sparse autoencoders on embeddings: pure functions, streaming accumulators and one evaluation of all.

Reconstruction metrics are in raw space. Every function's docstring states its formula and source.
"""

from __future__ import annotations

from .accumulator import SumAccumulator as SumAccumulator
from .alignment import CknnaAccumulator as CknnaAccumulator
from .alignment import cknna as cknna
from .classification import ClassificationAccumulator as ClassificationAccumulator
from .classification import LinearClassifier as LinearClassifier
from .classification import accuracy_drop as accuracy_drop
from .classification import probe_agreement as probe_agreement
from .classification import probe_kl as probe_kl
from .dictionary import SeedStability as SeedStability
from .dictionary import decoder_orthogonality as decoder_orthogonality
from .dictionary import seed_stability as seed_stability
from .evaluation import evaluate_msae as evaluate_msae
from .firing import SparsityAccumulator as SparsityAccumulator
from .firing import dead_fraction as dead_fraction
from .firing import dead_latents as dead_latents
from .firing import l0 as l0
from .firing import sparsity as sparsity
from .monosemanticity import Monosemanticity as Monosemanticity
from .monosemanticity import MonosemanticityAccumulator as MonosemanticityAccumulator
from .monosemanticity import monosemanticity as monosemanticity
from .progressive import progressive_ks as progressive_ks
from .progressive import seed_stability_by_level as seed_stability_by_level
from .progressive import sparse_probing_by_level as sparse_probing_by_level
from .reconstruction import ReconstructionAccumulator as ReconstructionAccumulator
from .reconstruction import cosine_similarity as cosine_similarity
from .reconstruction import cosine_similarity_centered as cosine_similarity_centered
from .reconstruction import fvu as fvu
from .reconstruction import fvu_per_sample as fvu_per_sample
from .reconstruction import normalized_mae as normalized_mae
from .reconstruction import relative_reconstruction_bias as relative_reconstruction_bias
from .result import EvaluationResult as EvaluationResult
from .sparse_probing import SparseProbing as SparseProbing
from .sparse_probing import sparse_probing as sparse_probing


def __getattr__(name: str):
    # Imported on demand: importing `evaluate` takes a second.
    if name == "module_path":
        from .modules import module_path

        return module_path
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
