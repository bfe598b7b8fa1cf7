"""L0, sparsity and dead latents, as an `evaluate` module."""

import evaluate

from hf_msae.metrics import dead_fraction, dead_latents, l0, sparsity
from hf_msae.metrics.modules import matrix, vectors_info


class MsaeSparsity(evaluate.Metric):
    """l0, sparsity, dead_latents and dead_fraction of codes."""

    def _info(self) -> evaluate.MetricInfo:
        return vectors_info([l0, sparsity, dead_latents, dead_fraction], predictions="codes")

    def _compute(self, predictions: list) -> dict[str, float | int]:
        codes = matrix(predictions)
        return {function.__name__: function(codes) for function in (l0, sparsity, dead_latents, dead_fraction)}
