"""`Backbone`: a transformers CLIP, SigLIP, SigLIP 2 or DINOv2 that turns images and texts into embeddings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from hf_msae._utils.checks import check_integers
from hf_msae._utils.images import ImageInput, to_rgb
from hf_msae.backbones.families import family_of
from hf_msae.backbones.hook_points import POOLED, HookPoint, blocks_of, recording
from hf_msae.backbones.identity import provenance_of
from hf_msae.backbones.loading import load
from hf_msae.backbones.origin import Origin
from hf_msae.backbones.tokens import TokenPositions, prepare_images


class Backbone(TokenPositions):
    """A pre-trained model and its processor.

    Embeddings are pooled, projected if the model has a projection, and not L2-normalized. They equal transformers'
    `get_image_features(...).pooler_output` and `get_text_features(...).pooler_output`, the `image_embeds` of a
    `...VisionModelWithProjection`, and the `pooler_output` (CLS token or attention pooling) of other vision models.

    Usually created with [`Backbone.from_pretrained`]. The model is put into evaluation mode.

    Args:
        model: A `CLIPModel`, `MetaClip2Model`, `SiglipModel`, `Siglip2Model`, `CLIPVisionModel`,
            `CLIPVisionModelWithProjection`, `SiglipVisionModel`, `Siglip2VisionModel`, `Dinov2Model` or
            `Dinov2WithRegistersModel`.
        processor: The model's processor, or an image processor if no texts are embedded.
        name_or_path: Hub id or folder, for messages, metadata and cards.
        revision: Commit on the Hub.
        image_batch_size: Images per forward pass. Affects only speed and memory.
        text_batch_size: Texts per forward pass.
        text_mask: Whether the text tower sees which tokens are padding, for a model that was trained differently from
            others of its class. None: as in the class's pre-training.

    Raises:
        ValueError: The model is not supported, or has no pooled output.

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
        text_mask: bool | None = None,
    ) -> None:
        self._family = family_of(model, name_or_path)
        self.model = model.eval()
        self.processor = processor
        self.name_or_path = name_or_path
        self.revision = revision
        self.image_batch_size = image_batch_size
        self.text_batch_size = text_batch_size
        self.text_mask = text_mask
        self.adapter: str | None = None  # the kind of the adapter that was merged into the model
        self.origin: Origin | None = None  # the files that the model was loaded from
        # Why texts cannot be embedded although the model has a text tower.
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
            source: A folder in transformers' format, a model on the Hub, "scenes" (the small SigLIP that is part of
                this package), or a loaded model.
            revision: Commit, tag or branch on the Hub. It is resolved to a commit, which becomes `.revision`.
            processor: Replaces the processor saved with the model. The saved one is loaded with its PIL backend,
                because the torchvision backend resizes slightly differently.
            dtype: Type of the weights and of the computation, such as "bfloat16". The default is float32, or the
                current type of a loaded model. Embeddings are always returned as float32.
            device: Where the model runs. By default the CPU, or the current device of a loaded model.
            kwargs: `image_batch_size`, `text_batch_size` and `text_mask`.

        Raises:
            FileNotFoundError: `source` is neither a folder nor a model that can be reached on the Hub.
            ValueError: The model is not supported or lacks weights, or its processor cannot be loaded.
        """
        found = load(source, revision, processor, dtype)
        model = found.model if device is None else found.model.to(device)
        backbone = cls(model, found.processor, found.name, found.revision, **kwargs)
        backbone._no_texts = found.no_texts or backbone._no_texts
        backbone.adapter, backbone.origin = found.adapter, found.origin
        return backbone

    @property
    def image_processor(self) -> BaseImageProcessor:
        """The part of the processor for images."""
        return getattr(self.processor, "image_processor", self.processor)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The part of the processor for texts; None if it has none."""
        return getattr(self.processor, "tokenizer", None)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.device

    def to(self, device: str | torch.device) -> Backbone:
        """Move the model to a device and return self."""
        self.model.to(device)
        return self

    @property
    def hook_points(self) -> tuple[str, ...]:
        """Names of all hook points, such as "image_embeds", "vision.layers.0" or "text_embeds"."""
        towers = {pooled: blocks_of(self.model, tower) for pooled, tower in POOLED.items()}
        return tuple(
            name
            for pooled, blocks in towers.items()
            if blocks is not None
            for name in (pooled, *(f"{POOLED[pooled]}.layers.{i}" for i in range(len(blocks))))
        )

    def require(self, hook_point: str) -> None:
        """Check that embeddings can be read at a hook point.

        Raises:
            ValueError: The model does not have it, or the processor cannot tokenize texts.
        """
        if hook_point not in self.hook_points:
            vision, text = (len(blocks_of(self.model, tower) or ()) for tower in ("vision", "text"))
            known = f"image_embeds and vision.layers.0 to {vision - 1}"
            known += f", text_embeds and text.layers.0 to {text - 1}" if text else ", and no text tower"
            raise ValueError(f"unknown hook point {hook_point!r}: {self.label} has {known}")
        if hook_point.startswith("text") and self._no_texts:
            raise ValueError(f"{self.label} cannot embed texts: {self._no_texts}")

    def width(self, hook_point: str = "image_embeds") -> int:
        """Dimension of the embeddings at a hook point."""
        if hook_point not in self.hook_points:
            self.require(hook_point)
        point, config = HookPoint.parse(hook_point), self.model.config
        if point.layer is not None:
            return getattr(config, f"{point.tower}_config", config).hidden_size
        return attrgetter(self._family.image_width if point.tower == "vision" else self._family.text_width)(config)

    def image_embeds(self, images: ImageInput | Iterable[ImageInput], batch_size: int | None = None) -> torch.Tensor:
        """Embed images.

        Args:
            images: PIL images of any mode, paths, uint8 arrays (height, width[, channels]), or a column of a dataset
               ; or a single image. [`hf_msae._utils.images.to_rgb`] documents how they are converted to RGB.
            batch_size: Images per forward pass; by default `image_batch_size`.

        Returns:
            float32 embeddings (n, width), not normalized, on the model's device.

        Raises:
            FileNotFoundError, ValueError, TypeError: An image cannot be read; the message names its index and path.
        """
        return self.read("image_embeds", images, batch_size)

    def text_embeds(self, texts: str | Iterable[str], batch_size: int | None = None) -> torch.Tensor:
        """Embed texts, prepared as in the model's pre-training and truncated to what its text tower can take.

        Args:
            texts: Strings, or a single one.
            batch_size: Texts per forward pass; by default `text_batch_size`.

        Returns:
            float32 embeddings (n, width), not normalized, on the model's device.

        Raises:
            ValueError: The model has no text tower, or its processor no tokenizer.
            TypeError: One of the texts is not a string.
        """
        return self.read("text_embeds", texts, batch_size)

    def read(
        self,
        hook_point: str,
        items: ImageInput | str | Iterable[ImageInput | str],
        batch_size: int | None = None,
        progress: bool | None = False,
        apply: Callable[[torch.Tensor], Any] | None = None,
    ) -> Any:
        """Read embeddings of images or texts at any hook point.

        Args:
            hook_point: Where to read.
            items: Images for a hook point of the vision tower, texts for one of the text tower.
            batch_size: Images or texts per forward pass.
            progress: Show a progress bar. None shows one for more than ten batches.
            apply: Applied to the embeddings of each batch; returns a tensor or a tuple of tensors to keep instead.

        Returns:
            float32 embeddings (n, width) at a pooled hook point and (n, tokens, width) at a block, where all texts are
            padded to the longest that the tower can take. Edits of the model that are in force are included. With
            `apply`, what it returned, concatenated.

        Raises:
            ValueError: The model does not have the hook point, or `batch_size` is below 1.
            TypeError: `items` is a dataset or table instead of one of its columns, or a dict.
        """
        self.require(hook_point)
        point = HookPoint.parse(hook_point)
        of_images = point.tower == "vision"
        size = batch_size if batch_size is not None else self.image_batch_size if of_images else self.text_batch_size
        check_integers(batch_size=(size, 1))
        datasets = sys.modules.get("datasets")  # takes a second to import, and without it nothing here is of it
        if datasets is not None and isinstance(items, datasets.Dataset):
            raise TypeError(f"pass a column of the dataset ({', '.join(items.column_names)}), not all of it")
        items = [items] if isinstance(items, ImageInput if of_images else str) else items
        if isinstance(items, Mapping) or hasattr(items, "columns"):  # whose keys or names of columns would be embedded
            what = "images" if of_images else "texts"
            raise TypeError(f"pass a list of {what}, such as one column, not a {type(items).__name__}")
        is_column = datasets is not None and isinstance(items, datasets.arrow_dataset.Column)
        if not (isinstance(items, list | tuple) or is_column):  # columns are decoded batch by batch
            items = list(items)
        starts = range(0, len(items), size)
        shown = progress if progress is not None else len(starts) > 10
        parts = []
        for start in tqdm(starts, desc="embedding", unit="batch", disable=not shown):
            embeddings = self._read_batch(point, items[start : start + size], start)
            parts.append(embeddings if apply is None else apply(embeddings))
        if not parts:
            empty = torch.empty(*(() if point.layer is None else (0,)), 0, self.width(hook_point), device=self.device)
            return empty if apply is None else apply(empty)
        return tuple(map(torch.cat, zip(*parts, strict=True))) if isinstance(parts[0], tuple) else torch.cat(parts)

    def _read_batch(self, point: HookPoint, items: Sequence[ImageInput | str], start: int) -> torch.Tensor:
        with recording(self.model, [] if point.layer is None else [point.name]) as recorded:
            if point.tower == "vision":
                images = [to_rgb(item, f"image {start + place}") for place, item in enumerate(items)]
                pooled = self.embed_pixels(prepare_images(self.image_processor, images))
            else:
                for place, text in enumerate(items):
                    if not isinstance(text, str):
                        raise TypeError(f"text {start + place} is not a string: {text!r:.100}")
                # At a block, all texts need the same number of tokens.
                pooled = self.embed_texts(items, **({} if point.layer is None else {"padding": "max_length"}))
        return pooled if point.layer is None else recorded[point.name][0]

    @torch.no_grad()
    def embed_pixels(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Embed the output of [`prepare_images`] in one forward pass; returns float32 (n, width)."""
        inputs = {
            name: tensor.to(self.device, self.model.dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in inputs.items()
        }
        if self.has_text_tower:
            return self.model.get_image_features(**inputs).pooler_output.float()
        outputs = self.model(**inputs)
        return (outputs.image_embeds if "image_embeds" in outputs else outputs.pooler_output).float()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], **settings: Any) -> torch.Tensor:
        """Embed the output of [`tokenize`] in one forward pass; returns float32 (n, width)."""
        tokens = self.tokenize(texts, **settings)
        return self.model.get_text_features(**tokens.to(self.device)).pooler_output.float()

    def provenance(self) -> dict[str, Any]:
        """Everything about the backbone that affects an embedding, as JSON, for metadata and cards.

        A backbone is known by the hashes of its weights and image processor; a folder is only where it was last seen.
        """
        return provenance_of(self)

    @property
    def has_text_tower(self) -> bool:
        """Whether the model has a text tower."""
        return self._family.text_width is not None

    @property
    def label(self) -> str:
        """The backbone in one line: where it is from and its class."""
        kind = type(self.model).__name__
        return kind if self.name_or_path is None else f"{self.name_or_path} ({kind})"

    def __repr__(self) -> str:
        widths = ", ".join(f"{name}: {self.width(name)}" for name in POOLED if name in self.hook_points)
        return f"Backbone({self.label}, {widths}, {self.device})"
