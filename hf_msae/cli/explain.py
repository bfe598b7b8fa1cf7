"""List the concepts that a model sees in an image or text, or explain why two of them match.

With one item, the strongest concepts are listed, at one granularity or from coarse to fine. With two, their cosine
similarity is split into contributions of concepts, of the bias and mean, and of the reconstruction error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from .._utils.argument_parser import flag
from .opening import NamedModelArguments, check_outputs, check_text, command_parser, save_json

if TYPE_CHECKING:
    from PIL import Image

    from ..concepts import Explanation
    from ..vision_text import VisionTextMSAE

EXAMPLE = """\
  hf-msae explain outputs/quickstart --image outputs/quickstart/examples/0.png --ks 8 32 1024 --figure seen.png
  hf-msae explain outputs/quickstart --image outputs/quickstart/examples/0.png \\
      --against_text 'a flower on a grassy meadow' --figure match.png"""


@dataclass
class ExplainArguments:
    """What to explain, and how."""

    _argument_group_name: ClassVar[str] = "explanation"

    image: str | None = flag("Image file to explain.", None)
    text: str | None = flag("Text to explain.", None)
    against_image: str | None = flag("Image file to match against: explains why the two are similar.", None)
    against_text: str | None = flag("Text to match against: explains why the two are similar.", None)
    both: bool = flag("Break down both sides of a match, into pairs of concepts, instead of one side.", False)
    center_texts: str | None = flag(
        "Texts whose mean embedding is subtracted from that of --text, to reduce the modality gap: a text file with "
        "one text per line, or a dataset with a column of captions. They should be as varied as the MSAE's training "
        "images.",
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
    figure: str | None = flag("PNG, PDF or SVG file to plot the concepts in, next to the image.", None)
    output: str | None = flag("JSON file to write the results to.", None, aliases=("--output_file",))

    def __post_init__(self):
        if (self.image is None) == (self.text is None):
            raise ValueError("give either an --image or a --text to explain")
        if self.against_image is not None and self.against_text is not None:
            raise ValueError("give either --against_image or --against_text, not both")
        check_text("text", self.text, "image")
        check_text("against_text", self.against_text, "against_image")
        if self.matching and len(self.ks) > 1:
            raise ValueError("a match is explained at one k: give --ks a single number")
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
    from ..concepts import ActivationPercentiles
    from ..concepts.codes import open_embeddings
    from ..plotting import plot_coarse_to_fine, save_figure

    with parser.reporting_errors():
        check_outputs([args.figure], args.output)
        # Pictures are read before the models are loaded.
        image, against_image = (file and to_rgb(Path(file)) for file in (args.image, args.against_image))
        item = args.text if image is None else image
        model = source.add_backbone(*source.open_msae())
        if args.matching:
            other = args.against_text if against_image is None else against_image
            match = model.explain_similarity(item, other, args.both, *args.ks)
            print(match.describe(args.top))
            figure = match.plot(image, args.top) if args.figure is not None else None
            content = match.to_dict()
        else:
            if args.percentile_data is not None:
                embeddings = open_embeddings(model.msae, args.percentile_data)
                model.percentiles = ActivationPercentiles.of(model.msae, embeddings, progress=not source.disable_tqdm)
            if args.center_texts is not None:
                model.center_texts(read_texts(args.center_texts, args.caption_column))
            elif args.text is not None and model.hook_point.name == "image_embeds":
                print("(This MSAE was trained on images: --center_texts reduces the modality gap.)\n")
            parts = coarse_to_fine(model, item, args.ks, args.top)
            for title, part in parts.items():
                print(f"{title}\n{part}\n")
            bars = {title: (part.labels(), part.frame["activation"]) for title, part in parts.items()}
            figure = plot_coarse_to_fine(bars, "activation", image, args.text) if args.figure is not None else None
            content = {"explanations": [part.to_dict() for part in parts.values()]}
        if figure is not None:
            print(f"The figure is in {save_figure(figure, args.figure)}")
        save_json(args.output, content)


def read_texts(source: str, column: str, most: int = 2000) -> list[str]:
    """Read at most `most` texts, evenly spread, from a file with one per line or from a column of a dataset.

    Raises:
        OSError: There is no such file or dataset.
        ValueError: There is no such column, or it holds no texts.
    """
    from ..backbones.image_text_data import open_dataset

    path = Path(source).expanduser()
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


def coarse_to_fine(
    model: VisionTextMSAE, item: Image.Image | str, ks: Sequence[int], top: int
) -> dict[str, Explanation]:
    """Explain an item at several granularities, each showing what it adds to the one before.

    A larger k keeps the latents of a smaller one, so its strongest concepts alone would be the same again.

    Args:
        model: The model.
        item: An image or text.
        ks: Granularities. Empty: the default of the MSAE.
        top: Number of concepts per granularity.

    Returns:
        Explanations by title, from coarse to fine.
    """
    if not ks:
        return {"": model.explain(item, top)}
    parts, before = {}, 0
    for k in sorted(set(ks)):
        found = model.explain(item, k, k)
        title = (
            f"k = {k}: {found.explained:.1%} explained, with these added"
            if before
            else f"k = {k}: {found.explained:.1%} explained"
        )
        parts[title] = replace(found, frame=found.frame.iloc[before:][:top].reset_index(drop=True))
        before = k
    return parts


if __name__ == "__main__":
    main()
