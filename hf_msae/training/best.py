"""The best evaluation of a run: its weights, and when to stop because none is better."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

if TYPE_CHECKING:
    from ..model.modeling_msae import MSAEModel
    from .arguments import MSAETrainingArguments
    from .checkpointing import TrainerState

BEST_FILE = "best_weights.safetensors"
"""Weights of the best evaluation, in a checkpoint."""


@dataclass
class BestWeights:
    """The weights of the best evaluation so far, as `load_best_model_at_end` and `early_stopping_patience` ask.

    Every process keeps them, on the CPU, and takes the same decisions. `state.best` and the file in a checkpoint are
    all that a resumed run needs.
    """

    args: MSAETrainingArguments
    state: TrainerState
    weights: dict[str, torch.Tensor] | None = None

    def load(self, checkpoint: Path) -> None:
        """Read the weights from a checkpoint, if they are needed; `adopt_best` has made sure that it has them."""
        if self.args.load_best_model_at_end and self.state.best is not None:
            self.weights = load_file(checkpoint / BEST_FILE)

    def update(self, model: MSAEModel, metrics: dict[str, Any]) -> None:
        """Compare an evaluation of the model with the best one."""
        name = self.args.metric_for_best_model
        if not self.args.chooses_best:
            return
        value, best = metrics[name], self.state.best
        if value is None:
            raise ValueError(f"metric_for_best_model is {name}, which is undefined for this evaluation data")
        gain = float("inf") if best is None else (value - best["value"]) * (1 if self.args.greater_is_better else -1)
        if gain > 0:
            self.state.best = {"metric": name, "value": value, "step": self.state.global_step, "evaluations_since": 0}
            if self.args.load_best_model_at_end:
                self.weights = {key: each.detach().cpu().clone() for key, each in model.state_dict().items()}
        if gain <= self.args.early_stopping_threshold:
            self.state.best["evaluations_since"] = (best or {}).get("evaluations_since", 0) + 1

    def restore(self, model: MSAEModel) -> None:
        """Give the model the best weights at the end of the run."""
        if self.weights is not None:
            model.load_state_dict(self.weights)


def is_exhausted(args: MSAETrainingArguments, state: TrainerState) -> bool:
    """Return whether the last evaluations brought no improvement, as many as `early_stopping_patience` allows."""
    patience = args.early_stopping_patience
    return patience is not None and state.best is not None and state.best["evaluations_since"] >= patience


def adopt_best(args: MSAETrainingArguments, state: TrainerState, checkpoint: Path) -> None:
    """Let a resumed run go on with the best evaluation of its checkpoint."""
    metric = args.metric_for_best_model
    if not args.chooses_best:
        state.best = None
    elif state.best is None and args.load_best_model_at_end:
        if any(f"eval_{metric}" in record for record in state.log_history):
            raise ValueError(
                f"load_best_model_at_end is True, but the run up to {checkpoint} did not keep the weights of its best "
                "evaluation: resume with load_best_model_at_end=False, or train anew"
            )
    elif state.best is not None and state.best["metric"] != metric:
        raise ValueError(
            f"metric_for_best_model is {metric}, but the best evaluation in {checkpoint} was "
            f"chosen by {state.best['metric']}: resume with that"
        )
    elif state.best is not None and args.load_best_model_at_end and not (checkpoint / BEST_FILE).exists():
        raise ValueError(
            f"load_best_model_at_end is True, but {checkpoint} has no {BEST_FILE}, the weights of the best evaluation "
            f"(step {state.best['step']}): resume with load_best_model_at_end=False, or train anew"
        )
