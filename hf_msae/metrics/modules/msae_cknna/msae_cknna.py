"""Agreement of neighborhoods, as an `evaluate` module."""

import evaluate

from hf_msae.metrics import cknna
from hf_msae.metrics.modules import matrix, vectors_info


class MsaeCknna(evaluate.Metric):
    """cknna of codes (or reconstructions) with embeddings; all samples are one batch, and its size matters."""

    def _info(self) -> evaluate.MetricInfo:
        return vectors_info([cknna], predictions="codes or reconstructions", references="raw embeddings")

    def _compute(self, predictions: list, references: list, k: int = 10) -> dict[str, float | int]:
        return {"cknna": cknna(matrix(references), matrix(predictions), k=k), "cknna_batch_size": len(references)}
