"""Callbacks and trackers are told what happens."""

import pytest
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

from hf_msae import MSAETrainerCallback
from hf_msae.training import finish
from tests.training.small_runs import assert_equal_weights, new_trainer, weights


class Witness(MSAETrainerCallback):
    def __init__(self, stop_at=None):
        self.events, self.stop_at = [], stop_at

    def on_train_begin(self, trainer):
        self.events.append(("begin", trainer.state.global_step))

    def on_step_end(self, trainer):
        self.events.append(("step", trainer.state.global_step))

    def on_log(self, trainer, record):
        self.events.append(("log", record["step"]))

    def on_evaluate(self, trainer, metrics):
        assert metrics["by_k"]
        self.events.append(("evaluate", trainer.state.global_step))
        if self.stop_at == trainer.state.global_step:
            trainer.stop()

    def on_save(self, trainer, checkpoint):
        self.events.append(("save", int(checkpoint.name.split("-")[1])))

    def on_train_end(self, trainer, result):
        self.events.append(("end", result.global_step))


def test_callbacks_are_told_everything_in_order(tmp_path, data):
    witness = Witness()
    settings = {"max_steps": 4, "logging_steps": 4, "eval_steps": 2, "save_steps": 2}
    trainer = new_trainer(tmp_path, data, eval_data=data, callbacks=[witness], **settings)
    trainer.train()
    assert witness.events == [
        *(("begin", 0), ("step", 1), ("log", 1), ("step", 2), ("evaluate", 2), ("log", 2), ("save", 2)),
        *(("step", 3), ("step", 4), ("log", 4), ("evaluate", 4), ("log", 4), ("save", 4), ("end", 4)),
    ]


@pytest.mark.slow
def test_a_callback_may_end_the_run_which_then_can_be_resumed(tmp_path, data):
    settings = {"max_steps": 12, "eval_steps": 2, "save_steps": 100}
    whole = new_trainer(tmp_path / "whole", data, eval_data=data, **settings)
    whole.train()
    stopped = new_trainer(tmp_path / "cut", data, eval_data=data, callbacks=[Witness(stop_at=6)], **settings)
    result = stopped.train()
    assert result.global_step == 6
    assert [record["step"] for record in result.log_history if "loss" in record] == [1, 4, 6]
    resumed = new_trainer(tmp_path / "cut", data, eval_data=data, **settings)
    assert resumed.train(resume_from_checkpoint="last").global_step == 12
    assert_equal_weights(resumed, weights(whole))


def test_trackers_get_every_record(tmp_path, data):
    class Tracker(GeneralTracker):
        name, requires_logging_directory = "witness", False

        def __init__(self):
            super().__init__()
            self.config, self.records = None, []

        tracker = property(lambda self: self)

        def store_init_configuration(self, values):
            self.config = values

        def log(self, values, step=None, **_):
            self.records.append((step, values))

    tracker = Tracker()
    accelerator = Accelerator(cpu=True, log_with=[tracker])
    trainer = new_trainer(
        tmp_path, data, eval_data=data.take(range(9)), accelerator=accelerator, max_steps=6, logging_steps=3
    )
    result = trainer.train()
    assert [step for step, _ in tracker.records] == [1, 3, 6]
    assert tracker.records[-1][1]["loss"] == result.log_history[-1]["loss"]
    assert tracker.config["arguments.learning_rate"] == 5e-3
    evaluation = finish(trainer)
    assert tracker.records[3:] == [(6, {"eval_fvu": evaluation.fvu, "train_fvu": evaluation.train_fvu})]
