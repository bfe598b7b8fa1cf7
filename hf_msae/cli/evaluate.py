"""Evaluate the reconstructions and the sparsity of an MSAE at every level.

Prints a table with one row per level, and writes the metrics to a JSON file with --output. For several processes, use
`accelerate launch -m hf_msae.cli.evaluate` or `torchrun -m hf_msae.cli.evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from transformers.utils.logging import disable_progress_bar

from .._utils.argument_parser import MSAEArgumentParser, flag
from .checks import check_inputs, check_json, check_least, check_outputs, refuse_without

if TYPE_CHECKING:
    from .. import MSAEModel
    from ..embeddings import EmbeddingDataset
    from ..metrics import EvaluationResult

EXAMPLE = """\
  hf-msae evaluate outputs/msae --data embeddings/test --ks 16 64 256 --output outputs/msae/metrics_test.json

  hf-msae evaluate outputs/msae --data embeddings/test --progressive --figure recovery.png \\
      --probe_columns species --train_data embeddings/train --zero_shot_columns species \\
      --other_seeds outputs/msae-seed-1 outputs/msae-seed-2"""


@dataclass
class EvaluationArguments:
    """The model to evaluate, the data, and the metrics."""

    _argument_group_name: ClassVar[str] = "evaluation"

    model: str = flag("Folder, Hub id or released name of the MSAE.")
    data: str = flag(
        "Embeddings to evaluate on: a folder, a Hub id, a parquet file or a 2-D .npy file, as for hf-msae train.",
        aliases=("--eval_data",),
    )
    output: str | None = flag(
        "JSON file to write the metrics to, besides printing them.",
        None,
        aliases=("--output_file",),
    )
    revision: str | None = flag("Branch, tag or commit of a model on the Hub.", None)
    subfolder: str | None = flag("Subfolder of the folder or repository that holds the model.", None)
    split: str | None = flag("Split of the data, if it has several.", default=None, aliases=("--eval_split",))
    held_out: bool | None = flag(
        "Whether the data was held out from training; the model card states it. Defaults to what the "
        "model's training.json says, if it lists these embeddings.",
        None,
    )
    embedding_column: str | None = flag(
        "Column that holds the embeddings. Defaults to the one named like the model's hook point.", None
    )
    verify: bool = flag("Compare files of embeddings with their recorded checksums before they are first read.", True)
    ks: list[int] | None = flag(
        "Numbers of active latents to evaluate at: only the k largest activations are kept. Defaults to the levels "
        "the model was trained with.",
        None,
    )
    widths: list[int] | None = flag(
        'Levels of a model with nesting="prefix" to evaluate at: numbers of the first latents of the dictionary. '
        "Defaults to those the model was trained with.",
        None,
    )
    progressive: bool = flag("Evaluate at k = 16, 32, 64, ... up to all latents (progressive recovery).", False)
    figure: str | None = flag("PNG, PDF or SVG file for a plot of the metrics at every level.", None)
    probe_columns: list[str] = flag(
        "Columns of the data with class labels. Linear probes are trained on the original embeddings of train_data "
        "and tested on reconstructions; sparse probes test how well a few latents predict the classes.",
        [],
    )
    train_data: str | None = flag("Embeddings to train the probes on; they need the same label columns.", None)
    sparse_probe_ks: list[int] = flag("Numbers of latents that the sparse probes may use.", [1, 5])
    sparse_probe_samples: int = flag(
        "Largest number of rows to train the sparse probes on, and to test them on; 0 skips sparse probing.", 10_000
    )
    zero_shot_columns: list[str] = flag(
        "Columns of the data with class names. The model's backbone embeds the names to classify zero-shot.", []
    )
    zero_shot_template: str = flag("Text to embed for each class name, which replaces {}.", "a photo of a {}.")
    backbone: str | None = flag(
        "Folder or Hub id of the backbone for zero_shot_columns. Defaults to the one that the MSAE was trained on.",
        None,
    )
    allow_other_backbone: bool = flag(
        "Use the backbone even if it is not the one that the MSAE was trained on.", False
    )
    train_split: str | None = flag("Split of train_data, if it has several.", None)
    encoder_data: str | None = flag(
        "Embeddings of the same rows, in the same order, by another encoder. They measure how similar the rows that "
        "activate a latent are (monosemanticity).",
        None,
    )
    encoder: str | None = flag(
        "Name of the encoder of encoder_data. Defaults to the backbone that encoder_data was extracted with.", None
    )
    encoder_column: str | None = flag(
        "Column of encoder_data that holds the embeddings. Defaults to its only one.", None
    )
    other_seeds: list[str] = flag(
        "Folders or Hub ids of MSAEs trained with other seeds, to measure how many of the active latents they share "
        "with this one at each level.",
        [],
    )
    per_device_eval_batch_size: int = flag("Embeddings per process and forward pass; affects speed only.", 4096)
    cknna_batch_size: int = flag("Rows per batch of the CKNNA metric, whose value depends on it.", 1024)
    use_cpu: bool = flag("Use the CPU even if there is a GPU.", False)
    disable_tqdm: bool = flag("Hide the progress bars, which are only shown on a terminal.", False)

    def __post_init__(self):
        check_least(self, per_device_eval_batch_size=1, cknna_batch_size=1, sparse_probe_samples=0)
        if self.encoder_data is None and (self.encoder or self.encoder_column):
            raise ValueError("encoder and encoder_column describe encoder_data, which is missing")
        given = [name for name in ("ks", "widths", "progressive") if getattr(self, name) not in (None, False)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} each choose the levels to evaluate at: give only one of them")
        if self.probe_columns and self.train_data is None:
            raise ValueError("probe_columns is given without train_data: name the embeddings to train the probes on")
        if self.train_data is not None and not self.probe_columns:
            raise ValueError("train_data is only used to train probes: name their label columns with probe_columns")
        refuse_without(self, "zero_shot_columns", "backbone", "allow_other_backbone", "zero_shot_template")
        refuse_without(self, "probe_columns", "train_split", "sparse_probe_ks", "sparse_probe_samples")
        if not self.sparse_probe_ks or min(self.sparse_probe_ks) < 1:
            raise ValueError(f"sparse_probe_ks must be at least 1, got {self.sparse_probe_ks}")


def build_classifiers(
    args: EvaluationArguments, model: MSAEModel, train: EmbeddingDataset | None, data: EmbeddingDataset
) -> tuple[dict, dict]:
    """Return the classifiers of the flags and the labels of the data, for `evaluate_msae`."""
    from ..bias.classifiers import probe_columns, zero_shot_columns
    from ..vision_text import VisionTextMSAE

    classifiers, labels = {}, {}
    if train is not None:
        classifiers, labels = probe_columns(train, data, args.probe_columns)
    if args.zero_shot_columns:
        strict = not args.allow_other_backbone
        backbone = VisionTextMSAE.from_pretrained(model, args.backbone, strict=strict).backbone
        found = zero_shot_columns(backbone, data, args.zero_shot_columns, args.zero_shot_template)
        classifiers, labels = classifiers | found[0], labels | found[1]
    return classifiers, labels


def measure_latents(
    args: EvaluationArguments,
    result: EvaluationResult,
    model: MSAEModel,
    train: EmbeddingDataset | None,
    data: EmbeddingDataset,
    others: list[MSAEModel],
) -> tuple[EvaluationResult, ValueError | None]:
    """Add sparse probing and stability across seeds to a result, if the flags ask for them.

    Returns the result and the error of probing, if it was impossible.
    """
    from ..metrics import seed_stability_by_level, sparse_probing_by_level
    from ..metrics.label_columns import column_labels

    sizes, of_dictionary, progress = result.sizes, bool(result.by_width), not args.disable_tqdm
    problem = None
    if train is not None and args.sparse_probe_samples:
        labels = {}
        for column in args.probe_columns:
            numbers, classes = column_labels(train, column)
            labels[column] = numbers, column_labels(data, column, classes)[0], classes
        try:
            found = sparse_probing_by_level(
                model,
                train,
                data,
                labels,
                sizes,
                args.sparse_probe_ks,
                args.sparse_probe_samples,
                progress=progress,
                of_dictionary=of_dictionary,
            )
            result = result.with_levels(sparse_probing=found)
        except ValueError as error:
            problem = error
    if others:
        others = [other.to(model.device) for other in others]
        found = seed_stability_by_level(
            model, others, data, sizes, args.per_device_eval_batch_size, progress, of_dictionary
        )
        result = result.with_levels(seed_stability=found)
    return result, problem


def is_held_out(args: EvaluationArguments, data: EmbeddingDataset) -> bool | None:
    """Return whether the data was held out from training, or None if that is unknown."""
    from ..metrics.measured_data import describe_embeddings, is_same_data
    from ..training.record import TrainingRecord

    folder, described = Path(args.model).expanduser() / (args.subfolder or ""), describe_embeddings(data)
    record = TrainingRecord.load(folder) if folder.is_dir() else None
    if record is not None and is_same_data(described, record.training_data):
        if args.held_out:
            raise ValueError(f"held_out is true, but {folder} was trained on the embeddings in {data.source}")
        return False
    if args.held_out is None and record is not None and is_same_data(described, record.evaluation_data):
        return True
    return args.held_out


def main(argv: list[str] | None = None) -> None:
    """Parse the flags, evaluate, and print and write the metrics."""
    disable_progress_bar()
    parser = MSAEArgumentParser(
        [EvaluationArguments], description=__doc__, example=EXAMPLE, prog="hf-msae evaluate", first_words=["model"]
    )
    (args,) = parser.parse(argv)

    from .._utils.acceleration import build_accelerator
    from ..bias.classifiers import named_classes
    from ..concepts.codes import open_embeddings
    from ..concepts.vocabulary import check_template
    from ..embeddings import load_embeddings
    from ..hub.reading.opening import load_msae
    from ..metrics import evaluate_msae, progressive_ks
    from ..metrics.evaluation import check_encoder, leave_out_unmeasurable
    from ..metrics.levels import choose_levels, describe_levels, own_levels
    from ..metrics.progressive import check_comparable
    from ..plotting import plot_quality_against_k, save_figure

    with parser.reporting_errors():
        check_json(args.output)
        check_outputs([args.figure], args.output)
        check_inputs(args.data, args.train_data, args.encoder_data)
        check_template(args.zero_shot_template)
        accelerator = build_accelerator(args.use_cpu)
        with accelerator.main_process_first():  # it downloads and converts the data for the others
            model = load_msae(args.model, args.revision, args.subfolder)
            others = [load_msae(other) for other in args.other_seeds]
            config, ks, column, verify = model.config, args.ks, args.embedding_column, args.verify
            if args.progressive:
                ks = progressive_ks(model.family.full_code(config)["k"])
            sizes, _ = choose_levels(config, ks, args.widths)
            if others:
                check_comparable(model, others, sizes)
            data = open_embeddings(model, args.data, column, args.split, verify)
            held_out = is_held_out(args, data)
            train = encoder_data = None
            if args.train_data is not None:
                train = open_embeddings(model, args.train_data, column, args.train_split, verify)
            if args.encoder_data is not None:
                encoder_data = load_embeddings(args.encoder_data, args.encoder_column, verify=verify)
                check_encoder(data, encoder_data, args.encoder)
            data, encoder_data = leave_out_unmeasurable(data, encoder_data)
            named_classes(data, args.zero_shot_columns)
            classifiers, labels = build_classifiers(args, model, train, data)
        result = evaluate_msae(
            model.to(accelerator.device),
            data,
            ks=ks,
            batch_size=args.per_device_eval_batch_size,
            cknna_batch_size=args.cknna_batch_size,
            progress=not args.disable_tqdm,
            accelerator=accelerator,
            classifiers=classifiers,
            labels=labels,
            encoder_embeds=encoder_data,
            encoder=args.encoder,
            widths=args.widths,
        )
        result = result.with_data(held_out=held_out, split=args.split)
        if accelerator.is_main_process:
            result, problem = measure_latents(args, result, model, train, data, others)
            known = {True: ", held out", False: ", which the model was trained on", None: ""}[held_out]
            print(f"{result}\n\n{len(data)} embeddings of {data.source}{known}")
            if own_levels(config) != (result.sizes, bool(result.by_width)):
                print(f"The model was trained at other levels: {describe_levels(config)}")
            if args.output is not None:
                result.save(args.output)
                print(f"The metrics are in {args.output}")
            if args.figure is not None:
                print(f"The plot is in {save_figure(plot_quality_against_k(result.to_dict()), args.figure)}")
            if problem is not None:  # only now, or all that was measured would be lost
                raise problem
    accelerator.end_training()


if __name__ == "__main__":
    main()
