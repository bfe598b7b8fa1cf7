"""VisionTextMSAE: a backbone, its processor, an MSAE on its embeddings, and the names of the latents."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import datasets
import torch
from PIL import Image
from tqdm.auto import tqdm

from ._utils.images import ImageInput, to_rgb
from .backbones import Backbone
from .backbones.hook_points import HookPoint, find_site
from .concepts.editing import Editor, LatentEdit
from .hub.reading.opening import check_fit, concepts_beside, load_msae
from .model.modeling_msae import MSAEModel

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from .concepts import ActivationPercentiles, ConceptTable, Explanation, SimilarityExplanation


class VisionTextMSAE:
    """What a vision-language model sees, latent by latent; and the same model with some latents edited.

    Usually made by [`VisionTextMSAE.from_pretrained`].

    Args:
        backbone: the model that the MSAE's embeddings are of.
        msae: put into evaluation mode, and on the backbone's device.
        concepts: names of its latents.
        strict: whether a backbone of another name or revision than the MSAE was trained on is an error.

    Raises:
        ValueError: backbone and MSAE do not belong together; says what was trained on what.

    Attributes:
        backbone, msae, concepts: as given.
        text_shift: added to text embeddings before they are encoded, (d,), or None; `center_texts` sets it.
        percentiles: of the latents' activations over other data, to compare with in explanations; None at first.

    Example:
        >>> model = VisionTextMSAE.from_pretrained("outputs/quickstart")
        >>> values, latents = model.image_latents(["cat.jpg"], top=10)
        >>> with model.edit({"red": 0.0}):
        ...     embeds = model.image_embeds(["cat.jpg"])
    """

    def __init__(
        self, backbone: Backbone, msae: MSAEModel, concepts: ConceptTable | None = None, strict: bool = True
    ) -> None:
        check_fit(backbone, msae, strict)
        if concepts is not None and len(concepts) != msae.config.num_latents:
            raise ValueError(f"there are names of {len(concepts)} latents, but the MSAE has {msae.config.num_latents}")
        self.backbone = backbone
        self.msae = msae.eval().to(backbone.device)
        self.concepts = concepts
        self.text_shift: torch.Tensor | None = None
        self.percentiles: ActivationPercentiles | None = None
        self.hook_point = HookPoint.parse(msae.config.hook_point)
        self._editor = Editor(find_site(backbone.model, self.hook_point), self.msae)

    @classmethod
    def from_pretrained(
        cls,
        msae: str | os.PathLike | MSAEModel,
        backbone: Backbone | str | os.PathLike | Any | None = None,
        revision: str | None = None,
        device: str | torch.device | None = None,
        strict: bool = True,
        subfolder: str | None = None,
        **backbone_kwargs: Any,
    ) -> VisionTextMSAE:
        """Load an MSAE, the backbone it was trained on, and its concepts where there are some beside it.

        Args:
            msae: folder or Hub id of an MSAE, a name that `hf_msae.list_released()` lists, or one that is loaded
                already.
            backbone: a [`Backbone`], or what `Backbone.from_pretrained` takes; by default the one that the MSAE's
                config names.
            revision: of the MSAE, on the Hub.
            device: where both run.
            strict: whether a backbone of another name or revision than the MSAE was trained on is an error.
            subfolder: of the MSAE, in its folder or repository.
            backbone_kwargs: for `Backbone.from_pretrained`, e.g. dtype.

        Raises:
            ValueError: the MSAE does not say its backbone, or they do not belong together.
            OSError: there is no such model.
            TypeError: settings for a backbone that is loaded already.
        """
        concepts = None
        if not isinstance(msae, MSAEModel):
            name, msae = msae, load_msae(msae, revision, subfolder, dtype="auto")
            # The commit that the weights are of: main may have moved meanwhile.
            concepts = concepts_beside(name, getattr(msae.config, "_commit_hash", None) or revision, subfolder)
        config = msae.config
        if backbone is None:
            if not config.base_model_name_or_path:
                raise ValueError("the MSAE does not say which backbone it was trained on: give backbone=")
            backbone_kwargs.setdefault("revision", config.base_model_revision)
            backbone = config.base_model_name_or_path
        if isinstance(backbone, Backbone) and backbone_kwargs:
            raise TypeError(f"{', '.join(backbone_kwargs)} cannot be set of a backbone that is loaded already")
        if not isinstance(backbone, Backbone):
            backbone = Backbone.from_pretrained(backbone, device=device, **backbone_kwargs)
        elif device is not None:
            backbone = backbone.to(device)
        return cls(backbone, msae, concepts, strict)

    @property
    def processor(self) -> Any:
        return self.backbone.processor

    def to(self, device: str | torch.device) -> VisionTextMSAE:
        """Move both models; returns self."""
        self.backbone.to(device)
        self.msae.to(device)
        return self

    # -- reading -------------------------------------------------------------------------------------------------

    def image_embeds(
        self, images: ImageInput | Iterable[ImageInput], batch_size: int | None = None, progress: bool | None = None
    ) -> torch.Tensor:
        """The backbone's pooled embeddings of images, raw, (n, d); with the edits in force.

        Args:
            images: PIL images, paths, arrays, or a column of a Dataset.
            batch_size: images per forward pass.
            progress: show a bar; by default for more than ten batches.
        """
        size = _size(batch_size, self.backbone.image_batch_size)
        return self._in_batches(images, size, self._image_batch, progress, _as_image)

    def text_embeds(
        self, texts: str | Iterable[str], batch_size: int | None = None, progress: bool | None = None
    ) -> torch.Tensor:
        """The backbone's pooled embeddings of texts, raw, (n, d); with the edits in force."""
        size = _size(batch_size, self.backbone.text_batch_size)
        return self._in_batches(texts, size, self._text_batch, progress, _as_text)

    def image_latents(
        self,
        images: ImageInput | Iterable[ImageInput],
        k: int | None = None,
        top: int | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """The code of images.

        Args:
            images: as for `image_embeds`.
            k: activations kept of each; by default those of the MSAE's config.
            top: return the so many largest alone, as (values, latents), each (n, top), instead of the dense code.
            batch_size, progress: as for `image_embeds`.

        Returns:
            (n, num_latents); for a block's hook point (n, tokens, num_latents). With `top` the sparse pair.
        """
        self._require_tower("vision")

        self._check_top(k, top)

        def encode(batch: list) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
            return self._encode(self.backbone.read(self.hook_point.name, batch, max(1, len(batch))), k, top)

        return self._in_batches(images, _size(batch_size, self.backbone.image_batch_size), encode, progress, _as_image)

    def text_latents(
        self,
        texts: str | Iterable[str],
        k: int | None = None,
        top: int | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """The code of texts, as `image_latents`; by an MSAE of image embeddings too, see `center_texts`."""
        by_text = self.hook_point.tower == "text"
        if not by_text and self.hook_point.layer is not None:
            self._require_tower("text")

        self._check_top(k, top)

        def encode(batch: list) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
            hook_point = self.hook_point.name if by_text else "text_embeds"
            embeds = self.backbone.read(hook_point, batch, max(1, len(batch)))
            if self.text_shift is not None and not by_text:
                embeds = embeds + self.text_shift.to(embeds)
            return self._encode(embeds, k, top)

        return self._in_batches(texts, _size(batch_size, self.backbone.text_batch_size), encode, progress, _as_text)

    def center_texts(self, texts: Iterable[str] | torch.Tensor | None) -> None:
        """Let text embeddings be encoded around their own mean instead of the images'.

        Image and text embeddings of CLIP-like models lie in different places, the modality gap, so that an MSAE of
        images sees the gap first in any text. With a mean of their own texts are moved to where the images are:
        t + (mean of the images) - (mean of the texts). It leaves the spread of texts, which is another too, as it is.

        Args:
            texts: texts to take the mean of, as varied as the images; or that mean, (d,); None to undo it.

        Raises:
            ValueError: the MSAE is not one of image_embeds.
        """
        if self.hook_point.name != "image_embeds":
            raise ValueError(f"the MSAE is of {self.hook_point.name}: texts can be centred for image_embeds alone")
        if texts is None:
            self.text_shift = None
            return
        mean = texts if isinstance(texts, torch.Tensor) else self.text_embeds(texts).double().mean(dim=0)
        if mean.shape != self.msae.input_mean.shape:
            raise ValueError(f"the mean has shape {tuple(mean.shape)}, expected {tuple(self.msae.input_mean.shape)}")
        self.text_shift = (self.msae.input_mean.double() - mean.to(self.msae.input_mean.device).double()).float()

    def patch_map(self, image: ImageInput, concept: int | str) -> np.ndarray:
        """Where in an image a latent is active, for an MSAE of a vision block's tokens.

        Args:
            image: one.
            concept: a latent, or the name of one.

        Returns:
            (rows, columns) of the patches' activations, row by row from the top left. Where the backbone's processor
            cuts sides off, they are of what is left; `plot_patch_map` draws them where they belong.

        Raises:
            ValueError: the MSAE is of pooled embeddings, which have no place, or of texts.
        """
        if self.hook_point.tower != "vision" or self.hook_point.layer is None:
            raise ValueError(
                f"a patch map needs an MSAE of a vision block's tokens (vision.layers.{{i}}); this one is of "
                f"{self.hook_point.name}"
            )
        (latent,) = LatentEdit.of({concept: 0.0}, self.msae.config.num_latents, self.concepts).latents
        tokens, (rows, columns) = self.backbone.read_patches(self.hook_point.name, image)
        with torch.no_grad():
            return self.msae.encode(tokens)[:, latent].reshape(rows, columns).float().cpu().numpy()

    def plot_patch_map(self, image: ImageInput, concept: int | str, title: str | None = None) -> Figure:
        """A figure of the image, and of the same under its `patch_map`.

        Args:
            image, concept: as for `patch_map`.
            title: by default the concept.
        """
        from .plotting import plot_patch_map

        picture = to_rgb(image, "the image")
        title = title or (concept if isinstance(concept, str) else f"latent {concept}")
        return plot_patch_map(picture, self.patch_map(picture, concept), title, self.backbone.patch_region(picture))

    # -- explaining ----------------------------------------------------------------------------------------------

    def explain(self, item: ImageInput | str, top: int = 10, k: int | None = None) -> Explanation:
        """The strongest concepts of an image or text, `hf_msae.concepts.explain_embedding`.

        Args:
            item: an image; or a text (a path is a string too: an image's path has to be a `Path`).
            top: how many concepts.
            k: activations that the code keeps: few for the coarse picture, many for the fine one.
        """
        from .concepts import explain_embedding

        embedding = self._embedding(item)
        if isinstance(item, str) and self.text_shift is not None:
            embedding = embedding + self.text_shift.to(embedding)
        return explain_embedding(self.msae, embedding, self.concepts, top, k, self.percentiles)

    def explain_similarity(
        self, item: ImageInput | str, other: ImageInput | str, both: bool = False, k: int | None = None
    ) -> SimilarityExplanation:
        """Why two match: what the concepts of `item` contribute to the cosine, `hf_msae.concepts.explain_similarity`.

        Args:
            item: an image or text, as for `explain`.
            other: an image or text.
            both: whether the concepts of `other` are taken apart too, into pairs.
            k: activations that the codes keep.
        """
        from .concepts import explain_similarity

        return explain_similarity(self.msae, self._embedding(item), self._embedding(other), self.concepts, both, k)

    def _embedding(self, item: ImageInput | str) -> torch.Tensor:
        if self.hook_point.layer is not None:
            raise ValueError(
                f"the MSAE is of {self.hook_point.name}, whose tokens are many: explanations are of pooled embeddings"
            )
        return self.text_embeds([item])[0] if isinstance(item, str) else self.image_embeds([item])[0]

    # -- editing -------------------------------------------------------------------------------------------------

    @contextmanager
    def edit(
        self, edits: Mapping[int | str, float], mode: str = "scale", keep_residual: bool = True
    ) -> Iterator[VisionTextMSAE]:
        """Change latents at the hook point in every forward pass of the backbone, of this thread or task.

        Zero-shot classification, retrieval or a head of one's own then works on the edited representation. What the
        MSAE does not reconstruct stays, and an edit that changes nothing gives bit-identical outputs. Edits nest: an
        inner one is applied to the code that an outer one has left. They end with the context, whatever happens in it.

        Args:
            edits: latent, or name of one, -> value. Of several latents of one name the most similar one is meant.
            mode: "scale" multiplies activations by the value, "set" replaces them, "add" adds to them.
            keep_residual: whether what the MSAE does not reconstruct stays.

        Raises:
            ValueError: as [`LatentEdit.of`].
        """
        edit = LatentEdit.of(edits, self.msae.config.num_latents, self.concepts, mode, keep_residual)
        with self._editor.editing(edit):
            yield self

    # -- parts ---------------------------------------------------------------------------------------------------

    def _image_batch(self, batch: list) -> torch.Tensor:
        return self.backbone.image_embeds(batch, max(1, len(batch)))

    def _text_batch(self, batch: list) -> torch.Tensor:
        return self.backbone.text_embeds(batch, max(1, len(batch)))

    def _encode(self, embeds: torch.Tensor, k: int | None, top: int | None) -> Any:
        with torch.no_grad():
            return self.msae.encode(embeds, k) if top is None else self.msae.encode_topk(embeds, top)

    def _check_top(self, k: int | None, top: int | None) -> None:
        if k is not None and top is not None:
            raise ValueError(f"k={k} is about the dense code and top={top} about the sparse one: give one of them")

    def _require_tower(self, tower: str) -> None:
        if self.hook_point.tower != tower:
            raise ValueError(f"the MSAE is of {self.hook_point.name}, which the {tower} tower does not have")

    def _in_batches(
        self,
        items: Any,
        batch_size: int,
        function: Callable[[list], Any],
        progress: bool | None,
        check: Callable[[Any, int], Any],
    ) -> Any:
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        if isinstance(items, datasets.Dataset):
            raise TypeError(f"give a column of the data set, one of {', '.join(items.column_names)}, not all of it")
        items = [items] if isinstance(items, (str, ImageInput)) else items
        if not isinstance(items, (Sequence, datasets.arrow_dataset.Column)):
            items = list(items)
        starts = range(0, len(items), batch_size)
        shown = len(starts) > 10 if progress is None else progress
        parts = [
            function([check(item, start + place) for place, item in enumerate(items[start : start + batch_size])])
            for start in tqdm(starts, desc="embedding", unit="batch", disable=not shown)
        ]
        if not parts:
            return function([])
        return tuple(map(torch.cat, zip(*parts, strict=True))) if isinstance(parts[0], tuple) else torch.cat(parts)

    def __repr__(self) -> str:
        named = "unnamed" if self.concepts is None else f"{self.concepts.frame['name'].nunique()} names"
        latents = f"{self.msae.config.num_latents} latents of {self.hook_point.name}"
        return f"VisionTextMSAE({self.backbone!r}, {latents}, {named})"


def _as_image(item: ImageInput, index: int) -> Image.Image:
    return to_rgb(item, f"image {index}")


def _as_text(item: str, index: int) -> str:
    if not isinstance(item, str):
        raise TypeError(f"text {index} is not a string but {type(item).__name__}: {item!r:.100}")
    return item


def _size(given: int | None, default: int) -> int:
    return default if given is None else given
