"""Train an MSAE on embeddings, evaluate it, and write it with its metrics and model card.

The output folder gets config.json and model.safetensors (for MSAEModel.from_pretrained), metrics.json, training.json
(arguments, data, versions), README.md (the model card), training_log.jsonl, and checkpoints to resume from. With
--sweep, several models are trained in one pass over the data, each in its own subfolder, and sweep.csv compares them.
For several processes, use `accelerate launch -m hf_msae.cli.train` or `torchrun -m hf_msae.cli.train`.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import MSAETrainingArguments
from .._utils.argument_parser import MSAEArgumentParser
from .._utils.atomic import atomic_path
from ..training.flags import DataArguments, ModelArguments, SweepArguments, build_config
from .checks import check_inputs

if TYPE_CHECKING:
    from .. import MSAETrainer
    from ..metrics import EvaluationResult

EXAMPLE = """\
  hf-msae train --train_data embeddings/train --eval_data embeddings/test --output_dir outputs/msae \\
      --num_latents 6144 --num_train_epochs 30 --learning_rate 1e-4 --seed 42

  accelerate launch --multi_gpu --num_processes 8 -m hf_msae.cli.train --config recipe.yaml"""

LOADING = """\
from hf_msae import MSAEModel
model = MSAEModel.from_pretrained("{folder}")
latents = model.encode(embeddings)  # (..., {d_in}) -> (..., {num_latents})"""


def main(argv: list[str] | None = None) -> None:
    """Parse the flags, train, and write the results."""
    kinds = (DataArguments, ModelArguments, MSAETrainingArguments, SweepArguments)
    parser = MSAEArgumentParser(kinds, description=__doc__, example=EXAMPLE, prog="hf-msae train")
    argv = sys.argv[1:] if argv is None else argv
    data_args, model_args, training_args, sweep_args = parser.parse(argv)

    from ..training import finish
    from ..training.checkpointing import check_output_dir
    from ..training.interruption import TrainingInterrupted
    from ..training.record import command_line
    from ..training.sweep import parse_variant, read_sweep, train_sweep

    with parser.reporting_errors():
        variants, arguments = {"": {}}, [(model_args, training_args)]
        if sweep_args.sweep is not None:
            variants = read_sweep(sweep_args.sweep)
            arguments = [parse_variant(parser, argv, *variant)[1:3] for variant in variants.items()]
        for (name, _), (each, args) in zip(variants.items(), arguments, strict=True):
            parser.context = f"the sweep's {name}: " if name else ""
            build_config(each, d_in=1)  # checks all but the width
            if not args.resume_from_checkpoint:  # before the data is opened
                check_output_dir(Path(args.output_dir), args.overwrite_output_dir)
        parser.context = ""
        check_inputs(data_args.train_data, data_args.eval_data)
        trainers = _build_trainers(parser, data_args, variants, arguments)
        first = trainers[0]
        accelerator, config = first.accelerator, first.model.config
        latents = ", ".join(dict.fromkeys(str(each.model.config.num_latents) for each in trainers))
        accelerator.print(
            f"{len(first.train_data)} embeddings of width {config.d_in}, {latents} latents, "
            f"{first.total_steps} steps of {first.plan.global_batch_size} embeddings on "
            f"{accelerator.num_processes} x {accelerator.device.type}"
            + (f", {len(trainers)} models" if sweep_args.sweep else "")
        )
        try:
            if sweep_args.sweep:
                results = train_sweep(trainers, training_args.resume_from_checkpoint)
            else:
                results = [first.train()]
        except TrainingInterrupted as interruption:
            accelerator.print(f"\n{interruption}", file=sys.stderr)
            sys.exit(interruption.exit_code)
        processes = accelerator.num_processes
        launcher = f"accelerate launch --num_processes {processes} -m hf_msae.cli.train"
        ending = {
            "splits": (data_args.train_split, data_args.eval_split),
            "command": command_line("hf-msae train" if processes == 1 else launcher, argv),
        }
        found = [
            result if isinstance(result, Exception) else finish(trainer, **ending)
            for trainer, result in zip(trainers, results, strict=True)
        ]
        if accelerator.is_main_process:
            if sweep_args.sweep:
                _report_sweep(Path(training_args.output_dir), variants, found)
            else:
                _report(first, found[0], data_args)
    for trainer in trainers:
        trainer.accelerator.end_training()
    if all(isinstance(each, Exception) for each in found):
        sys.exit(1)


