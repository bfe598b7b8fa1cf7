"""Latents that do not fire: counting and resampling them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch.optim import Optimizer

from ..model.modeling_msae import MSAEModel

_ENCODER_SHARE = 0.2
"""Norm of a resampled encoder column relative to the mean norm; small, to disturb the rest of the model little."""
_ROWS_AT_A_TIME = 4096


class LatentActivity:
    """For each latent, how many optimizer steps ago it last fired; begins with the counts of a resumed run."""

    def __init__(self, num_latents: int, device: torch.device, steps_since_fired: list[int]):
        counts = torch.tensor(steps_since_fired) if steps_since_fired else torch.zeros(num_latents, dtype=torch.long)
        self.steps_since_fired = counts.to(device)

    def update(self, fired: torch.Tensor) -> None:
        """Count one more step, in which these latents fired in the global batch: bool `(num_latents,)`."""
        self.steps_since_fired.add_(1).masked_fill_(fired, 0)

    def dead(self, steps: int) -> torch.Tensor:
        """Return which latents have not fired for this many steps: bool `(num_latents,)`."""
        return self.steps_since_fired >= steps

    def forget(self, latents: torch.Tensor) -> None:
        """Reset the counts of these latents: bool `(num_latents,)`."""
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
    """Give `latents` (bool, (num_latents,)) the directions of raw embeddings that the model reconstructs badly.

    Source: Bricken et al. 2023, "Towards Monosemanticity", appendix "Neuron resampling". Embeddings are drawn with
    probabilities proportional to their squared loss. The dictionary row of a latent becomes the direction of its
    embedding, its encoder column the same with a fifth of the mean norm, and its bias 0; the activation family starts
    its own parameters anew. The moments of all of them in the optimizer, Adam, are reset. Nothing is done to a model
    whose squared errors are not finite: it has diverged, which the run's next record finds. All processes call this,
    with the same latents and embeddings.
    """
    if not latents.any():
        return
    number = int(latents.sum())
    missing = [(part - model(part).reconstruction).square().sum(-1) for part in embeddings.split(_ROWS_AT_A_TIME)]
    chances = torch.cat(missing).double().square().cpu()
    if not chances.isfinite().all():
        return
    if not chances.any():
        chances += 1
    generator = torch.Generator().manual_seed(seed)
    rows = torch.multinomial(chances, number, replacement=True, generator=generator).to(embeddings.device)
    directions = F.normalize(model.normalize(embeddings[rows]) - model.pre_bias, dim=-1)
    directions = broadcast(directions) if accelerator.num_processes > 1 else directions

    kept = model.encoder[:, ~latents].norm(dim=0)
    share = 1.0 if model.decoder is None else _ENCODER_SHARE  # a tied column is the dictionary row too
    size = kept.mean() if len(kept) and model.decoder is not None else 1.0
    model.encoder[:, latents] = directions.T * (share * size)
    model.latent_bias[latents] = 0
    if model.decoder is not None:
        model.decoder[latents] = directions
    own = model.family.restart_(model, latents, share)
    of_latents = [(model.encoder, 1), (model.latent_bias, 0), (model.decoder, 0), *((each, 0) for each in own)]
    for parameter, dimension in of_latents:
        for moment in () if parameter is None else optimizer.state.get(parameter, {}).values():
            if moment.ndim:  # not the number of steps
                moment[(slice(None),) * dimension + (latents,)] = 0
