"""Write one page about a model: quality, concepts with pictures, hierarchy, bias, and searches.

The page is a single HTML file that works offline: open it in a browser, print it, or send it to others.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .._utils.argument_parser import flag
from .checks import check_inputs, check_least, check_outputs, check_target
from .opening import (
    EmbeddingArguments,
    ImageArguments,
    NamedModelArguments,
    ProbeArguments,
    command_parser,
)

EXAMPLE = """\
  hf-msae report outputs/quickstart --data outputs/quickstart/embeddings/test --output report.html \\
      --bias_targets star circle --train_data outputs/quickstart/embeddings/train"""


@dataclass(kw_only=True)
class ReportArguments(ImageArguments, ProbeArguments):
    """What the page shows."""

    _argument_group_name: ClassVar[str] = "report"

    output: str = flag("HTML file to write.")
    bias_targets: list[str] = flag(
        "Columns of labels, such as star, or kind=cat for one class of several. A probe of each is trained on "
        "train_data, and the page shows which concepts drive it.",
        [],
    )
    metrics: str | None = flag(
        "metrics.json of this model, or its folder, with the metrics to show. Defaults to measuring them on the data.",
        None,
    )
    swordbench: str | None = flag(
        "Folder written by `hf-msae swordbench`, or its results.json, to show how well steering methods work.", None
    )
    index_dir: str | None = flag("Folder of a search index to use or create. Defaults to a temporary one.", None)
    num_concepts: int = flag("Number of concepts in the gallery.", 24)
    images_per_concept: int = flag("Number of pictures per concept.", 8)
    num_searches: int = flag("Number of example searches.", 3)
    num_explained: int = flag("Number of example explanations.", 3)
    k: int = flag(
        "Number of latents per row used by the gallery, the hierarchy and the search index, at most as many as the "
        "MSAE keeps.",
        32,
    )
    seed: int = flag("Random seed for choosing the examples.", 0)

    def __post_init__(self):
        super().__post_init__()
        check_least(self, k=1, num_concepts=0, images_per_concept=0, num_searches=0, num_explained=0)
        if bool(self.bias_targets) != bool(self.train_data):
            raise ValueError("give both --bias_targets and --train_data, for the probes, or neither")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, by default the arguments of the process."""
    parser = command_parser("report", [NamedModelArguments, EmbeddingArguments, ReportArguments], __doc__, EXAMPLE)
    words = list(sys.argv[1:] if argv is None else argv)
    source, data, args = parser.parse(words)

    from ..bias.classifiers import probe_report
    from ..model.checks import check_k
    from ..report import write_report
    from ..report.checks import check_embeddings, check_metrics
    from ..report.rendering import check_path
    from ..search.files import IndexMetadata, check_claimable
    from ..steering import SwordBenchResult

    with parser.reporting_errors():
        check_outputs([], args.output)
        check_path(args.output)
        check_inputs(data.data, args.train_data)
        metrics = None if args.metrics is None else _read_metrics(args.metrics)
        steering = None if args.swordbench is None else SwordBenchResult.load(args.swordbench)
        msae, concepts = source.open_msae()
        check_metrics(msae, metrics)
        args.k = min(check_k(args.k, msae.config), msae.family.default_k(msae.config))  # as in the page
        embeddings = data.load(msae)
        check_embeddings(msae, embeddings)
        if args.index_dir is not None:
            folder = Path(args.index_dir).expanduser()
            IndexMetadata.to_continue(folder, msae, args.k)  # raises if it is of another model or k
            check_claimable(folder)
        images = args.open_images(embeddings)
        targets = [target.partition("=") for target in args.bias_targets]
        train = args.load_train_data(msae, data) if targets else None
        for column, _, positive in targets:
            check_target(train, embeddings, column, positive or None, f"--bias_targets {column}=CLASS")
        model = source.add_backbone(msae, concepts)
        options = {"concepts": model.concepts, "seed": args.seed, "progress": not source.disable_tqdm}
        bias = [
            probe_report(model.msae, train, embeddings, column, positive or None, args.regularization, **options)[0]
            for column, _, positive in targets
        ]
        chosen = ("num_concepts", "images_per_concept", "num_searches", "num_explained", "k", "seed")
        page = write_report(
            args.output,
            model,
            embeddings,
            images,
            bias=bias,
            metrics=metrics,
            steering=steering,
            index_folder=args.index_dir,
            progress=not source.disable_tqdm,
            command=shlex.join(["hf-msae", "report", *words]),
            **{name: getattr(args, name) for name in chosen},
        )
    hint = "" if images is not None or args.images == "none" else ", without pictures: name them with --images"
    print(f"The page is in {page}{hint}")


def _read_metrics(file: str) -> dict[str, Any]:
    from ..metrics import EvaluationResult

    path = Path(file).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no metrics file {path}")
    try:
        return EvaluationResult.load(path).to_dict()
    except ValueError as error:
        raise ValueError(f"{path} does not hold the metrics of an evaluation: {error}") from error
