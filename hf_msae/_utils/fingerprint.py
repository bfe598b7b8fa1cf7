"""A fingerprint of a model, by which its metrics and names can be told from another model's."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import nn

COMPUTING_FIELDS = ("activation", "k", "nesting", "nesting_ks", "nesting_widths", "soft_cap", "tied")
"""What of an MSAE's config changes what the same weights compute."""


@torch.no_grad()
def model_fingerprint(model: nn.Module) -> str:
    """SHA-256 of what a model computes with: 64 hexadecimal digits.

    That is all parameters and persistent buffers, with their names, shapes and dtypes, and of an MSAE's config the
    fields in `COMPUTING_FIELDS`; not where it comes from or how it was trained.

    Saving and loading keeps it; converting to another dtype changes it, as it changes what the model computes.
    """
    digest = hashlib.sha256()
    config = getattr(model, "config", None)
    settings = {name: getattr(config, name) for name in COMPUTING_FIELDS if hasattr(config, name)}
    digest.update(f"{json.dumps(settings, sort_keys=True)}\n".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
