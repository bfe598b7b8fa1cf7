"""Where in a picture a concept is, drawn small and fast."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image

from ...backbones import prepare_images

if TYPE_CHECKING:
    from ..explorer import Explorer

SIDE = 384
"""Pixels of the longer side of a map."""
COMPARED = 64
"""Pictures of the collection that a map is compared with."""
_BATCH = 64
_FULL = 0.5
"""A patch with this share of the strongest one of the collection keeps all its colours."""
_FADED, _GREY = 0.25, 70
# Where a concept is not, a picture is faded to grey: seen without telling colours apart, and in dark pictures too.
_highest: WeakKeyDictionary[Explorer, np.ndarray] = WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True)
class Where:
    """A map of a concept.

    Attributes:
        picture: in colours where the concept is, faded where it is not.
        activations: of the patches, (rows, columns).
        strongest: the largest of them.
        scale: the largest activation in `num_compared` pictures of the collection; from half of it on, a patch keeps
            all its colours.
    """

    picture: Image.Image
    activations: np.ndarray
    strongest: float
    scale: float
    num_compared: int


def where(explorer: Explorer, picture: Image.Image, concept: Any) -> Where | None:
    """The map of a concept.

    Its scale is what other pictures have of the concept, and not this one's largest patch: a picture without the
    concept has a faded map, and not a map of noise.

    Args:
        explorer: with a patch model.
        picture: RGB.
        concept: the name of one, or "latent 417" for the name of that latent.

    Returns:
        None where the explorer has no patch model, or that model no latent of the name.

    Raises:
        VisitorError: there is no such concept.
    """
    model = explorer.patch_model
    name = explorer.label(explorer.latent_of(concept)).name
    if model is None or model.concepts is None or name is None:
        return None
    try:
        latent = model.concepts.latent_of(name)
    except ValueError:
        return None
    activations = model.patch_map(picture, latent)
    number = min(COMPARED, len(explorer.images))
    scale = float(highest(explorer)[latent])
    region = model.backbone.patch_region(picture)
    drawn = overlay(picture, activations / max(_FULL * scale, 1e-12), region)
    return Where(drawn, activations, float(activations.max()), scale, number)


@torch.no_grad()
def highest(explorer: Explorer) -> np.ndarray:
    """The largest activation of each latent of the patch model in the first pictures of the collection, (n,)."""
    with _lock:
        if explorer not in _highest:
            model = explorer.patch_model
            pictures = [explorer.picture(row) for row in range(min(COMPARED, len(explorer.images)))]
            tokens = model.backbone.read(model.hook_point.name, pictures, _BATCH)
            grids = model.backbone.patch_grids(prepare_images(model.backbone.image_processor, pictures))
            found = torch.zeros(model.msae.config.num_latents)
            for each, grid in zip(tokens, grids, strict=True):
                places = model.backbone.patch_positions(grid, len(each)).to(each.device)
                found = torch.maximum(found, model.msae.encode(each[places]).amax(dim=0).float().cpu())
            _highest[explorer] = found.numpy()
        return _highest[explorer]


def overlay(picture: Image.Image, heat: np.ndarray, region: tuple[float, float, float, float]) -> Image.Image:
    """A picture that keeps its colours where a map is high, and fades to grey where it is low.

    Args:
        picture: RGB.
        heat: 0 to 1, (rows, columns); beyond is cut off.
        region: (left, upper, right, lower) of the picture that the map covers, in pixels of it.
    """
    factor = SIDE / max(picture.size)
    size = tuple(max(1, round(side * factor)) for side in picture.size)
    base = np.asarray(picture.resize(size, Image.Resampling.BICUBIC), np.float32)
    heat = np.clip(heat, 0, 1).astype(np.float32)
    # The patches are looked up for each pixel, so that a region beyond the picture's border is no special case.
    left, upper, right, lower = (edge * factor for edge in region)
    columns = np.floor((np.arange(size[0]) + 0.5 - left) / (right - left) * heat.shape[1]).astype(int)
    rows = np.floor((np.arange(size[1]) + 0.5 - upper) / (lower - upper) * heat.shape[0]).astype(int)
    inside = ((rows >= 0) & (rows < heat.shape[0]))[:, None] & ((columns >= 0) & (columns < heat.shape[1]))[None, :]
    value = heat[np.clip(rows, 0, heat.shape[0] - 1)[:, None], np.clip(columns, 0, heat.shape[1] - 1)[None, :]]
    shown = np.where(inside, value, 0)[..., None]
    faded = _FADED * base.mean(axis=2, keepdims=True) + (1 - _FADED) * _GREY
    return Image.fromarray(np.round(faded + (base - faded) * shown).astype(np.uint8))
