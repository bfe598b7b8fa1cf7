"""List the concepts that a model sees in an image or text, or explain why two of them match.

With one item, the strongest concepts are listed, at one granularity or from coarse to fine. With two, their cosine
similarity is split into contributions of concepts, of the bias and mean, and of the reconstruction error. With
many pictures, the models are loaded once, and the strongest concepts of each picture are written to one file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from .._utils.argument_parser import flag
from .opening import NamedModelArguments, check_outputs, check_text, command_parser, save_json

if TYPE_CHECKING:
    from ..concepts import Explanation
    from ..vision_text import VisionTextMSAE

EXAMPLE = """\
  hf-msae explain outputs/quickstart --image outputs/quickstart/examples/0.png --ks 8 32 1024 --figure seen.png
  hf-msae explain outputs/quickstart --image outputs/quickstart/examples/0.png \\
      --against_text 'a flower on a grassy meadow' --figure match.png
  hf-msae explain outputs/quickstart --image outputs/quickstart/examples --output seen.csv"""

_SHOWN = 10
"""Pictures that are printed if all are written to a file."""


@dataclass
class ExplainArguments:
    """What to explain, and how."""

    _argument_group_name: ClassVar[str] = "explanation"

    image: list[str] = flag(
        "Image files to explain, or folders of images, which are searched with their subfolders.", []
    )
    text: str | None = flag("Text to explain.", None)
    against_image: str | None = flag("Image file to match against: explains why the two are similar.", None)
    against_text: str | None = flag("Text to match against: explains why the two are similar.", None)
    both: bool = flag("Break down both sides of a match, into pairs of concepts, instead of one side.", False)
    center_texts: str | None = flag(
        "Texts whose mean embedding is subtracted from that of --text, to reduce the modality gap: a text file with "
        "one text per line, or a dataset with a column of captions, such as a folder with a metadata.csv, or "
        "embeddings extracted from one. They should be as varied as the MSAE's training images.",
        None,
        aliases=("--centre_texts",),
    )
    caption_column: str = flag("Column of the captions, if --center_texts is a dataset.", "caption")
    ks: list[int] = flag(
        "Numbers of latents to keep: few for a coarse explanation, many for a fine one. With several, each shows what "
        "it adds to the one before. Defaults to that of the model.",
        [],
    )
    top: int = flag("Number of concepts to show.", 10)
    percentile_data: str | None = flag(
        "Embeddings to compare activations with; adds the share of their rows with a weaker activation.", None
    )
    verify: bool = flag("Compare files of embeddings with their recorded checksums before they are first read.", True)
    figure: str | None = flag("PNG, PDF or SVG file to plot the concepts in, next to the image.", None)
    output: str | None = flag(
        "File to write the results to: JSON, or with the ending .csv one row for each concept of each item.",
        None,
        aliases=("--output_file",),
    )

    def __post_init__(self):
        if bool(self.image) == (self.text is not None):
            raise ValueError("give either an --image or a --text to explain")
        if self.against_image is not None and self.against_text is not None:
            raise ValueError("give either --against_image or --against_text, not both")
        check_text("text", self.text, "image")
        check_text("against_text", self.against_text, "against_image")
        if self.matching and len(self.ks) > 1:
            raise ValueError("a match is explained at one k: give --ks a single number")
        if self.matching and self.output is not None and self.output.lower().endswith(".csv"):
            raise ValueError(f"a match is written as JSON, so --output must not end in .csv, got {self.output}")
        if self.both and not self.matching:
            raise ValueError("--both needs a match: give --against_image or --against_text")
        if self.matching and self.percentile_data is not None:
            raise ValueError("--percentile_data applies to the concepts of one item, not to a match")
        if self.center_texts is not None and (self.text is None or self.matching):
            raise ValueError("--center_texts applies to the concepts of a --text, not to images and matches")
        if min(self.ks, default=1) < 1:
            raise ValueError(f"ks must be positive, got {min(self.ks)}")
        if self.top < 1:
            raise ValueError(f"top must be positive, got {self.top}")

    @property
    def matching(self) -> bool:
        """Whether to explain a match of two items."""
        return self.against_image is not None or self.against_text is not None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, by default the arguments of the process."""
    parser = command_parser("explain", [NamedModelArguments, ExplainArguments], __doc__, EXAMPLE)
    source, args = parser.parse(argv)

    from .._utils.images import to_rgb
    from ..plotting import plot_coarse_to_fine, save_figure

    with parser.reporting_errors():
        check_outputs([args.figure], args.output)
        files = find_pictures(args.image)
        many = len(files) > 1 or any(Path(place).expanduser().is_dir() for place in args.image)
        if many and (args.matching or args.figure is not None):
            raise ValueError(f"a match or a --figure is of one picture, but --image names {len(files)}")
        # Pictures are read before the models are loaded, unless there are many.
        image = None if many or not files else to_rgb(files[0])
        against_image = args.against_image and to_rgb(Path(args.against_image))
        item = args.text if image is None else image
        model = source.add_backbone(*source.open_msae())
        if args.matching:
            other = args.against_text if against_image is None else against_image
            match = model.explain_similarity(item, other, args.both, *args.ks)
            others = args.against_image, args.against_text
            first = _called(files[0] if files else None, args.text)
            title = f"cosine {match.similarity:.3f} of {first} and {_called(*others)}"
            print(f"{title}\n{match.describe(args.top)}")
            figure = match.plot(image, args.top, title) if args.figure is not None else None
            content = match.to_dict()
        else:
            if args.percentile_data is not None:
                from ..concepts import ActivationPercentiles
                from ..concepts.codes import open_embeddings

                embeddings = open_embeddings(model.msae, args.percentile_data, verify=args.verify)
                model.percentiles = ActivationPercentiles.of(model.msae, embeddings, progress=not source.disable_tqdm)
            if args.center_texts is not None:
                model.center_texts(read_texts(args.center_texts, args.caption_column))
            elif args.text is not None and model.hook_point.name == "image_embeds":
                print("(This MSAE was trained on images: --center_texts reduces the modality gap.)\n")
            if many:
                explain_pictures(model, files, args, progress=not source.disable_tqdm)
                return
            parts = coarse_to_fine(partial(model.explain, item), args.ks, args.top)
            for title, part in parts.items():
                print(f"{title}\n{part}\n")
            bars = {title: (part.labels(), part.frame["activation"]) for title, part in parts.items()}
            figure = plot_coarse_to_fine(bars, "activation", image, args.text) if args.figure is not None else None
            content = {"explanations": [part.to_dict() for part in parts.values()]}
        if figure is not None:
            print(f"The figure is in {save_figure(figure, args.figure)}")
        if args.output is not None and args.output.lower().endswith(".csv"):
            save_rows(args.output, [({"item": args.text or str(files[0])}, list(parts.values()))])
        else:
            save_json(args.output, content)


