"""The families of sparse autoencoders: each against a direct formula, trained, saved, loaded and resumed."""

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae.embeddings import load_embeddings
from hf_msae.model.batch_topk import batch_top_threshold
from hf_msae.model.family import ActivationFamily, tanh_penalty
from hf_msae.model.jump_relu import jump_relu, l0_penalty
from hf_msae.model.nested_prefix import draw_prefixes

D, N = 10, 40
FAMILIES = {
    "relu": {"nesting": "none", "sparsity_coefficient": 0.01},
    "relu with tanh": {"nesting": "none", "sparsity_coefficient": 0.01, "sparsity_penalty": "tanh"},
    "topk": {"activation": "topk", "nesting": "none", "k": 4},
    "nested topk": {"activation": "topk", "k": 9, "nesting_ks": [2, 9]},
    "batch topk": {"activation": "batch_topk", "nesting": "none", "k": 4},
    "jump relu": {"activation": "jump_relu", "nesting": "none", "sparsity_coefficient": 1e-3},
    "nested jump relu": {"activation": "jump_relu", "nesting_ks": [3, 40], "sparsity_coefficient": 1e-3},
    "jump relu with tanh": {
        "activation": "jump_relu", "nesting": "none", "sparsity_coefficient": 1e-3, "sparsity_penalty": "tanh"
    },
    "prefix": {"nesting": "prefix", "nesting_widths": [5, 20, 40], "nesting_weights": "reverse"},
    "random prefix": {"nesting": "prefix", "random_prefixes": 4},
    "prefix topk": {"activation": "topk", "nesting": "prefix", "k": 4},
    "prefix batch topk": {"activation": "batch_topk", "nesting": "prefix", "k": 4},
    "prefix jump relu": {"activation": "jump_relu", "nesting": "prefix", "sparsity_coefficient": 1e-3},
}  # fmt: skip


def embeddings(rows=32, seed=0):
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(seed))


def new_model(**settings):
    set_seed(1)
    model = MSAEModel(MSAEConfig(d_in=D, num_latents=N, **settings))
    with torch.no_grad():
        model.latent_bias.normal_(std=0.2)
        model.pre_bias.normal_(std=0.2)
    return model


def decoded(model, code):
    return code @ model.decoder + model.pre_bias


def mse(model, codes, weights, x):
    losses = [(x - decoded(model, code)).square().mean() for code in codes]
    return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)


def top(code, k):
    return code * (code >= code.topk(k, dim=-1).values[:, -1:])


def expected_loss(name, model, x):
    """Written down anew for each family; `x` is normalized already."""
    config = model.config
    pre = (x - model.pre_bias) @ model.encoder + model.latent_bias
    relu = pre.clamp_min(0)
    code = relu
    if config.activation == "topk":
        code = top(relu, config.k)
    if config.activation == "batch_topk":
        code = relu * (relu >= relu.flatten().sort(descending=True).values[config.k * len(x) - 1])
    if config.activation == "jump_relu":
        threshold = model.log_threshold.exp()
        code = pre * (pre > threshold)
    codes, weights = [code], [1.0]
    if name == "nested topk":
        codes, weights = [top(relu, 2), code], [1.0, 1.0]
    if name == "nested jump relu":
        codes, weights = [code * (code.argsort(-1, descending=True).argsort(-1) < 3), code], [1.0, 1.0]
    if config.nesting == "prefix":
        widths = config.nesting_widths
        codes = [torch.cat([code[:, :width], torch.zeros(len(x), N - width)], 1) for width in widths]
        weights = [3.0, 2.0, 1.0] if name == "prefix" else [1.0] * len(widths)
    penalty = {
        "l1": (code.sum(-1) / x.norm(dim=-1)).mean(),
        "tanh": torch.tanh(4 * code).sum(-1).mean(),
        "l0": (code != 0).sum(-1).float().mean(),
    }[config.sparsity_penalty]
    return mse(model, codes, weights, x) + config.sparsity_coefficient * penalty


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients_are_those_of_the_formula(name, relative_error):
    model, x = new_model(**FAMILIES[name]), embeddings()
    if name == "random prefix":
        model.eval()  # else the widths are drawn
    expected = expected_loss(name, model, x)
    expected.backward()
    wanted = {key: parameter.grad for key, parameter in model.named_parameters() if key != "log_threshold"}
    model.zero_grad()
    loss = model(x, return_loss=True, loss_only=True).loss
    assert relative_error(loss, expected) < 1e-5
    loss.backward()
    for key, gradient in wanted.items():
        assert relative_error(model.get_parameter(key).grad, gradient) < 1e-5, key
    whole = model(x, return_loss=True, output_nested=True)
    assert relative_error(whole.loss, expected) < 1e-5
    assert len(whole.nested_reconstructions) == len(whole.nested_losses) == model.config.num_levels


