"""Dead latents: counted, given an auxiliary loss, and resampled."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim import Adam

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae.embeddings import load_embeddings
from hf_msae.model.fused_nested_loss import nested_loss_implementation
from hf_msae.training.dead_latents import LatentActivity, resample_latents_

WIDTH, LATENTS = 12, 30


def new_model(dead=(), **settings):
    set_seed(3)
    model = MSAEModel(MSAEConfig(d_in=WIDTH, num_latents=LATENTS, **settings))
    with torch.no_grad():
        model.latent_bias[list(dead)] = -50.0
    return model


def embeddings(rows=64):
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(1))


def test_counts():
    activity = LatentActivity(3, torch.device("cpu"), [])
    for fired in ([True, False, False], [True, True, False], [False, True, False]):
        activity.update(torch.tensor(fired))
    assert activity.steps_since_fired.tolist() == [1, 0, 3]
    assert activity.dead(1).tolist() == [True, False, True]
    assert activity.dead(3).tolist() == [False, False, True]
    activity.forget(torch.tensor([False, False, True]))
    assert LatentActivity(3, torch.device("cpu"), activity.steps_since_fired.tolist()).dead(1).tolist() == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("k", [1, 2, 9])
@pytest.mark.parametrize("tied", [False, True])
def test_the_auxiliary_loss_is_its_formula_and_trains_dead_latents_alone(k, tied, relative_error):
    model, x = new_model(dead=[2, 5, 7], tied=tied), embeddings()
    dead = torch.zeros(LATENTS, dtype=torch.bool)
    dead[[2, 5, 7]] = True
    with torch.no_grad():
        model.latent_bias[[2, 5, 7]] = -0.2
    output = model(x, k=LATENTS, return_loss=True, dead_latents=dead, auxiliary_k=k)
    output.auxiliary_loss.backward()

    u = x.double()
    missing = u - output.reconstruction.detach().double()
    pre = (u - model.pre_bias.double()) @ model.encoder.double() + model.latent_bias.double()
    expected = 0.0
    for row in range(len(u)):
        best = sorted([2, 5, 7], key=lambda j: -pre[row, j])[:k]
        decoded = sum(pre[row, j].clamp_min(0) * model.dictionary[j].double() for j in best)
        expected += (missing[row] - decoded).square().sum() / missing[row].square().sum() / len(u)
    assert relative_error(output.auxiliary_loss, expected) < 1e-5
    assert (model.latent_bias.grad != 0).tolist() == dead.tolist()
    assert (model.encoder.grad != 0).any(0).tolist() == dead.tolist()


def test_without_dead_latents_it_is_zero():
    output = new_model()(embeddings(), return_loss=True, dead_latents=torch.zeros(LATENTS, dtype=torch.bool))
    assert output.auxiliary_loss == 0
    assert new_model()(embeddings(), return_loss=True).auxiliary_loss is None


def test_both_ways_to_compute_the_loss_give_the_same(relative_error):
    dead = torch.zeros(LATENTS, dtype=torch.bool)
    dead[[1, 4]] = True
    found = []
    for name in ("auto", "eager"):
        model = new_model(dead=[1, 4])
        with nested_loss_implementation(name):
            output = model(embeddings(), k=LATENTS, return_loss=True, dead_latents=dead, auxiliary_k=1)
        (output.loss + output.auxiliary_loss).backward()
        found.append([output.auxiliary_loss, *[parameter.grad for parameter in model.parameters()]])
    for auto, eager in zip(*found, strict=True):
        assert relative_error(auto, eager) < 1e-5


@pytest.mark.parametrize("tied", [False, True])
def test_resampled_latents_point_at_embeddings_and_others_stay(tied):
    model, x = new_model(dead=[0, 9], tied=tied), embeddings()
    optimizer = Adam(model.parameters())
    model(x, return_loss=True).loss.backward()
    optimizer.step()
    for state in optimizer.state.values():
        state["exp_avg"].fill_(1.0)
        state["exp_avg_sq"].fill_(1.0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    dead = torch.zeros(LATENTS, dtype=torch.bool)
    dead[[0, 9]] = True
    resample_latents_(model, optimizer, dead, x, Accelerator(cpu=True), seed=4)

    directions = torch.nn.functional.normalize(x - model.pre_bias, dim=1)
    similarity = torch.nn.functional.normalize(model.dictionary[dead], dim=1) @ directions.T
    assert torch.allclose(similarity.max(1).values, torch.ones(2), atol=1e-5)
    assert not model.latent_bias[dead].any()
    if not tied:
        alive = model.encoder[:, ~dead].norm(dim=0).mean()
        assert torch.allclose(model.encoder[:, dead].norm(dim=0), 0.2 * alive.expand(2), rtol=1e-5)
        assert torch.equal(model.decoder[~dead], before["decoder"][~dead])
        assert not optimizer.state[model.decoder]["exp_avg_sq"][dead].any()
        assert optimizer.state[model.decoder]["exp_avg_sq"][~dead].any()
    assert torch.equal(model.encoder[:, ~dead], before["encoder"][:, ~dead])
    assert not optimizer.state[model.encoder]["exp_avg"][:, dead].any()
    assert optimizer.state[model.encoder]["exp_avg"][:, ~dead].any()


@pytest.mark.parametrize("tied", [False, True])
def test_thresholds_that_silenced_latents_start_anew(tied):
    model, x = new_model(activation="jump_relu", nesting="none", jump_relu_threshold=0.5, tied=tied), embeddings()
    dead = torch.zeros(LATENTS, dtype=torch.bool)
    dead[[0, 9]] = True
    with torch.no_grad():
        model.log_threshold[dead] = 3.0
    optimizer = Adam(model.parameters())
    model(x, return_loss=True).loss.backward()
    optimizer.step()
    moment = optimizer.state[model.log_threshold]["exp_avg"].fill_(1.0)
    alive = model.log_threshold[~dead].clone()
    resample_latents_(model, optimizer, dead, x, Accelerator(cpu=True), seed=4)
    assert (model.encode(x)[:, dead] > 0).any(0).all()
    assert torch.allclose(model.log_threshold[dead].exp(), torch.tensor(0.5 if tied else 0.1))
    assert torch.equal(model.log_threshold[~dead], alive)
    assert not moment[dead].any() and moment[~dead].all()


def test_a_diverged_model_is_left_alone():
    model, x = new_model(dead=[0]), embeddings()
    with torch.no_grad():
        model.pre_bias.fill_(float("inf"))
    dead = torch.arange(LATENTS) == 0
    resample_latents_(model, Adam(model.parameters()), dead, x, Accelerator(cpu=True), seed=0)
    assert model.latent_bias[0] == -50


def test_badly_reconstructed_embeddings_are_chosen():
    model, x = new_model(dead=[0]), embeddings()
    x[11] *= 100
    dead = torch.zeros(LATENTS, dtype=torch.bool)
    dead[0] = True
    resample_latents_(model, Adam(model.parameters()), dead, x, Accelerator(cpu=True), seed=0)
    chosen = torch.nn.functional.cosine_similarity(model.decoder[0], x - model.pre_bias, dim=1).argmax()
    assert chosen == 11


def dead_at_the_end(tmp_path, silence, nesting_ks=None, steps=60, **settings):
    """How many of 30 latents are dead after these steps, of which `silence` has made five dead at the beginning."""
    data = load_embeddings((embeddings(256) + 1).numpy().astype(np.float32))
    args = MSAETrainingArguments(
        str(tmp_path), per_device_train_batch_size=32, max_steps=steps, learning_rate=1e-2, use_cpu=True,
        save_strategy="no", logging_steps=steps, disable_tqdm=True, dead_steps=8, lr_decay_fraction=0, **settings,
    )  # fmt: skip
    model = new_model(nesting_ks=nesting_ks)
    with torch.no_grad():
        silence(model)
    return MSAETrainer(model, args, data).train().log_history[-1]["dead_latents"]


FIVE = [3, 6, 8, 20, 29]


def test_resampling_revives_latents_that_are_never_positive(tmp_path):
    def silence(model):
        model.latent_bias[FIVE] = -6.0

    assert dead_at_the_end(tmp_path / "plain", silence, steps=20) == 5
    assert dead_at_the_end(tmp_path / "resampled", silence, resample_steps=20) == 0


def test_the_auxiliary_loss_revives_latents_that_others_exceed(tmp_path):
    def silence(model):
        model.encoder[:, FIVE] *= 0.01

    assert dead_at_the_end(tmp_path / "plain", silence, [1, 2], steps=20) == 5
    with_loss = dead_at_the_end(tmp_path / "loss", silence, [1, 2], auxiliary_k=5)
    assert with_loss == 0


def test_a_resumed_run_with_both_is_the_uninterrupted_one(tmp_path):
    data = load_embeddings((embeddings(256) + 1).numpy().astype(np.float32))
    finals = []
    for checkpoint in (None, str(tmp_path / "out" / "checkpoint-11")):
        args = MSAETrainingArguments(
            str(tmp_path / "out"), per_device_train_batch_size=32, max_steps=24, learning_rate=3e-3, use_cpu=True,
            save_steps=11, save_total_limit=None, disable_tqdm=True, auxiliary_k=3, resample_steps=7, dead_steps=5,
        )  # fmt: skip
        trainer = MSAETrainer(new_model(dead=[1, 2]), args, data)
        trainer.train(resume_from_checkpoint=checkpoint)
        finals.append(trainer.model.state_dict())
    for name, value in finals[0].items():
        assert torch.equal(value, finals[1][name]), name