def _called(image: str | Path | None, text: str | None) -> str:
    return f"“{text}”" if image is None else Path(image).name


def read_texts(source: str, column: str, most: int = 2000) -> list[str]:
    """Read at most `most` texts, evenly spread, from a file with one per line or from a column of a dataset.

    Raises:
        OSError: There is no such file or dataset.
        ValueError: There is no such column, or it holds no texts.
    """
    from ..backbones.image_text_data import open_dataset

    path = Path(source).expanduser()
    if path.is_file() and path.suffix == ".csv":
        raise ValueError(f"{source} is a table: give {path.parent}, the folder of pictures and captions, instead")
    if path.is_file() and path.suffix == ".txt":
        texts = path.read_text(encoding="utf-8").splitlines()
    else:
        dataset = open_dataset(source)
        if column not in dataset.column_names:
            raise ValueError(f"{source} has no column {column!r}, only {', '.join(dataset.column_names)}")
        texts = dataset[column]
    texts = [text.strip() for text in texts if text and text.strip()]
    if not texts:
        raise ValueError(f"{source} holds no texts")
    return texts[:: -(-len(texts) // most)]


def find_pictures(places: Sequence[str]) -> list[Path]:
    """Return the files that are named, and those with the ending of a picture in the folders that are named.

    Raises:
        FileNotFoundError: There is no such file or folder, or no picture in a folder.
    """
    from .._utils.images import PICTURE_SUFFIXES

    found: list[Path] = []
    for place in places:
        path = Path(place).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"--image {place}: there is no such file or folder")
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
        if path.is_dir() and not inside:
            raise FileNotFoundError(f"--image {place}: there is no picture in this folder")
        found += inside if path.is_dir() else [path]
    return found


def explain_pictures(model: VisionTextMSAE, files: Sequence[Path], args: ExplainArguments, progress: bool) -> None:
    """Explain many pictures, print one line for each, and write them to `args.output`.

    A picture that cannot be read is left out with a message.

    Raises:
        ValueError: None can be read.
    """
    from tqdm.auto import tqdm

    from .._utils.images import to_rgb
    from ..concepts import explain_embedding

    found: list[tuple[dict, list[Explanation]]] = []
    size = model.backbone.image_batch_size
    with tqdm(total=len(files), desc="explaining", unit="picture", disable=not progress) as bar:
        for start in range(0, len(files), size):
            images = {}
            for file in files[start : start + size]:
                try:
                    images[file] = to_rgb(file)
                except (OSError, ValueError) as error:
                    bar.write(f"left out: {error}", file=sys.stderr)
            for file, embedding in zip(
                images, model.image_embeds(list(images.values())) if images else (), strict=True
            ):

                def explain(top: int, k: int | None = None, embedding=embedding) -> Explanation:
                    return explain_embedding(model.msae, embedding, model.concepts, top, k, model.percentiles)

                found.append(({"item": str(file)}, list(coarse_to_fine(explain, args.ks, args.top).values())))
            bar.update(len(files[start : start + size]))
    if not found:
        raise ValueError(f"none of the {len(files)} pictures can be read")
    shown = found if args.output is None else found[:_SHOWN]
    for item, parts in shown:
        print(f"{item['item']}: {', '.join(name for part in parts for name in part.labels())}")
    if args.output is None:
        return
    print(f"{len(found)} pictures explained" + (f" (the first {_SHOWN} are shown)" if len(found) > _SHOWN else ""))
    if args.output.lower().endswith(".csv"):
        save_rows(args.output, found)
    else:
        save_json(args.output, {"explanations": [item | part.to_dict() for item, parts in found for part in parts]})


def save_rows(file: str, found: Sequence[tuple[dict, Sequence[Explanation]]]) -> None:
    """Write one row for each concept of each item to a CSV file, and print its name."""
    import pandas as pd

    from .._utils.atomic import atomic_path

    rows = pd.concat([part.frame.assign(**item, k=part.k) for item, parts in found for part in parts])
    first = ["item", "k"]
    rows = rows[[*first, *rows.columns.difference(first, sort=False)]]
    for column in ("item", "name"):  # a spreadsheet would run a text that begins like a formula
        rows[column] = rows[column].map(lambda text: f"'{text}" if str(text).startswith(tuple("=+-@")) else text)
    with atomic_path(Path(file).expanduser()) as temporary:
        rows.to_csv(temporary, index=False)
    print(f"The results are in {file}")


def coarse_to_fine(explain: Callable[..., Explanation], ks: Sequence[int], top: int) -> dict[str, Explanation]:
    """Explain an item at several granularities, each showing what it adds to the one before.

    A larger k keeps the latents of a smaller one, so its strongest concepts alone would be the same again.

    Args:
        explain: Explains the item by a number of concepts and a k, like `VisionTextMSAE.explain` with its item.
        ks: Granularities. Empty: the default of the MSAE.
        top: Number of concepts per granularity.

    Returns:
        Explanations by title, from coarse to fine.
    """
    if not ks:
        return {"": explain(top)}
    parts, before = {}, 0
    for k in sorted(set(ks)):
        found = explain(k, k)
        explained = "nothing" if found.explained < 0 else f"{found.explained:.1%}"
        title = f"k = {k}: {explained} explained{', with these added' if before else ''}"
        parts[title] = replace(found, frame=found.frame.iloc[before:][:top].reset_index(drop=True))
        before = k
    return parts


if __name__ == "__main__":
    main()
