"""Search a data set by example, by concepts, or by an example with some concepts changed.

The first search of some embeddings builds an index of their codes, which is kept for the next one; embeddings that
were added since are added to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import pandas as pd
from huggingface_hub import constants

from .._utils.argument_parser import flag
from .._utils.fingerprint import accepted_fingerprints
from .._utils.images import to_rgb
from .._utils.json_files import json_records
from ..plotting import plot_contact_sheet, save_figure
from ..search import ConceptIndex
from .opening import (
    EmbeddingArguments,
    NamedModelArguments,
    check_outputs,
    command_parser,
    embedding_of,
    open_images,
    save_json,
    weighted_concepts,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL import Image

    from ..embeddings import EmbeddingDataset
    from ..model.modeling_msae import MSAEModel

EXAMPLE = """\
  hf-msae search outputs/quickstart --data outputs/quickstart/embeddings/test --find red star night=-0.5
  hf-msae search outputs/quickstart --data outputs/quickstart/embeddings/test --row 4 --edits red=0 blue=2 \\
      --figure found.png"""
_MOST_PICTURES = 12


@dataclass
class SearchArguments:
    """What is searched for, and how results are shown."""

    _argument_group_name: ClassVar[str] = "search"

    image: str | None = flag("Image file; finds rows similar to it.", None)
    text: str | None = flag("Text; finds rows that match it.", None)
    row: int | None = flag("Number of a row of the data; finds rows similar to it.", None)
    find: list[str] = flag(
        "Concepts that should be active: names, or numbers of latents, each with an optional weight such as red=2. A "
        "negative weight excludes a concept.",
        [],
    )
    edits: list[str] = flag("Changes to the concepts of the example before searching, such as red=0 striped=2.", [])
    edit_mode: Literal["scale", "set", "add"] = flag(
        "Whether edits multiply activations, replace them, or are added to them.", "scale"
    )
    shared_with: int | None = flag(
        "Number of another row; lists the concepts that it shares with --row instead of searching.", None
    )
    top: int = flag("Number of rows to list.", 10)
    index_dir: str | None = flag("Folder of the search index. Unset: a folder in hf_msae/indexes of HF_HOME.", None)
    index_k: int = flag("Number of latents that the index keeps per row.", 32)
    approximate: bool = flag(
        "Use an approximate search, which is faster and may miss rows. Needs faiss: pip install 'hf_msae[ann]'.", False
    )
    images: str | None = flag(
        "Data set of the pictures, given as for hf-msae extract; used by --figure. Unset: the data set that the "
        "embeddings were extracted from.",
        None,
    )
    images_split: str | None = flag("Split of the data set of the pictures.", None)
    image_column: str | None = flag("Column of that data set that holds the pictures.", None)
    figure: str | None = flag("PNG, PDF or SVG file to show the pictures found in.", None)
    output: str | None = flag("JSON file to write the rows found to.", None, aliases=("--output_file",))

    def __post_init__(self):
        examples = sum(each is not None for each in (self.image, self.text, self.row))
        if examples + bool(self.find) != 1:
            raise ValueError("say what to search for by one of --image, --text, --row and --find")
        if self.edits and not examples:
            raise ValueError("--edits change an example: give --image, --text or --row")
        if self.shared_with is not None and (self.row is None or self.edits):
            raise ValueError("--shared_with compares two rows: give the other one with --row, and nothing else")
        if self.approximate and (self.find or self.shared_with is not None):
            raise ValueError("--approximate is about examples: concepts are looked up exactly, and fast")
        if self.top < 1:
            raise ValueError(f"top must be positive, got {self.top}")


def index_folder(msae: MSAEModel, acts: EmbeddingDataset, k: int) -> Path:
    """Where the index of some embeddings is kept by default."""
    source = Path(acts.source).expanduser()
    where = str(source.resolve()) if source.exists() else acts.source
    folders = []
    for fingerprint in accepted_fingerprints(msae):
        identity = "\n".join([fingerprint, where, str(acts.column), str(k)])
        name = hashlib.sha256(identity.encode()).hexdigest()[:24]
        folders.append(Path(constants.HF_HOME) / "hf_msae" / "indexes" / name)
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: Its arguments; None takes those of the process.
    """
    parser = command_parser("search", [NamedModelArguments, EmbeddingArguments, SearchArguments], __doc__, EXAMPLE)
    source, data, args = parser.parse(argv)
    with parser.reporting_errors():
        check_outputs(args.figure, args.output)
        wanted, edits = weighted_concepts(args.find), weighted_concepts(args.edits)
        example = None if args.image is None else to_rgb(Path(args.image))
        model = source.open() if args.image is not None or args.text is not None else None
        msae, names = source.open_msae() if model is None else (model.msae, model.concepts)
        if model is not None and model.hook_point.layer is not None:
            raise ValueError(
                f"the MSAE is of {model.hook_point.name}, whose tokens are many: search by --row or --find instead"
            )
        acts = data.load(msae)
        query = None if wanted else embedding_of(model, acts, args.image, args.text, args.row)
        if args.shared_with is not None:
            embedding_of(None, acts, None, None, args.shared_with)  # whether there is such a row
        images = None
        if args.figure is not None:
            images = open_images(acts, args.images, args.images_split, args.image_column)
            if images is None:
                raise ValueError(f"{acts.source} does not say which pictures it is of: name them with --images")
        folder = Path(args.index_dir).expanduser() if args.index_dir else index_folder(msae, acts, args.index_k)
        progress = not source.disable_tqdm
        index = ConceptIndex.build(
            folder, msae, acts, min(args.index_k, msae.config.num_latents), names, progress=progress
        )
        if args.approximate:
            index.add_approximate(progress=progress)
        if args.shared_with is not None:
            found = index.shared(args.row, args.shared_with)
        elif wanted:
            found = index.by_concepts(wanted, args.top)
        elif edits:
            found = index.by_edit(query, edits, args.edit_mode, args.top, approximate=args.approximate)
        else:
            found = index.by_embedding(query, args.top, approximate=args.approximate)
        if args.shared_with is None:
            found = found.assign(concepts=[_strongest(index, row) for row in found["row"]])
        print(found.to_string(index=False, float_format="{:.3f}".format))
        print(f"\nrows of {acts.source}; the index is in {folder}")
        if args.figure is not None:
            if args.row is not None:
                example = images[int(acts.dataset_rows([args.row])[0])]["image"]
            sheet = plot_contact_sheet(_sheet(found, acts, images, example, args))
            print(f"Drawn in {save_figure(sheet, args.figure)}")
        save_json(args.output, {"found": json_records(found)})


