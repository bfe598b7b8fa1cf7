"""Early stopping and the best weights: which evaluation is the best, when training ends, and resuming to the bit."""

import json
import shutil
from contextlib import suppress
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from hf_msae import MSAEModel, MSAETrainingArguments, cli
from hf_msae.embeddings import load_embeddings
from hf_msae.training import finish
from hf_msae.training.best import BEST_FILE
from hf_msae.training.checkpointing import TrainerState
from hf_msae.training.sweep import train_sweep
from tests.training.small_runs import assert_equal_weights, new_trainer, sparse_embeddings, weights

FVUS = [0.5, 0.3, 0.2, 0.25, 0.1999, 0.4, 0.35, 0.1]  # of evaluations; with a patience of 2, the best is 0.1999


@pytest.fixture(scope="module")
def data():
    return load_embeddings(sparse_embeddings())


class Planned:
    """Evaluations of planned figures, with the weights that each had; the other figures are those of the first."""

    def __init__(self, trainer, monkeypatch, figures=FVUS, name="fvu"):
        self.seen, real = {}, cache(trainer.evaluate)

        def evaluate(**settings):
            result = real(**settings)
            step = trainer.state.global_step
            self.seen[step] = weights(trainer)
            return type(result)(**{**vars(result), name: figures[step // 3 - 1]})

        monkeypatch.setattr(trainer, "evaluate", evaluate)


SETTINGS = {"max_steps": 24, "eval_steps": 3, "save_steps": 3, "save_total_limit": None, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """A run with a patience of 2 that nothing interrupted: folder, result, weights, and those at each evaluation."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = new_trainer(folder, data, eval_data=data, early_stopping_patience=2, **SETTINGS)
    with pytest.MonkeyPatch.context() as monkeypatch:
        planned = Planned(trainer, monkeypatch)
        result = trainer.train()
    return SimpleNamespace(folder=folder, result=result, weights=weights(trainer), seen=planned.seen)


def test_training_ends_when_evaluations_bring_nothing_and_keeps_the_best_weights(whole):
    result = whole.result
    assert (result.global_step, result.best_step, result.best_metric) == (21, 15, 0.1999)
    assert all(torch.equal(tensor, whole.seen[15][name]) for name, tensor in whole.weights.items())
    assert not torch.equal(whole.seen[15]["encoder"], whole.seen[21]["encoder"])
    # The checkpoint has the last weights to go on from, and the best ones.
    last, best = (
        load_file(whole.folder / "checkpoint-21" / file)["encoder"] for file in ("model.safetensors", BEST_FILE)
    )
    assert torch.equal(last, whole.seen[21]["encoder"]) and torch.equal(best, whole.seen[15]["encoder"])


@pytest.mark.parametrize(
    ("settings", "end", "best"),
    [
        ({"early_stopping_patience": 1}, 12, 9),
        (
            {"early_stopping_patience": 2, "early_stopping_threshold": 0.01},
            15,
            15,
        ),  # a small gain is the best, no more
        ({"load_best_model_at_end": True}, 24, 24),
        ({"load_best_model_at_end": True, "metric_for_best_model": "eval_cosine_similarity"}, 24, 3),
    ],
)
def test_patience_threshold_and_metric(tmp_path, data, monkeypatch, settings, end, best):
    trainer = new_trainer(tmp_path, data, eval_data=data, **{**SETTINGS, "save_steps": 100, **settings})
    planned = Planned(trainer, monkeypatch, name=trainer.args.metric_for_best_model)
    result = trainer.train()
    assert (result.global_step, result.best_step) == (end, best)
    assert_equal_weights(trainer, planned.seen[best])


def test_the_last_weights_are_kept_where_they_are_asked_for(tmp_path, data, monkeypatch):
    settings = {**SETTINGS, "early_stopping_patience": 1, "load_best_model_at_end": False}
    trainer = new_trainer(tmp_path, data, eval_data=data, **settings)
    planned = Planned(trainer, monkeypatch)
    assert trainer.train().global_step == 12
    assert_equal_weights(trainer, planned.seen[12])
    assert not (tmp_path / "checkpoint-12" / BEST_FILE).exists()


@pytest.mark.parametrize("cut", [6, 21])
def test_a_resumed_run_stops_where_the_uninterrupted_one_does(tmp_path, data, monkeypatch, whole, cut):
    settings = {**SETTINGS, "early_stopping_patience": 2}
    shutil.copytree(whole.folder / f"checkpoint-{cut}", tmp_path / "cut" / f"checkpoint-{cut}")
    resumed = new_trainer(tmp_path / "cut", data, eval_data=data, **settings)
    Planned(resumed, monkeypatch)
    found = resumed.train(resume_from_checkpoint="last")
    assert (found.global_step, found.best_step) == (21, 15)
    assert_equal_weights(resumed, whole.weights)
    if cut == 21:  # with more patience, the same checkpoint goes on
        further = new_trainer(tmp_path / "cut", data, eval_data=data, **{**settings, "early_stopping_patience": 3})
        Planned(further, monkeypatch)
        assert further.train(resume_from_checkpoint="last").best_step == 24
    other = new_trainer(tmp_path / "cut", data, eval_data=data, metric_for_best_model="cknna", **settings)
    with pytest.raises(ValueError, match=r"metric_for_best_model is cknna.*by fvu"):
        other.train(resume_from_checkpoint="last")


def test_best_weights_that_a_run_did_not_keep_cannot_be_asked_for_later(tmp_path, data, monkeypatch):
    settings = {**SETTINGS, "max_steps": 6, "early_stopping_patience": 9}
    last = new_trainer(tmp_path, data, eval_data=data, load_best_model_at_end=False, **settings)
    Planned(last, monkeypatch, [0.2, 0.3])
    assert last.train().best_step == 3
    best = new_trainer(tmp_path, data, eval_data=data, load_best_model_at_end=True, **settings)
    with pytest.raises(ValueError, match=rf"checkpoint-6.*{BEST_FILE}.*step 3.*load_best_model_at_end=False"):
        best.train(resume_from_checkpoint="last")


def test_the_best_weights_cannot_be_asked_for_after_evaluations_that_kept_none(tmp_path, data):
    settings = {**SETTINGS, "max_steps": 6}
    new_trainer(tmp_path, data, eval_data=data, **settings).train()
    late = new_trainer(tmp_path, data, eval_data=data, load_best_model_at_end=True, **settings)
    with pytest.raises(ValueError, match=r"checkpoint-6.*load_best_model_at_end=False"):
        late.train(resume_from_checkpoint="last")


def test_one_model_of_a_sweep_may_stop_early(tmp_path, data, monkeypatch):
    settings = {**SETTINGS, "early_stopping_patience": 2}
    trainers = [new_trainer(tmp_path / name, data, eval_data=data, **settings) for name in ("one", "two")]
    first, second = (Planned(each, monkeypatch, f) for each, f in zip(trainers, (FVUS, FVUS[::-1]), strict=True))
    assert [each.global_step for each in train_sweep(trainers)] == [21, 9]
    assert_equal_weights(trainers[0], first.seen[15])
    assert_equal_weights(trainers[1], second.seen[3])


def test_settings_that_make_no_sense_are_refused():
    for settings, message in (
        ({"early_stopping_patience": 0}, "early_stopping_patience.* 0"),
        ({"early_stopping_patience": 2, "eval_strategy": "no"}, "early_stopping_patience needs evaluations"),
        ({"load_best_model_at_end": True, "eval_strategy": "no"}, "load_best_model_at_end needs evaluations"),
        ({"early_stopping_threshold": -1.0}, "early_stopping_threshold.* -1"),
        ({"metric_for_best_model": "loss"}, "metric_for_best_model.*fvu.*'loss'"),
    ):
        with pytest.raises(ValueError, match=message):
            MSAETrainingArguments("x", **settings)
    args = MSAETrainingArguments("x", early_stopping_patience=2)
    assert (args.eval_strategy, args.load_best_model_at_end) == ("epoch", True)
    assert MSAETrainingArguments("x").load_best_model_at_end is False
    assert MSAETrainingArguments("x", early_stopping=True).early_stopping_patience == 3
    assert MSAETrainingArguments("x", early_stopping=True, early_stopping_patience=2).early_stopping_patience == 2


# -- advice -----------------------------------------------------------------------------------------------------------


def test_held_out_and_training_fvu_stand_in_table_card_and_log(tmp_path, data):
    trainer = new_trainer(
        tmp_path, data, eval_data=sparse_embeddings(96, seed=1), early_stopping_patience=9, eval_steps=8
    )
    trainer.train()
    result = finish(trainer)
    with torch.no_grad():
        x = data[:]
        residual = (x - trainer.model(x).reconstruction).square().sum()
    expected = float(residual / (x - x.mean(dim=0)).square().sum())
    assert result.train_fvu == result.by_k["64"]["train_fvu"] == pytest.approx(expected, rel=1e-4) != result.fvu
    assert "train FVU" in str(result).splitlines()[0] and "320 training samples" in str(result)
    log = [json.loads(line) for line in (tmp_path / "training_log.jsonl").read_text().splitlines()]
    assert log[-1] == {"step": 25, "epoch": 2.5, "eval_fvu": result.fvu, "train_fvu": result.train_fvu}
    card = (tmp_path / "README.md").read_text()
    assert "| FVU, training data |" in card and f"{result.train_fvu:.4g}" in card
    assert f"those of step {trainer.result.best_step}" in card


def test_a_run_that_was_too_short_says_what_to_change(tmp_path, data, caplog, capsys):
    short = new_trainer(tmp_path / "short", data, eval_data=sparse_embeddings(96, seed=1), learning_rate=1e-3)
    short.train()
    finish(short)
    (advice,) = json.loads((tmp_path / "short" / "training.json").read_text())["result"]["advice"]
    assert "25 steps" in advice and "num_train_epochs" in advice and "0.001" in advice
    assert advice in caplog.text
    assert "Training was too short" in (tmp_path / "short" / "README.md").read_text()
    with suppress(SystemExit):
        cli.main(["doctor", str(tmp_path / "short"), "--json"])
    assert advice in capsys.readouterr().out


def test_a_run_that_has_not_ended_says_how_to_end_it(tmp_path, data):
    trainer = new_trainer(tmp_path, data, max_steps=4, save_steps=2)
    trainer.train()
    with pytest.raises(OSError, match=r"resume_from_checkpoint last.*checkpoint-\d"):
        MSAEModel.from_pretrained(tmp_path)


def test_a_run_that_learned_its_rows_by_heart_says_so(tmp_path, caplog):
    settings = {"max_steps": 60, "learning_rate": 1e-2, "eval_steps": 30}
    trainer = new_trainer(tmp_path, sparse_embeddings(48), eval_data=sparse_embeddings(96, seed=1), **settings)
    trainer.train()
    result = finish(trainer)
    assert result.fvu > 1.5 * result.train_fvu
    assert "overfitted" in caplog.text and "48 rows" in caplog.text and "too short" not in caplog.text
    assert "early_stopping" in caplog.text
    caplog.clear()
    trainer.args.early_stopping_patience = 200  # it was asked for, and did not help
    finish(trainer)
    assert "overfitted" in caplog.text and "early_stopping" not in caplog.text


def test_a_run_that_ended_worse_than_the_mean_is_not_called_overfitted(tmp_path, data, caplog):
    trainer = new_trainer(tmp_path, data, eval_data=sparse_embeddings(96, seed=1), max_steps=4)
    trainer.train()
    with torch.no_grad():
        trainer.model.decoder.mul_(30)
    assert finish(trainer).fvu > 1
    assert "learning_rate" in caplog.text and "overfitted" not in caplog.text


@pytest.mark.slow
def test_a_run_that_was_long_enough_is_not_commented(tmp_path, data, caplog):
    trainer = new_trainer(tmp_path, data, eval_data=sparse_embeddings(96, seed=1), max_steps=1000)
    trainer.train()
    state = trainer.state
    assert set(state.fvu_at) == {"half", "three quarters"}
    assert state.fvu_at["half"] < 1.05 * state.fvu_at["three quarters"] + 0.005
    finish(trainer)
    assert "too short" not in caplog.text


def test_checkpoints_of_earlier_versions_have_no_best(tmp_path):
    (tmp_path / "trainer_state.json").write_text('{"global_step": 3}')
    assert (TrainerState.read(tmp_path).best, TrainerState.read(tmp_path).fvu_at) == (None, {})
