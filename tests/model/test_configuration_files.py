"""MSAEConfig in files: round trips, other versions, and what is refused."""

import copy
import json
import logging
import re

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from hf_msae import MSAEConfig, MSAEModel
from tests.fuzzing import check_every_field

CONFIGS = {
    "defaults": {},
    "all set": {
        "d_in": 16,
        "num_latents": 100,
        "nesting_ks": (3, 50, 100),
        "nesting_weights": (1, 2, 0.5),
        "k": 50,
        "sparsity_coefficient": 0.25,
        "reconstruction_loss": "nmse",
        "tied": True,
        "soft_cap": 12.5,
        "base_model_name_or_path": "google/siglip-base-patch16-224",
        "base_model_revision": "abc123",
        "hook_point": "vision.layers.3",
    },
    "plain": {"num_latents": 96, "nesting": "none", "sparsity_coefficient": 0.1},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip(tmp_path, name):
    config = MSAEConfig(**CONFIGS[name])
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["model_type"] == "msae"
    assert stored["schema_version"] == 1
    assert set(config.own_fields()) <= set(stored), "config.json says everything, defaults included"
    assert stored["nesting_ks"] == config.nesting_ks, "config.json stores the resolved list"

    for loaded in (
        MSAEConfig.from_pretrained(tmp_path),
        AutoConfig.from_pretrained(tmp_path),
        MSAEConfig.from_dict(config.to_dict()),
        MSAEConfig.from_json_file(tmp_path / "config.json"),
        copy.deepcopy(config),
    ):
        assert type(loaded) is MSAEConfig
        assert loaded == config
        for field in config.own_fields():
            assert getattr(loaded, field) == getattr(config, field)
            assert type(getattr(loaded, field)) is type(getattr(config, field))


def test_equality_is_about_the_autoencoder():
    assert MSAEConfig() != MSAEConfig(tied=True)
    assert MSAEConfig() != MSAEConfig(base_model_revision="x")
    assert MSAEConfig() == MSAEConfig(dtype="bfloat16", architectures=["MSAEModel"])
    assert MSAEConfig() != "a config"


def write_config(folder, **changes):
    MSAEConfig(d_in=4, num_latents=128).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_overrides_are_checked_together_with_the_file(tmp_path):
    write_config(tmp_path)
    assert MSAEConfig.from_pretrained(tmp_path, k=5).k == 5
    assert MSAEConfig.from_pretrained(tmp_path, nesting_ks=None, num_latents=300).nesting_ks == [64, 128, 256, 300]
    with pytest.raises(ValueError, match=r"nesting_ks.*num_latents=100"):
        MSAEConfig.from_pretrained(tmp_path, num_latents=100)
    config, unused = MSAEConfig.from_pretrained(tmp_path, k=5, mystery=1, return_unused_kwargs=True)
    assert config.k == 5
    assert unused == {"mystery": 1}


def test_a_newer_schema_is_refused(tmp_path):
    write_config(tmp_path, schema_version=2, a_field_of_tomorrow={"x": 1})
    for load in (MSAEConfig.from_pretrained, AutoConfig.from_pretrained):
        with pytest.raises(ValueError, match=f"{tmp_path}.*schema_version=2.*upgrade"):
            load(tmp_path)


def test_a_key_of_a_later_version_is_named_and_kept(tmp_path, caplog):
    write_config(tmp_path, a_field_of_tomorrow=[1, 2])
    for load in (MSAEConfig.from_pretrained, AutoConfig.from_pretrained):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            config = load(tmp_path)
        [record] = caplog.records
        assert "a_field_of_tomorrow" in record.getMessage()
        assert str(tmp_path) in record.getMessage()
        config.save_pretrained(tmp_path / "again")
        assert json.loads((tmp_path / "again" / "config.json").read_text())["a_field_of_tomorrow"] == [1, 2]


def test_another_model_is_refused(tmp_path):
    write_config(tmp_path, model_type="siglip")
    with pytest.raises(ValueError, match=r"config\.json: model_type is 'siglip'"):
        MSAEConfig.from_pretrained(tmp_path)


def test_a_config_that_has_become_invalid_is_neither_saved_nor_used(tmp_path):
    config = MSAEConfig(num_latents=128)
    config.num_latents = 100
    for use in (lambda: config.save_pretrained(tmp_path), lambda: MSAEModel(config)):
        with pytest.raises(StrictDataclassError, match=r"nesting_ks.*num_latents=100"):
            use()
    assert not (tmp_path / "config.json").exists()


def test_a_field_of_another_type_is_named_with_its_file_and_value(tmp_path):
    settings = {"d_in": 8, "num_latents": 16, "nesting_ks": [4, 16], "k": 4, "soft_cap": 1.5}
    config = MSAEConfig(**settings, base_model_name_or_path="some/clip")
    content = {name: getattr(config, name) for name in (*config.own_fields(), "model_type")}
    (tmp_path / "config.json").write_text(json.dumps(content))
    check_every_field(tmp_path / "config.json", lambda: MSAEConfig.from_pretrained(tmp_path), names_field=True)
    (tmp_path / "config.json").write_text(json.dumps({**content, "num_latents": "many"}))
    with pytest.raises(ValueError, match=r"config\.json: Field 'num_latents' expected int.*'many'"):
        MSAEConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", ["flaot32", "int8", 5, ["float32"]])
def test_a_dtype_that_weights_cannot_have_is_named(tmp_path, name, dtype):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "msae", name: dtype}))
    with pytest.raises(ValueError, match=rf"config\.json: dtype is {re.escape(repr(dtype))}.*float32"):
        MSAEConfig.from_pretrained(tmp_path)


def test_sizes_that_no_memory_holds_are_refused_before_anything_is_allocated():
    with pytest.raises(ValueError, match=r"d_in=1000000000000 and num_latents=16 needs 128,000 GB"):
        MSAEModel(MSAEConfig(d_in=10**12, num_latents=16))
