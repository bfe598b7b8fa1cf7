"""MSAETrainingArguments: refused values, and when events are due."""

import inspect
import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from transformers import EarlyStoppingCallback, HfArgumentParser, TrainingArguments

from hf_msae import MSAETrainingArguments

INVALID = {
    "per_device_train_batch_size": 0,
    "per_device_eval_batch_size": -4,
    "gradient_accumulation_steps": 0,
    "num_train_epochs": float("inf"),
    "max_steps": 0,
    "learning_rate": float("nan"),
    "auxiliary_coefficient": "much",
    "adam_beta1": 1.0,
    "adam_beta2": -0.1,
    "adam_epsilon": 0.0,
    "max_grad_norm": -1.0,
    "warmup_steps": -1,
    "lr_decay_fraction": 1.5,
    "lr_scheduler_type": "sine",
    "mixed_precision": "fp8",
    "seed": -1,
    "logging_steps": 0,
    "eval_steps": 0,
    "eval_strategy": "sometimes",
    "save_steps": -5,
    "save_total_limit": 0,
    "cknna_batch_size": 2,
    "dataloader_num_workers": -1,
    "output_dir": " ",
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_values_are_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        MSAETrainingArguments(**{"output_dir": "out", name: INVALID[name]})


def test_numbers_of_numpy_and_torch_paths_and_a_single_tracker_become_what_json_holds(tmp_path):
    args = MSAETrainingArguments(
        tmp_path,
        resume_from_checkpoint=tmp_path / "checkpoint-2",
        max_steps=np.int64(4),
        seed=torch.tensor(3),
        num_train_epochs=np.float32(0.5),
        learning_rate="1e-4",
        save_steps=7.0,
        use_cpu=np.bool_(True),
        report_to="tensorboard",
    )
    held = json.loads(json.dumps(args.to_dict()))
    assert MSAETrainingArguments(**held) == args
    assert held["resume_from_checkpoint"] == str(tmp_path / "checkpoint-2")
    assert [held[name] for name in ("max_steps", "seed", "num_train_epochs", "save_steps")] == [4, 3, 0.5, 7]
    assert (held["learning_rate"], held["use_cpu"], held["report_to"]) == (1e-4, True, ["tensorboard"])
    assert [MSAETrainingArguments("out", report_to=none).report_to for none in ("none", ["none"], None)] == [[]] * 3


@pytest.mark.parametrize("name", ["eval_steps", "save_steps", "logging_steps", "max_steps"])
def test_a_share_of_all_steps_is_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"{name}.*whole number.*0\.25"):
        MSAETrainingArguments("out", **{name: 0.25})


def test_strategies_and_steps_settle_each_other():
    plain = MSAETrainingArguments("out")
    assert (plain.eval_strategy, plain.eval_steps, plain.save_strategy, plain.save_steps) == ("no", None, "steps", 500)
    stepped = MSAETrainingArguments("out", eval_steps=5, save_steps=7)
    assert (stepped.eval_strategy, stepped.eval_steps) == ("steps", 5)
    assert (stepped.save_strategy, stepped.save_steps) == ("steps", 7)
    named = MSAETrainingArguments("out", eval_strategy="steps", logging_steps=30, save_strategy="epoch")
    assert (named.eval_steps, named.save_steps) == (30, None)
    assert MSAETrainingArguments(**named.to_dict()) == named


@pytest.mark.parametrize("event", ["eval", "save"])
@pytest.mark.parametrize("strategy", ["no", "epoch"])
def test_strategies_and_steps_that_contradict_each_other_are_refused(event, strategy):
    with pytest.raises(ValueError, match=f"{event}_strategy is {strategy}, but {event}_steps is 5"):
        MSAETrainingArguments("out", **{f"{event}_strategy": strategy, f"{event}_steps": 5})


def test_events_are_due_on_their_steps():
    args = MSAETrainingArguments("out", eval_steps=4, save_strategy="epoch")
    assert [step for step in range(1, 21) if args.is_due("eval", step, steps_per_epoch=6)] == [4, 8, 12, 16, 20]
    assert [step for step in range(1, 21) if args.is_due("save", step, steps_per_epoch=6)] == [6, 12, 18]
    never = MSAETrainingArguments("out", save_strategy="no")
    assert not any(never.is_due("save", step, steps_per_epoch=6) for step in range(1, 21))


@pytest.mark.parametrize(
    ("epochs", "max_steps", "expected"), [(3, -1, 90), (0.1, -1, 3), (0.5, 7, 7), (2.01, -1, 61), (0.001, -1, 1)]
)
def test_total_steps(epochs, max_steps, expected):
    assert MSAETrainingArguments("out", num_train_epochs=epochs, max_steps=max_steps).total_steps(30) == expected


def test_every_field_has_help():
    assert not [field.name for field in fields(MSAETrainingArguments) if not field.metadata.get("help")]


def test_names_are_those_of_transformers_where_they_exist_there():
    ours = {field.name for field in fields(MSAETrainingArguments)}
    own = {"lr_decay_fraction", "mixed_precision", "overwrite_output_dir", "cknna_batch_size"}
    own |= {"memory_budget", "keep_on_device", "early_stopping"}
    own |= {"auxiliary_k", "auxiliary_coefficient", "resample_steps", "dead_steps"}
    own |= {*inspect.signature(EarlyStoppingCallback).parameters}  # which transformers leaves to a callback
    assert ours - {field.name for field in fields(TrainingArguments)} == own


@pytest.mark.parametrize("name", ["warmup_steps", "max_grad_norm", "learning_rate"])
def test_none_is_refused_where_a_number_is_needed(name):
    with pytest.raises(ValueError, match=f"{name}.*None"):
        MSAETrainingArguments(output_dir="out", **{name: None})


def test_the_output_folder_may_be_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert MSAETrainingArguments(output_dir="~/out").output_dir == "/home/ann/out"


def test_none_stays_allowed_after_a_parser_has_read_the_fields():
    HfArgumentParser([MSAETrainingArguments])  # changes the types of the fields
    assert MSAETrainingArguments(output_dir="out", eval_steps=None, save_total_limit=None).save_total_limit is None


def test_booleans_that_are_text_are_read_as_on_the_command_line():
    args = MSAETrainingArguments("out", use_cpu="false", overwrite_output_dir="False", keep_on_device="no")
    assert (args.use_cpu, args.overwrite_output_dir, args.keep_on_device) == (False, False, False)
    assert MSAETrainingArguments("out", disable_tqdm="true").disable_tqdm is True
    with pytest.raises(ValueError, match="use_cpu must be True or False, got 'never'"):
        MSAETrainingArguments("out", use_cpu="never")
