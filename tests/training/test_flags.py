"""Flags from dataclasses and MSAEConfig, and YAML files that pass through the same conversion."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from hf_msae import MSAEConfig, MSAETrainingArguments
from hf_msae._utils.argument_parser import MSAEArgumentParser
from hf_msae.training.flags import DataArguments, ModelArguments, build_config

RECIPES = sorted((Path(__file__).parents[2] / "training" / "configs").glob("[!a]*.yaml"))  # not accelerate's
REQUIRED = ["--train_data", "train", "--output_dir", "out"]


@pytest.fixture
def parser():
    kinds = (DataArguments, ModelArguments, MSAETrainingArguments)
    return MSAEArgumentParser(kinds, description="What it does.", example="  train_msae.py --train_data t")


@pytest.fixture
def parse(parser, tmp_path):
    """Parse a command line and, optionally, the text of a YAML file."""

    def parse(*argv, yaml=None):
        if yaml is not None:
            file = tmp_path / "run.yaml"
            file.write_text(yaml)
            argv = ("--config", str(file), *argv)
        return parser.parse([*REQUIRED, *argv])

    return parse


@pytest.fixture
def refuse(parse, capsys):
    """The one-line message with which a command line is refused."""

    def refuse(*argv, yaml=None):
        with pytest.raises(SystemExit) as exit:
            parse(*argv, yaml=yaml)
        assert exit.value.code == 2
        return capsys.readouterr().err

    return refuse


def test_every_field_of_both_classes_is_a_flag_with_help(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")  # no line breaks within help texts
    flags = {action.dest: action for action in parser._actions}
    expected = {field.name for field in fields(MSAETrainingArguments)} | set(MSAEConfig.own_fields()) - {"d_in"}
    assert expected <= flags.keys()
    assert "d_in" not in flags
    help_text = " ".join(parser.format_help().split())
    for name in expected:
        assert f"--{name} " in help_text
        assert flags[name].help and " ".join((flags[name].help % {}).split()) in help_text


def test_defaults_are_those_of_the_classes(parse):
    data, model, training = parse()
    assert data == DataArguments(train_data="train")
    assert training == MSAETrainingArguments(output_dir="out", disable_tqdm=True)  # the output is no terminal
    assert build_config(model, d_in=768) == MSAEConfig()


def test_every_flag_reaches_its_field(parse):
    values = {
        "num_latents": 256,
        "activation": "jump_relu",
        "nesting": "prefix",
        "nesting_ks": [256],
        "nesting_widths": [8, 256],
        "random_prefixes": 0,
        "nesting_weights": [2.0, 1.0],
        "k": 32,
        "sparsity_coefficient": 0.003,
        "sparsity_penalty": "tanh",
        "jump_relu_threshold": 0.2,
        "jump_relu_bandwidth": 0.3,
        "reconstruction_loss": "nmse",
        "tied": True,
        "soft_cap": 4.0,
        "base_model_name_or_path": "some/backbone",
        "base_model_revision": "abc",
        "base_model_weights_sha256": "1" * 64,
        "base_model_processor_sha256": "2" * 64,
        "hook_point": "vision.layers.3",
        "schema_version": 1,
    }
    assert {*values, "d_in"} == set(MSAEConfig.own_fields())
    argv = []
    for name, value in values.items():
        argv += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    _, model, _ = parse(*argv)
    assert build_config(model, d_in=32) == MSAEConfig(d_in=32, **values)


@pytest.mark.parametrize("words", [("uniform",), ("reverse",)])
def test_nesting_weights_take_a_word(parse, words):
    _, model, _ = parse("--nesting_weights", *words)
    assert build_config(model, d_in=8).nesting_weights == words[0]


def test_nesting_weights_of_words_and_numbers_are_refused(parse):
    _, model, _ = parse("--nesting_weights", "1", "many")
    with pytest.raises(ValueError, match="nesting_weights is 1 many"):
        build_config(model, d_in=8)


def test_booleans_are_flags(parse):
    assert parse("--use_cpu")[2].use_cpu is True
    assert parse("--use_cpu", "false")[2].use_cpu is False
    assert parse("--tied", "--num_latents", "64")[1].tied is True


def test_the_command_line_beats_yaml_and_yaml_beats_defaults(parse):
    yaml = "learning_rate: 0.5\nnum_latents: 64\nnesting_ks: [4, 64]\ntrain_data: from_yaml\n"
    data, model, training = parse("--learning_rate", "0.25", "--nesting_ks", "2", "8", "64", yaml=yaml)
    assert training.learning_rate == 0.25
    assert model.nesting_ks == [2, 8, 64]
    assert data.train_data == "train"
    assert model.num_latents == 64
    assert training.seed == MSAETrainingArguments("out").seed


def test_yaml_alone_can_name_everything_required(parser, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("train_data: t\noutput_dir: o\n")
    for argv in (["--config", str(file)], [f"--config={file}"]):
        data, _, training = parser.parse(argv)
        assert (data.train_data, training.output_dir) == ("t", "o")


def test_yaml_values_become_the_types_of_their_fields(parse):
    yaml = """
        learning_rate: 1e-4          # a string to PyYAML
        adam_epsilon: 6.25e-10
        num_train_epochs: 3          # an int where a float is meant
        sparsity_coefficient: 1
        max_steps: -1
        use_cpu: true
        tied: no
        eval_strategy: no            # false to PyYAML
        mixed_precision: no
        save_total_limit: null
        soft_cap: ~
        eval_data:
        nesting_weights: reverse
        resume_from_checkpoint: true
    """
    data, model, training = parse(yaml=yaml)
    for name, expected in {"learning_rate": 1e-4, "adam_epsilon": 6.25e-10, "num_train_epochs": 3.0}.items():
        value = getattr(training, name)
        assert isinstance(value, float) and value == expected
    assert isinstance(model.sparsity_coefficient, float) and model.sparsity_coefficient == 1
    assert (training.max_steps, training.use_cpu, model.tied) == (-1, True, False)
    assert (training.eval_strategy, training.mixed_precision) == ("no", "no")
    assert training.save_total_limit is None and model.soft_cap is None and data.eval_data is None
    assert model.nesting_weights == ["reverse"]
    assert training.resume_from_checkpoint == "True"


def test_yaml_lists(parse):
    _, model, _ = parse(yaml="nesting_ks: [8, 64]\nnesting_weights: [2, 1e-1]\nnum_latents: 64")
    config = build_config(model, d_in=8)
    assert config.nesting_ks == [8, 64]
    assert config.nesting_weights == [2.0, 0.1]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("num_latent: 64", "'num_latent'.* num_latents"),
        ("d_in: 64", "'d_in'"),
        ("learning_rate: fast", "--learning_rate.*'fast'"),
        ("num_latents: 64.5", "--num_latents.*'64.5'"),
        ("nesting: sideways", "--nesting.*'sideways'"),
        ("num_latents: [1, 2]", r"num_latents.*\[1, 2\]"),
        ("nesting_ks: []", r"nesting_ks.*\[\]"),
        ("nesting_ks: [{a: 1}]", "nesting_ks.*{'a': 1}"),
        ("seed: null", "seed.*null"),
        ("learning_rate: -1", "learning_rate.* -1.0"),
        ("- just\n- a list", r"run\.yaml.*list"),
        ("a: [unclosed", r"run\.yaml.*YAML"),
    ],
)
def test_mistakes_in_yaml_are_named(refuse, yaml, message):
    assert re.search(message, refuse(yaml=yaml))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--num_latent", "64"], "--num_latent.* --num_latents"),
        (["--learning-rat=1"], "--learning-rat.* --learning_rate"),
        (["--mixed_precision", "fp8"], "'fp8'"),
        (["--config", "nowhere.yaml"], r"nowhere\.yaml"),
    ],
)
def test_mistakes_on_the_command_line_are_named(refuse, argv, message):
    assert re.search(message, refuse(*argv))


def test_required_flags_are_asked_for(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse([])
    message = capsys.readouterr().err
    assert "--train_data" in message and "--train-data" not in message, "in one spelling"


def test_help_teaches(parser):
    text = parser.format_help()
    assert text.startswith("usage:") and "What it does." in text
    assert text.rstrip().endswith("train_msae.py --train_data t")


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_shipped_recipes_parse(parser, file):
    _, model, training = parser.parse([*REQUIRED, "--config", str(file)])
    config = build_config(model, d_in=model.num_latents // 8)
    # The scenes' embeddings, which the quickstart writes, name their backbone themselves.
    assert (config.base_model_name_or_path is None) == (file.stem == "scenes_quickstart")
    assert training.adam_epsilon == 6.25e-10 and training.max_grad_norm == 1.0


def test_all_recipes_are_there():
    assert {file.stem for file in RECIPES} >= {"scenes_quickstart", "siglip_base", "clip_vit_b16", "clip_vit_l14"}
