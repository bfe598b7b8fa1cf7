"""
Train a Matryoshka sparse autoencoder on embeddings, evaluate it, and write the model with its metrics and card.

The output folder gets config.json and model.safetensors (for MSAEModel.from_pretrained), metrics.json, README.md (the
model card), training_log.jsonl, and checkpoints to resume from. Runs as it is, or on several devices with
`accelerate launch` or `torchrun`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed

from hf_msae import MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae.acceleration import build_accelerator
from hf_msae.activations import ActivationDataset, load_activations
from hf_msae.arguments import DataArguments, ModelArguments, MSAEArgumentParser, build_config
from hf_msae.interruption import TrainingInterrupted
from hf_msae.training_setup import check_evaluable

EXAMPLE = """\
  accelerate launch training/train_msae.py --train_data embeddings/train --eval_data embeddings/test \\
      --output_dir outputs/msae --num_latents 6144 --num_train_epochs 30 --learning_rate 1e-4 --seed 42"""

LOADING = """\
from hf_msae import MSAEModel
model = MSAEModel.from_pretrained("{folder}")
latents = model.encode(embeddings)  # (..., {d_in}) -> (..., {num_latents})"""


def describe(data: ActivationDataset, split: str | None) -> dict[str, Any]:
    """What the model card says about a data set."""
    known = {"source": data.source, "split": split, "column": data.column, "num_rows": len(data), "width": data.width}
    return {**data.provenance, **known}


def main(argv: list[str] | None = None) -> None:
    kinds = (DataArguments, ModelArguments, MSAETrainingArguments)
    parser = MSAEArgumentParser(kinds, description=__doc__, example=EXAMPLE)
    data_args, model_args, training_args = parser.parse(argv)

    with parser.reporting_errors():
        accelerator = build_accelerator(
            training_args.use_cpu, training_args.mixed_precision, training_args.report_to, training_args.output_dir
        )
        column, hook_point, eval_data = data_args.embedding_column, model_args.hook_point, None
        with accelerator.main_process_first():  # the others find what it has downloaded and converted
            train_data = load_activations(data_args.train_data, column, hook_point, data_args.train_split)
            if data_args.eval_data is not None:
                same_column = train_data.column or hook_point
                eval_data = load_activations(data_args.eval_data, column, same_column, data_args.eval_split)
        if eval_data is None:
            check_evaluable(train_data)
        config = build_config(model_args, d_in=train_data.width)
        set_seed(training_args.seed)  # before the weights are drawn
        trainer = MSAETrainer(MSAEModel(config), training_args, train_data, eval_data, accelerator=accelerator)
        accelerator.print(
            f"{len(train_data)} embeddings of width {config.d_in}, {config.num_latents} latents, "
            f"{trainer.total_steps} steps of {trainer.plan.global_batch_size} embeddings on "
            f"{accelerator.num_processes} x {accelerator.device.type}"
        )
        try:
            result = trainer.train()
        except TrainingInterrupted as interruption:
            accelerator.print(f"\n{interruption}", file=sys.stderr)
            sys.exit(interruption.exit_code)
        output_dir = trainer.save_model()
        evaluation = trainer.evaluate(train_data if eval_data is None else eval_data)
        if accelerator.is_main_process:
            from hf_msae.hub import write_model_card

            evaluation.save(output_dir / "metrics.json")
            summary = {key: value for key, value in result.to_dict().items() if key != "log_history"}
            write_model_card(
                Path(output_dir),
                training_arguments={**training_args.to_dict(), **summary},
                training_data=describe(train_data, data_args.train_split),
                evaluation_data=None if eval_data is None else describe(eval_data, data_args.eval_split),
            )
    if accelerator.is_main_process:
        held_out = (
            "held out" if eval_data is not None else "those of the training: give --eval_data for honest figures"
        )
        print(f"\n{evaluation}\n\n{evaluation.num_samples} embeddings, {held_out}. {output_dir} holds the model:\n")
        print(LOADING.format(folder=output_dir, d_in=config.d_in, num_latents=config.num_latents))
    accelerator.end_training()


if __name__ == "__main__":
    main()
