"""Which concepts drive a classifier of embeddings?

The classifier is a linear probe, trained here on a column of labels; texts, for zero-shot labels; or a linear layer
of your own. Each concept is taken out and put in, all else kept, and what the classifier makes of it is compared with
what random latents do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from .._utils.argument_parser import flag
from ..bias import BiasReport, bias_report
from ..bias.classifiers import column_labels, probe_columns
from ..embeddings import EmbeddingDataset
from ..metrics import LinearClassifier
from ..model.modeling_msae import MSAEModel
from ..plotting import save_figure
from ..vision_text import VisionTextMSAE
from .opening import EmbeddingArguments, NamedModelArguments, check_outputs, command_parser, load_for, save_json

EXAMPLE = """\
  hf-msae bias outputs/quickstart --data outputs/quickstart/embeddings/test --target star \\
      --train_data outputs/quickstart/embeddings/train --figure bias.png

  hf-msae bias outputs/celeba-msae --data embeddings/celeba-test --target Blond_Hair \\
      --train_data embeddings/celeba-train

  hf-msae bias outputs/celeba-msae --data embeddings/celeba-test \\
      --zero_shot 'a photo of a man' 'a photo of a woman'"""


@dataclass
class BiasArguments:
    """Which classifier, and how it is looked at."""

    _argument_group_name: ClassVar[str] = "bias"

    target: str | None = flag("Column of labels. A linear probe of it is trained on train_data.", None)
    positive: str | None = flag(
        "Class to explain. Unset: the second of two classes, such as True of False and True.", None
    )
    train_data: str | None = flag(
        "Embeddings to train the probe on. They need the same column and must not be the same rows as data.", None
    )
    train_split: str | None = flag("Split of train_data, if it has several.", None)
    regularization: str = flag(
        "Inverse regularization strength of the probe: a positive number, or cv to choose it by cross-validation.",
        "cv",
    )
    zero_shot: list[str] = flag(
        "Texts of a zero-shot classifier, used instead of a probe: first the class to explain, then the others.", []
    )
    classifier: str | None = flag(
        "Linear classifier of your own, used instead of a probe: a safetensors file with weight (C, d) and bias (C,), "
        "as in torch.nn.Linear, that takes raw embeddings. --positive is then the number of the class.",
        None,
    )
    latents: list[int] = flag("Latents to test. Unset: the best latent of each validated name.", [])
    num_samples: int = flag("Number of rows to intervene on.", 500)
    num_null: int = flag("Number of random latents that each concept is compared with.", 100)
    alpha: float = flag("Significance level of the tests; intervals cover 1 - alpha.", 0.05)
    seed: int = flag("Random seed for the rows and the random latents.", 0)
    top: int = flag("Number of concepts in the figures.", 6)
    figure: str | None = flag("PNG, PDF or SVG file to plot doses and responses in.", None)
    box_figure: str | None = flag(
        "PNG, PDF or SVG file to plot activations in, split by whether the class is predicted.", None
    )
    output: str | None = flag("JSON file to write the results to.", None, aliases=("--output_file",))

    def __post_init__(self):
        if sum(map(bool, (self.target, self.zero_shot, self.classifier))) != 1:
            raise ValueError("name a classifier by one of --target, --zero_shot and --classifier")
        if bool(self.target) != bool(self.train_data):
            raise ValueError("--target and --train_data belong together: the probe is trained on the latter")
        if len(self.zero_shot) == 1:
            raise ValueError("--zero_shot needs two texts at least: the class asked about, and what else it could be")
        if self.zero_shot and self.positive is not None:
            raise ValueError("--zero_shot asks about its first text: leave --positive out")
        if self.classifier and not (self.positive or "0").isdecimal():
            raise ValueError(f"positive is the number of a class of --classifier, got {self.positive!r}")
        if self.figure is not None and self.figure == self.box_figure:
            raise ValueError(f"figure and box_figure are both {self.figure}: give two names")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is a share between 0 and 1, got {self.alpha}")
        for name in ("num_samples", "num_null", "top"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        regularization_of(self.regularization)


def regularization_of(word: str) -> float | str:
    """What `LinearClassifier.fit` takes, from a flag.

    Raises:
        ValueError: it is neither "cv" nor a number.
    """
    try:
        return word if word == "cv" else float(word)
    except ValueError:
        raise ValueError(f"regularization is a number above 0, or cv; got {word!r}") from None


def probe_report(
    msae: MSAEModel,
    train: EmbeddingDataset,
    acts: EmbeddingDataset,
    target: str,
    positive: str | None = None,
    regularization: float | str = "cv",
    **options: Any,
) -> tuple[BiasReport, float]:
    """The report on a probe of a column, and the share of `acts` that the probe labels as the column does.

    Args:
        msae: of both.
        train: embeddings to train it on.
        acts: others, with the same column.
        target: the column.
        positive: class that is asked about; by default the last of two.
        regularization: as for `LinearClassifier.fit`.
        options: for `bias_report`.

    Raises:
        ValueError: as `probe_columns` and `bias_report`; or there are more classes than two and none was chosen.
    """
    classifiers, labels = probe_columns(train, acts, [target], regularization)
    probe, truth = classifiers[f"probe {target}"], labels[f"probe {target}"]
    if positive is None and len(probe.classes) > 2:
        raise ValueError(f"{target} has the classes {', '.join(probe.classes)}: choose one with --positive")
    positive = probe.classes[-1] if positive is None else positive
    shown = target if probe.classes == ("False", "True") and positive == "True" else f"{target} {positive}"
    guessed = torch.cat([probe.logits(x).argmax(dim=1) for x in acts.batches(4096)]).numpy()
    known = truth >= 0
    report = bias_report(msae, acts, probe, positive, target=shown, **options)
    return report, float((guessed == truth)[known].mean())


def _zero_shot(model: VisionTextMSAE, texts: Sequence[str]) -> LinearClassifier:
    scale = getattr(model.backbone.model, "logit_scale", None)
    scale = 100.0 if scale is None else float(scale.detach().exp())
    return LinearClassifier.zero_shot(model.text_embeds(list(texts)).cpu(), texts, logit_scale=scale)


def _own_layer(file: str, width: int) -> torch.nn.Linear:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if (
        weight is None
        or weight.ndim != 2
        or weight.shape[1] != width
        or (bias is not None and bias.shape != weight.shape[:1])
    ):
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise ValueError(f"{path} has to hold weight (C, {width}) and bias (C,), but holds {shapes}")
    layer = torch.nn.Linear(width, len(weight), bias=bias is not None)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return layer


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: Its arguments; None takes those of the process.
    """
    parser = command_parser("bias", [NamedModelArguments, EmbeddingArguments, BiasArguments], __doc__, EXAMPLE)
    source, data, args = parser.parse(argv)
    with parser.reporting_errors():
        check_outputs(args.figure, args.box_figure, args.output)
        model = source.open() if args.zero_shot else None
        msae, names = source.open_msae() if model is None else (model.msae, model.concepts)
        acts = data.load(msae)
        options = {
            "concepts": names,
            "latents": args.latents or None,
            "num_samples": args.num_samples,
            "num_null": args.num_null,
            "alpha": args.alpha,
            "seed": args.seed,
            "progress": not source.disable_tqdm,
        }
        if args.target is not None:
            train = load_for(msae, args.train_data, data.embedding_column, args.train_split)
            column_labels(acts, args.target)  # before the probe is trained
            report, accuracy = probe_report(
                msae, train, acts, args.target, args.positive, regularization_of(args.regularization), **options
            )
            print(f"The probe labels {accuracy:.1%} of {len(acts)} rows as {args.target} does.\n")
        elif args.zero_shot:
            classifier = _zero_shot(model, args.zero_shot)
            report = bias_report(msae, acts, classifier, args.zero_shot[0], **options)
        else:
            layer = _own_layer(args.classifier, acts.width)
            report = bias_report(msae, acts, layer, int(args.positive or 1), **options)
        print(report)
        for file, figure in ((args.figure, report.plot), (args.box_figure, report.plot_boxes)):
            if file is not None:
                print(f"Drawn in {save_figure(figure(args.top), file)}")
        save_json(args.output, report.to_dict())


if __name__ == "__main__":
    main()
