"""Search a dataset by example, by concepts, or by an example with some concepts changed.

The first search builds an index of the embeddings' codes, which is kept for later searches. Rows that have been
appended to the embeddings are added to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from .._utils.argument_parser import flag
from .checks import check_inputs, check_json, check_least, check_outputs, check_text, refuse_without
from .opening import (
    EmbeddingArguments,
    ImageArguments,
    NamedModelArguments,
    command_parser,
    described,
    save_json,
    shortened_columns,
    weighted_concepts,
)

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from PIL import Image

    from ..concepts.labels import Labels
    from ..embeddings import EmbeddingDataset
    from ..search import ConceptIndex

EXAMPLE = """\
  hf-msae search outputs/quickstart --data outputs/quickstart/embeddings/test --find red star night=-0.5
  hf-msae search outputs/quickstart --data outputs/quickstart/embeddings/test --row 4 --edits red=0 blue=2 \\
      --figure found.png"""
_MOST_PICTURES = 12


@dataclass(kw_only=True)
class SearchArguments(ImageArguments):
    """What to search for, and how to show what is found."""

    _argument_group_name: ClassVar[str] = "search"

    image: str | None = flag("Image file; finds rows similar to it.", None)
    text: str | None = flag("Text; finds rows that match it.", None)
    row: int | None = flag("Number of a row of the data; finds rows similar to it.", None)
    find: list[str] = flag(
        "Concepts that should be active: names, or latents such as latent:3, each with an optional weight such as "
        "red=2. A negative weight ranks rows with the concept lower. A bare number is a latent unless a concept has "
        "that name.",
        [],
    )
    edits: list[str] = flag("Changes to the concepts of the example before searching, such as red=0 latent:3=2.", [])
    edit_mode: Literal["scale", "set", "add"] = flag(
        "Whether edits multiply activations, replace them, or are added to them.", "scale"
    )
    shared_with: int | None = flag(
        "Number of another row; lists the concepts that it shares with --row instead of searching.", None
    )
    top: int = flag("Number of rows to list.", 10)
    index_dir: str | None = flag(
        "Folder of the search index, which is created if it does not exist. Defaults to one in the cache "
        "(HF_MSAE_CACHE, or hf_msae in HF_HOME).",
        None,
    )
    index_k: int = flag("Number of latents that the index keeps per row.", 32)
    approximate: bool = flag(
        "Use approximate search, which is faster but may miss rows. Needs faiss: pip install 'hf_msae[ann]'.", False
    )
    figure: str | None = flag("PNG, PDF or SVG file for a figure of the pictures found.", None)
    output: str | None = flag("JSON file to write the rows found to.", None, aliases=("--output_file",))

    def __post_init__(self):
        examples = sum(each is not None for each in (self.image, self.text, self.row))
        if examples + bool(self.find) != 1:
            raise ValueError("say what to search for with one of --image, --text, --row and --find")
        check_text("text", self.text, "image")
        if self.edits and not examples:
            raise ValueError("--edits need an example to change: give --image, --text or --row")
        if self.shared_with is not None and (self.row is None or self.edits):
            raise ValueError("--shared_with compares two rows: give the other one with --row, without --edits")
        if self.approximate and (self.find or self.shared_with is not None):
            raise ValueError("--approximate needs an example: searches for concepts are exact, and fast")
        refuse_without(self, "edits", "edit_mode")
        refuse_without(self, "figure", "images", "images_split", "image_column")
        check_least(self, top=1, index_k=1)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, by default the arguments of the process."""
    parser = command_parser("search", [NamedModelArguments, EmbeddingArguments, SearchArguments], __doc__, EXAMPLE)
    source, data, args = parser.parse(argv)

    from .._utils.images import to_rgb
    from .._utils.json_files import json_records
    from ..concepts.labels import Labels
    from ..concepts.table import to_text
    from ..plotting import plot_contact_sheet, save_figure
    from ..search import ConceptIndex
    from ..search.approximate import require_faiss
    from ..search.files import IndexMetadata, check_claimable, default_folder

    with parser.reporting_errors():
        check_json(args.output)
        check_outputs([args.figure], args.output)
        check_inputs(data.data)
        if args.approximate:
            require_faiss()
        example = None if args.image is None else to_rgb(Path(args.image))
        msae, concepts = source.open_msae()
        wanted, edits = (
            weighted_concepts(each, msae.config.num_latents, concepts) for each in (args.find, args.edits)
        )
        embeddings = data.load(msae)
        for row in (args.row, args.shared_with):
            if row is not None and not 0 <= row < len(embeddings):
                raise ValueError(f"there is no row {row}: {embeddings.source} has rows 0 to {len(embeddings) - 1}")
        if args.row is None and not wanted and ".layers." in msae.config.hook_point:
            raise ValueError(f"the MSAE is of tokens of {msae.config.hook_point}: search with --row or --find instead")
        images = args.open_images(embeddings) if args.figure is not None else None
        if args.figure is not None and images is None:
            raise ValueError(f"--figure needs the pictures of {embeddings.source}: name them with --images")
        if images is not None:
            images = images.select_columns("image")  # others may not be decodable, and are not shown
        k = min(args.index_k, msae.config.num_latents)
        folder = Path(args.index_dir).expanduser() if args.index_dir else default_folder(msae, embeddings, k)
        IndexMetadata.to_continue(folder, msae, k)  # raises if it is of another model or k
        check_claimable(folder)
        if args.row is not None:
            query = embeddings[args.row]
        elif not wanted:
            model = source.add_backbone(msae, concepts)
            query = (model.text_embeds([args.text]) if example is None else model.image_embeds([example]))[0]
        index = ConceptIndex.build(
            folder, msae, embeddings, k, concepts, progress=not source.disable_tqdm, approximate=args.approximate
        )
        if args.shared_with is not None:
            found = index.shared(args.row, args.shared_with)
        elif wanted:
            found = index.by_concepts(wanted, args.top)
            if max(wanted.values()) > 0:  # else rows without the concepts are what is searched for
                found = found[found["score"] > 0]
                if found.empty:
                    raise ValueError(f"no row of {embeddings.source} shows {' '.join(args.find)}: search for less")
        elif edits:
            found = index.by_edit(query, edits, args.edit_mode, args.top, approximate=args.approximate)
        else:
            found = index.by_embedding(query, args.top, approximate=args.approximate)
        texts = {}
        if args.shared_with is None:
            texts = described(embeddings, found["row"])
            labels = Labels(index.concepts)
            found = found.assign(**texts, concepts=[_strongest(index, labels, row) for row in found["row"]])
        print(to_text(found.assign(**shortened_columns(texts)), "{:.3f}"))
        print(f"\nrows of {embeddings.source}; the index is in {folder}")
        if images is None and (remark := source.remark_on_names(concepts, next(iter(wanted), "NUMBER"))):
            print(f"\n{remark}")
        if images is not None:
            if args.row is not None:
                example = to_rgb(images[int(embeddings.dataset_rows([args.row])[0])]["image"])
            sheet = plot_contact_sheet(_sheet(found, embeddings, images, example, args))
            print(f"The figure is in {save_figure(sheet, args.figure)}")
        save_json(args.output, {"found": json_records(found)})


