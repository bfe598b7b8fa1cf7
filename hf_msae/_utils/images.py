"""Conversion of images of every kind to upright 8-bit RGB."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from transformers.utils import logging

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)

ImageInput = Image.Image | str | os.PathLike | np.ndarray | torch.Tensor | Mapping
_TURNS = {  # EXIF orientation -> how the picture becomes upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTED_BY = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
"""Formats that are read. Pillow knows others, some of which run a program (EPS) or have decoders that few test."""
PICTURE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic"),
    *(".ppm", ".pgm", ".pbm", ".jp2"),
)


def is_picture(item: ImageInput) -> bool:
    """Whether an item that may be an image or a text is an image.

    A string is an image if it is the path of a file or ends like the name of a picture; any other string is a text.
    """
    if not isinstance(item, str):
        return True
    path = os.path.expanduser(item)
    return path.lower().endswith(PICTURE_SUFFIXES) or os.path.isfile(path)


def to_rgb(image: ImageInput, name: str = "the image", mode: str | None = None) -> Image.Image:
    """Convert an image to upright 8-bit RGB; errors call it `name`.

    The orientation recorded by a camera (EXIF) is applied, if it can be read. Transparent areas become white. 16-bit
    gray values are divided by 257, where Pillow would clip them at 255. Pillow converts palette, gray, black-and-white
    and CMYK pictures, and those of other color spaces.

    An image is a PIL image, a path, what `datasets.Image(decode=False)` gives ("bytes" or else "path"), or uint8
    values of shape (height, width), (height, width, 1), (height, width, 3) for RGB or (height, width, 4) for RGBA.
    `mode` is that of `datasets.Image(mode)`, to which it would have converted.
    """
    if isinstance(image, str | os.PathLike):
        name, path = f"{name} ({os.fspath(image)})", Path(image).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{name} does not exist")
        try:
            with path.open("rb") as file:
                image = open_picture(file)
        except Exception as error:  # a damaged file can make Pillow raise nearly anything
            raise ValueError(f"{name} cannot be decoded: {type(error).__name__}: {error}") from error
    elif isinstance(image, Mapping):
        name += f" ({image['path']})" if image.get("path") else ""
        image = _from_stored(image, name, mode)
    elif isinstance(image, np.ndarray | torch.Tensor):
        image = _from_array(np.asarray(image.cpu() if isinstance(image, torch.Tensor) else image), name)
    elif not isinstance(image, Image.Image):
        raise TypeError(f"{name} must be a PIL image, path or uint8 array, got {type(image).__name__}: {image!r:.100}")
    try:
        return _mode_to_rgb(upright(image, name), name)
    except (OSError, SyntaxError) as error:  # PIL images are decoded when they are first used
        raise ValueError(f"{name} cannot be decoded: {error}") from error


def thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """Shrink a picture to a longer side of `side`, or enlarge a small one by a whole factor with sharp pixels."""
    if (factor := side // max(picture.size)) > 1:
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture = picture.copy()
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def readable_formats() -> list[str]:
    """Return those of the `FORMATS` that this Pillow can read."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def open_picture(file: BinaryIO) -> Image.Image:
    """Open and decode a picture of one of the `FORMATS`."""
    image = Image.open(file, formats=readable_formats())
    image.load()
    return image


def upright(image: Image.Image, name: str = "the image") -> Image.Image:
    """Apply the orientation recorded by a camera. If it cannot be read, a warning says so and the image stays.

    Pillow's `ImageOps.exif_transpose` also writes the other EXIF entries anew, and fails if one of them is odd.
    """
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception as error:  # damaged metadata make Pillow raise nearly anything
        logger.warning(
            f"the orientation of {name} cannot be read, so it is not turned: {type(error).__name__}: {error}"
        )
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    for key in _ORIENTED_BY:
        turned.info.pop(key, None)
    return turned


def undecoded(images: Dataset, column: str) -> Dataset:
    """Return a dataset whose pictures are left to `to_rgb`: `datasets` decodes any format that Pillow knows."""
    import datasets

    kind = images.features[column]
    if not isinstance(kind, datasets.Image) or kind.mode is not None:  # a mode is applied by datasets
        return images
    return images.cast_column(column, datasets.Image(decode=False))


def _from_stored(value: Mapping, name: str, mode: str | None) -> Image.Image:
    from datasets.utils.file_utils import xopen  # a path can be one in an archive or on the Hub

    content, path = value.get("bytes"), value.get("path")
    if content is None and path is None:
        raise ValueError(f"{name} is missing (None)")
    try:
        with xopen(path, "rb") if content is None else io.BytesIO(content) as file:
            image = upright(open_picture(file), name)
        return image if mode in (None, image.mode) else image.convert(mode)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name} does not exist") from error
    except UnidentifiedImageError as error:
        formats = ", ".join(readable_formats())
        raise ValueError(f"{name} cannot be decoded: its format is none of {formats}") from error
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        raise ValueError(f"{name} cannot be decoded: {type(error).__name__}: {error}") from error


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
        raise ValueError(f"{name} has 32-bit values (mode {image.mode}) of unknown scale; convert it to 8 bits first")
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
