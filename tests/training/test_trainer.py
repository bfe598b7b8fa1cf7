"""MSAETrainer learns, keeps its invariants, and refuses what does not fit."""

import logging
import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.logging import MultiProcessAdapter

from hf_msae import MSAEConfig, MSAEModel, MSAETrainingArguments
from hf_msae.embeddings import EmbeddingDataset, load_embeddings
from hf_msae.model import products
from hf_msae.training.checkpointing import TrainerState, list_checkpoints
from hf_msae.training.run import build_optimizer
from hf_msae.training.start import PROVENANCE_FIELDS
from tests.training.small_runs import WIDTH, new_model, new_trainer, read_log, sparse_embeddings, weights


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data):
    """One run that learns, evaluated along the way, shared by the tests that only look at it."""
    folder = tmp_path_factory.mktemp("finished")
    held_out = load_embeddings(sparse_embeddings(rows=200, seed=1))
    trainer = new_trainer(folder, data, eval_data=held_out, max_steps=120, eval_steps=60, logging_steps=30)
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
    assert [record["step"] for record in training] == [1, *range(30, 121, 30)]
    expected = ["step", "epoch", "loss", "fvu", "sparsity", "dead_latents", "learning_rate", "grad_norm"]
    assert list(training[0]) == [*expected, "samples_per_second"]
    assert training[-1]["epoch"] == 12 and trainer.plan.steps_per_epoch == 10
    assert all(0 <= record["sparsity"] <= 1 and record["fvu"] > 0 for record in training)
    evaluations = [record for record in result.log_history if "eval_fvu" in record]
    assert [record["step"] for record in evaluations] == [60, 120]
    assert evaluations[-1]["eval_fvu"] == trainer.evaluate().fvu
    assert read_log(folder) == result.log_history
    assert (result.global_step, result.num_processes, result.global_batch_size) == (120, 1, 32)
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


def test_the_fvu_of_a_batch_on_the_mean_is_null(tmp_path):
    rows = torch.zeros(3, WIDTH)
    rows[0, 0], rows[1, 0] = 1, -1
    trainer = new_trainer(tmp_path, load_embeddings(rows), per_device_train_batch_size=1, max_steps=3, logging_steps=1)
    logged = {int(trainer.plan.rows_of_step(each["step"])[0]): each["fvu"] for each in trainer.train().log_history}
    assert logged[2] is None and min(logged[0], logged[1]) > 0


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


def test_bf16_trains_nearly_as_well_and_leaves_a_plain_model(tmp_path, data, finished, monkeypatch):
    monkeypatch.setattr(products, "_SLOW_DTYPES", frozenset())
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


@pytest.mark.parametrize(("slow", "mentions"), [({torch.bfloat16}, 1), ((), 0)])
def test_bf16_on_a_processor_without_it_is_mentioned_once(tmp_path, data, caplog, monkeypatch, slow, mentions):
    monkeypatch.setattr(products, "_SLOW_DTYPES", frozenset(slow))
    MultiProcessAdapter.warning_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name in ("one", "another"):
            new_trainer(tmp_path / name, data, max_steps=1, mixed_precision="bf16")
    assert caplog.text.count("no instructions for bfloat16") == mentions


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
    caplog.clear()
    config = new_trainer(tmp_path, extracted, named, max_steps=1).model.config
    assert "some/siglip" in caplog.text and "my/siglip" in caplog.text
    assert (config.base_model_name_or_path, config.base_model_revision) == ("my/siglip", None)
    assert config.base_model_weights_sha256 is None
    caplog.clear()
    config.base_model_weights_sha256 = "1" * 64  # the same backbone by another name
    new_trainer(tmp_path, extracted, new_model(**{name: getattr(config, name) for name in PROVENANCE_FIELDS}))
    assert not caplog.text


def test_it_trains_where_gradients_are_off(tmp_path, data):
    with torch.no_grad():  # as with `torch.set_grad_enabled(False)` at the head of a notebook
        assert new_trainer(tmp_path, data, max_steps=2).train().global_step == 2


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
