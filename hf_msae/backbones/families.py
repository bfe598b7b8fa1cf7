"""What each supported model class is, and how its texts were prepared in pre-training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Family:
    """How a transformers model class is used."""

    model_type: str  # model type in its config
    image_width: str  # path in the config to the dimension of an image embedding
    text_width: str | None = None  # the same for a text embedding; None for models without a text tower
    text_padding: str = "longest"  # padding of texts in pre-training
    text_mask: bool = True  # whether the text tower saw in pre-training which tokens are padding
    lower_case: bool = False  # whether texts were lower-cased in pre-training, before they were tokenized
    pads_patches: bool = False  # whether an image has as many patches as fit it, which come first, followed by padding


# What a text tower was pre-trained on decides how texts are prepared. The files of a tokenizer do not: its classes and
# copies that were saved again pad on the other side, return a mask or keep the case.
#
# CLIP (Radford et al. 2021, arXiv:2103.00020, section 2.4, and `clip.tokenize` in openai/CLIP) and MetaCLIP 2: padding
# on the right, so that under the causal mask the end-of-text token, which is pooled, sees none of it. How long it is
# and whether it is masked makes no difference. CLIP's tokenizer lower-cases by itself.
#
# SigLIP (Zhai et al. 2023, arXiv:2303.15343; text tower and `tokenize` in google-research/big_vision; the example in
# transformers' SiglipTextModel): padding on the right to the full length and no mask; the last position is pooled,
# usually padding, so another length, side or mask gives other embeddings. The SigLIP tokenizer lower-cases by itself.
#
# SigLIP 2 (Tschannen et al. 2025, arXiv:2502.14786, section 2.1): the same, with Gemma's tokenizer, and texts are
# lower-cased first, which Gemma's tokenizer does not do (transformers' Siglip2Tokenizer does, since
# huggingface/transformers#43101). Checkpoints of fixed image size have the model type "siglip", so they are known by
# that tokenizer.
_SIGLIP = {
    "image_width": "vision_config.hidden_size",
    "text_width": "text_config.projection_size",
    "text_padding": "max_length",
    "text_mask": False,
}
FAMILIES: dict[str, Family] = {
    "CLIPModel": Family("clip", "projection_dim", "projection_dim"),
    "MetaClip2Model": Family("metaclip_2", "projection_dim", "projection_dim"),
    "SiglipModel": Family("siglip", **_SIGLIP),
    "Siglip2Model": Family("siglip2", **_SIGLIP, lower_case=True, pads_patches=True),
    "CLIPVisionModel": Family("clip_vision_model", "hidden_size"),
    "CLIPVisionModelWithProjection": Family("clip_vision_model", "projection_dim"),
    "SiglipVisionModel": Family("siglip_vision_model", "hidden_size"),
    "Siglip2VisionModel": Family("siglip2_vision_model", "hidden_size", pads_patches=True),
    "Dinov2Model": Family("dinov2", "hidden_size"),
    "Dinov2WithRegistersModel": Family("dinov2_with_registers", "hidden_size"),
}


def family_of(model: PreTrainedModel, name: str | None = None) -> Family:
    """Return the family of a loaded model, or of the class it derives from."""
    for base in type(model).__mro__:
        if base.__name__ in FAMILIES:
            if not getattr(getattr(model.config, "vision_config", model.config), "vision_use_head", True):
                raise ValueError(f"{name or base.__name__} has no pooling head (vision_use_head), so no image_embeds")
            return FAMILIES[base.__name__]
    raise ValueError(f"{type(model).__name__} cannot serve as a backbone; supported: {', '.join(FAMILIES)}")


def text_settings(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, mask: bool | None = None
) -> dict[str, Any]:
    """How texts are prepared for a model: the tokenizer's arguments, and whether texts are lower-cased first.

    Args:
        model: A model with a text tower.
        tokenizer: Its tokenizer, if there is one.
        mask: Whether the text tower sees which tokens are padding. None: as in pre-training.
    """
    family = family_of(model)
    # `do_lower_case` in a tokenizer's files has no effect in a tokenizer class that does not know it.
    files: Mapping[str, Any] = getattr(tokenizer, "init_kwargs", {})
    lower_case = family.lower_case or bool(files.get("do_lower_case")) or "Gemma" in type(tokenizer).__name__
    return {
        "padding": family.text_padding,
        "truncation": True,
        "max_length": model.config.text_config.max_position_embeddings,
        "padding_side": "right",
        "return_attention_mask": family.text_mask if mask is None else mask,
        "lower_case": lower_case,
    }
