"""A fingerprint of a model's weights, by which its metrics and names can be told from another model's."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


@torch.no_grad()
def weights_fingerprint(model: nn.Module) -> str:
    """SHA-256 of all parameters and persistent buffers, with their names, shapes and dtypes; 64 hexadecimal digits.

    Saving and loading keeps it; converting to another dtype changes it, as it changes what the model computes.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
