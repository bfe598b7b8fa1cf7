"""MSAETrainer learns, keeps its invariants, and resumed, accumulated or interrupted runs are the same run."""

import json
import logging
import math
import shutil
import signal

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from accelerate.utils import set_seed

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainerCallback, MSAETrainingArguments
from hf_msae.embeddings import EmbeddingDataset, load_embeddings
from hf_msae.training.checkpointing import TrainerState, list_checkpoints
from hf_msae.training.interruption import TrainingInterrupted
from hf_msae.training.run import build_optimizer

WIDTH, LATENTS, ROWS = 16, 64, 320


def sparse_embeddings(rows=ROWS, seed=0):
    """Sparse non-negative combinations of 24 unit directions around a mean: what a sparse autoencoder should find."""
    world, rng = np.random.default_rng(0), np.random.default_rng((1, seed))
    directions = world.normal(size=(24, WIDTH))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    codes = rng.uniform(size=(rows, 24)) * (rng.uniform(size=(rows, 24)) < 0.1)
    return (codes @ directions + world.normal(size=WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def data():
    return load_embeddings(sparse_embeddings())


def new_model(**settings):
    """A small model whose first latent never fires, so that there is a dead one to be counted."""
    set_seed(7)
    model = MSAEModel(MSAEConfig(**{"d_in": WIDTH, "num_latents": LATENTS, "nesting_ks": [2, 8, LATENTS], **settings}))
    with torch.no_grad():
        model.latent_bias[0] = -100.0
    return model


def new_trainer(output_dir, data, model=None, eval_data=None, callbacks=(), accelerator=None, **settings):
    defaults = {
        "per_device_train_batch_size": 32,
        "max_steps": 25,
        "learning_rate": 5e-3,
        "logging_steps": 4,
        "save_strategy": None if "save_steps" in settings else "no",
        "cknna_batch_size": 64,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    args = MSAETrainingArguments(str(output_dir), **{**defaults, **settings})
    return MSAETrainer(model or new_model(), args, data, eval_data, callbacks, accelerator)


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def assert_equal_weights(trainer, expected):
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def untimed(log):
    return [{key: value for key, value in record.items() if key != "samples_per_second"} for record in log]


def read_log(folder):
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


# -- learning ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data):
    """One run that learns, evaluated along the way, shared by the tests that only look at it."""
    folder = tmp_path_factory.mktemp("finished")
    held_out = load_embeddings(sparse_embeddings(rows=200, seed=1))
    trainer = new_trainer(folder, data, eval_data=held_out, max_steps=200, eval_steps=100, logging_steps=50)
    result = trainer.train()
    trainer.save_model()
    return trainer, result, folder


def test_training_reaches_a_small_fvu_on_held_out_embeddings(finished):
    trainer, result, _ = finished
    losses = [record["loss"] for record in result.log_history if "loss" in record]
    assert losses[-1] < 0.3 * losses[0]
    evaluation = trainer.evaluate()
    assert evaluation.fvu < 0.1
    assert evaluation.num_samples == 200


def test_decoder_rows_end_with_unit_norm_and_statistics_are_those_of_the_data(finished, data):
    trainer, _, _ = finished
    norms = trainer.model.decoder.norm(dim=1)
    assert torch.allclose(norms, torch.ones_like(norms), atol=1e-6)
    statistics = data.statistics()
    assert torch.allclose(trainer.model.input_mean.double(), statistics.mean, atol=1e-6)
    assert trainer.model.input_scale.item() == pytest.approx(statistics.input_scale, rel=1e-6)


def test_the_log_holds_what_it_promises(finished):
    trainer, result, folder = finished
    training = [record for record in result.log_history if "loss" in record]
    assert [record["step"] for record in training] == [1, *range(50, 201, 50)]
    expected = ["step", "epoch", "loss", "fvu", "sparsity", "dead_latents", "learning_rate", "grad_norm"]
    assert list(training[0]) == [*expected, "samples_per_second"]
    assert training[-1]["epoch"] == 20 and trainer.plan.steps_per_epoch == 10
    assert all(0 <= record["sparsity"] <= 1 and record["fvu"] > 0 for record in training)
    evaluations = [record for record in result.log_history if "eval_fvu" in record]
    assert [record["step"] for record in evaluations] == [100, 200]
    assert evaluations[-1]["eval_fvu"] == trainer.evaluate().fvu
    assert read_log(folder) == result.log_history
    assert (result.global_step, result.num_processes, result.global_batch_size) == (200, 1, 32)
    assert len(result.to_pandas()) == len(result.log_history)


def test_logged_fvu_and_sparsity_are_those_of_the_last_batch(tmp_path, data):
    trainer = new_trainer(tmp_path, data, max_steps=1)
    before = new_model()
    before.set_input_statistics(data.statistics().mean, data.statistics().input_scale)
    record = trainer.train().log_history[0]
    batch = data[next(trainer.plan.epoch_batches(0))]
    with torch.no_grad():
        loss, output = before(batch, return_loss=True).loss, trainer.model(batch)
    total = (batch - data.statistics().mean.float()).square().sum()
    assert record["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert record["fvu"] == pytest.approx(((batch - output.reconstruction).square().sum() / total).item(), rel=1e-5)
    assert record["sparsity"] == pytest.approx((output.latents == 0).float().mean().item(), rel=1e-6)


def test_the_saved_model_loads_and_computes_the_same(finished, data):
    trainer, _, folder = finished
    loaded = MSAEModel.from_pretrained(folder)
    assert torch.equal(loaded.encode(data[:5]), trainer.model.encode(data[:5]))
    assert not [path for path in folder.iterdir() if path.name.startswith(".tmp")]


def test_statistics_that_a_model_carries_are_kept(tmp_path, data):
    model = new_model()
    model.set_input_statistics(torch.full((WIDTH,), 0.25), 3.0)
    trainer = new_trainer(tmp_path, data, model, max_steps=1)
    trainer.train()
    assert trainer.model.input_scale == 3 and torch.all(trainer.model.input_mean == 0.25)


def test_latents_that_did_not_fire_for_an_epoch_are_counted_as_dead(tmp_path, data):
    trainer = new_trainer(tmp_path, data, max_steps=20, save_strategy="epoch", logging_steps=1)
    fired = []  # by step: which latents fired somewhere in the batch

    def watch(module, inputs, keywords):
        if keywords.get("return_loss"):  # not what is computed for the log
            fired.append((module.encode(inputs[0]) > 0).any(dim=0))

    trainer.model.register_forward_pre_hook(watch, with_kwargs=True)
    log = trainer.train().log_history
    for step, record in enumerate(log, start=1):
        dead = ~torch.stack(fired[max(0, step - 10) : step]).any(dim=0)
        assert dead[0] and record["dead_latents"] == int(dead.sum()), step
    assert TrainerState.read(tmp_path / "checkpoint-20").steps_since_fired[0] == 20


def test_the_gradient_along_decoder_rows_is_removed_before_adam_sees_it(tmp_path, data):
    trainer = new_trainer(tmp_path, data, max_steps=1, save_steps=1)
    rows = trainer.model.decoder.detach().clone()
    trainer.train()
    state = torch.load(tmp_path / "checkpoint-1" / "optimizer.bin", weights_only=True)["state"]
    names = [name for name, _ in trainer.model.named_parameters()]
    first_moment = state[names.index("decoder")]["exp_avg"]
    along = (first_moment * rows).sum(dim=1).abs()
    assert torch.all(along <= 1e-5 * first_moment.norm(dim=1).clamp_min(1e-12) + 1e-12)
    assert first_moment.norm() > 0


def test_gradients_are_clipped(tmp_path, data):
    """Adam's first moment after one step is (1 - beta1) times the gradient that it was given."""
    moments = {}
    for limit in (0.0, 1e-3):
        trainer = new_trainer(tmp_path / str(limit), data, max_steps=1, save_steps=1, max_grad_norm=limit)
        norm = trainer.train().log_history[0]["grad_norm"]
        state = torch.load(trainer.output_dir / "checkpoint-1" / "optimizer.bin", weights_only=True)["state"]
        moments[limit] = math.sqrt(sum(entry["exp_avg"].square().sum().item() for entry in state.values())) / 0.1
    assert norm > 1e-2  # reported before clipping
    assert moments[0.0] == pytest.approx(norm, rel=1e-4)
    assert moments[1e-3] == pytest.approx(1e-3, rel=1e-3)


def test_bf16_trains_nearly_as_well_and_leaves_a_plain_model(tmp_path, data, finished):
    trainer = new_trainer(tmp_path, data, max_steps=100, mixed_precision="bf16")
    bf16 = trainer.train()
    assert trainer.accelerator.mixed_precision == "bf16"
    plain_again = new_trainer(tmp_path / "again", data, max_steps=1)
    assert plain_again.accelerator.mixed_precision == "no"
    assert trainer.model.decoder.dtype == torch.float32
    _, plain, _ = finished
    assert trainer.evaluate(data).fvu < 0.1
    losses = [[r["loss"] for r in result.log_history if r["step"] == 1] for result in (bf16, plain)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.01)
    assert "autocast" not in repr(trainer.model.forward)


def learning_rates(args):
    optimizer, scheduler = build_optimizer(new_model(), args, total_steps=40)
    rates = []
    for _ in range(41):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates, optimizer


def test_the_schedule_warms_up_stays_and_falls_to_zero():
    args = MSAETrainingArguments("unused", learning_rate=2.0, warmup_steps=4, lr_decay_fraction=0.2)
    rates, optimizer = learning_rates(args)
    assert rates[:5] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
    assert rates[4:32] == pytest.approx([2.0] * 28)
    assert rates[32:] == pytest.approx([2.0 * (8 - step) / 8 for step in range(9)])
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.9, 0.999), 6.25e-10)


@pytest.mark.parametrize(("kind", "at_half", "at_end"), [("cosine", 1, 0), ("constant_with_warmup", 2, 2)])
def test_other_schedules(kind, at_half, at_end):
    args = MSAETrainingArguments("unused", learning_rate=2.0, warmup_steps=4, lr_scheduler_type=kind)
    rates, _ = learning_rates(args)
    assert [*rates[:5], rates[22], rates[40]] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, at_half, at_end])


