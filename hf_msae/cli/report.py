"""Write one page about a model: quality, concepts with pictures, hierarchy, bias, and searches.

The page is a single HTML file that needs no network: open it in a browser, print it, or send it on.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .._utils.argument_parser import flag
from ..bias.classifiers import column_labels
from ..metrics import EvaluationResult
from ..report import write_report
from ..report.checks import check_path
from .bias import probe_report, regularization_of
from .opening import EmbeddingArguments, NamedModelArguments, check_outputs, command_parser, load_for, open_images

EXAMPLE = """\
  hf-msae report outputs/quickstart --data outputs/quickstart/embeddings/test --output report.html \\
      --bias_targets star circle --train_data outputs/quickstart/embeddings/train"""


@dataclass
class ReportArguments:
    """What the page shows."""

    _argument_group_name: ClassVar[str] = "report"

    output: str = flag("HTML file to write.")
    images: str | None = flag(
        "Data set of the pictures, given as for hf-msae extract; 'none' leaves pictures out. Unset: the data set that "
        "the embeddings were extracted from.",
        None,
    )
    images_split: str | None = flag("Split of the data set of the pictures.", None)
    image_column: str | None = flag("Column of that data set that holds the pictures.", None)
    bias_targets: list[str] = flag(
        "Columns of labels, such as star, or kind=cat for one class of several. A probe of each is trained on "
        "train_data, and the page shows which concepts drive it.",
        [],
    )
    train_data: str | None = flag("Embeddings to train these probes on, with the same columns.", None)
    train_split: str | None = flag("Split of train_data, if it has several.", None)
    regularization: str = flag(
        "Inverse regularization strength of the probes: a positive number, or cv to choose it by cross-validation.",
        "cv",
    )
    metrics: str | None = flag(
        "metrics.json, or its folder, with the metrics to show. Unset: they are measured on the data.", None
    )
    index_dir: str | None = flag("Folder of a search index to use or create. Unset: a temporary one.", None)
    num_concepts: int = flag("Number of concepts in the gallery.", 24)
    images_per_concept: int = flag("Number of pictures per concept.", 8)
    num_searches: int = flag("Number of example searches.", 3)
    num_explained: int = flag("Number of example explanations.", 3)
    k: int = flag("Number of latents per row used by the gallery, the hierarchy and the search index.", 32)
    seed: int = flag("Random seed for choosing the examples.", 0)

    def __post_init__(self):
        if self.k < 1:
            raise ValueError(f"k must be positive, got {self.k}")
        if bool(self.bias_targets) != bool(self.train_data):
            raise ValueError("--bias_targets and --train_data belong together: probes are trained on the latter")
        regularization_of(self.regularization)


def read_metrics(file: str) -> dict:
    """The content of metrics.json.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    path = Path(file).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no metrics file {path}")
    try:
        return EvaluationResult.load(path).to_dict()
    except ValueError as error:
        raise ValueError(f"{path} holds no metrics of an evaluation: {error}") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: Its arguments; None takes those of the process.
    """
    parser = command_parser("report", [NamedModelArguments, EmbeddingArguments, ReportArguments], __doc__, EXAMPLE)
    words = list(sys.argv[1:] if argv is None else argv)
    source, data, args = parser.parse(words)
    with parser.reporting_errors():
        check_outputs(None, args.output)
        check_path(args.output)  # before probes are trained
        metrics = None if args.metrics is None else read_metrics(args.metrics)
        model = source.open()
        acts = data.load(model.msae)
        images = open_images(acts, args.images, args.images_split, args.image_column)
        progress, findings = not source.disable_tqdm, []
        targets = [target.partition("=") for target in args.bias_targets]
        for column, _, _ in targets:
            column_labels(acts, column)  # all of them before the first one is looked at
        for column, _, positive in targets:
            train = load_for(model.msae, args.train_data, data.embedding_column, args.train_split)
            found, _ = probe_report(
                model.msae,
                train,
                acts,
                column,
                positive or None,
                regularization_of(args.regularization),
                concepts=model.concepts,
                seed=args.seed,
                progress=progress,
            )
            findings.append(found)
        chosen = ("num_concepts", "images_per_concept", "num_searches", "num_explained", "k", "seed")
        page = write_report(
            args.output,
            model,
            acts,
            images,
            bias=findings,
            metrics=metrics,
            index_folder=args.index_dir,
            progress=progress,
            command=shlex.join(["hf-msae", "report", *words]),
            **{name: getattr(args, name) for name in chosen},
        )
    hint = "" if images is not None or args.images == "none" else ", without pictures: name them with --images"
    print(f"The page is in {page}{hint}")


if __name__ == "__main__":
    main()
