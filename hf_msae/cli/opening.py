"""Arguments and helpers that the commands share: how they open models, names, embeddings and pictures."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from transformers.utils.logging import disable_progress_bar

from .._utils.argument_parser import MSAEArgumentParser, flag
from .._utils.json_files import write_json
from .._utils.wording import shortened
from .checks import refuse_without

if TYPE_CHECKING:
    from datasets import Dataset

    from ..concepts import ConceptTable
    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel
    from ..vision_text import VisionTextMSAE

_DESCRIPTIONS = ("file_name", "caption", "text", "title")
"""Columns next to embeddings that say what a row shows."""
_OWN = ("row", "latent", "score", "similarity", "similarity_before", "rank", "rank_before", "rank_change", "concepts")
"""Columns of the tables that descriptions are put in."""
_LONGEST = 60
"""Characters of such a text in a table."""


@dataclass
class ModelArguments:
    """Which MSAE, and its backbone."""

    _argument_group_name: ClassVar[str] = "model"

    model: str = flag("Folder or Hub id of an MSAE, or the name of a released one (`hf-msae released` lists them).")
    revision: str | None = flag("Branch, tag or commit of a model on the Hub.", None)
    subfolder: str | None = flag("Subfolder of the folder or repository that holds the model.", None)
    backbone: str | None = flag(
        "Folder or Hub id of the backbone. Defaults to the one that the MSAE was trained on.", None
    )
    allow_other_backbone: bool = flag(
        "Use the backbone even if it is not the one that the MSAE was trained on.", False
    )
    device: str | None = flag("Device that the models run on, such as cuda. Defaults to the CPU.", None)
    disable_tqdm: bool = flag("Hide the progress bars, which are only shown on a terminal.", False)

    def names(self) -> ConceptTable | None:
        """Load the names of the latents. Commands that use names have `NamedModelArguments` instead."""
        return None

    def open_msae(self) -> tuple[MSAEModel, ConceptTable | None]:
        """Load the MSAE and the names of its latents, if it has any."""
        import torch

        from ..hub.reading.opening import load_msae

        device = self.device or "cpu"
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            raise ValueError(f"device {self.device!r} cannot be used: {str(error).splitlines()[0]}") from error
        is_folder = Path(self.model).expanduser().is_dir()
        concepts = self.names() if is_folder else None  # they take less time to read than the model
        msae = load_msae(self.model, self.revision, self.subfolder).eval().to(device)
        concepts = concepts if is_folder else self.names()
        if concepts is not None and len(concepts) != msae.config.num_latents:
            raise ValueError(f"{len(concepts)} latents have names, but {self.model} has {msae.config.num_latents}")
        return msae, concepts

    def add_backbone(self, msae: MSAEModel, concepts: ConceptTable | None) -> VisionTextMSAE:
        """Load the backbone of an MSAE that `open_msae` opened."""
        from ..vision_text import VisionTextMSAE

        model = VisionTextMSAE.from_pretrained(
            msae, self.backbone, device=self.device, strict=not self.allow_other_backbone
        )
        model.concepts = concepts
        return model


@dataclass
class NamedModelArguments(ModelArguments):
    """Which MSAE, its backbone, and the names of its latents."""

    concepts: str | None = flag(
        "Parquet file of names written by `hf-msae name`, or the name of one that comes with the model. Defaults to "
        "the one with the most validated names.",
        None,
    )

    def names(self) -> ConceptTable | None:
        """Load the names of the latents: from the file given, or else those that come with the model."""
        from ..hub.reading.opening import chosen_concepts, concepts_beside

        if self.concepts is not None:
            return chosen_concepts(self.concepts, self.model, self.revision, self.subfolder)
        return concepts_beside(self.model, self.revision, self.subfolder)

    def remark_on_names(self, concepts: ConceptTable | None, latent: int | str) -> str:
        """Write why no name is validated, and how to see what activates a latent; "" if one is, or there are none."""
        from ..concepts.validation import why_none

        if concepts is None or concepts.frame["name"].isna().all() or concepts.best_available()[1]:
            return ""
        return (
            f"No name of this model is validated: {why_none(concepts.frame)}. So all are guesses; what activates a "
            f"latent is shown by: hf-msae search {shlex.quote(self.model)} --data EMBEDDINGS --find latent:{latent} "
            "--images PICTURES --figure found.png"
        )


@dataclass
class EmbeddingArguments:
    """Which embeddings."""

    _argument_group_name: ClassVar[str] = "embeddings"

    data: str = flag(
        "Embeddings: a folder written by hf-msae extract, a dataset folder or Hub id with an embedding column, a "
        "parquet file, or a 2-D .npy file."
    )
    split: str | None = flag("Split of the data, if it has several.", None, aliases=("--data_split",))
    embedding_column: str | None = flag(
        "Column that holds the embeddings. Defaults to the one named like the model's hook point.", None
    )
    verify: bool = flag("Compare files of embeddings with their recorded checksums before they are first read.", True)

    def load(self, msae: MSAEModel) -> EmbeddingDataset:
        """Open the embeddings; raises like `open_embeddings`."""
        from ..concepts.codes import open_embeddings

        return open_embeddings(msae, self.data, self.embedding_column, self.split, self.verify)


@dataclass(kw_only=True)
class ProbeArguments:
    """How linear probes are trained, for commands that explain them."""

    train_data: str | None = flag(
        "Embeddings to train probes on. They need the same label columns as the data, but must be other rows.", None
    )
    train_split: str | None = flag("Split of train_data, if it has several.", None)
    regularization: str = flag(
        "Inverse regularization strength of a probe: a positive number, or cv to choose it by cross-validation.", "cv"
    )

    def __post_init__(self):
        refuse_without(self, "train_data", "train_split", "regularization")
        if self.regularization != "cv":
            try:
                self.regularization = float(self.regularization)
            except ValueError:
                raise ValueError(f"regularization must be positive or cv, got {self.regularization!r}") from None

    def load_train_data(self, msae: MSAEModel, data: EmbeddingArguments) -> EmbeddingDataset:
        """Open the embeddings to train probes on as the data are opened."""
        from ..concepts.codes import open_embeddings

        return open_embeddings(msae, self.train_data, data.embedding_column, self.train_split, data.verify)


@dataclass(kw_only=True)
class ImageArguments:
    """Which pictures the embeddings belong to."""

    images: str | None = flag(
        "Dataset of the pictures, given as for hf-msae extract, or 'none' to leave them out. Defaults to the dataset "
        "that the embeddings were extracted from.",
        None,
    )
    images_split: str | None = flag("Split of the dataset of the pictures, if it has several.", None)
    image_column: str | None = flag("Column that holds the pictures.", None)

    def open_images(self, embeddings: EmbeddingDataset) -> Dataset | None:
        """Open the dataset of the pictures, with one row for each row of the embeddings and its pictures in "image".

        None if the pictures are left out or unknown.
        """
        from .._utils.images import undecoded
        from ..backbones.pictures import open_pictures

        if self.images == "none":
            return None
        images = open_pictures(embeddings, self.images, self.images_split, "--images, or 'none'")
        if images is None:
            return None
        column = self.image_column or embeddings.provenance.get("image_column") or "image"
        if column not in images.column_names:
            source = self.images or embeddings.provenance["dataset"]
            raise ValueError(f"{source} has no column {column!r}, only {', '.join(images.column_names)}")
        if column != "image":
            images = images.remove_columns([name for name in images.column_names if name == "image"])
            images = images.rename_column(column, "image")
        return undecoded(images, "image")


def command_parser(name: str, kinds: Sequence[type], description: str, example: str) -> MSAEArgumentParser:
    """Make the parser of a command, and hide the progress bar of loading weights."""
    disable_progress_bar()
    return MSAEArgumentParser(kinds, description, example, prog=f"hf-msae {name}", first_words=["model"])


def weighted_concepts(words: Sequence[str], num_latents: int, concepts: ConceptTable | None) -> dict[int, float]:
    """Read words such as "red=0.5", "red" (weight 1) or "latent:417=-1", as values by latent."""
    from ..concepts.editing import values_of_latents

    names = set() if concepts is None else set(concepts.frame["name"].dropna())
    pairs = []
    for word in words:
        name, equals, number = word.rpartition("=")
        if not equals or word in names:  # a name may hold "=" too
            pairs.append((word, 1.0))
            continue
        try:
            pairs.append((name, float(number)))
        except ValueError:
            raise ValueError(f"{word!r} is not a concept with a number, like red=0.5") from None
    return values_of_latents(pairs, num_latents, concepts)


def described(embeddings: EmbeddingDataset, rows: Sequence[int]) -> dict[str, list[str]]:
    """Return what the columns of file names and captions next to the embeddings say of some rows, by column.

    Without columns of such names, the first two columns of strings are taken. Those called like a column of the tables
    that they are put in, such as "row", get a name of their own.
    """
    if embeddings.dataset is None:
        return {}
    features = embeddings.dataset.features
    texts = [name for name, kind in features.items() if "string" in str(getattr(kind, "dtype", ""))]
    known = (*_DESCRIPTIONS, embeddings.provenance.get("text_column"))
    columns = [name for name in texts if name in known] or texts[:2]
    if not columns:
        return {}
    chosen = embeddings.dataset.select_columns(columns).select(embeddings.dataset_rows(list(rows)))
    return {
        f"{name} of the data" if name in _OWN else name: ["" if text is None else text for text in chosen[name]]
        for name in columns
    }


def strongest_rows(msae: MSAEModel, embeddings: EmbeddingDataset, latents: Sequence[int]) -> str:
    """Return a table of the rows that activate each latent most, and what is known of them."""
    import numpy as np
    import pandas as pd

    from ..concepts.codes import collect_codes
    from ..concepts.collectors import ColumnCollector

    (found,) = collect_codes(msae, embeddings, [ColumnCollector(latents)], progress=False)
    order = np.argsort(-found.values, axis=0, kind="stable")[:4].T
    texts = described(embeddings, order.reshape(-1))
    if not texts:
        rows = [", ".join(map(str, rows)) for rows in order]
        return pd.DataFrame({"latent": latents, "rows": rows}).to_string(index=False)
    table = pd.DataFrame({"latent": np.repeat(latents, order.shape[1]), "row": order.reshape(-1)})
    return table.assign(**shortened_columns(texts)).to_string(index=False)


def shortened_columns(texts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Cut texts, by column, to what a table has room for."""
    return {name: [shortened(text, _LONGEST) for text in column] for name, column in texts.items()}


def save_json(file: str | None, content: dict) -> None:
    """Write results to a JSON file, if one is given, and print its name."""
    if file is not None:
        write_json(Path(file).expanduser(), content)
        print(f"The results are in {file}")