def _build_trainers(
    parser: MSAEArgumentParser, data_args: DataArguments, variants: dict[str, dict[str, Any]], arguments: list[tuple]
) -> list[MSAETrainer]:
    """Make a trainer for each variant; all of them share the data."""
    from accelerate.utils import set_seed

    from .. import MSAEModel, MSAETrainer
    from .._utils.acceleration import build_accelerator
    from ..embeddings import load_embeddings

    accelerators = [
        build_accelerator(args.use_cpu, args.mixed_precision, args.report_to, args.output_dir) for _, args in arguments
    ]
    column, hook_point, eval_data = data_args.embedding_column, arguments[0][0].hook_point, None
    verify = data_args.verify
    with accelerators[0].main_process_first():  # it downloads and converts the data for the others
        train_data = load_embeddings(data_args.train_data, column, hook_point, data_args.train_split, verify=verify)
        if data_args.eval_data is not None:
            same_column = train_data.column or hook_point
            eval_data = load_embeddings(data_args.eval_data, column, same_column, data_args.eval_split, verify=verify)
    trainers = []
    for name, (model_args, args), accelerator in zip(variants, arguments, accelerators, strict=True):
        parser.context = f"the sweep's {name}: " if name else ""
        config = build_config(model_args, d_in=train_data.width)
        set_seed(args.seed)  # before the weights are drawn
        trainers.append(MSAETrainer(MSAEModel(config), args, train_data, eval_data, accelerator=accelerator))
    parser.context = ""
    return trainers


def _report(trainer: MSAETrainer, evaluation: EvaluationResult, data_args: DataArguments) -> None:
    folder, config, result = trainer.output_dir, trainer.model.config, trainer.result
    held_out = "held out" if evaluation.data["held_out"] else "the training data: use --eval_data for held-out metrics"
    print(f"\n{evaluation}\n\n{evaluation.num_samples} embeddings, {held_out}.")
    if result.best_step is not None:
        best = f"{trainer.args.metric_for_best_model} was best at step {result.best_step} ({result.best_metric:.4f})"
        best_are_kept = trainer.args.load_best_model_at_end or result.best_step == result.global_step
        kept = "whose weights were kept" if best_are_kept else "but the last weights were kept"
        print(f"Training ended at step {result.global_step} of {trainer.total_steps}; {best}, {kept}.")
    print(f"The model is in {folder}:\n")
    print(LOADING.format(folder=folder, d_in=config.d_in, num_latents=config.num_latents))
    print(f"\nNext: {_next_command(folder, config.hook_point, evaluation, data_args)}")


def _next_command(folder: Path, hook_point: str, evaluation: EvaluationResult, data_args: DataArguments) -> str:
    if not evaluation.data["held_out"]:
        return shlex.join(
            ["hf-msae", "evaluate", str(folder), "--data", "HELD_OUT", "--output", f"{folder}/metrics.json"]
        )
    chosen = {"split": data_args.eval_split, "embedding_column": data_args.embedding_column}
    flags = [word for name, value in chosen.items() if value is not None for word in (f"--{name}", value)]
    data = ["--data", data_args.eval_data, *flags]
    if ".layers." in hook_point:  # words cannot name tokens
        return shlex.join(["hf-msae", "search", str(folder), *data, "--row", "0"])
    return shlex.join(["hf-msae", "name", str(folder), "--vocabulary", "WORDS.txt", *data])


def _report_sweep(
    output_dir: Path, variants: dict[str, dict[str, Any]], found: list[EvaluationResult | Exception]
) -> None:
    """Write sweep.csv, which compares the models of a sweep, and print its main columns."""
    import pandas as pd

    rows = []
    for (name, settings), evaluation in zip(variants.items(), found, strict=True):
        row = {"name": name, **settings}
        if isinstance(evaluation, Exception):
            row["failed"] = str(evaluation)
        else:
            row |= {key: v for key, v in evaluation.to_dict().items() if isinstance(v, (int, float))}
        rows.append(row)
    table = pd.DataFrame(rows).set_index("name")
    with atomic_path(output_dir / "sweep.csv") as temporary:
        table.to_csv(temporary)
    if "failed" in table:  # shortened to fit on the screen; the file has the whole message
        table["failed"] = table["failed"].str.split(":").str[0].fillna("")
    shown = ["fvu", "cosine_similarity", "sparsity", "cknna", "dead_latents", "failed"]
    table = table[[key for key in shown if key in table]]
    print(f"\n{table.to_string(float_format='{:.4f}'.format)}\n\nAll metrics are in {output_dir / 'sweep.csv'}.")


if __name__ == "__main__":
    main()
