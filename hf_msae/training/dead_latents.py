"""Latents that do not fire: counting them, and giving them something to do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch.optim import Optimizer

from ..model.modeling_msae import MSAEModel

_ENCODER_SHARE = 0.2
"""Norm of a resampled encoder column, of the mean one's: small, so that the rest of the model hardly notices."""


_ROWS_AT_A_TIME = 4096


class LatentActivity:
    """For each latent, how many optimizer steps ago it last fired.

    Args:
        num_latents: how many there are.
        device: where to count.
        steps_since_fired: counts to go on from; none for a new run.
    """

    def __init__(self, num_latents: int, device: torch.device, steps_since_fired: list[int]):
        counts = torch.tensor(steps_since_fired) if steps_since_fired else torch.zeros(num_latents, dtype=torch.long)
        self.steps_since_fired = counts.to(device)

    def update(self, fired: torch.Tensor) -> None:
        """Count one more step, in which these latents fired in the global batch: bool `(num_latents,)`."""
        self.steps_since_fired.add_(1).masked_fill_(fired, 0)

    def dead(self, steps: int) -> torch.Tensor:
        """Which latents have not fired for so many steps: bool `(num_latents,)`."""
        return self.steps_since_fired >= steps

    def forget(self, latents: torch.Tensor) -> None:
        """Begin to count anew for these: bool `(num_latents,)`."""
        self.steps_since_fired.masked_fill_(latents, 0)


@torch.no_grad()
def resample_latents_(
    model: MSAEModel,
    optimizer: Optimizer,
    latents: torch.Tensor,
    embeddings: torch.Tensor,
    accelerator: Accelerator,
    seed: int,
) -> None:
    """Give latents new directions: of embeddings that the model reconstructs badly (Bricken et al. 2023, "Towards
    Monosemanticity", appendix "Neuron resampling").

    The embeddings are drawn from `embeddings`, with chances in proportion to their squared loss. A latent's
    dictionary row becomes the direction of its embedding, its encoder column the same at a fifth of the mean norm, its
    bias zero; and the optimizer forgets what it knew about all three.

    Args:
        model: changed in place.
        optimizer: one with the state of Adam.
        latents: which to change: bool `(num_latents,)`, equal in all processes.
        embeddings: raw, `(rows, d_in)`, the same in all processes.
        accelerator: all processes call this.
        seed: of the drawing.
    """
    if not latents.any():
        return
    number = int(latents.sum())
    missing = [(part - model(part).reconstruction).square().sum(-1) for part in embeddings.split(_ROWS_AT_A_TIME)]
    chances = torch.cat(missing).double().square().cpu()
    if not chances.any():
        chances += 1
    generator = torch.Generator().manual_seed(seed)
    rows = torch.multinomial(chances, number, replacement=True, generator=generator).to(embeddings.device)
    normalised = (embeddings[rows] - model.input_mean) * model.input_scale
    directions = F.normalize(normalised - model.pre_bias, dim=-1)
    directions = broadcast(directions) if accelerator.num_processes > 1 else directions

    kept = model.encoder[:, ~latents].norm(dim=0)
    size = _ENCODER_SHARE * (kept.mean() if len(kept) else 1.0)
    model.encoder[:, latents] = directions.T * (1.0 if model.decoder is None else size)
    model.latent_bias[latents] = 0
    if model.decoder is not None:
        model.decoder[latents] = directions
    for parameter, dimension in ((model.encoder, 1), (model.latent_bias, 0), (model.decoder, 0)):
        for moment in () if parameter is None else optimizer.state.get(parameter, {}).values():
            if moment.ndim:  # not the number of steps
                moment[(slice(None),) * dimension + (latents,)] = 0