def _strongest(index: ConceptIndex, labels: Labels, row: int, number: int = 5) -> str:
    """The strongest concepts of a row, each name once; names that are not validated are marked."""
    names = dict.fromkeys(labels(latent).marked for latent in index.code(row)["latent"])
    return ", ".join(islice(names, number))


def _sheet(
    found: pd.DataFrame,
    embeddings: EmbeddingDataset,
    images: Dataset,
    example: Image.Image | None,
    args: SearchArguments,
) -> list[tuple[str, list[Image.Image], None]]:
    """Lines of pictures: the example, the rows found, and for edits the rows found without them."""
    import pandas as pd

    from .._utils.images import to_rgb

    def pictures(rows: pd.Series) -> list[Image.Image]:
        rows = embeddings.dataset_rows(rows.to_numpy()[:_MOST_PICTURES])
        return [to_rgb(each["image"]) for each in images.select(rows)]

    if args.shared_with is not None:
        return [(f"row {row}", pictures(pd.Series([row])), None) for row in (args.row, args.shared_with)]
    lines = [] if example is None else [("the example", [example], None)]
    if args.edits:
        before = found[found["rank_before"] <= args.top].sort_values("rank_before")
        after = found[found["rank"] <= args.top]
        lines.append(("without edits", pictures(before["row"]), None))
        return [*lines, (" ".join(args.edits), pictures(after["row"]), None)]
    return [*lines, (" ".join(args.find) or args.text or "found", pictures(found["row"]), None)]
