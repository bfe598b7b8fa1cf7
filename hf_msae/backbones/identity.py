"""What a backbone is known by: the hashes of its weights and image processor, and not the path where it lies."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch
from transformers.image_processing_utils import BaseImageProcessor

from hf_msae._utils.fingerprint import weights_sha256

if TYPE_CHECKING:
    from hf_msae.backbones.backbone import Backbone

# The settings that change pixels. Others come and go with versions of transformers.
_SETTINGS = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std", "patch_size", "max_num_patches"),
)


def processor_sha256(image_processor: BaseImageProcessor) -> str:
    """SHA-256 of what an image processor does to pixels."""
    known = json.loads(image_processor.to_json_string())
    settings = {name: known[name] for name in _SETTINGS if known.get(name) is not None}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def provenance_of(backbone: Backbone) -> dict[str, Any]:
    """Everything about a backbone that affects an embedding, as JSON."""
    model, image_processor = backbone.model, backbone.image_processor
    known = {
        "base_model_name_or_path": backbone.name_or_path,
        "base_model_revision": backbone.revision,
        "base_model_class": type(model).__name__,
        "base_model_dtype": str(model.dtype).removeprefix("torch."),
        "base_model_weights_sha256": own_weights_sha256(backbone),
        "base_model_processor_sha256": processor_sha256(image_processor),
        "image_processor": type(image_processor).__name__,
        "image_processor_backend": getattr(image_processor, "backend", None),
        "image_processor_settings": json.loads(image_processor.to_json_string()),
    }
    if backbone.adapter is not None:
        known["base_model_adapter"] = f"{backbone.adapter}, merged"
    if backbone.has_text_tower:
        known["text_settings"] = backbone.text_settings
    return known


def own_weights_sha256(backbone: Backbone) -> str:
    """SHA-256 of a backbone's weights in float32: of what its files hold, in whatever type they were loaded."""
    known = None if backbone.origin is None else backbone.origin.sha256_of(backbone.model)
    return known or weights_sha256(backbone.model, torch.float32)


def difference(backbone: Backbone, weights: str | None, processor: str | None) -> str | None:
    """How a backbone differs from one with these hashes: in words, "" if it does not, None if that cannot be said."""
    if weights is None:
        return None
    if weights != own_weights_sha256(backbone):
        # Version 0.1 recorded the hash of weights in half precision if they had been loaded like this.
        if backbone.model.dtype == torch.float32 or weights != weights_sha256(backbone.model):
            return "other weights"
    if processor not in (None, processor_sha256(backbone.image_processor)):
        return "another image processor"
    return ""
