"""Which reader a checkpoint goes to, and what becomes of what it found."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_msae.hub.converters import FORMATS, convert_checkpoint, read_checkpoint
from hf_msae.hub.converters.checkpoint import ForeignCheckpoint
from hf_msae.hub.converters.source import read_torch
from tests.hub.converters.conftest import FOREIGN
from tests.hub.converters.test_source import Malicious

SAELENS = FOREIGN / "saelens"

D, N = 5, 9


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    tensors = {"encoder": (D, N), "decoder": (N, D), "latent_bias": (N,), "bias": (D,)}
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in tensors.items()}


@pytest.mark.parametrize("subtracts_bias", [True, False])
@pytest.mark.parametrize("left_out", ["bias", "latent_bias", None])
def test_the_model_computes_what_the_checkpoint_does(drawn, left_out, subtracts_bias, relative_error):
    given = {name: tensor for name, tensor in drawn.items() if name != left_out}
    mean, scale = torch.randn(D), 0.7
    model = ForeignCheckpoint(
        **given, subtracts_bias=subtracts_bias, input_mean=mean, input_scale=scale, config={"activation": "relu"}
    ).to_model()
    zeros = {name: torch.zeros_like(tensor) for name, tensor in drawn.items()}
    w = {**zeros, **given}
    x = torch.randn(40, D, dtype=torch.float64)
    u = (x - mean) * scale
    code = torch.relu((u - subtracts_bias * w["bias"]) @ w["encoder"] + w["latent_bias"])
    decoded = (code @ w["decoder"] + w["bias"]) / scale + mean
    with torch.no_grad():
        assert relative_error(model.encode(x), code) < 1e-6
        assert relative_error(model.decode(code), decoded) < 1e-6
    assert not model.training


def test_thresholds_become_parameters(drawn, relative_error):
    thresholds = torch.linspace(0, 2, N)
    model = ForeignCheckpoint(**drawn, threshold=thresholds, config={"activation": "jump_relu"}).to_model()
    assert relative_error(model.log_threshold.exp(), thresholds) < 1e-6
    config = {"activation": "batch_topk", "k": 3}
    model = ForeignCheckpoint(**drawn, threshold=0.5, config=config).to_model()
    assert model.activation_threshold == 0.5
    with pytest.raises(ValueError, match=r"threshold.*batch_topk"):
        ForeignCheckpoint(**drawn, config=config).to_model()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias": torch.zeros(1, D)}, r"bias .*\(1, 5\).*\(5,\)"),
        ({"encoder": torch.zeros(D)}, r"encoder .*\(5,\).*\(d, n\)"),
        ({"decoder": torch.zeros(D, N)}, r"decoder .*\(5, 9\).*\(9, 5\)"),
        ({"latent_bias": torch.zeros(N + 1)}, r"latent_bias .*\(10,\).*\(9,\)"),
        ({"decoder": torch.full((N, D), torch.nan)}, "decoder .*NaN"),
        ({"latent_bias": torch.full((N,), 1e300, dtype=torch.float64)}, "latent_bias .*float32.*infinite"),
        ({"input_mean": torch.full((D,), torch.inf)}, "mean .*NaN"),
        ({"input_scale": 0.0}, "scale .*positive"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(drawn, changes, message):
    with pytest.raises(ValueError, match=message):
        ForeignCheckpoint(**{**drawn, **changes}, config={"activation": "relu"}).to_model()


def test_what_is_given_beats_what_is_found(drawn):
    found = ForeignCheckpoint(**drawn, input_scale=2.0, config={"activation": "relu", "hook_point": "text_embeds"})
    model = found.to_model({"hook_point": "vision.layers.1", "input_scale": 0.5})
    assert model.config.hook_point == "vision.layers.1" and model.input_scale == 0.5
    assert found.to_model({"nesting_ks": [2, N]}).config.nesting == "topk"
    assert found.to_model({"nesting_widths": [2, N]}).config.nesting == "prefix"
    assert found.to_model().config.nesting == "none"


def test_given_levels_replace_those_of_the_checkpoint(drawn):
    prefixes = {"nesting": "prefix", "nesting_widths": [4, N], "nesting_weights": [1.0, 2.0]}
    found = ForeignCheckpoint(**drawn, config={"activation": "relu", **prefixes})
    assert found.to_model().config.level_weights == [1, 2]
    for given, levels in (
        ({"nesting_ks": [2, N]}, ("topk", [2, N], None)),
        ({"nesting_ks": [2, N], "nesting": "topk"}, ("topk", [2, N], None)),
        ({"nesting_widths": [2, 4, N]}, ("prefix", [N], [2, 4, N])),
        ({"nesting": "none"}, ("none", [N], None)),
    ):
        config = found.to_model(given).config
        assert (config.nesting, config.nesting_ks, config.nesting_widths) == levels and set(config.level_weights) == {
            1
        }
    of_topk = {"nesting": "topk", "nesting_ks": [2, N], "nesting_weights": "reverse"}
    found = ForeignCheckpoint(**drawn, config={"activation": "relu", **of_topk})
    assert found.to_model({"nesting_ks": [1, 2, N]}).config.level_weights == [3, 2, 1]
    assert found.to_model({"nesting_widths": [2, N]}).config.nesting == "prefix"
    assert found.to_model({"activation": "topk", "k": 3, "nesting": "none"}).config.nesting_ks == [N]


GIVEN = {"hook_point": "vision.layers.1", "input_scale": 1.0}


def prefixed(content, prefix):
    """What torch.save writes of a wrapped module, wherever its tensors are in the file."""
    if not isinstance(content, dict):
        return content
    is_state = all(isinstance(value, torch.Tensor) for value in content.values())
    return {prefix * is_state + key: prefixed(value, prefix) for key, value in content.items()}


@pytest.mark.parametrize(
    "name",
    [
        *("saelens/topk/sae_weights.safetensors", "dictionary_learning/batch_top_k/ae.pt", "prisma/relu/weights.pt"),
        *("overcomplete/relu_max_l2_plain/sae.pt", "visaebench/top_k/model.safetensors"),
        "sparsify/vision/vision_model.encoder.layers.2/sae.safetensors",
    ],
)
def test_prefixes_of_wrappers_are_stripped(name, changed):
    prefix, (place, _, file) = "module._orig_mod.", name.rpartition("/")
    file = changed(place) / file
    expected = convert_checkpoint(file.parent, **GIVEN)
    if file.suffix == ".safetensors":
        save_file(prefixed(load_file(file), prefix), file)
    else:
        torch.save(prefixed(torch.load(file, weights_only=True), prefix), file)
    assert (FOREIGN / name).read_bytes() != file.read_bytes()
    found = convert_checkpoint(file.parent, **GIVEN)
    assert found.config.to_dict() == expected.config.to_dict()
    for key, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], tensor), key


@pytest.mark.parametrize("others", [{}, {"W_enc": torch.zeros(D, N)}])
def test_a_prefix_that_not_all_tensors_have_stays(tmp_path, others):
    tensors = {"module.W_enc": torch.zeros(D, N), "_orig_mod.W_enc": torch.zeros(D, N), **others}
    torch.save(tensors, tmp_path / "sae.pt")
    assert read_torch(tmp_path / "sae.pt", "sae.pt").keys() == tensors.keys()


def test_notes_are_logged_once_each(caplog):
    notes = read_checkpoint(SAELENS / "gated").notes
    convert_checkpoint(SAELENS / "gated")
    logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert notes and logged == [f"{SAELENS / 'gated'}: {note}" for note in notes]


def test_what_only_another_activation_kept_is_left_out(drawn):
    found = ForeignCheckpoint(**drawn, threshold=0.5, config={"activation": "batch_topk", "k": 3})
    assert found.to_model({"activation": "relu"}).config.k is None
    assert found.to_model({"activation": "relu", "k": 5}).config.k == 5
    assert found.to_model({"activation": "topk"}).config.k == 3  # the same k of the same kind


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "list", "tensor"])
def test_a_mean_can_be_given_in_several_ways(drawn, suffix, tmp_path):
    mean, path = torch.linspace(-1, 1, D), tmp_path / f"mean.{suffix}"
    if suffix == "npy":
        np.save(path, mean.numpy())
    elif suffix == "safetensors":
        save_file({"mean": mean, "std": torch.ones(D)}, path)
    given = {"list": mean.tolist(), "tensor": mean}.get(suffix, str(path))
    model = ForeignCheckpoint(**drawn, config={"activation": "relu"}).to_model({"input_mean": given})
    assert torch.equal(model.input_mean, mean) and model.input_scale == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0.0] * (D + 1), r"input_mean .*\(6,\).* 5 "),
        ([0.0] * (D - 1) + [float("nan")], "input_mean .*finite"),
        (["a"] * D, "input_mean .*str"),
        ("mean.txt", r"mean\.txt.*\.npy or \.safetensors"),
        ("objects.npy", r"objects\.npy"),
        ("two.safetensors", r"two\.safetensors.*a, b"),
        ("cut.safetensors", r"cut\.safetensors"),
    ],
)
def test_a_mean_that_cannot_be_read_is_refused(drawn, given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("objects.npy", np.array([Malicious(tmp_path / "made")] * D), allow_pickle=True)
    save_file({"a": torch.zeros(D), "b": torch.zeros(D)}, "two.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "two.safetensors").read_bytes()[:30])
    with pytest.raises(ValueError, match=message):
        ForeignCheckpoint(**drawn, config={"activation": "relu"}).to_model({"input_mean": given})
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("error", [TypeError, RecursionError])
def test_what_no_reader_thought_of_names_the_file(monkeypatch, error):
    """A reader that stumbles over what is in a file: here over the settings."""

    def stumble(*_):
        raise error("over this\nand that")

    monkeypatch.setattr("hf_msae.hub.converters.saelens._settings", stumble)
    with pytest.raises(ValueError, match=rf"topk .*saelens: {error.__name__}: .*over"):
        convert_checkpoint(SAELENS / "topk")


def test_a_source_that_cannot_be_converted_is_refused(drawn, tmp_path):
    with pytest.raises(ValueError, match=r"sae_lens.*msae_authors, saelens"):
        convert_checkpoint(SAELENS / "topk", format="sae_lens")
    ForeignCheckpoint(**drawn, config={"activation": "relu"}).to_model().save_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError, match=r"ours.*MSAEModel\.from_pretrained"):
        convert_checkpoint(tmp_path / "ours")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"saelens.*notes\.txt"):
        convert_checkpoint(tmp_path / "other")


@pytest.mark.parametrize("name", ["dictionary_learning/relu", "saelens/standard", "saev/relu"])
def test_a_truncated_file_is_damaged(name, changed):
    folder = changed(name)
    (weights,) = (file for file in folder.iterdir() if file.suffix in (".pt", ".safetensors"))
    weights.write_bytes(weights.read_bytes()[:-500])
    with pytest.raises(ValueError, match=f"{weights.name} is damaged"):
        convert_checkpoint(folder, format=name.partition("/")[0], hook_point="image_embeds", k=4)


@pytest.mark.parametrize(
    ("name", "settings", "tensors"),
    [
        ("dictionary_learning/top_k", {"k": None}, {"k": None}),
        ("prisma/relu", {"activation_fn_str": "topk"}, {}),
        ("saelens/topk", {"k": None}, {}),
        ("sparsify/many/layers.9", {"k": None}, {}),
    ],
)
def test_a_k_that_is_not_stored_can_be_given(name, settings, tensors, changed):
    assert convert_checkpoint(changed(name, settings, tensors), k=3).config.k == 3


@pytest.mark.parametrize(("name", "config"), [("prisma/relu", "config.json"), ("saelens/standard", "cfg.json")])
def test_weights_without_their_config_are_refused(name, config, changed):
    folder = changed(name)
    (folder / config).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(config)):
        convert_checkpoint(folder, format=name.partition("/")[0])


@pytest.mark.parametrize(
    "name", ["model.pth", "20_6_ReLU_False_False_0.0_x_image.pth", "ae.pt", "sae.pt", "weights.pt"]
)
def test_whatever_it_is_called_hidden_code_is_not_run(tmp_path, name):
    folder, made = tmp_path / "checkpoint", tmp_path / "made"
    folder.mkdir()
    torch.save({"model": Malicious(made), "encoder.weight": torch.zeros(2, 2)}, folder / name)
    (folder / "config.json").write_text("{}")
    for source in (folder, folder / name):
        with pytest.raises(ValueError, match=r"io\.open|known format|config\.json"):
            convert_checkpoint(source)
        for each in FORMATS:
            with pytest.raises((ValueError, FileNotFoundError)):
                convert_checkpoint(source, format=each)
    assert not made.exists()
