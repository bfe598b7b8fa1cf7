"""The file that describes the models of a sweep."""

import pytest

from hf_msae import MSAETrainingArguments
from hf_msae._utils.argument_parser import MSAEArgumentParser
from hf_msae.training.flags import ModelArguments
from hf_msae.training.sweep import parse_variant, read_sweep


def parsed(name, settings, *argv):
    """The model's and the training's arguments of a variant."""
    parser = MSAEArgumentParser((ModelArguments, MSAETrainingArguments), "", "")
    return parse_variant(parser, ["--output_dir", "out", *argv], name, settings)


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
    model_args, training_args = parsed("slow", variants["slow"], "--num_latents", "32")
    assert (model_args.num_latents, model_args.nesting_weights) == (32, ["reverse"])
    assert (training_args.learning_rate, training_args.output_dir) == (1e-5, "out/slow")


def test_a_grid(tmp_path):
    file = write(tmp_path, "num_latents: [32, 64]\nnesting_weights: [uniform, [3, 2, 1]]\n")
    variants = read_sweep(file)
    assert len(variants) == 4
    settings = variants["nesting_weights=3-2-1,num_latents=64"]
    model_args, _ = parsed("x", settings)
    assert (model_args.num_latents, model_args.nesting_weights) == (64, ["3", "2", "1"])


def test_null_outranks_the_command_line_and_the_config_of_one_variant_alone(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("resample_steps: 50\nsave_total_limit: 3\n")
    parser = MSAEArgumentParser((ModelArguments, MSAETrainingArguments), "", "")
    argv = ["--output_dir", "out", "--soft_cap", "5", "--config", str(config)]
    names = ("resample_steps", "save_total_limit")
    for settings, cap, of_training in (
        ({"soft_cap": None, "resample_steps": None, "k": None}, None, [None, 3]),
        ({"resample_steps": 7}, 5.0, [7, 3]),
        ({}, 5.0, [50, 3]),
    ):
        model_args, training_args = parse_variant(parser, argv, "x", settings)
        assert model_args.soft_cap == cap
        assert [getattr(training_args, name) for name in names] == of_training


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
        ("nesting_ks: [4, 8]", "is a list itself"),
        ("../a: {num_latents: 3}", "folder name"),
        ("..: {num_latents: 3}", "folder name"),
        ("a: {b", "not valid YAML"),
    ],
)
def test_files_that_describe_no_sweep_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_sweep(write(tmp_path, text))


def test_a_missing_file_is_named_with_its_flag(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.yaml"):
        read_sweep(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": -1},
        {"learning_rate": "abc"},
        {"num_latents": "abc"},
        {"num_latents": 64.5},
        {"num_latents": None},
        {"auxiliary_k": None},
        {"warmup_steps": 2.5},
        {"nesting_ks": [[4, 8]]},
    ],
)
def test_a_bad_value_names_the_variant(settings, capsys):
    with pytest.raises(SystemExit):
        parsed("bad", settings)
    message = capsys.readouterr().err
    assert message.count("the sweep's bad") == 1 and next(iter(settings)) in message
