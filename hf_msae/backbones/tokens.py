"""The inputs of a tower, and which of its tokens are patches, words or padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from hf_msae._utils.images import ImageInput, to_rgb
from hf_msae.backbones.families import Family, text_settings


class TokenPositions:
    """The part of [`Backbone`] that knows which token is what."""

    model: PreTrainedModel
    image_processor: BaseImageProcessor
    tokenizer: PreTrainedTokenizerBase | None
    text_mask: bool | None
    _family: Family

    def read_patches(self, hook_point: str, image: ImageInput) -> tuple[torch.Tensor, tuple[int, int]]:
        """Read the tokens of an image's patches at a vision block, without class token, registers and padding.

        Returns:
            float32 (rows * columns, width), row by row, and (rows, columns).
        """
        inputs = prepare_images(self.image_processor, [to_rgb(image)])
        tokens = self.read(hook_point, [image])[0]
        (grid,) = self.patch_grids(inputs)
        return tokens[self.patch_positions(grid, len(tokens)).to(tokens.device)], grid

    def patch_grids(self, inputs: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
        """Rows and columns of patches of each image in the output of [`prepare_images`]."""
        if "spatial_shapes" in inputs:  # SigLIP 2: as many patches as fit the image, then padding
            return [tuple(shape) for shape in inputs["spatial_shapes"].tolist()]
        patch = getattr(self.model.config, "vision_config", self.model.config).patch_size
        rows, columns = (side // patch for side in inputs["pixel_values"].shape[-2:])
        return [(rows, columns)] * len(inputs["pixel_values"])

    def patch_region(self, image: ImageInput) -> tuple[float, float, float, float]:
        """The part of an image that its patches cover after cropping, in pixels: (left, upper, right, lower)."""
        width, height = to_rgb(image).size
        settings = self.image_processor
        if not getattr(settings, "do_center_crop", False):
            return 0.0, 0.0, float(width), float(height)
        size, crop = settings.size, settings.crop_size
        across = down = 1.0  # pixels of the image for each pixel of the processor
        if settings.do_resize:
            if "shortest_edge" in size:
                across = down = min(width, height) / size["shortest_edge"]
            else:
                across, down = width / size["width"], height / size["height"]
        cut_width, cut_height = crop["width"] * across, crop["height"] * down
        left, upper = (width - cut_width) / 2, (height - cut_height) / 2
        return left, upper, left + cut_width, upper + cut_height

    def patch_positions(self, grid: tuple[int, int], num_tokens: int) -> torch.Tensor:
        """Positions of an image's patches among its tokens, row by row: no class token, registers or padding."""
        first = 0 if self._family.pads_patches else num_tokens - grid[0] * grid[1]
        return torch.arange(first, first + grid[0] * grid[1])

    def image_tokens(self, grid: tuple[int, int], num_tokens: int) -> torch.Tensor:
        """Positions of an image's tokens without padding."""
        return self.patch_positions(grid, num_tokens) if self._family.pads_patches else torch.arange(num_tokens)

    def text_tokens(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Positions of each text's tokens without padding, special tokens included."""
        tokens = self.tokenize(texts, return_attention_mask=True)
        return [mask.nonzero().flatten() for mask in tokens["attention_mask"]]

    def tokenize(self, texts: Sequence[str], **settings: Any) -> BatchEncoding:
        """Turn texts into the model's inputs, with `text_settings` and, in place of some of them, `settings`."""
        settings = {**self.text_settings, **settings}
        if settings.pop("lower_case"):
            texts = [text.lower() for text in texts]
        tokens = self.tokenizer(list(texts), return_tensors="pt", **settings)
        tokens.pop("token_type_ids", None)  # generic tokenizers return them, but no text tower takes them
        return tokens

    @property
    def text_settings(self) -> dict[str, Any]:
        """How texts are prepared, as in the model's pre-training; see `hf_msae.backbones.families`."""
        return text_settings(self.model, self.tokenizer, self.text_mask)


def prepare_images(image_processor: BaseImageProcessor, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """Turn RGB images into the model's inputs. Needs no model, so worker processes can do it."""
    # The image processor itself: Siglip2Processor would override the saved settings with its own defaults.
    return dict(image_processor(images=list(images), return_tensors="pt"))
