"""Find the concepts that drive a classifier of embeddings.

The classifier is a linear probe, which the command trains on a column of labels; a zero-shot classifier made from
texts; or a linear layer of your own. Each concept is removed and added while everything else stays the same, and the
change of the classifier's output is compared with the change that random latents cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from .._utils.argument_parser import flag
from .checks import check_inputs, check_json, check_least, check_outputs, check_target, refuse_without
from .opening import (
    EmbeddingArguments,
    NamedModelArguments,
    ProbeArguments,
    command_parser,
    save_json,
    strongest_rows,
)

EXAMPLE = """\
  hf-msae bias outputs/quickstart --data outputs/quickstart/embeddings/test --target star \\
      --train_data outputs/quickstart/embeddings/train --figure bias.png

  hf-msae bias outputs/celeba-msae --data embeddings/celeba-test --target Blond_Hair \\
      --train_data embeddings/celeba-train

  hf-msae bias outputs/celeba-msae --data embeddings/celeba-test \\
      --zero_shot 'a photo of a man' 'a photo of a woman'"""


@dataclass(kw_only=True)
class BiasArguments(ProbeArguments):
    """Which classifier, and how it is examined."""

    _argument_group_name: ClassVar[str] = "bias"

    target: str | None = flag("Column of labels. A linear probe of it is trained on train_data.", None)
    positive: str | None = flag(
        "Class to explain. Defaults to the second of two classes, such as True for False and True.", None
    )
    zero_shot: list[str] = flag(
        "Texts of a zero-shot classifier, used instead of a probe: first the class to explain, then the others.", []
    )
    classifier: str | None = flag(
        "Linear classifier of your own, used instead of a probe: a safetensors file with weight (C, d) and bias (C,), "
        "as in torch.nn.Linear, that takes raw embeddings. --positive is then the number of the class.",
        None,
    )
    indices: list[str] = flag(
        "Concepts to test: names, or latents such as latent:3. A bare number is a latent unless a concept has that "
        "name. Defaults to the best latent of each validated name; if fewer than 10 names are validated, also the "
        "strongest latents.",
        [],
        aliases=["--latents"],
    )
    num_samples: int = flag("Number of rows to intervene on.", 500)
    num_null: int = flag("Number of random latents that each concept is compared with.", 100)
    alpha: float = flag("Significance level of the tests; intervals cover 1 - alpha.", 0.05)
    seed: int = flag("Random seed for the rows and the random latents.", 0)
    top: int = flag("Number of concepts in the figures.", 6)
    figure: str | None = flag(
        "PNG, PDF or SVG file for a plot of the class probability against the strength of each concept.", None
    )
    box_figure: str | None = flag(
        "PNG, PDF or SVG file for a plot of activations, split by whether the class is predicted.", None
    )
    output: str | None = flag("JSON file to write the results to.", None, aliases=("--output_file",))

    def __post_init__(self):
        super().__post_init__()
        if sum(map(bool, (self.target, self.zero_shot, self.classifier))) != 1:
            raise ValueError("name a classifier with one of --target, --zero_shot and --classifier")
        if bool(self.target) != bool(self.train_data):
            raise ValueError("give both --target and --train_data, on which its probe is trained, or neither")
        if len(self.zero_shot) == 1:
            raise ValueError("--zero_shot needs at least two texts: the class to explain, and the alternatives")
        if self.zero_shot and self.positive is not None:
            raise ValueError("--zero_shot explains its first text: leave --positive out")
        if self.classifier and not (self.positive or "0").isdecimal():
            raise ValueError(f"--positive must be the number of a class of --classifier, got {self.positive!r}")
        if self.figure is not None and self.figure == self.box_figure:
            raise ValueError(f"figure and box_figure are both {self.figure}: give them different names")
        refuse_without(self, "figure or box_figure", "top")
        check_least(self, top=1, num_samples=2, num_null=20)
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, by default the arguments of the process."""
    parser = command_parser("bias", [NamedModelArguments, EmbeddingArguments, BiasArguments], __doc__, EXAMPLE)
    source, data, args = parser.parse(argv)

    from ..bias import bias_report
    from ..bias.classifiers import load_linear_layer, probe_report, zero_shot_classifier
    from ..bias.interventions import FEWEST_NAMED
    from ..concepts.editing import latent_of
    from ..plotting import save_figure

    with parser.reporting_errors():
        check_json(args.output)
        check_outputs([args.figure, args.box_figure], args.output)
        check_inputs(data.data, args.train_data, args.classifier)
        msae, concepts = source.open_msae()
        embeddings = data.load(msae)
        chosen = [latent_of(key, msae.config.num_latents, concepts) for key in args.indices]
        options = {name: getattr(args, name) for name in ("num_samples", "num_null", "alpha", "seed")}
        options |= {"concepts": concepts, "indices": chosen or None, "progress": not source.disable_tqdm}
        if args.target is not None:
            train = args.load_train_data(msae, data)
            check_target(train, embeddings, args.target, args.positive, "--positive")
            report, accuracy = probe_report(
                msae, train, embeddings, args.target, args.positive, args.regularization, **options
            )
            guessing = f"guessing the most frequent label would get {report.accuracy_of_guessing:.1%}"
            print(f"The probe labels {accuracy:.1%} of {len(embeddings)} rows correctly; {guessing}.\n")
        elif args.zero_shot:
            backbone = source.add_backbone(msae, concepts).backbone
            classifier = zero_shot_classifier(backbone, args.zero_shot)
            report = bias_report(msae, embeddings, classifier, args.zero_shot[0], **options)
        else:
            layer = load_linear_layer(args.classifier, embeddings.width)
            report = bias_report(msae, embeddings, layer, int(args.positive or 1), **options)
        print(report)
        unnamed = report.frame.loc[~report.frame["validated"], "latent"].head(12).tolist()
        if unnamed and not chosen:
            print(f"\nFewer than {FEWEST_NAMED} names are validated, so the strongest latents were tested.")
        if unnamed:
            print("\nWhat activates the latents whose names are not validated:")
            print(strongest_rows(msae, embeddings, unnamed))
        for file, plot in ((args.figure, report.plot), (args.box_figure, report.plot_boxes)):
            if file is not None:
                print(f"The figure is in {save_figure(plot(args.top), file)}")
        save_json(args.output, report.to_dict())
