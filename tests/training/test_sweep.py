"""Several models in one pass: each ends as if trained alone, and the data is read once."""

import math
import shutil

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainerCallback, MSAETrainingArguments
from hf_msae.embeddings import EmbeddingDataset, load_embeddings
from hf_msae.training.checkpointing import list_checkpoints
from hf_msae.training.interruption import TrainingInterrupted
from hf_msae.training.log import LOG_FILE
from hf_msae.training.sweep import train_sweep

WIDTH = 12


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    codes = rng.uniform(size=(200, 20)) * (rng.uniform(size=(200, 20)) < 0.2)
    return load_embeddings((codes @ rng.normal(size=(20, WIDTH)) + 1).astype(np.float32))


def new_trainer(folder, data, num_latents=24, **settings):
    defaults = {"per_device_train_batch_size": 16, "max_steps": 30, "learning_rate": 3e-3, "use_cpu": True}
    defaults |= {"save_steps": 10, "logging_steps": 5, "disable_tqdm": True, "cknna_batch_size": 64}
    args = MSAETrainingArguments(str(folder), **{**defaults, **settings})
    set_seed(args.seed)
    return MSAETrainer(MSAEModel(MSAEConfig(d_in=WIDTH, num_latents=num_latents)), args, data)


VARIANTS = {"narrow": {}, "wide": {"num_latents": 40}, "fast": {"learning_rate": 1e-2}}


def trainers(folder, data, **settings):
    return [new_trainer(folder / name, data, **{**settings, **variant}) for name, variant in VARIANTS.items()]


def final(folder, name):
    from safetensors.torch import load_file

    return load_file(folder / name / "checkpoint-30" / "model.safetensors")


def assert_same_weights(left, right):
    for name in VARIANTS:
        before, after = final(left, name), final(right, name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data):
    """Each model trained by itself."""
    folder = tmp_path_factory.mktemp("alone")
    for trainer in trainers(folder, data):
        trainer.train()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_model_ends_as_if_trained_alone(tmp_path, data, alone, accumulation):
    of_sweep = trainers(
        tmp_path, data, per_device_train_batch_size=16 // accumulation, gradient_accumulation_steps=accumulation
    )
    results = train_sweep(of_sweep)
    assert [result.global_step for result in results] == [30, 30, 30]
    assert len({result.training_loss for result in results}) == 3
    if accumulation == 1:
        assert_same_weights(alone, tmp_path)
    for name in VARIANTS:
        before, after = final(alone, name), final(tmp_path, name)
        assert all(torch.allclose(before[key], after[key], atol=1e-4) for key in before)


@pytest.mark.slow
def test_the_data_is_read_once(tmp_path, data, monkeypatch):
    of_sweep = trainers(tmp_path, data, save_strategy="no", save_steps=None)
    read = []
    original = EmbeddingDataset.__getitems__

    def count(self, rows):
        read.extend(rows)
        return original(self, rows)

    monkeypatch.setattr(EmbeddingDataset, "__getitems__", count)
    train_sweep(of_sweep)
    assert 30 * 16 <= len(read) < 2 * 30 * 16


