"""
Evaluate an MSAE on embeddings at every granularity k: how faithful its reconstructions are, how sparse its codes.

Prints a table with one row per k and writes the same figures to a JSON file. Runs as it is, or on several devices with
`accelerate launch` or `torchrun`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from transformers.utils.logging import disable_progress_bar

from hf_msae import MSAEModel
from hf_msae.acceleration import build_accelerator
from hf_msae.activations import load_activations
from hf_msae.arguments import MSAEArgumentParser
from hf_msae.metrics import evaluate_msae

EXAMPLE = """\
  accelerate launch training/evaluate_msae.py --model outputs/msae --eval_data embeddings/test \\
      --ks 16 64 256 --output_file outputs/msae/metrics_test.json"""


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
    embedding_column: str | None = field(
        default=None,
        metadata={"help": "Column with the embeddings. Unset: the one named like the model's hook point."},
    )
    ks: list[int] | None = field(
        default=None, metadata={"help": "Granularities to evaluate at. Unset: the levels the model was trained with."}
    )
    per_device_eval_batch_size: int = field(
        default=4096, metadata={"help": "Embeddings per process and forward pass; changes speed only."}
    )
    cknna_batch_size: int = field(
        default=1024, metadata={"help": "Rows per batch of the CKNNA metric, whose value depends on it."}
    )
    use_cpu: bool = field(default=False, metadata={"help": "Use the CPU where there is a GPU too."})
    disable_tqdm: bool = field(default=False, metadata={"help": "No progress bars."})


def main(argv: list[str] | None = None) -> None:
    disable_progress_bar()
    parser = MSAEArgumentParser([EvaluationArguments], description=__doc__, example=EXAMPLE)
    (args,) = parser.parse(argv)

    with parser.reporting_errors():
        if args.output_file is not None:
            Path(args.output_file).parent.mkdir(parents=True, exist_ok=True)
        accelerator = build_accelerator(args.use_cpu)
        with accelerator.main_process_first():  # the others find what it has downloaded and converted
            try:
                model = MSAEModel.from_pretrained(args.model, revision=args.revision, dtype=torch.float32)
            except OSError as error:
                where = "" if Path(args.model).exists() else "there is no such folder, and as a Hub id: "
                raise OSError(f"no MSAE could be loaded from {args.model!r}: {where}{error}") from error
            data = load_activations(args.eval_data, args.embedding_column, model.config.hook_point, args.eval_split)
        result = evaluate_msae(
            model.to(accelerator.device),
            data,
            ks=args.ks,
            batch_size=args.per_device_eval_batch_size,
            cknna_batch_size=args.cknna_batch_size,
            progress=not args.disable_tqdm,
            accelerator=accelerator,
        )
    if accelerator.is_main_process:
        print(f"{result}\n\n{len(data)} embeddings of {data.source}")
        if args.output_file is not None:
            result.save(args.output_file)
            print(f"The figures are in {args.output_file}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
