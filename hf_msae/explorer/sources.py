"""Open what the explorer shows: the models, the pictures, and their embeddings."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from PIL import Image
from tqdm import tqdm

from .._utils.built_in import find_built_in
from .._utils.images import to_rgb, undecoded
from ..backbones.image_text_data import open_dataset
from ..backbones.pictures import open_pictures
from ..concepts.codes import open_embeddings
from ..embeddings import EmbeddingDataset
from ..hub.publishing.space_settings import DEFAULT_DATASET, ExplorerSettings
from ..hub.reading.opening import chosen_concepts, concepts_beside, load_msae
from ..model.modeling_msae import MSAEModel
from ..scenes.backbone import BACKBONE_NAME
from ..search.files import default_folder
from ..vision_text import VisionTextMSAE

logger = logging.getLogger(__name__)

Report = Callable[[str, float | None], None]
"""Takes what is being done, and which share of it is done if that is known."""
INDEX_K = 32
"""Activations of each picture that are indexed, of an MSAE whose codes keep as many."""
_LONG = 60.0
"""Seconds of embedding after which a warning says how to save them."""


def open_sources(settings: ExplorerSettings, report: Report) -> dict[str, Any]:
    """Open what `Explorer` takes, by the names of its arguments; embed the pictures if no embeddings are given."""
    # Everything is checked before the backbone is loaded and the pictures are embedded, which may take long.
    report("loading the model", None)
    swordbench, edits = None, {}
    if settings.swordbench is not None:
        from ..steering import SwordBenchResult  # here, since the room of steering is slow to import

        swordbench = SwordBenchResult.load(settings.swordbench)
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
    images, column, given = _open_pictures(msae, settings)
    rows = min(len(images), settings.max_images)
    images = images.select(range(rows))
    report("loading the backbone", None)
    backbone = VisionTextMSAE.from_pretrained(msae, settings.backbone, strict=strict).backbone
    if settings.edits is not None:
        from .edits import check_edits, read_edits

        edits = read_edits(settings.edits)
        check_edits(edits, backbone)
    model = VisionTextMSAE(backbone, msae, concepts, strict)
    patch_model = None
    if patches is not None:
        of_patches = concepts_beside(settings.patch_model, getattr(patches.config, "_commit_hash", None))
        patch_model = VisionTextMSAE(backbone, patches, of_patches, strict)
    embeddings = _embed(model, images[column], report) if given is None else given[:rows]
    is_whole = given is not None and rows == len(given)
    return {
        "model": model,
        "images": images,
        "embeddings": embeddings,
        "patch_model": patch_model,
        "image_column": column,
        "edits": edits,
        "swordbench": swordbench,
        "index_folder": _index_folder(msae, given) if is_whole else None,
    }


def _index_folder(msae: MSAEModel, embeddings: EmbeddingDataset) -> Path:
    """Return where the index of these very embeddings is kept: of others in the same place, it is another folder."""
    content = hashlib.sha256()
    for block in embeddings.blocks():
        content.update(block.contiguous().numpy())
    folder = default_folder(msae, embeddings, index_k(msae))
    return folder.with_name(f"{folder.name}-{content.hexdigest()[:16]}")


def index_k(msae: MSAEModel) -> int:
    """Return how many latents count as the strongest of a picture: none that the codes shown do not keep."""
    return min(INDEX_K, msae.family.default_k(msae.config))


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


def _open_pictures(
    msae: MSAEModel, settings: ExplorerSettings
) -> tuple[datasets.Dataset, str, EmbeddingDataset | None]:
    """Open the pictures, and their embeddings if they are given, which may name their pictures and the column."""
    dataset, column, given = settings.dataset, settings.image_column, None
    if settings.embeddings is not None:
        given = open_embeddings(msae, settings.embeddings, verify=settings.verify)
        images = open_pictures(given, dataset, settings.split, "--dataset")
        dataset = dataset or given.provenance.get("dataset")
        column = column or given.provenance.get("image_column")
    else:
        if dataset is None and find_built_in(msae.config.base_model_name_or_path or "") == BACKBONE_NAME:
            dataset = DEFAULT_DATASET
        images = None if dataset is None else open_dataset(dataset, settings.split)
    if images is None:
        raise ValueError(
            f"it is not known which pictures to show with {settings.model}: name a dataset of them with --dataset "
            "(MSAE_DATASET), or embeddings of some with --embeddings (MSAE_EMBEDDINGS)"
        )
    column = column or "image"
    return _check_pictures(images, dataset, column), column, given


def _check_pictures(images: datasets.Dataset, dataset: str, column: str) -> datasets.Dataset:
    if column not in images.column_names:
        names = ", ".join(images.column_names)
        raise ValueError(
            f"{dataset} has no column {column!r}, only {names}: name that of pictures with --image_column"
        )
    if len(images) < 2:
        raise ValueError(f"{dataset} has {len(images)} pictures, but the explorer compares them: give more")
    images = undecoded(images, column)
    try:
        to_rgb(images.select_columns([column])[0][column], f"row 0 of {column!r}")
    except (TypeError, OSError) as error:
        raise ValueError(f"column {column!r} of {dataset} does not hold pictures: {error}") from error
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
