"""Fraction of variance unexplained, as an `evaluate` module."""

import evaluate

from hf_msae.metrics import fvu, fvu_per_sample
from hf_msae.metrics.modules import matrix, vectors_info


class MsaeFvu(evaluate.Metric):
    """fvu and fvu_per_sample of reconstructions."""

    def _info(self) -> evaluate.MetricInfo:
        return vectors_info([fvu, fvu_per_sample], predictions="reconstructions", references="raw embeddings")

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        x, y = matrix(references), matrix(predictions)
        return {"fvu": fvu(x, y), "fvu_per_sample": fvu_per_sample(x, y)}
