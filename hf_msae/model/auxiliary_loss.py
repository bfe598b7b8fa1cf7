"""The auxiliary loss that revives dead latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .nested_topk import NMSE_EPSILON
from .products import product


def auxiliary_loss(
    model: nn.Module, normalized: torch.Tensor, decoded: torch.Tensor, dead: torch.Tensor, k: int
) -> torch.Tensor:
    """Return the error with which dead latents decode the residual: mean_i ||e_i - e_i'||^2 / ||e_i||^2, or 0.

    This is "AuxK" of Gao et al. 2024 (arXiv 2406.04093): e' is decoded from the k largest activations of dead latents.
    It revives latents that are dead because others are always larger. A latent that is never positive gets no
    gradient; `resample_latents_` is for those. (Softplus instead of ReLU would give it one, but made more latents die:
    benchmarks/RESULTS.md.)

    `dead` (n,) says which latents are dead. The residual e is `normalized` - `decoded`, both (..., d), and gets no
    gradient.
    """
    places = dead.nonzero()[:, 0]
    if not len(places):  # a constant: computing gradients of 0 would take as long as a step
        return normalized.new_zeros(())
    d = normalized.shape[-1]
    residual = (normalized - decoded).detach().reshape(-1, d)
    centered = (normalized - model.pre_bias.to(normalized.dtype)).reshape(-1, d).to(model.encoder.dtype)
    pre_activations = product(centered, model.encoder[:, places]) + model.latent_bias[places]
    top = F.relu(pre_activations).topk(min(k, len(places)), dim=-1)
    code = torch.zeros_like(pre_activations).scatter(-1, top.indices, top.values)
    found = product(code, model.dictionary[places]).to(residual.dtype)
    squared = residual.square().sum(-1).clamp_min(NMSE_EPSILON)
    return ((residual - found).square().sum(-1) / squared).mean()
