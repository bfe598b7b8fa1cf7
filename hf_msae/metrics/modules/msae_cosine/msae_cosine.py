"""Cosine of embeddings and reconstructions, as an `evaluate` module."""

import evaluate

from hf_msae.metrics import cosine_similarity, cosine_similarity_centered
from hf_msae.metrics.modules import matrix, vectors_info


class MsaeCosine(evaluate.Metric):
    """cosine_similarity and cosine_similarity_centered of reconstructions."""

    def _info(self) -> evaluate.MetricInfo:
        functions = [cosine_similarity, cosine_similarity_centered]
        return vectors_info(functions, predictions="reconstructions", references="raw embeddings")

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        x, y = matrix(references), matrix(predictions)
        return {
            "cosine_similarity": cosine_similarity(x, y),
            "cosine_similarity_centered": cosine_similarity_centered(x, y),
        }
