"""The end of a training run: the model with its metrics, record and card, in one call."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..metrics import EvaluationResult
    from .trainer import MSAETrainer

logger = logging.getLogger(__name__)


def finish(
    trainer: MSAETrainer,
    eval_data: EmbeddingDataset | None = None,
    *,
    output_dir: str | Path | None = None,
    splits: tuple[str | None, str | None] = (None, None),
    command: str | None = None,
    **card: Any,
) -> EvaluationResult:
    """Evaluate a trained model and write it with its metrics, record and card.

    Where the evaluation data was held out, the FVU of training rows is measured as well. A warning says what to change
    if the run was clearly too short, or if held-out rows fare far worse.

    The folder gets config.json and model.safetensors, metrics.json, training.json (arguments, data, versions) and
    README.md (the model card). All processes call this.

    Args:
        trainer: A trainer whose `train()` has ended.
        eval_data: Embeddings to evaluate on, by default the trainer's evaluation data, or else its training data (at
            most `MOST_ROWS` of it, drawn at random; rows with the same value in every column are left out), which
            metrics.json and the card then mention.
        output_dir: Folder to write to, by default the trainer's.
        splits: Splits of the training and evaluation data, for the record.
        command: The command that trained the model, for the card; see [`~hf_msae.training.record.command_line`].
        card: Further arguments of [`~hf_msae.hub.write_model_card`], such as `license`.

    Returns:
        The metrics at every level, in every process.

    Example:
        >>> trainer.train()
        >>> print(finish(trainer))
    """
    from ..embeddings import EmbeddingDataset, load_embeddings
    from ..hub.publishing.card import write_model_card
    from ..metrics.evaluation import MOST_ROWS, measurable_rows
    from ..metrics.measured_data import is_same_data
    from .advice import advice_on, with_training_fvu
    from .record import TrainingRecord, describe_data

    eval_data = trainer.eval_data if eval_data is None else eval_data
    if eval_data is not None and not isinstance(eval_data, EmbeddingDataset):
        eval_data = load_embeddings(eval_data, hook_point=trainer.model.config.hook_point)
    folder = trainer.save_model(output_dir)
    if eval_data is None:
        evaluation = trainer.evaluate(measurable_rows(trainer.train_data, MOST_ROWS, trainer.args.seed))
    else:
        evaluation = trainer.evaluate(eval_data)
    described = [describe_data(each) for each in (trainer.train_data, eval_data) if each is not None]
    # Training and evaluation data may be the same embeddings under two names.
    held_out = eval_data is not None and not is_same_data(*described)
    evaluation = evaluation.with_data(held_out=held_out, split=splits[0 if eval_data is None else 1])
    if held_out:
        evaluation = with_training_fvu(trainer, evaluation)
    advice = advice_on(trainer, evaluation)
    record = TrainingRecord.of(
        trainer.args,
        trainer.train_data,
        eval_data,
        command,
        trainer.result,
        splits,
        trainer.model.config,
        evaluation.model_sha256,
        advice,
    )
    if trainer.accelerator.is_main_process:
        for each in advice:
            logger.warning(each)
        evaluation.save(folder / "metrics.json")
        record.save(folder)
        write_model_card(folder, **card)
    _log_final(trainer, evaluation)  # last, since a tracker may have been ended
    trainer.accelerator.wait_for_everyone()
    return evaluation


def _log_final(trainer: MSAETrainer, evaluation: EvaluationResult) -> None:
    """End the log of a run that `train` has just ended with the FVU of held-out and of training rows."""
    if trainer.result is None or evaluation.train_fvu is None:
        return
    from .log import TrainingLog

    step = trainer.state.global_step
    values = {"eval_fvu": evaluation.fvu, "train_fvu": evaluation.train_fvu}
    record = {"step": step, "epoch": round(step / trainer.plan.steps_per_epoch, 4), **values}
    history = trainer.result.log_history
    if history and "train_fvu" in history[-1]:  # of an earlier call
        history.pop()
    TrainingLog(trainer.output_dir if trainer.accelerator.is_main_process else None, history).append(record)
    if trainer.accelerator.trackers:
        trainer.accelerator.log(values, step=step)
