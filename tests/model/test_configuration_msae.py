"""MSAEConfig: defaults, refused values, and files."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModel

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.model.activations import FAMILIES
from hf_msae.model.config_fields import MSAEConfigFields

FIELDS = {
    "d_in": 768,
    "num_latents": 6144,
    "activation": "relu",
    "nesting": "topk",
    "nesting_ks": None,
    "nesting_widths": None,
    "random_prefixes": 0,
    "nesting_weights": "uniform",
    "k": None,
    "sparsity_coefficient": 0.0,
    "sparsity_penalty": None,
    "jump_relu_threshold": 0.1,
    "jump_relu_bandwidth": 0.1,
    "reconstruction_loss": "mse",
    "tied": False,
    "soft_cap": None,
    "base_model_name_or_path": None,
    "base_model_revision": None,
    "base_model_weights_sha256": None,
    "base_model_processor_sha256": None,
    "hook_point": "image_embeds",
    "schema_version": 1,
}


def test_fields_and_defaults():
    assert MSAEConfig.own_fields() == list(FIELDS)
    assert {field.name: field.default for field in dataclasses.fields(MSAEConfig) if field.name in FIELDS} == FIELDS
    config = MSAEConfig()
    resolved = {**FIELDS, "nesting_ks": [64, 128, 256, 512, 1024, 2048, 4096, 6144], "sparsity_penalty": "l1"}
    assert {name: getattr(config, name) for name in FIELDS} == resolved


def test_the_flag_offers_every_family():
    assert list(get_args(MSAEConfigFields.__annotations__["activation"])) == list(FAMILIES)


def test_every_field_has_help():
    help_texts = MSAEConfig.field_help()
    assert list(help_texts) == list(FIELDS)
    assert all(len(text) > 15 and "\n" not in text for text in help_texts.values())
    assert help_texts["d_in"] == "Width of the embeddings."


@pytest.mark.parametrize(
    ("num_latents", "expected"),
    [(1, [1]), (63, [63]), (64, [64]), (65, [64, 65]), (128, [64, 128]), (1000, [64, 128, 256, 512, 1000])],
)
def test_default_levels(num_latents, expected):
    assert MSAEConfig(num_latents=num_latents).nesting_ks == expected


def test_given_levels_are_used_as_given():
    config = MSAEConfig(num_latents=100, nesting_ks=[3, 7, 50])
    assert config.nesting_ks == [3, 7, 50]
    assert config.num_levels == 3
    assert config.level_weights == [1.0, 1.0, 1.0]


def test_level_weights():
    assert MSAEConfig(num_latents=256, nesting_weights="reverse").level_weights == [3.0, 2.0, 1.0]
    config = MSAEConfig(num_latents=256, nesting_weights=(1, 0.5, 2))
    assert config.nesting_weights == config.level_weights == [1.0, 0.5, 2.0]
    assert all(type(weight) is float for weight in config.level_weights)


def test_other_families():
    assert MSAEConfig(num_latents=256, nesting="none").nesting_ks == [256]
    assert MSAEConfig(num_latents=256, nesting="none", nesting_ks=[256]).nesting_ks == [256]
    topk = MSAEConfig(num_latents=256, activation="topk", k=100)
    assert topk.nesting_ks == [64, 100]
    assert MSAEConfig(num_latents=256, activation="topk", nesting="none", k=100).nesting_ks == [256]
    prefix = MSAEConfig(num_latents=256, nesting="prefix", nesting_weights="reverse")
    assert (prefix.nesting_widths, prefix.nesting_ks) == ([16, 32, 64, 128, 256], [256])
    assert prefix.level_weights == [5.0, 4.0, 3.0, 2.0, 1.0]
    assert MSAEConfig(num_latents=3, nesting="prefix").nesting_widths == [1, 3]
    assert MSAEConfig(activation="jump_relu").sparsity_penalty == "l0"
    for config in (topk, prefix):
        assert MSAEConfig.from_dict(config.to_dict()) == config


def test_tuples_become_lists_and_ints_floats():
    config = MSAEConfig(num_latents=32, nesting_ks=(4, 32), sparsity_coefficient=1, soft_cap=30)
    assert (config.nesting_ks, config.sparsity_coefficient, config.soft_cap) == ([4, 32], 1.0, 30.0)
    assert type(config.sparsity_coefficient) is type(config.soft_cap) is float
    config.nesting_ks = (8, 16)
    assert config.nesting_ks == [8, 16]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"num_latents": np.int64(32), "d_in": np.int32(8), "k": torch.tensor(3)},
            {"num_latents": 32, "d_in": 8, "k": 3},
        ),
        ({"nesting_ks": np.array([4, 32])}, {"nesting_ks": [4, 32]}),
        ({"nesting_ks": [np.int64(4), 32]}, {"nesting_ks": [4, 32]}),
        ({"nesting_ks": range(8, 33, 8)}, {"nesting_ks": [8, 16, 24, 32]}),
        ({"nesting_ks": [4, 32], "nesting_weights": np.array([1, 2])}, {"nesting_weights": [1.0, 2.0]}),
        (
            {"soft_cap": np.float32(3), "sparsity_coefficient": np.int64(1)},
            {"soft_cap": 3.0, "sparsity_coefficient": 1.0},
        ),
        ({"tied": np.True_, "base_model_name_or_path": Path("a/b")}, {"tied": True, "base_model_name_or_path": "a/b"}),
    ],
    ids=str,
)
def test_numbers_of_numpy_and_torch_and_paths_do(settings, expected, tmp_path):
    config = MSAEConfig(**{"num_latents": 32, **settings})
    assert {name: getattr(config, name) for name in expected} == expected
    config.save_pretrained(tmp_path)
    assert MSAEConfig.from_pretrained(tmp_path) == config
    with pytest.raises(StrictDataclassError, match=r"'num_latents' expected int, got float \(value: 32.5\)"):
        MSAEConfig(num_latents=np.float64(32.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_in": 0}, "d_in.* 0"),
        ({"num_latents": -5}, "num_latents.* -5"),
        ({"nesting_ks": [8, 8]}, r"nesting_ks.*\[8, 8\]"),
        ({"nesting_ks": [16, 8]}, r"nesting_ks.*\[16, 8\]"),
        ({"nesting_ks": [8, 101]}, r"nesting_ks.*100.*\[8, 101\]"),
        ({"nesting_ks": [0, 8]}, r"nesting_ks.*100.*\[0, 8\]"),
        ({"nesting_ks": []}, r"nesting_ks=\[\]"),
        ({"nesting": "none", "nesting_ks": [64, 100]}, r'nesting="none".*\[64, 100\].*nesting="topk"'),
        ({"k": 0}, "k .*num_latents=100.* 0"),
        ({"k": 101}, "k .*num_latents=100.* 101"),
        ({"nesting_weights": "linear"}, 'nesting_weights.*"uniform".*linear'),
        ({"nesting_weights": [1.0]}, "1 weights for 2 levels"),
        ({"nesting_weights": [1.0, 0.0]}, "nesting_weights.*positive"),
        ({"nesting_weights": [1.0, float("nan")]}, "nesting_weights.*positive"),
        ({"sparsity_coefficient": -0.1}, "sparsity_coefficient.* -0.1"),
        ({"sparsity_coefficient": float("inf")}, "sparsity_coefficient.* inf"),
        ({"soft_cap": 0.0}, "soft_cap.* 0.0"),
        ({"hook_point": "image_embed"}, "hook_point.*image_embeds.*'image_embed'"),
        ({"hook_point": "vision.layers."}, "hook_point.*'vision.layers.'"),
        ({"schema_version": 0}, "schema_version.* 0"),
        ({"schema_version": 2}, "schema_version=2.*upgrade"),
        ({"activation": "topk"}, '"topk" needs k'),
        ({"activation": "batch_topk", "nesting": "none"}, '"batch_topk" needs k'),
        ({"activation": "batch_topk", "k": 3}, 'nesting="topk".*use nesting="none"'),
        ({"activation": "topk", "k": 3, "nesting_ks": [1, 2]}, r"nesting_ks.*k=3.*\[1, 2\]"),
        ({"sparsity_penalty": "l0"}, 'sparsity_penalty="l0".*"relu".*"l1" or "tanh"'),
        ({"activation": "jump_relu", "jump_relu_threshold": 0}, "jump_relu_threshold.* 0"),
        ({"activation": "jump_relu", "jump_relu_bandwidth": -1.0}, "jump_relu_bandwidth.* -1.0"),
        ({"nesting_widths": [100]}, 'nesting_widths.*nesting="prefix"'),
        ({"random_prefixes": 3}, 'random_prefixes.*nesting="prefix"'),
        ({"nesting": "prefix", "random_prefixes": -1}, "random_prefixes.* -1"),
        (
            {"nesting": "prefix", "random_prefixes": 3, "nesting_weights": "reverse"},
            "random_prefixes.*uniform.*reverse",
        ),
        ({"nesting": "prefix", "nesting_ks": [3, 100]}, r"nesting_widths.*nesting_ks=\[3, 100\]"),
        ({"nesting": "prefix", "nesting_widths": [3, 7]}, r"nesting_widths.*100.*\[3, 7\]"),
        ({"nesting": "prefix", "nesting_widths": [0, 100]}, r"nesting_widths.*\[0, 100\]"),
        ({"nesting": "prefix", "nesting_widths": [9, 9, 100]}, r"nesting_widths.*\[9, 9, 100\]"),
        ({"nesting": "prefix", "nesting_widths": [9, 100], "nesting_weights": [1.0]}, "1 weights for 2 levels"),
    ],
)
def test_invalid_values_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MSAEConfig(**{"num_latents": 100, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"d_in": "768"},
        {"d_in": True},
        {"num_latents": 256.0},
        {"nesting_ks": [8.0, 16.0]},
        {"nesting_ks": 64},
        {"nesting_weights": 1},
        {"soft_cap": "30"},
        {"tied": 1},
        {"activation": "gelu"},
        {"reconstruction_loss": "huber"},
        {"hook_point": None},
    ],
)
def test_wrong_types_are_refused(settings):
    with pytest.raises(StrictDataclassError, match=next(iter(settings))):
        MSAEConfig(**settings)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("num_latent", "num_latents"), ("nested_ks", "nesting_ks"), ("d_input", "d_in"), ("hookpoint", "hook_point")],
)
def test_a_typo_is_refused_with_the_nearest_name(name, nearest):
    with pytest.raises(ValueError, match=f"'{name}'.*'{nearest}'"):
        MSAEConfig(**{name: 3})


def test_an_unknown_name_is_refused_wherever_it_is_given(tmp_path):
    config = MSAEConfig(d_in=4, num_latents=8)
    MSAEModel(config).save_pretrained(tmp_path)
    loaders = [each.from_pretrained for each in (MSAEConfig, AutoConfig, MSAEModel, AutoModel)]
    for attempt in (*(partial(load, tmp_path) for load in loaders), partial(MSAEModel, config), MSAEConfig):
        with pytest.raises(ValueError, match=r"'top_k'.*d_in, num_latents, activation"):
            attempt(top_k=8)


def test_names_of_transformers_are_accepted():
    config = MSAEConfig(
        num_latents=64,
        architectures=["MSAEModel"],
        dtype="bfloat16",
        transformers_version="5.0.0",
        _name_or_path="somewhere",
        output_hidden_states=True,
        return_dict=False,
        id2label={0: "a", 1: "b"},
        attn_implementation="eager",
        auto_map={"AutoModel": "modeling_msae.MSAEModel"},
        torch_dtype="float32",
        model_type="msae",
    )
    assert config.return_dict is False
    assert config.auto_map == {"AutoModel": "modeling_msae.MSAEModel"}
    assert MSAEConfig(**config.to_dict()) == config


def test_hidden_size_is_d_in():
    assert MSAEConfig(d_in=32).hidden_size == 32
    assert MSAEConfig(hidden_size=32).d_in == 32
