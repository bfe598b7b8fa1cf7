"""What all tabs share: the model, the pictures with their codes, and the names; loaded once, never changed."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from .._utils.images import to_rgb
from ..backbones.image_text_data import open_dataset
from ..concepts import ConceptHierarchy, Vocabulary, concept_hierarchy
from ..concepts.codes import collect_codes
from ..concepts.collectors import ColumnCollector, LatentColumns
from ..concepts.labels import Label, Labels
from ..embeddings import EmbeddingDataset, load_embeddings
from ..hub.publishing.space_settings import ExplorerSettings
from ..hub.reading.opening import load_msae
from ..metrics import LinearClassifier
from ..search import ConceptIndex
from ..vision_text import VisionTextMSAE
from .inputs import VisitorError

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

THUMBNAIL = 224
INDEX_K = 32
_CAPTIONS = ("caption", "text", "label")
"""Columns that may say what a picture shows; the first of them counts."""
_LONG = 60.0
"""Seconds of embedding after which people are told how to save them."""


@dataclass(frozen=True)
class Concept:
    """A latent that visitors can choose.

    Attributes:
        name: what it is called in lists; unique.
        latent: its number.
        validated: whether the name is more than chance.
    """

    name: str
    latent: int
    validated: bool


class Explorer:
    """A model and a collection of pictures, ready to be asked.

    Everything here is read by all visitors at once and written by none: answers are functions of what is asked alone.

    Args:
        model: of pooled image embeddings, with names.
        images: a data set with the pictures in `image_column`.
        embeddings: their raw embeddings, (N, d).
        patch_model: of a vision block of the same backbone.
        image_column: with the pictures.

    Raises:
        ValueError: the model is not of pooled image embeddings, or pictures and embeddings are of different numbers.
    """

    def __init__(
        self,
        model: VisionTextMSAE,
        images: datasets.Dataset,
        embeddings: torch.Tensor,
        patch_model: VisionTextMSAE | None = None,
        image_column: str = "image",
    ) -> None:
        _check_hook_points(model, patch_model)
        if len(images) != len(embeddings):
            raise ValueError(f"there are {len(images)} pictures, but {len(embeddings)} embeddings")
        self.model, self.images, self.patch_model, self.image_column = model, images, patch_model, image_column
        self.msae = model.msae
        self.embeddings: EmbeddingDataset = load_embeddings(embeddings.float().cpu())
        self.labels = Labels(model.concepts)
        self._folder = tempfile.TemporaryDirectory(prefix="msae-explorer-")
        self.folder = Path(self._folder.name)
        self.thumbnails = self.folder / "thumbnails"
        self.thumbnails.mkdir()
        self.index = ConceptIndex.build(
            self.folder / "index",
            self.msae,
            self.embeddings,
            min(INDEX_K, self.msae.config.num_latents),
            model.concepts,
            progress=False,
        )

    @classmethod
    def load(cls, settings: ExplorerSettings | None = None) -> Explorer:
        """Load everything; embeds the pictures where no embeddings are given.

        Raises:
            OSError, ValueError: something is not there, or does not fit.
        """
        settings = settings or ExplorerSettings()
        # All that can be wrong is found before pictures are embedded, which may take long.
        model = VisionTextMSAE.from_pretrained(settings.model, settings.backbone)
        patch_model = None
        if settings.patch_model is not None:
            patch_model = VisionTextMSAE.from_pretrained(load_msae(settings.patch_model), model.backbone)
            patch_model.concepts = _names_of(settings.patch_model)
        _check_hook_points(model, patch_model)
        images = open_dataset(settings.dataset, settings.split)
        _check_pictures(images, settings)
        rows = min(len(images), settings.max_images)
        if settings.embeddings is not None:
            given = load_embeddings(settings.embeddings, hook_point="image_embeds")
            if len(given) != len(images):
                raise ValueError(
                    f"{settings.embeddings} has {len(given)} embeddings, but {settings.dataset} has {len(images)} "
                    "pictures: these are not their embeddings"
                )
            embeddings = given[:rows]
        images = images.select(range(rows))
        if settings.embeddings is None:
            embeddings = _embedded(model, images, settings)
        return cls(model, images, embeddings, patch_model, settings.image_column)

    # -- concepts --------------------------------------------------------------------------------------------------

    @cached_property
    def concepts(self) -> dict[str, Concept]:
        """The concepts that visitors choose from, by name: the best latent of each validated name, by the alphabet.

        Where no name is validated, the best latent of each name; without names, latents by number.
        """
        table = self.model.concepts
        if table is None:
            alive = np.flatnonzero((self.codes > 0).any(axis=0))
            return {f"latent {latent}": Concept(f"latent {latent}", int(latent), False) for latent in alive}
        best, validated = table.best_available()
        found = {
            str(row.name): Concept(str(row.name), int(row.latent), validated) for row in best.itertuples(index=False)
        }
        return dict(sorted(found.items()))

    def label(self, latent: int) -> Label:
        """What a latent is called, and whether the name is validated."""
        return self.labels(latent)

    def key_of(self, latent: int) -> str:
        """What `latent_of` takes for a latent: its name, or "latent 417" where another one is chosen by the name."""
        name = str(self.labels(latent))
        chosen = self.concepts.get(name)
        return name if chosen is not None and chosen.latent == latent else f"latent {latent}"

    def latent_of(self, name: Any) -> int:
        """The latent of a concept that a visitor has chosen: a name of `concepts`, or "latent 417".

        Raises:
            VisitorError: there is none of that name.
        """
        if isinstance(name, str):
            if name in self.concepts:
                return self.concepts[name].latent
            number = name.removeprefix("latent ").strip()
            if number.isdecimal() and len(number) < 10 and int(number) < self.msae.config.num_latents:
                return int(number)
        raise VisitorError("There is no such concept: choose one from the list.")

    @cached_property
    def codes(self) -> np.ndarray:
        """The full codes of all pictures, float32 (N, n)."""
        return self._columns.values

    @cached_property
    def strong(self) -> np.ndarray:
        """Whether each latent is active and among the `INDEX_K` strongest of each picture, bool (N, n)."""
        return self._columns.strong

    @cached_property
    def _columns(self) -> LatentColumns:
        n = self.msae.config.num_latents
        collector = ColumnCollector(np.arange(n), min(INDEX_K, n))
        return collect_codes(self.msae, self.embeddings, [collector], batch_size=1024, progress=False)[0]

    def strongest(self, latent: int, number: int) -> list[int]:
        """The rows in which a latent is most active, strongest first; only rows in which it is active."""
        values = self.codes[:, latent]
        order = np.argsort(-values, kind="stable")[:number]
        return [int(row) for row in order if values[row] > 0]

    @cached_property
    def hierarchy(self) -> ConceptHierarchy:
        """Parents and children among the chosen concepts."""
        latents = [each.latent for each in self.concepts.values()]
        k = min(INDEX_K, self.msae.config.num_latents)
        return concept_hierarchy(self.msae, self.embeddings, self.model.concepts, latents, k, progress=False)

    # -- embeddings ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def code(self, embedding: torch.Tensor) -> torch.Tensor:
        """The full code (n,) of a raw embedding (d,), float32 on the CPU."""
        return self.msae.encode(embedding[None].to(self.msae.device))[0].float().cpu()

    @torch.no_grad()
    def embed_picture(self, picture: Image.Image) -> torch.Tensor:
        """The raw embedding (d,) of a picture."""
        return self.model.image_embeds([picture], progress=False)[0]

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """The raw embeddings (n, d) of texts.

        Raises:
            VisitorError: the backbone has no text tower.
        """
        try:
            return self.model.text_embeds(list(texts), progress=False)
        except ValueError as error:
            raise VisitorError("This model cannot read texts: its backbone has pictures alone.") from error

    def zero_shot(self, labels: Sequence[str], templates: Sequence[str] = ("{}",)) -> LinearClassifier:
        """Classify by labels that exclude each other: a softmax over the backbone's scaled cosines with them.

        The bias that SigLIP adds to every logit is the same for all labels, so it changes nothing in a softmax.

        Args:
            labels: Distinct words.
            templates: Prompts with one {} for the label. The embeddings of several are averaged.

        Raises:
            VisitorError: The backbone has no text tower.
        """
        embeddings = Vocabulary(labels, templates).embed(self.embed_texts)
        scale = getattr(self.model.backbone.model, "logit_scale", None)
        scale = 100.0 if scale is None else float(scale.detach().exp())
        return LinearClassifier.zero_shot(embeddings.cpu(), list(labels), logit_scale=scale)

    # -- pictures --------------------------------------------------------------------------------------------------

    def picture(self, row: int) -> Image.Image:
        """A picture of the collection, RGB."""
        return to_rgb(self.images[int(row)][self.image_column], f"row {row}")

    def thumbnail(self, row: int) -> str:
        """The path of a small version of a picture, made when it is first asked for."""
        path = self.thumbnails / f"{int(row)}.webp"
        if not path.exists():
            small = self.picture(row)
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            unfinished = path.with_name(f".{row}-{id(small)}.webp")
            small.save(unfinished, quality=82)
            unfinished.replace(path)
        return str(path)

    def caption(self, row: int) -> str:
        """What the data set says of a picture, or its number."""
        said = [] if self._captions is None else self._captions[int(row)].values()
        return next((value for value in said if isinstance(value, str) and value), f"picture {row}")

    @cached_property
    def _captions(self) -> datasets.Dataset | None:
        # Without the pictures, which would be decoded with every row.
        columns = [each for each in _CAPTIONS if each in self.images.column_names]
        return self.images.select_columns(columns) if columns else None

    def __repr__(self) -> str:
        return f"Explorer({self.model!r}, {len(self.images)} pictures, {len(self.concepts)} concepts)"


def _check_hook_points(model: VisionTextMSAE, patch_model: VisionTextMSAE | None) -> None:
    """Raises:
    ValueError: one of the two is of another place in the backbone.
    """
    if model.hook_point.name != "image_embeds":
        raise ValueError(
            f"the explorer shows MSAEs of image_embeds, but this one is of {model.hook_point.name}; one of a vision "
            "block can be its patch_model"
        )
    if patch_model is not None and (patch_model.hook_point.tower, patch_model.hook_point.layer is None) != (
        "vision",
        False,
    ):
        raise ValueError(
            f"patch_model has to be an MSAE of a vision block (vision.layers.{{i}}), but this one is of "
            f"{patch_model.hook_point.name}"
        )


def _check_pictures(images: datasets.Dataset, settings: ExplorerSettings) -> None:
    """Raises:
    ValueError: there are none, or not in that column.
    """
    column = settings.image_column
    if column not in images.column_names:
        of_pictures = [name for name, feature in images.features.items() if type(feature).__name__ == "Image"]
        way = (
            f"name its column of pictures: --image_column {of_pictures[0]}"
            if of_pictures
            else f"and none of its columns holds pictures: {', '.join(images.column_names[:10])}"
        )
        raise ValueError(f"{settings.dataset} has no column {column!r}; {way}")
    if len(images) < 2:
        raise ValueError(f"{settings.dataset} has {len(images)} pictures, but the explorer compares them: give more")
    try:
        to_rgb(images[0][column], f"row 0 of {column!r}")
    except (TypeError, OSError) as error:
        raise ValueError(f"column {column!r} of {settings.dataset} does not hold pictures: {error}") from error


def _embedded(model: VisionTextMSAE, images: datasets.Dataset, settings: ExplorerSettings) -> torch.Tensor:
    start = time.monotonic()
    found = model.image_embeds(images[settings.image_column])
    if (seconds := time.monotonic() - start) > _LONG:
        logger.warning(
            f"embedding {len(images)} pictures took {seconds:.0f} s, and will at every start: embed them "
            "once by `hf-msae extract`, and give what that writes as --embeddings (MSAE_EMBEDDINGS)"
        )
    return found


def _names_of(name: str) -> Any:
    from ..hub.reading.opening import concepts_beside

    return concepts_beside(name)