@pytest.mark.parametrize("name", ["nested jump relu", "random prefix", "prefix batch topk"])
def test_it_trains_evaluates_saves_loads_and_resumes(name, tmp_path):
    rng = np.random.default_rng(0)
    codes = rng.uniform(size=(300, 20)) * (rng.uniform(size=(300, 20)) < 0.2)
    data = load_embeddings((codes @ rng.normal(size=(20, D)) + rng.normal(size=D)).astype(np.float32))
    weights = []
    for checkpoint in (None, str(tmp_path / "out" / "checkpoint-30")):
        args = MSAETrainingArguments(
            str(tmp_path / "out"), per_device_train_batch_size=50, max_steps=60, learning_rate=1e-2, save_steps=30,
            use_cpu=True, disable_tqdm=True, cknna_batch_size=100, logging_steps=30,
        )  # fmt: skip
        trainer = MSAETrainer(new_model(**FAMILIES[name]), args, data)
        result = trainer.train(resume_from_checkpoint=checkpoint)
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert result.log_history[-1]["fvu"] < 0.6 * result.log_history[0]["fvu"]

    evaluation = trainer.evaluate(data)
    assert 0 < evaluation.fvu < 1
    trainer.save_model()
    loaded, x = MSAEModel.from_pretrained(tmp_path / "out"), data[:40]
    trainer.model.eval()
    assert torch.equal(loaded.encode(x), trainer.model.encode(x))
    assert torch.equal(loaded(x).reconstruction, trainer.model(x).reconstruction)
    norms = loaded.decoder.norm(dim=1)
    assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5)
    if "topk" in loaded.config.activation:
        l0 = float((loaded.encode(x) > 0).sum(-1).float().mean())
        assert l0 == pytest.approx(loaded.config.k, rel=0.3)


@pytest.mark.parametrize("number", [1, 7, 50, 320, 2000])
def test_the_threshold_of_a_batch_is_the_entry_of_that_rank(number):
    code = embeddings(200).relu()
    threshold = batch_top_threshold(code, number)
    descending = code.flatten().sort(descending=True).values
    if number <= int((code > 0).sum()):
        assert threshold == descending[number - 1]
    else:
        assert 0 < threshold < descending[descending > 0].min()


def test_batch_topk_encodes_by_the_threshold_it_has_learned():
    model = new_model(activation="batch_topk", nesting="none", k=3).train()
    seen = []
    for seed in range(4):
        x = embeddings(64, seed)
        code = model._pre_activations(x).relu()
        seen.append(float(batch_top_threshold(code, 3 * 64)))
        assert int((model(x, return_loss=True).latents > 0).sum()) == 3 * 64
    expected = seen[0]
    for threshold in seen:
        expected += 0.01 * (threshold - expected)
    assert float(model.activation_threshold) == pytest.approx(expected, rel=1e-5)
    code = model.eval()._pre_activations(x).relu()
    assert torch.equal(model.encode(x), code * (code >= model.activation_threshold))
    assert model(x, return_loss=True).loss > 0 and float(model.activation_threshold) == pytest.approx(expected)
    assert model.half().activation_threshold.dtype == torch.float32


def test_the_estimators_of_jump_relu():
    pre = torch.tensor([[0.5, 0.98, 1.03, 2.0], [1.04, 0.2, -1.0, 0.96]], requires_grad=True)
    threshold = torch.tensor([1.0, 1.0, 1.0, 1.0], requires_grad=True)
    upstream = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    (jump_relu(pre, threshold, 0.1) * upstream).sum().backward()
    assert torch.equal(pre.grad, upstream * (pre > 1))
    assert torch.allclose(threshold.grad, -torch.tensor([5.0, 2.0, 3.0, 8.0]) / 0.1)
    pre.grad = threshold.grad = None
    l0_penalty(pre, threshold, 0.1).backward()
    assert torch.allclose(threshold.grad, -torch.tensor([1.0, 1.0, 1.0, 1.0]) / 0.1 / 2)
    assert pre.grad is None
    assert l0_penalty(pre, threshold, 0.1) == 1.5
    assert tanh_penalty(torch.tensor([[0.0, 100.0], [0.0, 0.0]])) == pytest.approx(0.5)


def test_normalizing_the_decoder_leaves_jump_relu_as_it_is():
    model, x = new_model(activation="jump_relu"), embeddings()
    with torch.no_grad():
        model.decoder.mul_(torch.linspace(0.5, 2, N)[:, None])
    before = model(x).reconstruction
    model.normalize_decoder_()
    assert torch.allclose(model(x).reconstruction, before, atol=1e-5)


def test_random_prefixes():
    torch.manual_seed(0)
    drawn = [draw_prefixes(10, 1000) for _ in range(200)]
    for widths in drawn:
        assert widths == sorted(set(widths)) and widths[-1] == 1000 and widths[0] >= 1 and len(widths) <= 10
    assert len({tuple(widths) for widths in drawn}) > 190
    inner = torch.tensor([width for widths in drawn for width in widths[:-1]]).double()
    # Half of a Pareto distribution with exponent 1/2, cut off at n, lies below (1 - (1 - n^-1/2) / 2)^-2.
    assert 0.3 < float((inner < (1 - (1 - 1000**-0.5) / 2) ** -2).double().mean()) < 0.6
    assert draw_prefixes(1, 7) == [7]


def test_a_family_that_does_not_say_so_is_not_computed_by_the_fused_step():
    config = MSAEConfig(d_in=D, num_latents=N, nesting_ks=[4, N])
    assert ActivationFamily().fused_levels(config, N, True) is None
    assert MSAEModel(config).family.fused_levels(config, N, True) == [4, N]
