"""The model whose embeddings are read: a transformers CLIP, SigLIP, SigLIP 2 or DINOv2 with its processor."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from hf_msae._utils.fingerprint import weights_sha256
from hf_msae._utils.images import ImageInput, to_rgb
from hf_msae.backbones.hook_points import POOLED, HookPoint, blocks_of, find_site
from hf_msae.backbones.loading import family_of, load_model, load_processor, locate


class Backbone:
    """A pre-trained model and its processor, from pictures and texts to embeddings.

    Embeddings are pooled, projected where the model projects, and not L2-normalised: what transformers'
    `get_image_features(...).pooler_output` and `get_text_features(...).pooler_output` give, `image_embeds` of a
    `...VisionModelWithProjection`, and `pooler_output` (the CLS token or attention pooling) of other vision models.

    Usually made by [`Backbone.from_pretrained`]. The model is put into evaluation mode.

    Args:
        model: one of `CLIPModel`, `MetaClip2Model`, `SiglipModel`, `Siglip2Model`, `CLIPVisionModel`,
            `CLIPVisionModelWithProjection`, `SiglipVisionModel`, `Siglip2VisionModel`, `Dinov2Model`,
            `Dinov2WithRegistersModel`.
        processor: its transformers processor, or an image processor where texts are not needed.
        name_or_path: Hub id or folder, for messages, metadata and cards.
        revision: the commit on the Hub.
        image_batch_size: images per forward pass in `image_embeds`; changes speed and memory only.
        text_batch_size: the same for `text_embeds`.

    Raises:
        ValueError: the model is of a kind that is not supported, or has no pooled output.

    Example:
        >>> backbone = Backbone.from_pretrained("google/siglip2-base-patch16-224")
        >>> backbone.image_embeds(["cat.jpg", "dog.png"]).shape
        torch.Size([2, 768])
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        name_or_path: str | None = None,
        revision: str | None = None,
        image_batch_size: int = 64,
        text_batch_size: int = 256,
    ) -> None:
        self._family = family_of(model, name_or_path)
        self.model = model.eval()
        self.processor = processor
        self.name_or_path = name_or_path
        self.revision = revision
        self.image_batch_size = image_batch_size
        self.text_batch_size = text_batch_size
        # Why texts cannot be read although the model has a text tower.
        self._no_texts = "" if self.tokenizer is not None else "its processor has no tokenizer"

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike | PreTrainedModel,
        revision: str | None = None,
        processor: Any = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> Backbone:
        """Load a backbone.

        Args:
            source: a folder in transformers' format, a model on the Hub, "scenes" (the small SigLIP that comes with
                this package), or a model that is loaded already.
            revision: commit, tag or branch on the Hub; `.revision` is the commit it stands for.
            processor: used instead of the one saved with the model. The saved one is loaded with its PIL backend,
                because the torchvision backend resizes a little differently.
            dtype: of the weights and of the computation, e.g. "bfloat16". None: float32, and a loaded model stays as
                it is. Embeddings are returned as float32 in any case.
            device: where the model runs. None: the CPU, and a loaded model stays where it is.
            kwargs: `image_batch_size`, `text_batch_size`.

        Raises:
            FileNotFoundError: there is no such folder, and no such model that can be reached on the Hub.
            ValueError: it is no supported model, lacks weights, or its processor cannot be loaded.
        """
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        if isinstance(source, PreTrainedModel):
            model, location = source, source.name_or_path
            name = location or None
            if processor is None and name is None:
                raise ValueError(f"this {type(model).__name__} was not loaded from anywhere: pass processor= with it")
            model = model if dtype is None else model.to(dtype)
        else:
            location, name, revision = locate(source, revision)
            model = load_model(location, name, revision, dtype or torch.float32)
        with_text = family_of(model, name).text_width is not None
        problem = ""
        if processor is None:
            processor, problem = load_processor(location, name, revision, with_text)
        backbone = cls(model if device is None else model.to(device), processor, name, revision, **kwargs)
        backbone._no_texts = problem or backbone._no_texts
        return backbone

    @property
    def image_processor(self) -> BaseImageProcessor:
        """The processor's part for images."""
        return getattr(self.processor, "image_processor", self.processor)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The processor's part for texts; None where there is none."""
        return getattr(self.processor, "tokenizer", None)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def hook_points(self) -> tuple[str, ...]:
        """Where embeddings can be read and edited: "image_embeds", "vision.layers.0", ... and, where there is a text
        tower, "text_embeds", "text.layers.0", ...
        """
        found = []
        for pooled, tower in POOLED.items():
            blocks = blocks_of(self.model, tower)
            if blocks is not None:
                found += [pooled, *(f"{tower}.layers.{i}" for i in range(len(blocks)))]
        return tuple(found)

    def require(self, hook_point: str) -> None:
        """Check that embeddings can be read at a hook point.

        Raises:
            ValueError: the model does not have it, or its processor cannot read texts.
        """
        if hook_point == "text_embeds" and self._family.text_width is None:
            raise ValueError(f"{self._label()} has no text tower, so no text_embeds; use a model with two towers")
        if hook_point not in self.hook_points:
            layers = [len(blocks_of(self.model, tower) or ()) for tower in ("vision", "text")]
            its = f"image_embeds and vision.layers.0 to {layers[0] - 1}"
            its += f", text_embeds and text.layers.0 to {layers[1] - 1}" if layers[1] else ""
            raise ValueError(f"unknown hook point {hook_point!r}; {self._label()} has {its}")
        if hook_point.startswith("text") and self._no_texts:
            raise ValueError(f"{self._label()} cannot read texts: {self._no_texts}")

    def width(self, hook_point: str = "image_embeds") -> int:
        """Numbers per embedding at a hook point."""
        if hook_point not in self.hook_points:
            self.require(hook_point)
        family, config = self._family, self.model.config
        point = HookPoint.parse(hook_point)
        if point.layer is not None:
            return getattr(config, f"{point.tower}_config", config).hidden_size
        return attrgetter(family.image_width if hook_point == "image_embeds" else family.text_width)(config)

    def to(self, device: str | torch.device) -> Backbone:
        """Move the model; returns self."""
        self.model.to(device)
        return self

    def image_embeds(self, images: ImageInput | Iterable[ImageInput], batch_size: int | None = None) -> torch.Tensor:
        """Embed images.

        Args:
            images: PIL images of any mode, paths, or uint8 arrays (height, width[, channels]); or a single one. See
                [`hf_msae._utils.images.to_rgb`] for how they become RGB.
            batch_size: images per forward pass; None means `image_batch_size`.

        Returns:
            float32 of shape (n, width), not normalised, on the model's device.

        Raises:
            FileNotFoundError, ValueError, TypeError: an image cannot be read; the message names its index and path.
        """
        images = [images] if isinstance(images, ImageInput) else list(images)
        parts = []
        for rows in _batches(len(images), batch_size, self.image_batch_size):
            rgb = [to_rgb(images[row], f"image {row}") for row in rows]
            parts.append(self.embed_pixels(prepare_images(self.image_processor, rgb)))
        return torch.cat(parts) if parts else torch.empty(0, self.width("image_embeds"), device=self.device)

    @torch.no_grad()
    def embed_pixels(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Embed what [`prepare_images`] made of images: one forward pass, float32 of shape (n, width)."""
        inputs = {
            name: tensor.to(self.device, self.model.dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in inputs.items()
        }
        if self._family.text_width is not None:
            return self.model.get_image_features(**inputs).pooler_output.float()
        outputs = self.model(**inputs)
        return (outputs.image_embeds if "image_embeds" in outputs else outputs.pooler_output).float()

    @torch.no_grad()
    def text_embeds(self, texts: str | Iterable[str], batch_size: int | None = None) -> torch.Tensor:
        """Embed texts, padded as in the model's pre-training and cut to the length its text tower can take.

        Args:
            texts: strings; or a single one.
            batch_size: texts per forward pass; None means `text_batch_size`.

        Returns:
            float32 of shape (n, width), not normalised, on the model's device.

        Raises:
            ValueError: the model has no text tower, or its processor no tokenizer.
            TypeError: something among the texts is not a string.
        """
        return self._embed_texts(texts, batch_size, self._family.text_padding)

    @torch.no_grad()
    def _embed_texts(self, texts: str | Iterable[str], batch_size: int | None, padding: str) -> torch.Tensor:
        self.require("text_embeds")
        texts = [texts] if isinstance(texts, str) else list(texts)
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"text {index} is not a string but {type(text).__name__}: {text!r:.100}")
        parts, settings = [], {**self.text_settings, "padding": padding}
        for rows in _batches(len(texts), batch_size, self.text_batch_size):
            tokens = self.tokenizer([texts[row] for row in rows], return_tensors="pt", **settings)
            parts.append(self.model.get_text_features(**tokens.to(self.device)).pooler_output.float())
        return torch.cat(parts) if parts else torch.empty(0, self.width("text_embeds"), device=self.device)

    @torch.no_grad()
    def read(
        self, hook_point: str, items: ImageInput | str | Iterable[ImageInput | str], batch_size: int | None = None
    ) -> torch.Tensor:
        """Embeddings of images or texts at any hook point.

        Args:
            hook_point: pooled ones are those of `image_embeds` and `text_embeds`.
            items: images for a hook point of the vision tower, texts for one of the text tower.
            batch_size: per forward pass.

        Returns:
            float32 (n, width); at a block (n, tokens, width), the tokens of texts being as many as the tower can take.
            The model's edits in force, if there are any, are in it.

        Raises:
            ValueError: the model does not have the hook point. Others, as for pooled embeddings.
        """
        self.require(hook_point)
        point = HookPoint.parse(hook_point)
        if point.layer is None:
            return (self.image_embeds if point.tower == "vision" else self.text_embeds)(items, batch_size)
        with self.recording([hook_point]) as recorded:
            if point.tower == "vision":
                self.image_embeds(items, batch_size)
            else:
                self._embed_texts(items, batch_size, "max_length")  # so that all texts have as many tokens
        tokens = recorded[hook_point]
        return torch.cat(tokens) if tokens else torch.empty(0, 0, self.width(hook_point), device=self.device)

    @contextmanager
    def recording(self, hook_points: Sequence[str]) -> Iterator[dict[str, list[torch.Tensor]]]:
        """Keep what passes blocks' hook points, in every forward pass of this thread.

        Returns:
            By hook point, one float32 tensor (batch, tokens, width) a forward pass, on the model's device; read with
            the model's edits in force.
        """
        recorded: dict[str, list[torch.Tensor]] = {name: [] for name in hook_points}
        thread = threading.get_ident()

        def keep(parts: list[torch.Tensor], output: torch.Tensor) -> None:
            if threading.get_ident() == thread:  # others may use the model at the same time
                parts.append(output.detach().float())

        with ExitStack() as stack:
            for name, parts in recorded.items():
                site = find_site(self.model, HookPoint.parse(name))
                stack.enter_context(site.hooked(partial(keep, parts), first=False))
            yield recorded

    def read_patches(self, hook_point: str, image: ImageInput) -> tuple[torch.Tensor, tuple[int, int]]:
        """The tokens of an image's patches at a vision block, without those of no place (CLS, registers, padding).

        Args:
            hook_point: "vision.layers.{i}".
            image: one.

        Returns:
            float32 (rows * columns, width), row by row, and (rows, columns).
        """
        inputs = prepare_images(self.image_processor, [to_rgb(image, "the image")])
        tokens = self.read(hook_point, [image])[0]
        ((rows, columns),) = self.patch_grids(inputs)
        return tokens[self.patch_positions((rows, columns), len(tokens)).to(tokens.device)], (rows, columns)

    def patch_grids(self, inputs: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
        """Rows and columns of patches of each image that [`prepare_images`] has prepared."""
        if "spatial_shapes" in inputs:  # SigLIP 2: as many patches as fit the picture, then padding
            return [tuple(shape) for shape in inputs["spatial_shapes"].tolist()]
        patch = getattr(self.model.config, "vision_config", self.model.config).patch_size
        rows, columns = (side // patch for side in inputs["pixel_values"].shape[-2:])
        return [(rows, columns)] * len(inputs["pixel_values"])

    def patch_region(self, image: ImageInput) -> tuple[float, float, float, float]:
        """(left, upper, right, lower) in pixels of the image: what its processor leaves of it for the patches."""
        width, height = to_rgb(image, "the image").size
        settings = self.image_processor
        if not getattr(settings, "do_center_crop", False):
            return 0.0, 0.0, float(width), float(height)  # squeezed into shape, if need be
        size, crop = settings.size, settings.crop_size
        across = down = 1.0  # the image's pixels for each of the processor's
        if settings.do_resize:
            if "shortest_edge" in size:
                across = down = min(width, height) / size["shortest_edge"]
            else:
                across, down = width / size["width"], height / size["height"]
        cut_width, cut_height = crop["width"] * across, crop["height"] * down
        left, upper = (width - cut_width) / 2, (height - cut_height) / 2
        return left, upper, left + cut_width, upper + cut_height

    def patch_positions(self, grid: tuple[int, int], num_tokens: int) -> torch.Tensor:
        """Which of an image's tokens are those of its patches, row by row: all but CLS, registers and padding."""
        first = 0 if self._family.pads_patches else num_tokens - grid[0] * grid[1]
        return torch.arange(first, first + grid[0] * grid[1])

    def image_tokens(self, grid: tuple[int, int], num_tokens: int) -> torch.Tensor:
        """Which of an image's tokens are no padding."""
        return self.patch_positions(grid, num_tokens) if self._family.pads_patches else torch.arange(num_tokens)

    def text_tokens(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Which tokens of each text are no padding, special tokens included."""
        tokens = self.tokenizer(list(texts), return_tensors="pt", return_attention_mask=True, **self.text_settings)
        return [mask.nonzero().flatten() for mask in tokens["attention_mask"]]

    @property
    def text_settings(self) -> dict[str, Any]:
        """How the tokenizer is called: padding, truncation, and the length in tokens."""
        longest = self.model.config.text_config.max_position_embeddings
        return {"padding": self._family.text_padding, "truncation": True, "max_length": longest}

    def provenance(self) -> dict[str, Any]:
        """What an embedding of this backbone depends on, for metadata and cards; JSON serialisable.

        A model that no commit on the Hub identifies is identified by a hash of its weights instead.
        """
        known = {
            "base_model_name_or_path": self.name_or_path,
            "base_model_revision": self.revision,
            "base_model_class": type(self.model).__name__,
            "base_model_dtype": str(self.model.dtype).removeprefix("torch."),
            "image_processor": type(self.image_processor).__name__,
            "image_processor_backend": getattr(self.image_processor, "backend", None),
            "image_processor_settings": json.loads(self.image_processor.to_json_string()),
        }
        if self.revision is None:
            known["base_model_weights_sha256"] = weights_sha256(self.model)
        if self._family.text_width is not None:
            known["text_settings"] = self.text_settings
        return known

    def _label(self) -> str:
        kind = type(self.model).__name__
        return kind if self.name_or_path is None else f"{self.name_or_path} ({kind})"

    def __repr__(self) -> str:
        pooled = [name for name in POOLED if name in self.hook_points]
        widths = ", ".join(f"{hook_point}: {self.width(hook_point)}" for hook_point in pooled)
        return f"Backbone({self._label()}, {widths}, {self.device})"


def prepare_images(image_processor: BaseImageProcessor, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """RGB images to the model's inputs. Needs no model, so that worker processes can do it."""
    # The image processor itself, as Siglip2Processor would put its own defaults above the saved settings.
    return dict(image_processor(images=list(images), return_tensors="pt"))


def _batches(total: int, batch_size: int | None, default: int) -> list[range]:
    size = default if batch_size is None else batch_size
    if size < 1:
        raise ValueError(f"batch_size must be positive, got {size}")
    return [range(start, min(start + size, total)) for start in range(0, total, size)]
