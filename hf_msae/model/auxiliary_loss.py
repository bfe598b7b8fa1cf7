"""A loss that gives dead latents something to do."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .nested_topk import NMSE_EPSILON


def auxiliary_loss(
    residual: torch.Tensor,
    centred: torch.Tensor,
    encoder: torch.Tensor,
    latent_bias: torch.Tensor,
    dictionary: torch.Tensor,
    dead: torch.Tensor,
    k: int,
) -> torch.Tensor:
    """How badly dead latents alone decode what the living ones leave over: mean over rows of ||e - e'||^2 / ||e||^2.

    Gao et al. 2024 (arXiv 2406.04093, "AuxK"): e' is decoded from the k largest activations among dead latents. It
    revives latents that are dead because others are always larger. One that is never positive decodes to nothing and
    gets no gradient: `resample_latents_` is for those. (A softplus in place of the ReLU would give them one. It was
    tried, and made more latents die: benchmarks/RESULTS.md.)

    Args:
        residual (`torch.Tensor` of shape `(..., d)`):
            e, in normalised space; no gradient flows into it.
        centred (`torch.Tensor` of shape `(..., d)`):
            The encoder's input.
        encoder `(d, n)`, latent_bias `(n,)`, dictionary `(n, d)`:
            Of the model.
        dead (`torch.Tensor` of shape `(n,)`, bool):
            Which latents are dead.
        k (`int`):
            How many of them may decode a row; all, where there are fewer.

    Returns:
        `torch.Tensor` of shape `()`: 0 where no latent is dead.
    """
    # A gradient of exactly 0 for all parameters, where no latent is dead, would cost a step's time: none at all.
    places = dead.nonzero()[:, 0]
    if not len(places):
        return residual.new_zeros(())
    residual = residual.detach().reshape(-1, residual.shape[-1])
    centred = centred.reshape(-1, centred.shape[-1]).to(encoder.dtype)
    pre_activations = centred @ encoder[:, places] + latent_bias[places]
    top = F.relu(pre_activations).topk(min(k, len(places)), dim=-1)
    code = torch.zeros_like(pre_activations).scatter(-1, top.indices, top.values)
    decoded = (code @ dictionary[places]).to(residual.dtype)
    squared = residual.square().sum(-1).clamp_min(NMSE_EPSILON)
    return ((residual - decoded).square().sum(-1) / squared).mean()