class InterruptAt(MSAETrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        import signal

        if trainer.state.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_from_the_last_step_that_all_have(tmp_path, data, alone):
    interrupted = trainers(tmp_path, data)
    interrupted[1].callbacks.append(InterruptAt(17))
    with pytest.raises(TrainingInterrupted, match=r"narrow.*and 2 more"):
        train_sweep(interrupted)
    newest = [list_checkpoints(tmp_path / name)[-1].name for name in VARIANTS]
    assert len(set(newest)) == 1 and newest[0] in ("checkpoint-17", "checkpoint-18")
    # As if killed between two checkpoints of the same step.
    (tmp_path / "wide" / newest[0]).rename(tmp_path / "elsewhere")
    results = train_sweep(trainers(tmp_path, data), resume_from_checkpoint="last")
    assert [result.global_step for result in results] == [30, 30, 30]
    assert_same_weights(alone, tmp_path)


def _killed_while_saving(folder, alone, have):
    for name in ("narrow", "wide", "fast"):
        (folder / name).mkdir()
        shutil.copy(alone / name / LOG_FILE, folder / name)
    for name in have:
        shutil.copytree(alone / name / "checkpoint-20", folder / name / "checkpoint-20")


@pytest.mark.slow
@pytest.mark.parametrize("have", [["narrow"], ["narrow", "fast"]])
def test_killed_before_every_model_had_a_checkpoint_it_begins_again(tmp_path, data, alone, have, caplog):
    _killed_while_saving(tmp_path, alone, have)
    with caplog.at_level("WARNING"):
        train_sweep(trainers(tmp_path, data), resume_from_checkpoint="last")
    assert "begins again" in caplog.text and "wide: none" in caplog.text
    assert_same_weights(tmp_path, alone)


@pytest.mark.parametrize("why", ["damaged", "new", "finished", "further on"])
def test_what_has_been_trained_is_not_cleared_to_begin_again(tmp_path, data, alone, why):
    _killed_while_saving(tmp_path, alone, ["narrow", "fast"])
    kept = tmp_path / "narrow" / "checkpoint-20" / "model.safetensors"
    if why == "damaged":
        shutil.copytree(alone / "wide" / "checkpoint-20", tmp_path / "wide" / "checkpoint-20")
        (tmp_path / "wide" / "checkpoint-20" / "optimizer.bin").write_bytes(b"")
    elif why == "new":
        shutil.rmtree(tmp_path / "wide")
    elif why == "finished":
        shutil.copy(kept, tmp_path / "fast")
    else:
        shutil.copytree(alone / "narrow" / "checkpoint-30", tmp_path / "narrow" / "checkpoint-30")
    with pytest.raises(FileNotFoundError, match=r"wide: none.*--overwrite_output_dir"):
        train_sweep(trainers(tmp_path, data), resume_from_checkpoint="last")
    assert kept.is_file()


def test_a_damaged_checkpoint_of_one_model_takes_all_of_them_back(tmp_path, data, alone):
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    (tmp_path / "wide" / "checkpoint-30" / "optimizer.bin").write_bytes(b"")
    sweep = trainers(tmp_path, data)
    train_sweep(sweep, resume_from_checkpoint="last")
    assert (tmp_path / "wide" / "checkpoint-30.damaged").is_dir()
    assert_same_weights(tmp_path, alone)


class Break(MSAETrainerCallback):
    """Spoils the weights after step 12."""

    def on_step_end(self, trainer):
        if trainer.state.global_step == 12:
            with torch.no_grad():
                trainer.model.latent_bias.fill_(math.nan)


def test_one_that_diverges_does_not_take_the_others_with_it(tmp_path, data, alone):
    of_sweep = trainers(tmp_path, data)
    of_sweep[1].callbacks.append(Break())
    results = train_sweep(of_sweep)
    assert isinstance(results[1], FloatingPointError) and "step 13" in str(results[1])
    assert results[0].global_step == results[2].global_step == 30
    for name in ("narrow", "fast"):
        before, after = final(alone, name), final(tmp_path, name)
        assert all(torch.equal(before[key], after[key]) for key in before)


class StopAt(MSAETrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        if trainer.state.global_step == self.step:
            trainer.stop()


def test_one_that_stops_early_does_not_stop_the_others(tmp_path, data):
    of_sweep = trainers(tmp_path, data)
    of_sweep[0].callbacks.append(StopAt(8))
    assert [result.global_step for result in train_sweep(of_sweep)] == [8, 30, 30]
    again = train_sweep(trainers(tmp_path, data), "last")
    assert [result.global_step for result in again] == [8, 30, 30]


@pytest.mark.slow
@pytest.mark.parametrize("save_steps", [10, 1000])
def test_a_sweep_with_models_that_have_ended_can_be_resumed(tmp_path, data, alone, save_steps):
    settings = {"save_steps": save_steps} if save_steps == 10 else {"save_strategy": "no", "save_steps": None}
    interrupted = trainers(tmp_path, data, **settings)
    interrupted[0].callbacks.append(StopAt(5))
    interrupted[1].callbacks += [Break(), InterruptAt(20)]
    interrupted[2].callbacks.append(InterruptAt(20))
    with pytest.raises(TrainingInterrupted, match=r"fast.*and 1 more"):
        train_sweep(interrupted)
    results = train_sweep(trainers(tmp_path, data), "last")
    assert results[0].global_step == 5 and results[2].global_step == 30
    assert isinstance(results[1], FloatingPointError) and "step 13" in str(results[1])
    before, after = final(alone, "fast"), final(tmp_path, "fast")
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.slow
def test_killed_between_two_checkpoints_it_can_be_resumed(tmp_path, data, alone):
    class Killed(BaseException):
        pass

    class Kill(MSAETrainerCallback):
        def on_save(self, trainer, checkpoint):
            if trainer.state.global_step == 20:
                raise Killed

    killed = trainers(tmp_path, data, save_total_limit=1)
    killed[0].callbacks.append(Kill())
    with pytest.raises(Killed):
        train_sweep(killed)
    train_sweep(trainers(tmp_path, data, save_total_limit=1), "last")
    assert_same_weights(alone, tmp_path)
    assert all(len(list_checkpoints(tmp_path / name)) == 1 for name in VARIANTS)


def test_an_update_that_blows_up_is_a_divergence(tmp_path, data):
    blown = [new_trainer(tmp_path / "fine", data), new_trainer(tmp_path / "blown", data, learning_rate=1e30)]
    fine, error = train_sweep(blown)
    assert fine.global_step == 30
    assert isinstance(error, FloatingPointError) and "after step 1" in str(error)


def test_a_sweep_goes_on_where_models_have_diverged_when_dead_latents_are_due(tmp_path, data):
    settings = {"max_steps": 4, "resample_steps": 2, "dead_steps": 1, "logging_steps": 4, "warmup_steps": 1}

    def blown(name, **of_this):
        trainer = new_trainer(tmp_path / name, data, **settings, **of_this)
        trainer.model.config.nesting_ks = [1, 2]  # so that most latents are dead
        return trainer

    fine, error = train_sweep([blown("fine"), blown("blown", learning_rate=1e30)])
    assert fine.global_step == 4 and isinstance(error, FloatingPointError)


def test_a_sweep_of_which_every_model_has_diverged_says_so_again_when_it_is_resumed(tmp_path, data):
    def both():
        return [new_trainer(tmp_path / name, data, learning_rate=1e30) for name in ("a", "b")]

    first, again = train_sweep(both()), train_sweep(both(), "last")
    assert [type(each) for each in again] == [FloatingPointError] * 2
    assert list(map(str, again)) == list(map(str, first))


def test_folders_are_looked_at_before_any_is_cleared(tmp_path, data):
    for trainer in trainers(tmp_path, data, max_steps=10):
        trainer.train()
    (tmp_path / "wide" / "training_log.jsonl").unlink()
    for checkpoint in list_checkpoints(tmp_path / "wide"):
        checkpoint.rename(tmp_path / "moved")
    (tmp_path / "wide" / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"README\.md"):
        train_sweep(trainers(tmp_path, data, overwrite_output_dir=True))
    assert list_checkpoints(tmp_path / "narrow")


def test_random_prefixes_are_those_of_the_step_alone_in_a_sweep_and_resumed(tmp_path, data):
    def new(name, **settings):
        trainer = new_trainer(tmp_path / name, data, max_steps=6, save_steps=3, **settings)
        set_seed(1)
        trainer.model = MSAEModel(MSAEConfig(d_in=WIDTH, num_latents=24, nesting="prefix", random_prefixes=4))
        return trainer

    alone, both = new("alone"), [new("fast", learning_rate=1e-2), new("both")]
    alone.train()
    train_sweep(both)
    resumed = new("alone")
    shutil.rmtree(tmp_path / "alone" / "checkpoint-6")
    resumed.train(resume_from_checkpoint="last")
    for other in (both[1], resumed):
        assert torch.equal(other.model.decoder, alone.model.decoder)
    assert not torch.equal(both[0].model.decoder, alone.model.decoder)


def test_sweeps_that_make_no_sense_are_refused(tmp_path, data):
    same = [new_trainer(tmp_path, data), new_trainer(tmp_path, data)]
    others = [new_trainer(tmp_path / "a", data), new_trainer(tmp_path / "b", data, seed=1)]
    new = trainers(tmp_path, data)
    shared = [new_trainer(tmp_path / "a", data), new_trainer(tmp_path / "b", data)]
    shared[1].accelerator = shared[0].accelerator
    for sweep, resume, error, message in (
        ([], None, ValueError, "at least one"),
        (same, None, ValueError, "same output_dir"),
        (shared, None, ValueError, "same accelerator"),
        (others, None, ValueError, "same batches"),
        (new, "last", FileNotFoundError, "narrow: none"),
        (new, "some/where", ValueError, "some/where"),
    ):
        with pytest.raises(error, match=message):
            train_sweep(sweep, resume_from_checkpoint=resume)
