"""Write one page about a model: quality, concepts with pictures, hierarchy, bias, and searches.

The page is a single HTML file that needs no network: open it in a browser, print it, or send it on.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

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

    output: str = field(metadata={"help": "The HTML file to write."})
    images: str | None = field(
        default=None,
        metadata={
            "help": "The data set of the pictures, as for hf-msae extract; 'none' leaves pictures out. Unset: "
            "what the embeddings were extracted from."
        },
    )
    images_split: str | None = field(default=None, metadata={"help": "Split of it."})
    image_column: str | None = field(default=None, metadata={"help": "Its column of pictures."})
    bias_targets: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Columns with labels, as star, or kind=cat for a class of several: what drives a probe of each?"
        },
    )
    train_data: str | None = field(
        default=None, metadata={"help": "Embeddings that these probes are trained on, with the same columns."}
    )
    train_split: str | None = field(default=None, metadata={"help": "Split of train_data, where it has several."})
    regularization: str = field(default="cv", metadata={"help": "Of the probes: a number above 0, or cv."})
    metrics: str | None = field(
        default=None,
        metadata={"help": "metrics.json, or the folder of one, to take quality from. Unset: it is measured on data."},
    )
    index_dir: str | None = field(
        default=None, metadata={"help": "Folder of a search index to use or make. Unset: a temporary one."}
    )
    num_concepts: int = field(default=24, metadata={"help": "Concepts in the gallery."})
    images_per_concept: int = field(default=8, metadata={"help": "Pictures of each."})
    num_searches: int = field(default=3, metadata={"help": "Examples of searches."})
    num_explained: int = field(default=3, metadata={"help": "Examples of explanations."})
    k: int = field(default=32, metadata={"help": "Activations of the codes that index and hierarchy are made of."})
    seed: int = field(default=0, metadata={"help": "Of what is drawn."})

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
    """Run the command with these words, or those of the process."""
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
