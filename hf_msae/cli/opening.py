"""Arguments and helpers that the commands share: how they open models, names, embeddings and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from datasets import disable_progress_bars
from transformers.utils.logging import disable_progress_bar

from .._utils.argument_parser import MSAEArgumentParser, flag
from .._utils.json_files import write_json
from ..backbones.image_text_data import open_dataset
from ..concepts import ConceptTable
from ..embeddings import EmbeddingDataset, load_embeddings
from ..embeddings.metadata import EmbeddingMetadata
from ..hub.reading.opening import concept_files, load_msae
from ..model.modeling_msae import MSAEModel
from ..plotting import check_figure_path
from ..vision_text import VisionTextMSAE

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class ModelArguments:
    """Which MSAE, and its backbone."""

    _argument_group_name: ClassVar[str] = "model"

    model: str = flag("Folder or Hub id of an MSAE, or the name of a released one (`hf-msae released` lists them).")
    revision: str | None = flag("Branch, tag or commit of a model on the Hub.", None)
    subfolder: str | None = flag("Subfolder of the folder or repository that holds the model.", None)
    backbone: str | None = flag("Folder or Hub id of the backbone. Unset: the one that the MSAE was trained on.", None)
    device: str | None = flag("Device that the models run on, such as cuda. Unset: the CPU.", None)
    disable_tqdm: bool = flag("Hide the progress bars.", False)

    def __post_init__(self):
        if self.disable_tqdm:
            disable_progress_bars()  # those of reading and rendering data sets

    def names(self) -> ConceptTable | None:
        """Return no names: commands with names use `NamedModelArguments`."""
        return None

    def open_msae(self) -> tuple[MSAEModel, ConceptTable | None]:
        """The MSAE, and the names of its latents, if it has any.

        Raises:
            OSError: there is no such model, or no such file of names.
            ValueError: they are of another number of latents.
        """
        msae = load_msae(self.model, self.revision, self.subfolder).eval()
        try:
            msae = msae.to(self.device or "cpu")
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            raise ValueError(f"device {self.device!r} cannot be used: {str(error).splitlines()[0]}") from error
        table = self.names()
        if table is not None and len(table) != msae.config.num_latents:
            raise ValueError(
                f"there are names of {len(table)} latents, but {self.model} has {msae.config.num_latents}"
            )
        return msae, table

    def open(self) -> VisionTextMSAE:
        """The MSAE with its backbone and names.

        Raises:
            OSError, ValueError: as `open_msae`; there is no backbone, or another than it was trained on.
        """
        msae, table = self.open_msae()
        model = VisionTextMSAE.from_pretrained(msae, self.backbone, device=self.device)
        model.concepts = table
        return model


@dataclass
class NamedModelArguments(ModelArguments):
    """Which MSAE, its backbone, and the names of its latents."""

    concepts: str | None = flag(
        "Parquet file of names written by `hf-msae name`. Unset: the file that comes with the model.", None
    )

    def names(self) -> ConceptTable | None:
        """The names of its latents, if it has any.

        Raises:
            OSError: there is no such file.
        """
        if self.concepts is None:
            tables = concept_files(self.model, self.revision, self.subfolder)
            if len(tables) > 1:
                raise ValueError(f"{self.model} has several tables of names: choose one by --concepts {tables[0]}")
            return ConceptTable.load(tables[0]) if tables else None
        path = Path(self.concepts).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no file of names {path}: `hf-msae name` writes one")
        return ConceptTable.load(path)


@dataclass
class EmbeddingArguments:
    """Which embeddings."""

    _argument_group_name: ClassVar[str] = "embeddings"

    data: str = flag(
        "Embeddings: a folder written by hf-msae extract, a data set folder or Hub id with an embedding column, a "
        "parquet file, or a 2-D .npy file."
    )
    split: str | None = flag("Split of the data, if it has several.", None, aliases=("--data_split",))
    embedding_column: str | None = flag(
        "Column that holds the embeddings. Unset: the one named like the model's hook point.", None
    )

    def load(self, msae: MSAEModel) -> EmbeddingDataset:
        """Open the embeddings for an MSAE.

        Raises:
            OSError: There is no such data.
            ValueError: The data has no such column or split, or another width than the MSAE.
        """
        return load_for(msae, self.data, self.embedding_column, self.split)


def command_parser(name: str, kinds: Sequence[type], description: str, example: str) -> MSAEArgumentParser:
    """Make the parser of a command, and hide the progress bar of loading weights."""
    disable_progress_bar()
    return MSAEArgumentParser(kinds, description, example, prog=f"hf-msae {name}", first_word="model")


def load_for(msae: MSAEModel, data: str, column: str | None = None, split: str | None = None) -> EmbeddingDataset:
    """Load embeddings and check that they fit an MSAE.

    Raises:
        OSError: There is no such data.
        ValueError: The data cannot be read as embeddings, or has another width than the MSAE.
    """
    acts = load_embeddings(data, column, msae.config.hook_point, split)
    if acts.width != msae.config.d_in:
        raise ValueError(
            f"{data} has embeddings of {acts.width} columns, but this MSAE was trained on {msae.config.d_in} "
            f"({msae.config.base_model_name_or_path}, {msae.config.hook_point})"
        )
    return acts


def open_images(acts: EmbeddingDataset, source: str | None, split: str | None, column: str | None) -> Dataset | None:
    """Open the data set of the pictures that the embeddings belong to, row for row.

    Args:
        acts: The embeddings.
        source: Data set, as for `open_dataset`. None takes the one that the extraction recorded; "none" opens nothing.
        split: Split of the data set. None takes the one that the extraction recorded.
        column: Column of the pictures. None takes the one that the extraction recorded, or "image".

    Returns:
        The data set with its pictures in the column "image", or None if there are no pictures.

    Raises:
        OSError: There is no such data set.
        ValueError: The data set has another number of rows, or no such column.
    """
    if source == "none":
        return None
    recorded = acts.provenance
    if source is None:
        source = recorded.get("dataset")
        if not source or recorded.get("image_column") is None:
            return None
        split = split or (None if source.startswith("scenes:") else recorded.get("dataset_split"))
    column = column or recorded.get("image_column") or "image"
    try:
        images = open_dataset(source, split)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"pictures of {acts.source}: {error}; name it with --images, or 'none'") from error
    if column not in images.column_names:
        raise ValueError(f"{source} has no column {column!r}, only {', '.join(images.column_names)}")
    if skipped := _left_out(acts):
        left_out = set(skipped)
        images = images.select([row for row in range(len(images)) if row not in left_out])
    number = len(acts) if acts.dataset is None else len(acts.dataset)
    if len(images) != number:
        raise ValueError(
            f"{source} has {len(images)} rows, but {acts.source} has embeddings of {number}: these are not their "
            "pictures; name the data set with --images, or 'none'"
        )
    if column == "image":
        return images
    return images.remove_columns([name for name in images.column_names if name == "image"]).rename_column(
        column, "image"
    )


def _left_out(acts: EmbeddingDataset) -> Sequence[int]:
    """Return the rows that the extraction could not read."""
    metadata = EmbeddingMetadata.load(Path(acts.source).expanduser()) if Path(acts.source).is_dir() else None
    return metadata.skipped if metadata is not None else ()


def weighted_concepts(words: Sequence[str]) -> dict[int | str, float]:
    """Parse words such as "red=0.5", "red" (weight 1) or "417=-1" (a latent).

    Raises:
        ValueError: A concept is given twice, or the part after the last "=" is not a number.
    """
    found: dict[int | str, float] = {}
    for word in words:
        name, equals, number = word.rpartition("=")
        try:
            name, value = (name, float(number)) if equals else (word, 1.0)
        except ValueError:
            raise ValueError(f"{word!r} is no concept with a number, like red=0.5") from None
        key = int(name) if name.isdecimal() else name
        if key in found:
            raise ValueError(f"{name!r} is given twice")
        found[key] = value
    return found


def check_outputs(figure: str | None, *files: str | None) -> None:
    """Check before any work that the results can be written, and create the folders they go to.

    Raises:
        ValueError: The figure's file type is unknown, or a file name is that of a folder.
    """
    if figure is not None:
        check_figure_path(figure)
    for file in filter(None, (figure, *files)):
        if Path(file).is_dir():
            raise ValueError(f"{file} is a folder; name a file in it")
        Path(file).expanduser().parent.mkdir(parents=True, exist_ok=True)


def save_json(file: str | None, content: dict) -> None:
    """Write results to a JSON file, if one is given, and print its name."""
    if file is not None:
        write_json(Path(file).expanduser(), json.loads(json.dumps(content)))
        print(f"The figures are in {file}")


def embedding_of(
    model: VisionTextMSAE | None, acts: EmbeddingDataset | None, image: str | None, text: str | None, row: int | None
) -> torch.Tensor:
    """Return the raw embedding (d,) of an image, a text or a row, whichever is given.

    Raises:
        OSError, ValueError: it cannot be read, or there is no such row.
    """
    if row is not None:
        if not 0 <= row < len(acts):
            raise ValueError(f"there is no row {row}: {acts.source} has rows 0 to {len(acts) - 1}")
        return acts[row]
    found = model.image_embeds([Path(image)]) if image is not None else model.text_embeds([text])
    return found[0]
