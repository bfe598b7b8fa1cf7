"""Resumed, accumulated or interrupted, a run is the same run; checkpoints from which it goes on."""

import shutil
import signal

import numpy as np
import pytest

from hf_msae import MSAEModel
from hf_msae.embeddings import EmbeddingDataset, load_embeddings
from hf_msae.training.checkpointing import TrainerState, list_checkpoints
from hf_msae.training.interruption import TrainingInterrupted
from tests.training.small_runs import (
    LATENTS,
    assert_equal_weights,
    new_model,
    new_trainer,
    read_log,
    sparse_embeddings,
    untimed,
    weights,
)


def test_accumulating_two_batches_equals_one_of_twice_the_size(tmp_path, data):
    # Adam with a tiny epsilon makes whole steps of what rounding leaves where gradients vanish; a large one does not.
    cut = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2}
    whole = new_trainer(tmp_path / "whole", data, adam_epsilon=1e-3)
    parts = new_trainer(tmp_path / "parts", data, adam_epsilon=1e-3, **cut)
    losses = [[r["loss"] for r in trainer.train().log_history] for trainer in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    initial = new_model().state_dict()
    for name, tensor in weights(whole).items():
        moved = (tensor - initial[name]).norm()
        assert (tensor - weights(parts)[name]).norm() <= 1e-3 * moved, name


CUTS = {"one batch": {}, "four batches": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """Uninterrupted runs of 25 steps, 10 an epoch, by how a batch is cut: (folder, weights, log)."""
    runs = {}
    for cut, settings in CUTS.items():
        trainer = new_trainer(tmp_path_factory.mktemp("whole"), data, save_steps=5, save_total_limit=None, **settings)
        log = trainer.train().log_history
        runs[cut] = trainer.output_dir, weights(trainer), log
    return runs


@pytest.mark.parametrize(("cut", "step"), [("one batch", 20), ("four batches", 5)], ids=["new epoch", "cut batches"])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path, data, whole, cut, step):
    folder, expected, log = whole[cut]
    resumed = new_trainer(tmp_path, data, save_steps=5, **CUTS[cut])
    result = resumed.train(resume_from_checkpoint=folder / f"checkpoint-{step}")
    assert_equal_weights(resumed, expected)
    assert untimed(result.log_history) == untimed(log)
    assert untimed(read_log(tmp_path)) == untimed(log)


def test_resuming_drops_log_records_from_after_the_checkpoint(tmp_path, data, whole):
    class Crash(EmbeddingDataset):
        def __getitems__(self, rows):
            if self.fetched == 13:
                raise OSError("the disk is gone")
            self.fetched += 1
            return super().__getitems__(rows)

    crashing = Crash(data._opened)
    crashing.fetched = 0
    with pytest.raises(OSError, match="the disk is gone"):
        new_trainer(tmp_path, crashing, save_steps=10).train()
    assert [record["step"] for record in read_log(tmp_path)] == [1, 4, 8, 12]
    result = new_trainer(tmp_path, data, save_steps=10).train("last")
    assert [record["step"] for record in read_log(tmp_path)] == [1, 4, 8, 12, 16, 20, 24, 25]
    assert read_log(tmp_path) == result.log_history
    assert untimed(result.log_history) == untimed(whole["one batch"][2])


def test_a_run_that_failed_amid_a_step_leaves_nothing_behind(tmp_path, data):
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 16, "max_steps": 6, "save_steps": 1}
    whole = new_trainer(tmp_path / "whole", data, **settings)
    whole.train()
    trainer = new_trainer(tmp_path / "cut", data, **settings)
    trainer.model(data[np.arange(9)], return_loss=True).loss.backward()  # gradients of the user's own
    passes = []

    def fail(module, inputs, keywords):
        passes.extend(["pass"] * bool(keywords.get("return_loss")))
        if len(passes) == 4:
            raise OSError("the disk is gone")

    hook = trainer.model.register_forward_pre_hook(fail, with_kwargs=True)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.train()
    hook.remove()
    trainer.train(resume_from_checkpoint="last")
    assert_equal_weights(trainer, weights(whole))


def test_a_finished_run_can_be_resumed_and_has_nothing_left_to_do(tmp_path, data, whole):
    folder, expected, _ = whole["one batch"]
    again = new_trainer(tmp_path, data)
    result = again.train(folder / "checkpoint-25")
    assert result.global_step == 25 and result.samples_per_second == 0
    assert_equal_weights(again, expected)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_from_which_the_run_goes_on(tmp_path, data, whole, signum):
    class Interrupting(EmbeddingDataset):
        fetched = 0

        def __getitems__(self, rows):
            self.fetched += 1
            if self.fetched in (6, 7):  # launchers repeat signals
                signal.raise_signal(signum)
            return super().__getitems__(rows)

    before = signal.getsignal(signum)
    trainer = new_trainer(tmp_path / "run", Interrupting(data._opened))
    with pytest.raises(TrainingInterrupted, match=r"step 6 of 25.*--resume_from_checkpoint last") as caught:
        trainer.train()
    assert signal.getsignal(signum) is before
    assert caught.value.exit_code == 128 + signum
    assert caught.value.checkpoint == tmp_path / "run" / "checkpoint-6"
    resumed = new_trainer(tmp_path / "run", data)
    resumed.train("last")
    assert_equal_weights(resumed, whole["one batch"][1])


