"""List the concepts that a model sees in an image or text, or explain why two of them match.

With one item, its strongest concepts are listed, for one or several numbers of latents. With two, their cosine
similarity is split into contributions of concepts, of the bias and mean, and of the reconstruction error. With
many pictures, the models are loaded once, and the strongest concepts of each picture are written to one file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from .._utils.argument_parser import flag
from .checks import check_inputs, check_least, check_outputs, check_text, refuse_without
from .explain_pictures import coarse_to_fine, explain_pictures, find_pictures, save_rows
from .opening import NamedModelArguments, command_parser, save_json

EXAMPLE = """\
  hf-msae explain outputs/quickstart --image outputs/quickstart/examples/0.png --ks 8 32 1024 --figure seen.png
  hf-msae explain outputs/quickstart --image outputs/quickstart/examples/0.png \\
      --against_text 'a flower on a grassy meadow' --figure match.png
  hf-msae explain outputs/quickstart --image outputs/quickstart/examples --output seen.csv"""


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
        "Numbers of latents to keep: few for a coarse explanation, many for a fine one. With several values, each "
        "shows what it adds to the previous one. Defaults to the model's k.",
        [],
    )
    top: int = flag("Number of concepts to show.", 10)
    percentile_data: str | None = flag(
        "Embeddings to compare activations with; adds the share of their rows with a weaker activation.", None
    )
    verify: bool = flag("Compare files of embeddings with their recorded checksums before they are first read.", True)
    figure: str | None = flag("PNG, PDF or SVG file for the plot of the concepts, next to the image.", None)
    output: str | None = flag(
        "File to write the results to: .json, or .csv with one row for each concept of each item.",
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
        refuse_without(self, "center_texts", "caption_column")
        if min(self.ks, default=1) < 1:
            raise ValueError(f"ks must be positive, got {min(self.ks)}")
        check_least(self, top=1)

    @property
    def matching(self) -> bool:
        """Whether to explain a match of two items."""
        return self.against_image is not None or self.against_text is not None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, by default the arguments of the process."""
    parser = command_parser("explain", [NamedModelArguments, ExplainArguments], __doc__, EXAMPLE)
    source, args = parser.parse(argv)

    from .._utils.images import to_rgb
    from ..model.checks import check_k
    from ..plotting import plot_coarse_to_fine, save_figure

    with parser.reporting_errors():
        check_outputs([args.figure], args.output)
        check_inputs(args.percentile_data)
        files = find_pictures(args.image)
        many = len(files) > 1 or any(Path(place).expanduser().is_dir() for place in args.image)
        if many and (args.matching or args.figure is not None):
            raise ValueError(f"a match or a --figure is of one picture, but --image names {len(files)}")
        # Pictures are read before the models are loaded, unless there are many.
        image = None if many or not files else to_rgb(files[0])
        against_image = args.against_image and to_rgb(Path(args.against_image))
        item = args.text if image is None else image
        texts = None if args.center_texts is None else read_texts(args.center_texts, args.caption_column)
        msae, concepts = source.open_msae()
        for k in args.ks:
            check_k(k, msae.config)
        if ".layers." in msae.config.hook_point:
            raise ValueError(f"explanations need an MSAE of pooled embeddings, not of {msae.config.hook_point}")
        percentile_data = None
        if args.percentile_data is not None:
            from ..concepts.codes import open_embeddings

            percentile_data = open_embeddings(msae, args.percentile_data, verify=args.verify)
        model = source.add_backbone(msae, concepts)
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
            if percentile_data is not None:
                from ..concepts import ActivationPercentiles

                model.percentiles = ActivationPercentiles.of(
                    model.msae, percentile_data, progress=not source.disable_tqdm
                )
            if texts is not None:
                model.center_texts(texts)
            elif args.text is not None and model.hook_point.name == "image_embeds":
                print("(This MSAE was trained on images: --center_texts reduces the modality gap.)\n")
            if many:
                explain_pictures(model, files, args.ks, args.top, args.output, progress=not source.disable_tqdm)
                return
            parts = coarse_to_fine(partial(model.explain, item), args.ks, args.top)
            for title, part in parts.items():
                print(f"{title}\n{part}\n")
            bars = {title: (part.labels(), part.frame["activation"]) for title, part in parts.items()}
            figure = plot_coarse_to_fine(bars, "activation", image, args.text) if args.figure is not None else None
            content = {"explanations": [part.to_dict() for part in parts.values()]}
            latents = [latent for part in parts.values() for latent in part.frame["latent"]]
            if latents and (remark := source.remark_on_names(concepts, latents[0])):
                print(f"{remark}\n")
        if figure is not None:
            print(f"The figure is in {save_figure(figure, args.figure)}")
        if args.output is not None and args.output.lower().endswith(".csv"):
            save_rows(args.output, [({"item": args.text or str(files[0])}, list(parts.values()))])
        else:
            save_json(args.output, content)


def _called(image: str | Path | None, text: str | None) -> str:
    return f"“{text}”" if image is None else Path(image).name


def read_texts(source: str, column: str, most: int = 2000) -> list[str]:
    """Read at most `most` texts, evenly spread, from a file with one per line or from a column of a dataset."""
    from ..backbones.image_text_data import open_dataset
    from ..concepts.vocabulary import decoded_text

    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() == ".csv":
        raise ValueError(f"{source} is a table: give {path.parent}, the folder of pictures and captions, instead")
    if path.is_file() and path.suffix.lower() in (".txt", ""):
        texts = decoded_text(path).splitlines()
    else:
        dataset = open_dataset(source)
        if column not in dataset.column_names:
            raise ValueError(f"{source} has no column {column!r}, only {', '.join(dataset.column_names)}")
        values = dataset[column]  # a picture may have several captions
        texts = [each for value in values for each in (value if isinstance(value, list) else [value])]
        if others := [each for each in texts if not isinstance(each, str | None)]:
            raise ValueError(f"column {column!r} of {source} holds {others[0]!r:.80}, which is no text")
    texts = [text.strip() for text in texts if text and text.strip()]
    if len(set(texts)) < 2:
        raise ValueError(f"{source} holds {len(set(texts))} different texts, but a mean needs several")
    return texts[:: -(-len(texts) // most)]
