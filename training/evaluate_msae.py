"""
Evaluate an MSAE on embeddings at every granularity k: how faithful its reconstructions are, how sparse its codes.

Prints a table with one row per k and writes the same figures to a JSON file. Runs as it is, or on several devices with
`accelerate launch` or `torchrun`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from transformers.utils.logging import disable_progress_bar

from hf_msae import MSAEConfig, MSAEModel
from hf_msae._utils.acceleration import build_accelerator
from hf_msae._utils.argument_parser import MSAEArgumentParser
from hf_msae.backbones import Backbone
from hf_msae.bias.classifiers import column_labels, probe_columns, zero_shot_columns
from hf_msae.embeddings import EmbeddingDataset, load_embeddings
from hf_msae.hub.reading.opening import load_msae
from hf_msae.metrics import (
    EvaluationResult,
    evaluate_msae,
    progressive_ks,
    seed_stability_by_level,
    sparse_probing_by_level,
)
from hf_msae.metrics.measured_data import describe_embeddings, is_same_data
from hf_msae.metrics.progressive import check_comparable
from hf_msae.plotting import check_figure_path, plot_quality_against_k, save_figure
from hf_msae.training.record import TrainingRecord

EXAMPLE = """\
  accelerate launch training/evaluate_msae.py --model outputs/msae --eval_data embeddings/test \\
      --ks 16 64 256 --output_file outputs/msae/metrics_test.json

  python training/evaluate_msae.py --model outputs/msae --eval_data embeddings/test --progressive \\
      --figure recovery.png --probe_columns species --train_data embeddings/train --zero_shot_columns species \\
      --other_seeds outputs/msae-seed-1 outputs/msae-seed-2"""


@dataclass
class EvaluationArguments:
    """What is evaluated on what."""

    _argument_group_name: ClassVar[str] = "evaluation"

    model: str = field(metadata={"help": "Folder or Hub id of the MSAE."})
    eval_data: str = field(metadata={"help": "Embeddings: folder, Hub id, parquet or .npy, as for train_msae.py."})
    output_file: str | None = field(
        default=None, metadata={"help": "JSON file for the metrics. Unset: they are only printed."}
    )
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a model on the Hub."})
    eval_split: str | None = field(default=None, metadata={"help": "Split of eval_data, where it has several."})
    held_out: bool | None = field(
        default=None,
        metadata={
            "help": "Whether eval_data was held out from the training, for the model's card. Unset: what "
            "training.json beside the model says of these very embeddings; nothing, if it does not know them."
        },
    )
    embedding_column: str | None = field(
        default=None,
        metadata={"help": "Column with the embeddings. Unset: the one named like the model's hook point."},
    )
    ks: list[int] | None = field(
        default=None, metadata={"help": "Granularities to evaluate at. Unset: the levels the model was trained with."}
    )
    progressive: bool = field(
        default=False, metadata={"help": "Evaluate at k = 16, 32, 64, ... up to all latents: progressive recovery."}
    )
    figure: str | None = field(
        default=None, metadata={"help": "PNG, PDF or SVG file for a figure of the metrics against k."}
    )
    probe_columns: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Columns with class labels beside the embeddings: linear probes, trained on the original "
            "embeddings of train_data, are asked about the reconstructions; and how well few latents tell the "
            "classes (sparse probing)."
        },
    )
    train_data: str | None = field(
        default=None, metadata={"help": "Embeddings to train probes on, with the same columns; not eval_data."}
    )
    sparse_probe_ks: list[int] = field(
        default_factory=lambda: [1, 5], metadata={"help": "Numbers of latents that sparse probes may use."}
    )
    sparse_probe_samples: int = field(
        default=10_000,
        metadata={
            "help": "Rows that sparse probes are trained on and measured on, at most each; 0: no sparse probes."
        },
    )
    zero_shot_columns: list[str] = field(
        default_factory=list,
        metadata={"help": "Columns whose class names the model's backbone embeds as texts, to classify zero-shot."},
    )
    zero_shot_template: str = field(
        default="a photo of a {}.", metadata={"help": "What these texts say, with {} for the class name."}
    )
    train_split: str | None = field(default=None, metadata={"help": "Split of train_data, where it has several."})
    encoder_data: str | None = field(
        default=None,
        metadata={
            "help": "Another encoder's embeddings of the same rows, in the same order, to judge the monosemanticity "
            "of latents by."
        },
    )
    encoder: str | None = field(
        default=None,
        metadata={"help": "Name of that encoder. Unset: the backbone that encoder_data was extracted with."},
    )
    encoder_column: str | None = field(
        default=None, metadata={"help": "Column of encoder_data with the embeddings. Unset: its only one."}
    )
    other_seeds: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Folders or Hub ids of MSAEs trained with other seeds: how many of the latents that are alive "
            "at each granularity they find again."
        },
    )
    per_device_eval_batch_size: int = field(
        default=4096, metadata={"help": "Embeddings per process and forward pass; changes speed only."}
    )
    cknna_batch_size: int = field(
        default=1024, metadata={"help": "Rows per batch of the CKNNA metric, whose value depends on it."}
    )
    use_cpu: bool = field(default=False, metadata={"help": "Use the CPU where there is a GPU too."})
    disable_tqdm: bool = field(default=False, metadata={"help": "No progress bars."})

    def __post_init__(self):
        if self.figure is not None:
            check_figure_path(self.figure)
        if self.output_file is not None and Path(self.output_file).is_dir():
            raise ValueError(f"output_file {self.output_file} is a folder; name a file in it")
        if self.encoder_data is None and (self.encoder or self.encoder_column):
            raise ValueError("encoder and encoder_column are about encoder_data, which is not given")
        if self.progressive and self.ks is not None:
            raise ValueError("progressive chooses the granularities: leave ks out, or progressive")
        if self.probe_columns and self.train_data is None:
            raise ValueError("probe_columns is given, but no train_data to train the probes on")
        if self.train_data is not None and not self.probe_columns:
            raise ValueError("train_data is for probes: name their labels with probe_columns")
        if not self.sparse_probe_ks or min(self.sparse_probe_ks) < 1:
            raise ValueError(f"sparse_probe_ks are numbers of latents from 1 on, got {self.sparse_probe_ks}")
        if self.sparse_probe_samples < 0:
            raise ValueError(f"sparse_probe_samples must not be negative, got {self.sparse_probe_samples}")


def build_classifiers(
    args: EvaluationArguments, config: MSAEConfig, train: EmbeddingDataset | None, data: EmbeddingDataset
) -> tuple[dict, dict]:
    """The classifiers that the flags ask for, and the labels of the data, as `evaluate_msae` takes them."""
    classifiers, labels = {}, {}
    if train is not None:
        classifiers, labels = probe_columns(train, data, args.probe_columns)
    if args.zero_shot_columns:
        if config.base_model_name_or_path is None:
            raise ValueError("zero_shot_columns needs the backbone's texts, but the model does not say its backbone")
        backbone = Backbone.from_pretrained(config.base_model_name_or_path, revision=config.base_model_revision)
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
) -> EvaluationResult:
    """The result with sparse probing and stability across seeds, as far as the flags ask for them."""
    ks, progress = [int(k) for k in result.by_k], not args.disable_tqdm
    if train is not None and args.sparse_probe_samples:
        labels = {}
        for column in args.probe_columns:
            numbers, classes = column_labels(train, column)
            labels[column] = numbers, column_labels(data, column, classes)[0], classes
        found = sparse_probing_by_level(
            model, train, data, labels, ks, args.sparse_probe_ks, args.sparse_probe_samples, progress=progress
        )
        result = result.with_levels(sparse_probing=found)
    if others:
        others = [other.to(model.device) for other in others]
        result = result.with_levels(
            seed_stability=seed_stability_by_level(model, others, data, ks, args.per_device_eval_batch_size, progress)
        )
    return result


def is_held_out(args: EvaluationArguments, data: EmbeddingDataset) -> bool | None:
    """Whether the model was trained on other data than it is measured on; None if nobody knows.

    Raises:
        ValueError: they are called held out, but are those of the training.
    """
    folder, described = Path(args.model).expanduser(), describe_embeddings(data)
    record = TrainingRecord.load(folder) if folder.is_dir() else None
    if record is not None and is_same_data(described, record.training_data):
        if args.held_out:
            raise ValueError(f"held_out is true, but {data.source} holds the embeddings that {folder} was trained on")
        return False
    if args.held_out is None and record is not None and is_same_data(described, record.evaluation_data):
        return True
    return args.held_out


def main(argv: list[str] | None = None) -> None:
    disable_progress_bar()
    parser = MSAEArgumentParser([EvaluationArguments], description=__doc__, example=EXAMPLE)
    (args,) = parser.parse(argv)

    with parser.reporting_errors():
        for file in filter(None, (args.output_file, args.figure)):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        accelerator = build_accelerator(args.use_cpu)
        with accelerator.main_process_first():  # the others find what it has downloaded and converted
            model = load_msae(args.model, args.revision)
            others = [load_msae(other) for other in args.other_seeds]
            data = load_embeddings(args.eval_data, args.embedding_column, model.config.hook_point, args.eval_split)
            train = encoder_data = None
            if args.train_data is not None:
                train = load_embeddings(
                    args.train_data, args.embedding_column, model.config.hook_point, args.train_split
                )
            classifiers, labels = build_classifiers(args, model.config, train, data)
            if args.encoder_data is not None:
                encoder_data = load_embeddings(args.encoder_data, args.encoder_column)
        ks = progressive_ks(model.config.num_latents) if args.progressive else args.ks
        held_out = is_held_out(args, data)
        if others:
            check_comparable(model, others, ks or model.config.nesting_ks)
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
        )
        result = result.with_data(held_out=held_out, split=args.eval_split)
        if accelerator.is_main_process:
            result = measure_latents(args, result, model, train, data, others)
    if accelerator.is_main_process:
        known = {True: ", held out", False: ", those of the training", None: ""}[held_out]
        print(f"{result}\n\n{len(data)} embeddings of {data.source}{known}")
        if args.output_file is not None:
            result.save(args.output_file)
            print(f"The figures are in {args.output_file}")
        if args.figure is not None:
            print(f"They are drawn in {save_figure(plot_quality_against_k(result.to_dict()), args.figure)}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
