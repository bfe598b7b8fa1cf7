"""Open what the explorer shows: the models, the pictures, and their embeddings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import datasets
import torch
from PIL import Image
from tqdm import tqdm

from .._utils.images import to_rgb, undecoded
from ..backbones.image_text_data import open_dataset
from ..concepts.codes import open_embeddings
from ..hub.publishing.space_settings import ExplorerSettings
from ..hub.reading.opening import chosen_concepts, concepts_beside, load_msae
from ..model.modeling_msae import MSAEModel
from ..vision_text import VisionTextMSAE

logger = logging.getLogger(__name__)

Report = Callable[[str, float | None], None]
"""Takes what is being done, and which share of it is done if that is known."""
_LONG = 60.0
"""Seconds of embedding after which a warning says how to save them."""


def open_sources(
    settings: ExplorerSettings, report: Report
) -> tuple[VisionTextMSAE, VisionTextMSAE | None, datasets.Dataset, torch.Tensor]:
    """Open the model, the patch model, the pictures and their embeddings; embed the pictures if none are given."""
    # Everything is checked before the backbone is loaded and the pictures are embedded, which may take long.
    report("loading the model", None)
    strict = not settings.allow_other_backbone
    msae, patches = load_msae(settings.model, dtype="auto"), None
    if settings.patch_model is not None:
        patches = load_msae(settings.patch_model, dtype="auto")
    check_hook_points(msae, patches)
    if settings.concepts is None:
        concepts = concepts_beside(settings.model, getattr(msae.config, "_commit_hash", None))
    else:
        concepts = chosen_concepts(settings.concepts, settings.model)
    report("opening the pictures", None)
    images = open_dataset(settings.dataset, settings.split)
    images = _check_pictures(images, settings)
    rows = min(len(images), settings.max_images)
    given = None
    if settings.embeddings is not None:
        given = open_embeddings(msae, settings.embeddings, verify=settings.verify)
        if len(given) != len(images):
            raise ValueError(
                f"{settings.embeddings} has {len(given)} embeddings, but {settings.dataset} has {len(images)} "
                "pictures: these are not their embeddings"
            )
    images = images.select(range(rows))
    report("loading the backbone", None)
    backbone = VisionTextMSAE.from_pretrained(msae, settings.backbone, strict=strict).backbone
    model = VisionTextMSAE(backbone, msae, concepts, strict)
    patch_model = None
    if patches is not None:
        of_patches = concepts_beside(settings.patch_model, getattr(patches.config, "_commit_hash", None))
        patch_model = VisionTextMSAE(backbone, patches, of_patches, strict)
    embeddings = _embed(model, images[settings.image_column], report) if given is None else given[:rows]
    return model, patch_model, images, embeddings


def check_hook_points(msae: MSAEModel, patches: MSAEModel | None) -> None:
    """Raise ValueError unless the MSAEs belong to pooled image embeddings and to a vision block."""
    if (hook_point := msae.config.hook_point) != "image_embeds":
        raise ValueError(
            f"the explorer shows MSAEs of image_embeds, but this one is of {hook_point}; an MSAE of a vision block "
            "can be its patch_model"
        )
    if patches is not None and not (hook_point := patches.config.hook_point).startswith("vision.layers."):
        raise ValueError(
            "patch_model has to be an MSAE of a vision block (vision.layers.{i}), but this one is of " + hook_point
        )


def _check_pictures(images: datasets.Dataset, settings: ExplorerSettings) -> datasets.Dataset:
    column = settings.image_column
    if column not in images.column_names:
        of_pictures = [name for name, feature in images.features.items() if isinstance(feature, datasets.Image)]
        way = (
            f"name its column of pictures: --image_column {of_pictures[0]}"
            if of_pictures
            else f"and none of its columns holds pictures: {', '.join(images.column_names[:10])}"
        )
        raise ValueError(f"{settings.dataset} has no column {column!r}; {way}")
    if len(images) < 2:
        raise ValueError(f"{settings.dataset} has {len(images)} pictures, but the explorer compares them: give more")
    images = undecoded(images, column)
    try:
        to_rgb(images[0][column], f"row 0 of {column!r}")
    except (TypeError, OSError) as error:
        raise ValueError(f"column {column!r} of {settings.dataset} does not hold pictures: {error}") from error
    return images


def _embed(model: VisionTextMSAE, pictures: Sequence[Image.Image], report: Report) -> torch.Tensor:
    start, step, parts = time.monotonic(), model.backbone.image_batch_size, []
    for row in tqdm(range(0, len(pictures), step), desc="embedding", unit="batch", disable=None):  # on a terminal
        report("embedding the pictures", row / len(pictures))
        parts.append(model.image_embeds(pictures[row : row + step], progress=False))
    if (seconds := time.monotonic() - start) > _LONG:
        logger.warning(
            f"embedding {len(pictures)} pictures took {seconds:.0f} s, and will at every start: embed them once with "
            "`hf-msae extract`, and pass its output as --embeddings (MSAE_EMBEDDINGS)"
        )
    return torch.cat(parts)