def test_the_logged_learning_rate_is_the_one_the_step_used(tmp_path, data):
    log = new_trainer(tmp_path, data, max_steps=10, logging_steps=1, lr_decay_fraction=0.5).train().log_history
    rates = [record["learning_rate"] / 5e-3 for record in log]
    assert rates == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


# -- the same run, cut differently ------------------------------------------------------------------------------------


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


# -- checkpoints ------------------------------------------------------------------------------------------------------


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
    with pytest.raises(FileExistsError, match=r"model.safetensors, checkpoint-2, checkpoint-4.*overwrite_output_dir"):
        new_trainer(tmp_path, data).train()
    assert len(list_checkpoints(tmp_path)) == 2
    new_trainer(tmp_path, data, max_steps=3, overwrite_output_dir=True).train()
    assert list_checkpoints(tmp_path) == [] and not (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert [record["step"] for record in read_log(tmp_path)] == [1, 3]


# -- callbacks and trackers -------------------------------------------------------------------------------------------


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
    result = new_trainer(tmp_path, data, accelerator=accelerator, max_steps=6, logging_steps=3).train()
    assert [step for step, _ in tracker.records] == [1, 3, 6]
    assert tracker.records[-1][1]["loss"] == result.log_history[-1]["loss"]
    assert tracker.config["arguments.learning_rate"] == 5e-3


# -- what may go wrong ------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path, data):
    trainer = new_trainer(tmp_path, data, save_steps=1, save_total_limit=None, logging_steps=20)

    def poison(module, inputs):
        if trainer.state.global_step == 6 and torch.is_grad_enabled():
            with torch.no_grad():
                module.decoder[0, 0] = math.inf

    trainer.model.register_forward_pre_hook(poison)
    with pytest.raises(FloatingPointError, match=r"step 7\b.*learning_rate.*rows \d+"):
        trainer.train()
    assert [path.name for path in list_checkpoints(tmp_path)][-1] == "checkpoint-6"


def test_bad_rows_stop_the_run_before_anything_is_written(tmp_path, data):
    nan, zero = sparse_embeddings(), sparse_embeddings()
    nan[17, 3], zero[11] = math.nan, 0
    for row, settings in (
        (17, {"data": load_embeddings(nan)}),
        (17, {"data": data, "eval_data": load_embeddings(nan)}),
        (11, {"data": data, "eval_data": load_embeddings(zero)}),  # without a cosine
    ):
        with pytest.raises(ValueError, match=f"row {row} "):
            new_trainer(tmp_path / "run", **settings).train()
    assert not (tmp_path / "run").exists()


def test_inputs_that_do_not_fit_together_are_refused_at_once(tmp_path, data):
    narrow = load_embeddings(sparse_embeddings()[:, :8])
    for settings, message in (
        ({"data": narrow}, "8 columns.* 16"),
        ({"eval_data": narrow}, "8 columns.* 16"),
        ({"eval_steps": 5}, "eval_strategy.*eval_data"),
        ({"early_stopping_patience": 2}, "early_stopping_patience is 2.*--eval_data"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end.*--eval_data"),
        ({"model": new_model().to(torch.bfloat16)}, "bfloat16.*mixed_precision"),
        ({"warmup_steps": 30}, "warmup_steps.* 30.* 25"),
        ({"accelerator": Accelerator(cpu=True), "report_to": ["tensorboard"]}, "report_to.*log_with"),
        ({"report_to": ["tensorbored"]}, "tensorbored"),
        ({"mixed_precision": "fp16"}, "mixed_precision is fp16.* cpu.* bf16"),
    ):
        with pytest.raises(ValueError, match=message):
            new_trainer(tmp_path, **{"data": data, **settings})
    with pytest.raises(ImportError, match="clearml"):
        new_trainer(tmp_path, data, report_to=["clearml"])
    with pytest.raises(ValueError, match="eval_data"):
        new_trainer(tmp_path, data).evaluate()


def test_a_batch_larger_than_the_data_is_reduced_with_a_warning(tmp_path, data, caplog):
    with caplog.at_level(logging.WARNING):
        trainer = new_trainer(tmp_path, data, per_device_train_batch_size=4096, gradient_accumulation_steps=2)
    assert trainer.plan.per_device_batch_size == 160
    assert "RANK" not in caplog.text, "other processes say nothing"
    assert "320 rows" in caplog.text and "per_device_train_batch_size 160" in caplog.text
    assert trainer.train().global_batch_size == 320


def test_provenance_of_the_data_goes_into_the_config(tmp_path, data, caplog):
    extracted = EmbeddingDataset(data._opened)
    extracted.provenance = {
        "base_model_name_or_path": "some/siglip",
        "base_model_revision": "abc",
        "base_model_dtype": "float32",
        "base_model_weights_sha256": "1" * 64,
        "base_model_processor_sha256": "2" * 64,
        "hook_point": "text_embeds",
    }
    with caplog.at_level(logging.WARNING):
        trainer = new_trainer(tmp_path, extracted, max_steps=1)
    assert "image_embeds" in caplog.text and "text_embeds" in caplog.text
    trainer.save_model()
    config = MSAEConfig.from_pretrained(tmp_path)
    provenance = (config.base_model_name_or_path, config.base_model_revision, config.hook_point)
    assert provenance == ("some/siglip", "abc", "text_embeds")
    assert (config.base_model_weights_sha256, config.base_model_processor_sha256) == ("1" * 64, "2" * 64)
    extracted.provenance |= {"base_model_dtype": "bfloat16"}
    assert new_trainer(tmp_path, extracted, max_steps=1).model.config.base_model_weights_sha256 is None
    extracted.provenance |= {"base_model_dtype": "float32"}
    named = new_model(base_model_name_or_path="my/siglip", hook_point="text_embeds")
    config = new_trainer(tmp_path, extracted, named, max_steps=1).model.config
    assert (config.base_model_name_or_path, config.base_model_revision) == ("my/siglip", None)
    assert config.base_model_weights_sha256 is None


def test_arrays_are_accepted_as_data(tmp_path):
    trainer = new_trainer(tmp_path, sparse_embeddings(), max_steps=1, eval_data=sparse_embeddings(100, seed=3))
    assert trainer.train().global_step == 1
    assert trainer.evaluate().num_samples == 100


@pytest.mark.slow
def test_compiled_it_is_the_same_training(tmp_path, data, caplog):
    trained = []
    for compile in (False, True):
        trainer = new_trainer(tmp_path / str(compile), data, torch_compile=compile)
        trainer.train()
        trained.append(weights(trainer))
        assert type(trainer.model) is MSAEModel and "_orig_mod" not in "".join(trained[-1])
    for name, value in trained[0].items():
        assert torch.allclose(value, trained[1][name], rtol=1e-3, atol=1e-5), name
    assert caplog.text.count("torch_compile") == 1
