"""Conversion of images of every kind to upright 8-bit RGB."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

ImageInput = Image.Image | str | os.PathLike | np.ndarray | torch.Tensor


def to_rgb(image: ImageInput, name: str = "the image") -> Image.Image:
    """Convert an image to upright 8-bit RGB.

    The orientation recorded by a camera (EXIF) is applied. Transparent areas become white. 16-bit gray values are
    divided by 257, where Pillow would clip them at 255. Pillow converts palette, gray, black-and-white, CMYK and other
    color spaces.

    Args:
        image: A PIL image, a path, or uint8 values of shape (height, width), (height, width, 1), (height, width, 3)
            for RGB or (height, width, 4) for RGBA.
        name: Name of the image in messages.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The image cannot be decoded, its shape is not that of an image, or the scale of its values is
            unknown (32-bit).
        TypeError: It is not an image.
    """
    if isinstance(image, str | os.PathLike):
        name, path = f"{name} ({os.fspath(image)})", Path(image).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{name} does not exist")
        try:
            with Image.open(path) as image:
                image.load()
        except Exception as error:  # a damaged file can make Pillow raise nearly anything
            raise ValueError(f"{name} cannot be decoded: {type(error).__name__}: {error}") from error
    elif isinstance(image, np.ndarray | torch.Tensor):
        image = _from_array(np.asarray(image.cpu() if isinstance(image, torch.Tensor) else image), name)
    elif not isinstance(image, Image.Image):
        raise TypeError(f"{name} must be a PIL image, path or uint8 array, got {type(image).__name__}: {image!r:.100}")
    try:
        return _mode_to_rgb(ImageOps.exif_transpose(image), name)
    except (OSError, SyntaxError) as error:  # PIL images are decoded when they are first used
        raise ValueError(f"{name} cannot be decoded: {error}") from error


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    shape = array.shape[:2] if array.ndim == 3 and array.shape[2] == 1 else array.shape
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))
    if array.dtype != np.uint8 or not is_image or 0 in shape:
        raise ValueError(
            f"{name} has dtype {array.dtype} and shape {array.shape}; an image array is uint8 of shape "
            "(height, width), (height, width, 3) or (height, width, 4)"
        )
    return Image.fromarray(np.ascontiguousarray(array.reshape(shape)))


def _mode_to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or (image.mode == "I" and not _fits_16_bits(image)):
        raise ValueError(
            f"{name} has 32-bit values (mode {image.mode}) of unknown scale; convert it to 8 bits per channel first"
        )
    if image.mode.startswith("I"):
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "La":  # premultiplied; Pillow only converts it back to LA
        image = image.convert("LA")
    if image.mode in ("P", "PA", "LA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _fits_16_bits(image: Image.Image) -> bool:
    low, high = image.getextrema()
    return low >= 0 and high <= 65535
