"""What all tabs share: the model, the pictures with their codes, and the names; loaded once, never changed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch
from PIL import Image

from .._utils.atomic import atomic_path
from .._utils.images import thumbnail, to_rgb
from ..concepts import ConceptHierarchy, Vocabulary, concept_hierarchy
from ..concepts.codes import Embeddings, collect_codes, open_embeddings
from ..concepts.collectors import ColumnCollector, LatentColumns
from ..concepts.editing import number_of
from ..concepts.labels import Labels
from ..hub.publishing.space_settings import ExplorerSettings
from ..metrics import LinearClassifier
from ..search import ConceptIndex
from ..search.files import INDEX_FILE
from ..vision_text import VisionTextMSAE
from .housekeeping import own_folder
from .inputs import VisitorError
from .sources import Report, check_hook_points, index_k, open_sources

if TYPE_CHECKING:
    from ..steering import Edit, SwordBenchResult

logger = logging.getLogger(__name__)

THUMBNAIL = 224
_CAPTIONS = ("caption", "text", "label")
"""Columns that may say what a picture shows; the first that does counts."""


@dataclass(frozen=True)
class Concept:
    """A latent that visitors can choose.

    Attributes:
        name: Its name in lists, which is unique.
        latent: Its number.
        validated: Whether the name passed its tests.
    """

    name: str
    latent: int
    validated: bool


class Explorer:
    """A model and a collection of pictures, ready to answer questions.

    All visitors read it at the same time and none changes it: an answer depends only on its question.

    Args:
        model: A model of pooled image embeddings, with names.
        images: A dataset with the pictures.
        embeddings: Their raw embeddings, (N, d); anything `load_embeddings` accepts.
        patch_model: A model of a vision block of the same backbone.
        image_column: The column of `images` with the pictures.
        edits: Edits of image embeddings of the same backbone that visitors can apply, by name.
        swordbench: What `run_swordbench` found, to be shown.
        index_folder: Folder where the index is kept for the next time. Defaults to one that is removed at the end.

    Attributes:
        msae: The autoencoder of `model`.
        label: Called with a latent, gives its name and whether that is validated.
        k: How many latents count as the strongest of a picture, and are indexed.
        index: The index that pictures are searched with.
        thumbnails: The folder of small versions of the pictures.

    Raises:
        ValueError: The models are of other hook points, the numbers of pictures and embeddings differ, or an edit was
            fitted on another backbone.
    """

    def __init__(
        self,
        model: VisionTextMSAE,
        images: datasets.Dataset,
        embeddings: Embeddings,
        patch_model: VisionTextMSAE | None = None,
        image_column: str = "image",
        edits: Mapping[str, Edit] | None = None,
        swordbench: SwordBenchResult | None = None,
        index_folder: Path | None = None,
    ) -> None:
        check_hook_points(model.msae, None if patch_model is None else patch_model.msae)
        self.edits, self.swordbench = dict(edits or {}), swordbench
        if self.edits:
            from .edits import check_edits  # here, since the room of steering is slow to import

            check_edits(self.edits, model.backbone)
        self.embeddings = open_embeddings(model.msae, embeddings)
        if len(images) != len(self.embeddings):
            raise ValueError(f"there are {len(images)} pictures, but {len(self.embeddings)} embeddings")
        self.model, self.images, self.patch_model, self.image_column = model, images, patch_model, image_column
        self.msae = model.msae
        self.label = Labels(model.concepts)
        self.k = index_k(self.msae)
        self._folder = own_folder("msae-explorer-")
        self.folder = Path(self._folder.name)
        self.thumbnails = self.folder / "thumbnails"
        self.thumbnails.mkdir()
        self.index = self._build_index(index_folder)

    @classmethod
    def load(cls, settings: ExplorerSettings | None = None, report: Report = lambda stage, share: None) -> Explorer:
        """Load the models and the pictures, and embed the pictures if no embeddings are given.

        `report` is called with what is being done, and which share of it is done if that is known. Raises OSError if
        something does not exist, and ValueError if it does not fit the rest.
        """
        settings = settings or ExplorerSettings()
        sources = open_sources(settings, report)
        report("indexing the pictures", None)
        return cls(**sources)

    def _build_index(self, kept: Path | None) -> ConceptIndex:
        given = self.msae, self.embeddings, self.k, self.model.concepts
        if kept is not None:
            try:
                return ConceptIndex.build(kept, *given, progress=False)
            except (ValueError, OSError) as error:
                logger.warning(f"the index that was kept cannot be used, so another is built: {error}")
            if (kept / INDEX_FILE).is_file():  # damaged, or of other embeddings
                shutil.rmtree(kept)
                return ConceptIndex.build(kept, *given, progress=False)
        return ConceptIndex.build(self.folder / "index", *given, progress=False)

    # -- concepts --------------------------------------------------------------------------------------------------

    @cached_property
    def concepts(self) -> dict[str, Concept]:
        """The concepts that visitors choose from, by name: the best latent of each validated name.

        If no name is validated, the best latent of each name; without names, the active latents by number.
        """
        table = self.model.concepts
        if table is None:
            alive = np.flatnonzero((self.codes > 0).any(axis=0))
            return {f"latent {latent}": Concept(f"latent {latent}", int(latent), False) for latent in alive}
        best, validated = table.best_available()
        names = {str(row.name): int(row.latent) for row in best.itertuples(index=False)}
        return {name: Concept(name, latent, validated) for name, latent in sorted(names.items())}

    def key_of(self, latent: int) -> str:
        """The key that `latent_of` takes for a latent: its name, or "latent 417" if the name means another latent."""
        name = str(self.label(latent))
        chosen = self.concepts.get(name)
        return name if chosen is not None and chosen.latent == latent else f"latent {latent}"

    def latent_of(self, name: Any) -> int:
        """The latent of a concept that a visitor chose: a name of `concepts`, or a number that `number_of` reads."""
        if isinstance(name, str):
            if name in self.concepts:
                return self.concepts[name].latent
            number = number_of(name)
            if number is not None and number < self.msae.config.num_latents:
                return number
        raise VisitorError("There is no such concept: choose one from the list.")

    @cached_property
    def codes(self) -> np.ndarray:
        """The full codes of all pictures, float32 (N, n)."""
        return self._columns.values

    @cached_property
    def strong(self) -> np.ndarray:
        """Whether each latent is active and among the `k` strongest of each picture, bool (N, n)."""
        return self._columns.strong

    @cached_property
    def _columns(self) -> LatentColumns:
        collector = ColumnCollector(np.arange(self.msae.config.num_latents), self.k)
        return collect_codes(self.msae, self.embeddings, [collector], batch_size=1024, progress=False)[0]

    def strongest(self, latent: int, number: int) -> list[int]:
        """The rows in which a latent is most active, strongest first, without those in which it is inactive."""
        values = self.codes[:, latent]
        order = np.argsort(-values, kind="stable")[:number]
        return [int(row) for row in order if values[row] > 0]

    @cached_property
    def hierarchy(self) -> ConceptHierarchy:
        """Parents and children among `concepts`."""
        latents = [each.latent for each in self.concepts.values()]
        codes = self.index.sparse_codes()
        return concept_hierarchy(self.msae, self.embeddings, self.model.concepts, latents, self.k, codes=codes)

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
        """The raw embeddings (n, d) of texts; raises VisitorError if the backbone has no text tower."""
        try:
            return self.model.text_embeds(list(texts), progress=False)
        except ValueError as error:
            raise VisitorError("This model cannot read texts: its backbone takes only pictures.") from error

    def zero_shot(self, labels: Sequence[str], templates: Sequence[str] = ("{}",)) -> LinearClassifier:
        """Make a classifier of labels that exclude each other: a softmax over the backbone's scaled cosines with them.

        Embeddings of several `templates`, prompts with one {} for the label, are averaged. The bias that SigLIP adds
        to every logit is the same for all labels, so it changes nothing in a softmax.
        """
        embeddings = Vocabulary(labels, templates).embed(self.embed_texts)
        scale = getattr(self.model.backbone.model, "logit_scale", None)
        scale = 100.0 if scale is None else float(scale.detach().exp())
        return LinearClassifier.zero_shot(embeddings.cpu(), list(labels), logit_scale=scale)

    # -- pictures --------------------------------------------------------------------------------------------------

    def picture(self, row: int) -> Image.Image:
        """A picture of the collection, RGB."""
        return to_rgb(self._pictures[int(row)][self.image_column], f"row {row}")

    @cached_property
    def _pictures(self) -> datasets.Dataset:
        # Without other columns of pictures or sounds, which would be decoded with every row, and may be damaged.
        return self.images.select_columns([self.image_column])

    def thumbnail(self, row: int) -> str:
        """The path of a small version of a picture, made when it is first needed."""
        path = self.thumbnails / f"{int(row)}.webp"
        if not path.exists():
            small = thumbnail(self.picture(row), THUMBNAIL)
            with atomic_path(path) as unfinished:
                small.save(unfinished, "WEBP", quality=82)
        return str(path)

    def caption(self, row: int) -> str:
        """What the dataset says a picture shows, or else its number."""
        values = [] if self._captions is None else self._captions[int(row)].values()
        return next((value for value in values if isinstance(value, str) and value), f"picture {row}")

    @cached_property
    def _captions(self) -> datasets.Dataset | None:
        # Without the pictures, which would be decoded with every row.
        columns = [each for each in _CAPTIONS if each in self.images.column_names]
        return self.images.select_columns(columns) if columns else None

    def __repr__(self) -> str:
        return f"Explorer({self.model!r}, {len(self.images)} pictures, {len(self.concepts)} concepts)"
