"""`VisionTextMSAE`: a backbone, its processor, an MSAE of its embeddings, and the names of the latents."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ._utils.images import ImageInput, is_picture
from .backbones import Backbone
from .backbones.hook_points import HookPoint, find_site
from .concepts.editing import Editor, LatentEdit, latent_of
from .concepts.table import check_table
from .hub.reading.opening import check_fit, concepts_beside, load_msae
from .model.modeling_msae import MSAEModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .concepts import ActivationPercentiles, ConceptTable, Explanation, SimilarityExplanation


class VisionTextMSAE:
    """Shows what a vision-language model sees, latent by latent, and edits it. See also `from_pretrained`.

    Args:
        backbone: The model whose embeddings the MSAE was trained on.
        msae: The MSAE. It is put into evaluation mode and moved to the backbone's device.
        concepts: Names of its latents.
        strict: Raise an error if the MSAE was trained on another backbone, whatever it is called.

    Raises:
        ValueError: The MSAE was trained on another backbone.

    Attributes:
        text_shift: Added to text embeddings before they are encoded (d,), or None; set by `center_texts`.
        percentiles: Percentiles of the latents' activations on other data, which explanations show; None at first.

    Example:
        >>> model = VisionTextMSAE.from_pretrained("outputs/quickstart")
        >>> values, indices = model.image_latents(["cat.jpg"], top=10)
        >>> with model.edit({"red": 0.0}):
        ...     embeddings = model.image_embeds(["cat.jpg"])
    """

    def __init__(
        self, backbone: Backbone, msae: MSAEModel, concepts: ConceptTable | None = None, strict: bool = True
    ) -> None:
        check_table(concepts)
        check_fit(backbone, msae, strict)
        if concepts is not None and len(concepts) != msae.config.num_latents:
            raise ValueError(f"concepts names {len(concepts)} latents, but the MSAE has {msae.config.num_latents}")
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
        """Load an MSAE, the backbone it was trained on, and the names in the MSAE's folder, if any.

        Args:
            msae: Folder or Hub id of an MSAE, a name listed by `hf_msae.list_released()`, or a loaded MSAE.
            backbone: A [`Backbone`], or what `Backbone.from_pretrained` takes. By default the one named in the MSAE's
                config.
            revision: Commit, tag or branch of the MSAE on the Hub.
            device: Where both models run.
            strict: Raise an error if the MSAE was trained on another backbone, whatever it is called.
            subfolder: Folder of the MSAE in its folder or repository.
            backbone_kwargs: Arguments of `Backbone.from_pretrained`, such as dtype.

        Raises:
            ValueError: The MSAE does not name its backbone, or was trained on another one.
            OSError: The model does not exist.
            TypeError: `backbone_kwargs` were given for a loaded backbone.
        """
        concepts = None
        if not isinstance(msae, MSAEModel):
            name, msae = msae, load_msae(msae, revision, subfolder, dtype="auto")
            # The commit of the weights: the branch may have moved on since.
            concepts = concepts_beside(name, getattr(msae.config, "_commit_hash", None) or revision, subfolder)
        if backbone is None:
            backbone = msae.config.base_model_name_or_path
            if not backbone:
                raise ValueError("the config of the MSAE does not name its backbone: pass backbone= (--backbone)")
            backbone_kwargs.setdefault("revision", msae.config.base_model_revision)
        if not isinstance(backbone, Backbone):
            try:
                backbone = Backbone.from_pretrained(backbone, **backbone_kwargs)
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{error}; say where the backbone is with backbone= (--backbone)") from error
        elif backbone_kwargs:
            raise TypeError(f"{', '.join(backbone_kwargs)} cannot be set for a loaded backbone")
        return cls(backbone if device is None else backbone.to(device), msae, concepts, strict)

    def __getattr__(self, name: str) -> Any:
        # Many functions take the MSAE alone, which is easily forgotten.
        has = name == "config" or hasattr(MSAEModel, name)
        hint = ", but its MSAE has: pass model.msae where an MSAE is wanted" if has else ""
        raise AttributeError(f"a VisionTextMSAE has no {name!r}{hint}")

    @property
    def processor(self) -> Any:
        """The processor of the backbone."""
        return self.backbone.processor

    def to(self, device: str | torch.device) -> VisionTextMSAE:
        """Move both models to a device and return self."""
        self.backbone.to(device)
        self.msae.to(device)
        return self

    def image_embeds(
        self, images: ImageInput | Iterable[ImageInput], batch_size: int | None = None, progress: bool | None = None
    ) -> torch.Tensor:
        """Return the backbone's pooled, raw embeddings of images (n, d), with edits applied.

        Args:
            images: PIL images, paths, arrays, or a column of a Dataset.
            batch_size: Images per forward pass.
            progress: Show a progress bar; by default for more than ten batches.
        """
        return self.backbone.read("image_embeds", images, batch_size, progress)

    def text_embeds(
        self, texts: str | Iterable[str], batch_size: int | None = None, progress: bool | None = None
    ) -> torch.Tensor:
        """Return the backbone's pooled, raw embeddings of texts (n, d), with edits applied."""
        return self.backbone.read("text_embeds", texts, batch_size, progress)

    def image_latents(
        self,
        images: ImageInput | Iterable[ImageInput],
        k: int | None = None,
        top: int | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return the latents of images.

        Args:
            images: As for `image_embeds`.
            k: Number of latents to keep per embedding; by default as in the MSAE's config.
            top: Return only this many latents, the largest, as (values, indices) instead of all latents.
            batch_size: As for `image_embeds`.
            progress: As for `image_embeds`.

        Returns:
            (n, num_latents), or (n, tokens, num_latents) at a block; with `top`, a pair of (n, top).
        """
        if self.hook_point.tower != "vision":
            raise ValueError(f"the MSAE was trained on {self.hook_point.name}: use text_latents")
        return self.backbone.read(self.hook_point.name, images, batch_size, progress, self._encoder(k, top))

    def text_latents(
        self,
        texts: str | Iterable[str],
        k: int | None = None,
        top: int | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return the latents of texts; arguments as for `image_latents`.

        An MSAE of image embeddings can encode texts, too; see `center_texts`.
        """
        of_texts = self.hook_point.tower == "text"
        if not of_texts and self.hook_point.layer is not None:
            raise ValueError(f"the MSAE was trained on {self.hook_point.name}: use image_latents")
        name, shift = (self.hook_point.name, None) if of_texts else ("text_embeds", self.text_shift)
        return self.backbone.read(name, texts, batch_size, progress, self._encoder(k, top, shift))

    def _encoder(self, k: int | None, top: int | None, shift: torch.Tensor | None = None) -> Callable:
        if k is not None and top is not None:
            raise ValueError(f"k={k} is for all latents and top={top} for the largest ones: pass only one of them")

        @torch.no_grad()
        def encode(embeddings: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
            embeddings = embeddings if shift is None else embeddings + shift.to(embeddings)
            return self.msae.encode(embeddings, k) if top is None else self.msae.encode_topk(embeddings, top)

        return encode

    def center_texts(self, texts: Iterable[str] | torch.Tensor | np.ndarray | None) -> None:
        """Encode text embeddings around their own mean instead of that of the images.

        Image and text embeddings of CLIP-like models lie in different regions (the modality gap), so an MSAE of images
        mostly sees the gap in any text. With the mean of the texts, they are moved to where the images are:
        t + (mean of the images) - (mean of the texts). The spread of the texts, which also differs, stays as it is.

        Args:
            texts: Texts as varied as the images, whose mean is taken; or that mean (d,); or None to undo it.

        Raises:
            TypeError: The texts are a single string.
            ValueError: The MSAE was not trained on image_embeds, all texts are the same, or the mean does not fit.
        """
        if self.hook_point.name != "image_embeds":
            raise ValueError(f"texts can be centered for image_embeds only; this MSAE reads {self.hook_point.name}")
        if texts is None:
            self.text_shift = None
            return
        if isinstance(texts, str):
            raise TypeError(f"the mean of texts needs several, got the single string {texts!r}")
        images = self.msae.input_mean.double()
        if isinstance(texts, np.ndarray) and texts.dtype.kind == "f":
            texts = torch.tensor(texts)
        if not isinstance(texts, torch.Tensor):
            if len(set(texts := list(texts))) < 2:
                raise ValueError(f"the mean of texts needs several different ones, got only {texts[:1]}")
            texts = self.text_embeds(texts).double().mean(dim=0)
        if texts.shape != images.shape:
            raise ValueError(f"the mean has shape {tuple(texts.shape)}, expected {tuple(images.shape)}")
        if not texts.isfinite().all():
            raise ValueError("the mean of texts holds NaN or infinite values")
        self.text_shift = (images - texts.to(images)).float()

    def patch_map(self, image: ImageInput, concept: int | str) -> np.ndarray:
        """Return where in an image a latent, given by number or name, is active.

        Returns:
            Activations of the patches (rows, columns), from the top left. If the processor crops the image, they
            cover what is left; `plot_patch_map` draws them in the right place.

        Raises:
            ValueError: The MSAE was not trained on the tokens of a vision block.
        """
        if self.hook_point.tower != "vision" or self.hook_point.layer is None:
            raise ValueError(
                "a patch map needs an MSAE of a vision block's tokens (vision.layers.{i}); this one was trained on "
                f"{self.hook_point.name}"
            )
        latent = latent_of(concept, self.msae.config.num_latents, self.concepts)
        tokens, (rows, columns) = self.backbone.read_patches(self.hook_point.name, image)
        with torch.no_grad():
            return self.msae.encode(tokens)[:, latent].reshape(rows, columns).float().cpu().numpy()

    def plot_patch_map(self, image: ImageInput, concept: int | str, title: str | None = None) -> Figure:
        """Plot the image next to the same image under its `patch_map`; the default title is the concept."""
        from .plotting import plot_patch_map

        title = title or (concept if isinstance(concept, str) else f"latent {concept}")
        return plot_patch_map(image, self.patch_map(image, concept), title, self.backbone.patch_region(image))

    def explain(self, item: ImageInput | str, top: int = 10, k: int | None = None) -> Explanation:
        """Explain an image or text by its strongest concepts, with `hf_msae.concepts.explain_embedding`.

        Args:
            item: An image or a text. A string that is the path of a file, or ends like the name of a picture (.png,
                .jpg, ...), is an image. To explain such a text, pass its `text_embeds` to `explain_embedding`.
            top: Number of concepts.
            k: Number of latents to keep: few for the coarse picture, many for details.
        """
        from .concepts import explain_embedding

        embedding = self._embedding(item)
        if self.text_shift is not None and not is_picture(item):
            embedding = embedding + self.text_shift.to(embedding)
        return explain_embedding(self.msae, embedding, self.concepts, top, k, self.percentiles)

    def explain_similarity(
        self, item: ImageInput | str, other: ImageInput | str, both: bool = False, k: int | None = None
    ) -> SimilarityExplanation:
        """Explain why two items match: what the concepts of `item` contribute to the cosine similarity.

        The items and `k` are as for `explain`; `both` decomposes `other` as well, into pairs of concepts.
        """
        from .concepts import explain_similarity

        return explain_similarity(self.msae, self._embedding(item), self._embedding(other), self.concepts, both, k)

    def _embedding(self, item: ImageInput | str) -> torch.Tensor:
        if self.hook_point.layer is not None:
            raise ValueError(f"explanations need an MSAE of pooled embeddings, not of {self.hook_point.name}")
        return self.image_embeds([item])[0] if is_picture(item) else self.text_embeds([item])[0]

    @contextmanager
    def edit(
        self, edits: Mapping[int | str, float], mode: str = "scale", keep_residual: bool = True
    ) -> Iterator[VisionTextMSAE]:
        """Edit latents at the hook point in every forward pass of the backbone in the current thread or task.

        Zero-shot classification, retrieval or any head then works on the edited embeddings. What the MSAE does not
        reconstruct stays, and an edit that changes nothing gives bit-identical outputs. Edits can be nested: an inner
        one is applied to the latents that the outer one has left. They end with the block, also after an error.

        Args:
            edits: Values by latent or name. A name means the best latent that has it.
            mode: "scale" multiplies activations by the value, "set" replaces them, "add" adds the value.
            keep_residual: Keep what the MSAE does not reconstruct.

        Raises:
            ValueError: As for [`LatentEdit.of`].
        """
        edit = LatentEdit.of(edits, self.msae.config.num_latents, self.concepts, mode, keep_residual)
        with self._editor.editing(edit):
            yield self

    def __repr__(self) -> str:
        named = "unnamed" if self.concepts is None else f"{self.concepts.frame['name'].nunique()} names"
        latents = f"{self.msae.config.num_latents} latents of {self.hook_point.name}"
        return f"VisionTextMSAE({self.backbone!r}, {latents}, {named})"
