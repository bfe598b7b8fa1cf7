"""Where in a picture a concept is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...backbones import prepare_images
from ..explorer import Explorer
from ..kept import Kept

SIDE = 384
"""Pixels of the longer side of a map."""
COMPARED = 64
"""Number of pictures of the collection that a map is compared with."""
_FULL = 0.5
"""Share of the collection's strongest patch from which on a patch keeps all its colors."""
# A picture fades to dark gray: that can be seen without telling colors apart, and in dark pictures too.
_FADED, _GRAY = 0.75, 70
_highest = Kept(1)


@dataclass(frozen=True)
class Where:
    """A map of a concept."""

    picture: Image.Image  # the picture, in colors where the concept is and faded elsewhere
    activations: np.ndarray  # activations of the patches, (rows, columns)
    strongest: float  # the largest of them
    # The largest activation in `num_compared` pictures of the collection. Patches with at least half of it keep all
    # their colors.
    scale: float
    num_compared: int


def where(explorer: Explorer, picture: Image.Image, concept: Any) -> Where | None:
    """Draw the map of a concept; None without a patch model, or if none of its latents has that name.

    It is relative to what other pictures have of the concept: a picture without it fades entirely, instead of showing
    a map of noise.
    """
    model = explorer.patch_model
    name = explorer.label(explorer.latent_of(concept)).name
    if model is None or model.concepts is None or name is None:
        return None
    try:
        latent = model.concepts.latent_of(name)
    except ValueError:  # the model of patches has no latent of that name
        return None
    activations = model.patch_map(picture, latent)
    scale = float(highest(explorer)[latent])
    drawn = overlay(picture, activations / max(_FULL * scale, 1e-12), model.backbone.patch_region(picture))
    return Where(drawn, activations, float(activations.max()), scale, min(COMPARED, len(explorer.images)))


def highest(explorer: Explorer) -> np.ndarray:
    """The largest activation of each latent of the patch model in the first pictures of the collection, (n,)."""
    return _highest.get(explorer, lambda: _compute_highest(explorer))


@torch.no_grad()
def _compute_highest(explorer: Explorer) -> np.ndarray:
    model = explorer.patch_model
    pictures = [explorer.picture(row) for row in range(min(COMPARED, len(explorer.images)))]
    all_tokens = model.backbone.read(model.hook_point.name, pictures)
    grids = model.backbone.patch_grids(prepare_images(model.backbone.image_processor, pictures))
    found = torch.zeros(model.msae.config.num_latents)
    for tokens, grid in zip(all_tokens, grids, strict=True):
        places = model.backbone.patch_positions(grid, len(tokens)).to(tokens.device)
        found = torch.maximum(found, model.msae.encode(tokens[places]).amax(dim=0).float().cpu())
    return found.numpy()


def overlay(picture: Image.Image, heat: np.ndarray, region: tuple[float, float, float, float]) -> Image.Image:
    """Fade a picture where `heat` (rows, columns) is 0 and outside `region`; where it is 1 or more, all colors stay.

    `region` is the part of the picture that the map covers, in its pixels: (left, upper, right, lower).
    """
    factor = SIDE / max(picture.size)
    size = tuple(max(1, round(side * factor)) for side in picture.size)
    small = picture.resize(size, Image.Resampling.BICUBIC)
    left, upper, right, lower = (edge * factor for edge in region)
    across, down = heat.shape[1] / (right - left), heat.shape[0] / (lower - upper)
    mask = Image.fromarray(np.round(255 * heat.clip(0, 1)).astype(np.uint8)).transform(
        size, Image.Transform.AFFINE, (across, 0, -left * across, 0, down, -upper * down)
    )
    faded = Image.blend(small.convert("L"), Image.new("L", size, _GRAY), _FADED).convert("RGB")
    return Image.composite(small, faded, mask)