def _strongest(index: ConceptIndex, row: int, number: int = 5) -> str:
    """The strongest concepts of a row that have names (latents that have none, by number)."""
    code = index.code(row).head(number)
    return ", ".join(
        name if isinstance(name, str) else str(latent)
        for latent, name in zip(code["latent"], code["name"], strict=True)
    )


def _sheet(
    found: pd.DataFrame, acts: EmbeddingDataset, images: Dataset, example: Image.Image | None, args: SearchArguments
) -> list[tuple[str, list[Image.Image], None]]:
    """Lines of pictures: the example, what was found, and of edits what would have been found without them."""

    def pictures(rows: pd.Series) -> list[Image.Image]:
        return [to_rgb(each["image"]) for each in images.select(acts.dataset_rows(rows.to_numpy()[:_MOST_PICTURES]))]

    if args.shared_with is not None:
        return [(f"row {row}", pictures(pd.Series([row])), None) for row in (args.row, args.shared_with)]
    lines = [] if example is None else [("the example", [example], None)]
    if args.edits:
        before = found.dropna(subset=["rank_before"]).sort_values("rank_before")
        lines.append(("without edits", pictures(before["row"][before["rank_before"] <= args.top]), None))
        lines.append((" ".join(args.edits), pictures(found["row"][found["rank"] <= args.top]), None))
        return lines
    return [*lines, (" ".join(args.find) or args.text or "found", pictures(found["row"]), None)]


if __name__ == "__main__":
    main()
