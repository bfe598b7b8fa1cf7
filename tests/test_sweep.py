"""Several models in one pass: each ends as if trained alone, and the data is read once."""

import math

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainerCallback, MSAETrainingArguments
from hf_msae.activations import ActivationDataset, load_activations
from hf_msae.arguments import ModelArguments
from hf_msae.checkpointing import list_checkpoints
from hf_msae.interruption import TrainingInterrupted
from hf_msae.sweep import read_sweep, train_sweep, variant_arguments

WIDTH = 12


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    codes = rng.uniform(size=(200, 20)) * (rng.uniform(size=(200, 20)) < 0.2)
    return load_activations((codes @ rng.normal(size=(20, WIDTH)) + 1).astype(np.float32))


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


def test_the_data_is_read_once(tmp_path, data, monkeypatch):
    of_sweep = trainers(tmp_path, data, save_strategy="no", save_steps=None)
    read = []
    original = ActivationDataset.__getitems__

    def count(self, rows):
        read.extend(rows)
        return original(self, rows)

    monkeypatch.setattr(ActivationDataset, "__getitems__", count)
    train_sweep(of_sweep)
    assert 30 * 16 <= len(read) < 2 * 30 * 16


class InterruptAt(MSAETrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        import signal

        if trainer.state.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


def test_an_interrupted_sweep_goes_on_from_the_last_step_that_all_have(tmp_path, data, alone):
    interrupted = trainers(tmp_path, data)
    interrupted[1].callbacks.append(InterruptAt(17))
    with pytest.raises(TrainingInterrupted, match="3 checkpoints"):
        train_sweep(interrupted)
    newest = [list_checkpoints(tmp_path / name)[-1].name for name in VARIANTS]
    assert len(set(newest)) == 1 and newest[0] in ("checkpoint-17", "checkpoint-18")
    # As if killed between two checkpoints of the same step.
    (tmp_path / "wide" / newest[0]).rename(tmp_path / "elsewhere")
    results = train_sweep(trainers(tmp_path, data), resume_from_checkpoint="last")
    assert [result.global_step for result in results] == [30, 30, 30]
    assert_same_weights(alone, tmp_path)


def test_a_sweep_without_common_checkpoints_says_what_there_is(tmp_path, data):
    with pytest.raises(FileNotFoundError, match="narrow: none"):
        train_sweep(trainers(tmp_path, data), resume_from_checkpoint="last")
    with pytest.raises(ValueError, match="'last' alone"):
        train_sweep(trainers(tmp_path, data), resume_from_checkpoint="some/where")


def test_one_that_diverges_does_not_take_the_others_with_it(tmp_path, data, alone):
    class Break(MSAETrainerCallback):
        def on_step_end(self, trainer):
            if trainer.state.global_step == 12:
                with torch.no_grad():
                    trainer.model.latent_bias.fill_(math.nan)

    of_sweep = trainers(tmp_path, data)
    of_sweep[1].callbacks.append(Break())
    results = train_sweep(of_sweep)
    assert isinstance(results[1], FloatingPointError) and "step 13" in str(results[1])
    assert results[0].global_step == results[2].global_step == 30
    for name in ("narrow", "fast"):
        before, after = final(alone, name), final(tmp_path, name)
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_one_that_stops_early_does_not_stop_the_others(tmp_path, data):
    class Stop(MSAETrainerCallback):
        def on_log(self, trainer, record):
            if record["step"] == 10:
                trainer.stop()

    of_sweep = trainers(tmp_path, data)
    of_sweep[0].callbacks.append(Stop())
    assert [result.global_step for result in train_sweep(of_sweep)] == [10, 30, 30]


def test_trainers_that_read_different_batches_are_refused(tmp_path, data):
    pair = [new_trainer(tmp_path / "a", data), new_trainer(tmp_path / "b", data, seed=1)]
    with pytest.raises(ValueError, match="same batches"):
        train_sweep(pair)


# -- the file ---------------------------------------------------------------------------------------------------------


def write(tmp_path, text):
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return file


def test_names_with_settings(tmp_path):
    file = write(
        tmp_path, "wide: {num_latents: 64}\nplain: {}\nslow: {learning_rate: 1e-5, nesting_weights: reverse}\n"
    )
    variants = read_sweep(file)
    assert list(variants) == ["wide", "plain", "slow"]
    common = ModelArguments(num_latents=32), MSAETrainingArguments("out")
    model_args, training_args = variant_arguments(*common, "slow", variants["slow"])
    assert (model_args.num_latents, model_args.nesting_weights) == (32, ["reverse"])
    assert (training_args.learning_rate, training_args.output_dir) == (1e-5, "out/slow")


def test_a_grid(tmp_path):
    file = write(tmp_path, "num_latents: [32, 64]\nnesting_weights: [uniform, [3, 2, 1]]\n")
    variants = read_sweep(file)
    assert len(variants) == 4
    settings = variants["nesting_weights=3-2-1,num_latents=64"]
    model_args, _ = variant_arguments(ModelArguments(), MSAETrainingArguments("out"), "x", settings)
    assert (model_args.num_latents, model_args.nesting_weights) == (64, ["3", "2", "1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "holds list"),
        ("a: 3", "a is 3"),
        ("a: {num_latent: 3}", "num_latent"),
        ("a: {seed: 3}", "cannot differ in 'seed'"),
        ("seed: [1, 2]", "cannot differ in 'seed'"),
        ("num_latents: []", "lists no value"),
        ("num_latents: [8, 8]", "twice"),
        ("../a: {num_latents: 3}", "names a folder"),
        ("..: {num_latents: 3}", "names a folder"),
        ("a: {b", "not valid YAML"),
    ],
)
def test_files_that_describe_no_sweep_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_sweep(write(tmp_path, text))


def test_a_bad_value_names_the_variant(tmp_path):
    common = ModelArguments(), MSAETrainingArguments("out")
    with pytest.raises(ValueError, match=r"the sweep's bad.*learning_rate is -1"):
        variant_arguments(*common, "bad", {"learning_rate": -1})