def test_checkpoints_are_pruned_and_load_as_models(tmp_path, data):
    new_trainer(tmp_path, data, save_steps=5).train()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-20", "checkpoint-25"]
    assert MSAEModel.from_pretrained(tmp_path / "checkpoint-20").config.num_latents == LATENTS
    state = TrainerState.read(tmp_path / "checkpoint-20")
    assert (state.global_step, state.num_processes) == (20, 1)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")]


def test_unfinished_checkpoints_are_ignored(tmp_path, data, whole):
    for step in (20, 25):
        shutil.copytree(whole["one batch"][0] / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    for name in (".tmp-checkpoint-30", "checkpoint-30", "checkpoint-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".tmp-checkpoint-30" / "trainer_state.json").write_text("{")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-20", "checkpoint-25"]
    assert new_trainer(tmp_path, data, save_steps=10).train("last").global_step == 25


def test_a_checkpoint_that_fails_to_be_written_leaves_no_trace_of_being_one(tmp_path, data, monkeypatch):
    trainer = new_trainer(tmp_path, data, save_steps=10)
    save_state = trainer.accelerator.save_state

    def fail_late(folder):
        save_state(folder)
        if trainer.state.global_step == 20:
            raise OSError("no space left on device")

    monkeypatch.setattr(trainer.accelerator, "save_state", fail_late)
    with pytest.raises(OSError, match="no space left"):
        trainer.train()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-10"]
    assert new_trainer(tmp_path, data, save_steps=10).train("last").global_step == 25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1e-2}, "arguments.learning_rate: 0.005 in the checkpoint, 0.01 now"),
        ({"seed": 43}, "arguments.seed: 42 in the checkpoint, 43 now"),
        ({"max_steps": 30}, "arguments.total_steps: 25 in the checkpoint, 30 now"),
        ({"per_device_train_batch_size": 16}, "arguments.global_batch_size: 32 in the checkpoint, 16 now"),
        ({"mixed_precision": "bf16"}, "arguments.mixed_precision: no in the checkpoint, bf16 now"),
        ({"model": new_model(nesting_ks=[4, LATENTS])}, "model.nesting_ks: [2, 8, 64] in the checkpoint, [4, 64] now"),
        ({"data": load_embeddings(sparse_embeddings(300))}, "data.num_rows: 320 in the checkpoint, 300 now"),
        ({"data": load_embeddings(sparse_embeddings(seed=5))}, "data.mean_squared_distance: "),
    ],
    ids=["learning_rate", "seed", "steps", "batch", "precision", "levels", "rows", "values"],
)
def test_resuming_another_run_is_refused_with_the_difference(tmp_path, data, whole, settings, message):
    trainer = new_trainer(tmp_path, **{"data": data, **settings})
    with pytest.raises(ValueError, match="checkpoint-20") as caught:
        trainer.train(whole["one batch"][0] / "checkpoint-20")
    assert message in str(caught.value)


def test_the_same_global_batch_may_be_resumed_with_another_cut(tmp_path, data, whole):
    folder, _, log = whole["one batch"]
    trainer = new_trainer(tmp_path, data, **CUTS["four batches"])
    result = trainer.train(str(folder / "checkpoint-5"))  # 5 batches so far, no multiple of 4
    for expected, record in zip(log, result.log_history, strict=True):
        assert record["step"] == expected["step"]
        assert record["loss"] == pytest.approx(expected["loss"], rel=1e-3)


def test_resuming_from_nothing_is_refused(tmp_path, data):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        new_trainer(tmp_path, data, resume_from_checkpoint="last").train()
    with pytest.raises(FileNotFoundError, match="checkpoint-3"):
        new_trainer(tmp_path, data).train(tmp_path / "checkpoint-3")


def test_an_output_folder_with_a_run_is_refused_unless_it_may_be_overwritten(tmp_path, data):
    trainer = new_trainer(tmp_path, data, max_steps=4, save_steps=2)
    trainer.train()
    trainer.save_model()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"model.safetensors, checkpoint-2, checkpoint-4.*overwrite_output_dir"):
        new_trainer(tmp_path, data).train()
    assert len(list_checkpoints(tmp_path)) == 2
    new_trainer(tmp_path, data, max_steps=3, overwrite_output_dir=True).train()
    assert list_checkpoints(tmp_path) == [] and not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "training.json").exists(), "a card would tell the settings of the run before"
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert [record["step"] for record in read_log(tmp_path)] == [1, 3]
