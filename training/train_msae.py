"""
Train a Matryoshka sparse autoencoder on embeddings, evaluate it, and write the model with its metrics and card.

The output folder gets config.json and model.safetensors (for MSAEModel.from_pretrained), metrics.json, training.json
(arguments, data, versions), README.md (the model card), training_log.jsonl, and checkpoints to resume from. Runs as it
is, or on several devices with `accelerate launch` or `torchrun`. With --sweep it trains several models in one pass
over the data, each in a folder of its own inside the output folder, and compares them in sweep.csv.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate.utils import set_seed

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae._utils.acceleration import build_accelerator
from hf_msae._utils.argument_parser import MSAEArgumentParser
from hf_msae.embeddings import load_embeddings
from hf_msae.metrics import EvaluationResult
from hf_msae.metrics.measured_data import is_same_data
from hf_msae.training.flags import DataArguments, ModelArguments, SweepArguments, build_config
from hf_msae.training.interruption import TrainingInterrupted
from hf_msae.training.log import TrainingResult
from hf_msae.training.setup import check_evaluable
from hf_msae.training.sweep import parse_variant, read_sweep, train_sweep

EXAMPLE = """\
  accelerate launch training/train_msae.py --train_data embeddings/train --eval_data embeddings/test \\
      --output_dir outputs/msae --num_latents 6144 --num_train_epochs 30 --learning_rate 1e-4 --seed 42"""

LOADING = """\
from hf_msae import MSAEModel
model = MSAEModel.from_pretrained("{folder}")
latents = model.encode(embeddings)  # (..., {d_in}) -> (..., {num_latents})"""


def finish(
    trainer: MSAETrainer, result: TrainingResult, data_args: DataArguments, argv: list[str]
) -> EvaluationResult:
    """Evaluate a trained model, and write it with its metrics, the record of its training and its card."""
    train_data, eval_data = trainer.train_data, trainer.eval_data
    output_dir = trainer.save_model()
    evaluation = trainer.evaluate(train_data if eval_data is None else eval_data)
    if trainer.accelerator.is_main_process:
        from hf_msae.hub import write_model_card
        from hf_msae.training.record import TrainingRecord, command_line

        launcher = (
            "python" if result.num_processes == 1 else f"accelerate launch --num_processes {result.num_processes}"
        )
        command = command_line(f"{launcher} training/train_msae.py", argv)
        splits = (data_args.train_split, data_args.eval_split)
        config = MSAEConfig.from_pretrained(output_dir)
        record = TrainingRecord.of(
            trainer.args, train_data, eval_data, command, result, splits, config, evaluation.model_sha256
        )
        # Also where both names were given, they may be of the same embeddings.
        held_out = eval_data is not None and not is_same_data(record.training_data, record.evaluation_data)
        evaluation = evaluation.with_data(held_out=held_out, split=splits[0 if eval_data is None else 1])
        evaluation.save(output_dir / "metrics.json")
        record.save(output_dir)
        write_model_card(output_dir)
    return evaluation


def write_table(output_dir: Path, variants: dict[str, dict[str, Any]], found: list[EvaluationResult | Exception]):
    """What the models of a sweep have come to, as sweep.csv and for the eye."""
    rows = []
    for (name, settings), evaluation in zip(variants.items(), found, strict=True):
        row = {"name": name, **settings}
        if isinstance(evaluation, Exception):
            row["failed"] = str(evaluation)
        else:
            row |= {key: v for key, v in evaluation.to_dict().items() if isinstance(v, (int, float))}
        rows.append(row)
    table = pd.DataFrame(rows).set_index("name")
    temporary = output_dir / ".tmp-sweep.csv"
    table.to_csv(temporary)
    temporary.replace(output_dir / "sweep.csv")
    if "failed" in table:  # as much as fits into a line; the file has it all
        table["failed"] = table["failed"].str.split(":").str[0].fillna("")
    shown = [
        key for key in ("fvu", "cosine_similarity", "sparsity", "cknna", "dead_latents", "failed") if key in table
    ]
    print(f"\n{table[shown].to_string(float_format='{:.4f}'.format)}\n\n{output_dir / 'sweep.csv'} holds all figures.")


def main(argv: list[str] | None = None) -> None:
    kinds = (DataArguments, ModelArguments, MSAETrainingArguments, SweepArguments)
    parser = MSAEArgumentParser(kinds, description=__doc__, example=EXAMPLE)
    argv = sys.argv[1:] if argv is None else argv
    data_args, model_args, training_args, sweep_args = parser.parse(argv)

    with parser.reporting_errors():
        variants, arguments = {"": {}}, [(model_args, training_args)]
        if sweep_args.sweep is not None:
            variants = read_sweep(sweep_args.sweep)
            arguments = [parse_variant(parser, argv, *variant)[1:3] for variant in variants.items()]
        accelerators = [
            build_accelerator(args.use_cpu, args.mixed_precision, args.report_to, args.output_dir)
            for _, args in arguments
        ]
        accelerator = accelerators[0]
        column, hook_point, eval_data = data_args.embedding_column, model_args.hook_point, None
        with accelerator.main_process_first():  # the others find what it has downloaded and converted
            train_data = load_embeddings(data_args.train_data, column, hook_point, data_args.train_split)
            if data_args.eval_data is not None:
                same_column = train_data.column or hook_point
                eval_data = load_embeddings(data_args.eval_data, column, same_column, data_args.eval_split)
        if eval_data is None:
            check_evaluable(train_data)
        configs, trainers = [], []
        for name, (of_model, args), own in zip(variants, arguments, accelerators, strict=True):
            parser.context = f"the sweep's {name}: " if name else ""
            configs.append(build_config(of_model, d_in=train_data.width))
            set_seed(args.seed)  # before the weights are drawn
            trainers.append(MSAETrainer(MSAEModel(configs[-1]), args, train_data, eval_data, accelerator=own))
        parser.context = ""
        trainer, config = trainers[0], configs[0]
        latents = ", ".join(dict.fromkeys(str(each.num_latents) for each in configs))
        accelerator.print(
            f"{len(train_data)} embeddings of width {config.d_in}, {latents} latents, "
            f"{trainer.total_steps} steps of {trainer.plan.global_batch_size} embeddings on "
            f"{accelerator.num_processes} x {accelerator.device.type}"
            + (f", {len(trainers)} models" if sweep_args.sweep else "")
        )
        try:
            results = (
                train_sweep(trainers, training_args.resume_from_checkpoint) if sweep_args.sweep else [trainer.train()]
            )
        except TrainingInterrupted as interruption:
            accelerator.print(f"\n{interruption}", file=sys.stderr)
            sys.exit(interruption.exit_code)
        found = [
            result if isinstance(result, Exception) else finish(each, result, data_args, argv)
            for each, result in zip(trainers, results, strict=True)
        ]
    if accelerator.is_main_process:
        if sweep_args.sweep:
            write_table(Path(training_args.output_dir), variants, found)
        else:
            held_out = (
                "held out"
                if found[0].data["held_out"]
                else "those of the training: give --eval_data for honest figures"
            )
            print(f"\n{found[0]}\n\n{found[0].num_samples} embeddings, {held_out}. "
                  f"{trainer.output_dir} holds the model:\n")  # fmt: skip
            print(LOADING.format(folder=trainer.output_dir, d_in=config.d_in, num_latents=config.num_latents))
    for each in accelerators:
        each.end_training()
    if all(isinstance(each, Exception) for each in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
