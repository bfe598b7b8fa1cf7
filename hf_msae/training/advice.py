"""What the figures of a finished run say about its settings: whether it was too short, or fits only its own rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..metrics.overfitting import LEAST_DIFFERENCE, overfitting

if TYPE_CHECKING:
    from ..metrics import EvaluationResult
    from .trainer import MSAETrainer

# docs/training.md says on which runs these were chosen.
STILL_FALLING = 1.05
"""A run was too short if its FVU, on the same training rows, fell by more than this factor between half and three
quarters of it."""
_ROWS = 8192


def with_training_fvu(trainer: MSAETrainer, evaluation: EvaluationResult) -> EvaluationResult:
    """Add the FVU of at most 8,192 training rows, drawn at random, to every level. All processes call this."""
    from ..metrics import evaluate_msae
    from ..metrics.evaluation import measurable_rows

    data = measurable_rows(trainer.train_data, _ROWS, trainer.args.seed)
    batch_size, accelerator = trainer.args.per_device_eval_batch_size, trainer.accelerator
    found = evaluate_msae(
        trainer.model, data, batch_size=batch_size, cknna_batch_size=None, progress=False, accelerator=accelerator
    )
    return evaluation.with_training_fvu(found)


def advice_on(trainer: MSAETrainer, evaluation: EvaluationResult) -> list[str]:
    """Say what to change where a run was clearly too short, or where held-out rows fare far worse than its own."""
    args, fvu, trained_on = trainer.args, evaluation.fvu, evaluation.train_fvu
    if max(fvu, trained_on or 0.0) >= 1:
        return [
            f"The FVU of held-out rows is {fvu:.4g}: the mean of the data would be a better reconstruction. Lower the "
            f"learning_rate (now {args.learning_rate:g})."
        ]
    if overfitted := overfitting({"fvu": fvu, "train_fvu": trained_on}):
        ways = [
            f"more train_data (now {len(trainer.train_data)} rows)",
            f"fewer num_latents (now {trainer.model.config.num_latents})",
            *(["early_stopping"] if args.early_stopping_patience is None else []),
        ]
        return [f"{overfitted} Give {', or '.join(ways)}, or check that eval_data is of the same kind."]
    half, later = (trainer.state.fvu_at.get(name) for name in ("half", "three quarters"))
    finished = trainer.state.global_step >= trainer.total_steps
    if half and later and finished and half > STILL_FALLING * later and half - later > LEAST_DIFFERENCE:
        return [
            f"Training was too short: the FVU of training rows still fell from {half:.4f} to {later:.4f} between half "
            f"and three quarters of its {trainer.total_steps} steps. Raise num_train_epochs (or max_steps), or the "
            f"learning_rate (now {args.learning_rate:g})."
        ]
    return []
