"""The commands train and evaluate, and their scripts, in one process and in two."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import debug_launcher
from datasets import Dataset
from safetensors.torch import load_file

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.cli import evaluate, train
from hf_msae.embeddings import EmbeddingWriter, load_embeddings
from hf_msae.metrics import EvaluationResult, evaluate_msae
from hf_msae.scenes.backbone import BACKBONE_DIR
from hf_msae.training.flags import DataArguments
from tests import forking
from tests.training import two_processes

ROOT = Path(__file__).parents[2]
WIDTH, LATENTS = 16, 64
QUIET = ["--cknna_batch_size", "64", "--use_cpu", "--disable_tqdm"]
SMALL = [
    *("--num_latents", str(LATENTS), "--nesting_ks", "2", "8", str(LATENTS), "--max_steps", "30"),
    *("--learning_rate", "5e-3", "--logging_steps", "10", *QUIET),
]


def run(main, *argv):
    main([*map(str, argv), *QUIET])


def read_log(folder):
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


def steps_of(folder):
    """The records of training steps; the last of the log is that of the end."""
    return [record for record in read_log(folder) if "loss" in record]


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    """Two .npy files with sparse combinations of directions: 320 rows to train on, 160 held out."""
    folder, rng = tmp_path_factory.mktemp("embeddings"), np.random.default_rng(0)
    directions, mean = rng.normal(size=(24, WIDTH)), rng.normal(size=WIDTH)
    for name, rows in (("train", 320), ("test", 160)):
        codes = rng.uniform(size=(rows, 24)) * (rng.uniform(size=(rows, 24)) < 0.1)
        np.save(folder / f"{name}.npy", (codes @ directions / 4 + mean).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def data_flags(embeddings):
    return ["--train_data", str(embeddings / "train.npy"), "--eval_data", str(embeddings / "test.npy")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_flags):
    """The folder of a run; Adam's epsilon is large so that two processes can reproduce it."""
    folder = tmp_path_factory.mktemp("run") / "out"
    flags = ["--output_dir", folder, "--per_device_train_batch_size", "32", *SMALL, "--adam_epsilon", "1e-3"]
    run(train.main, *data_flags, *flags)
    return folder


@pytest.fixture
def refused(capsys):
    """The message with which a command refuses its arguments."""

    def refused(main, *argv):
        with pytest.raises(SystemExit) as exit:
            run(main, *argv)
        assert exit.value.code in (1, 2)
        message = capsys.readouterr().err
        assert "Traceback" not in message
        return message

    return refused


# -- train ------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_model_metrics_card_and_log(finished, embeddings):
    files = {path.name for path in finished.iterdir()}
    assert files >= {"config.json", "model.safetensors", "metrics.json", "README.md", "training_log.jsonl"}
    assert not [name for name in files if name.startswith(".")]
    model = MSAEModel.from_pretrained(finished)
    assert (model.config.d_in, model.config.nesting_ks) == (WIDTH, [2, 8, LATENTS])
    held_out = load_embeddings(embeddings / "test.npy")
    expected = evaluate_msae(model, held_out, cknna_batch_size=64, progress=False).to_dict()
    written = json.loads((finished / "metrics.json").read_text())
    assert written.keys() == expected.keys()
    assert written["fvu"] == pytest.approx(expected["fvu"], rel=1e-6)
    assert list(written["by_k"]) == ["2", "8", str(LATENTS)]
    assert written["data"]["held_out"] is True and written["data"]["source"] == "test.npy"
    assert "160" in (finished / "README.md").read_text()
    record = json.loads((finished / "training.json").read_text())
    assert record["model_sha256"] == written["model_sha256"] and record["base_model_is_local"] is None


@pytest.mark.parametrize(
    ("hook_point", "expected"),
    [
        ("image_embeds", "hf-msae name out --vocabulary WORDS.txt --data 'my data' --split test"),
        ("vision.layers.2", "hf-msae search out --data 'my data' --split test --row 0"),
    ],
)
def test_after_training_comes_a_command_for_the_held_out_embeddings(hook_point, expected):
    data = DataArguments("train", eval_data="my data", eval_split="test")
    assert train._next_command(Path("out"), hook_point, SimpleNamespace(data={"held_out": True}), data) == expected


def test_yaml_resume_and_training_data_as_evaluation_data(tmp_path, embeddings, capsys):
    folder, recipe = tmp_path / "out", tmp_path / "recipe.yaml"
    recipe.write_text(
        f"train_data: {embeddings / 'train.npy'}\noutput_dir: {folder}\nnum_latents: {LATENTS}\nnesting_ks: [2, 64]\n"
        "learning_rate: 5e-3\nper_device_train_batch_size: 32\nnum_train_epochs: 2\nsave_steps: 10\n"
    )
    config = ("--config", recipe)
    run(train.main, *config)
    shown = capsys.readouterr().out
    assert re.search("320 .*16.* 64 .* 20 .*32.*1 x cpu", shown) and "--eval_data" in shown
    assert str(EvaluationResult.load(folder)) in shown
    loading, then = shown[shown.index("from hf_msae import MSAEModel") :].split("\nNext: ")
    assert shlex.split(then)[:5] == ["hf-msae", "evaluate", str(folder), "--data", "HELD_OUT"]
    exec(loading, names := {"embeddings": torch.randn(5, WIDTH)})
    assert names["latents"].shape == (5, LATENTS)

    first = load_file(folder / "model.safetensors")
    assert json.loads((folder / "metrics.json").read_text())["num_samples"] == 320
    with pytest.raises(SystemExit):
        run(train.main, *config)
    assert "--overwrite_output_dir" in capsys.readouterr().err
    run(train.main, *config, "--resume_from_checkpoint", folder / "checkpoint-10")
    resumed = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in first.items())
    run(train.main, *config, "--overwrite_output_dir", "--seed", 1)
    assert not torch.equal(load_file(folder / "model.safetensors")["decoder"], first["decoder"])


def test_columns_are_found_by_hook_point_and_provenance_is_kept(tmp_path, embeddings):
    rows = np.load(embeddings / "train.npy")
    metadata = {"base_model_name_or_path": "some/siglip", "base_model_revision": "abc"}
    columns = {"image_embeds": WIDTH, "text_embeds": WIDTH}
    with EmbeddingWriter(tmp_path / "data", columns=columns, metadata=metadata) as writer:
        writer.write({"image_embeds": rows, "text_embeds": rows[::-1].copy() * 2})
    flags = ["--train_data", tmp_path / "data", "--output_dir", tmp_path / "out", "--hook_point", "text_embeds"]
    run(train.main, *flags, "--per_device_train_batch_size", "32", *SMALL, "--max_steps", 1)
    model = MSAEModel.from_pretrained(tmp_path / "out")
    assert (model.config.hook_point, model.config.base_model_name_or_path) == ("text_embeds", "some/siglip")
    assert torch.allclose(model.input_mean, torch.from_numpy(rows.mean(axis=0) * 2), atol=1e-4)


def test_mistakes_are_refused_before_training(refused, embeddings, data_flags, tmp_path, finished):
    out = ["--output_dir", tmp_path / "out", *SMALL]
    narrow, nan, zero = (tmp_path / f"{name}.npy" for name in ("narrow", "nan", "zero"))
    rows = np.load(embeddings / "test.npy")
    np.save(narrow, rows[:, :8])
    for file, value in ((nan, np.nan), (zero, 0)):
        rows[42] = value
        np.save(file, rows)
    for flags, message in (
        (["--train_data", tmp_path / "nowhere.npy"], "nowhere"),
        ([*data_flags, "--nesting_ks", 2, 900], "nesting_ks.*900"),
        ([*data_flags[:2], "--eval_strategy", "epoch"], "eval_strategy is epoch"),
        ([*data_flags[:2], "--eval_data", narrow], "8 columns"),
        ([*data_flags[:2], "--eval_data", nan], "row 42"),
        (["--train_data", zero], "row 42"),
    ):
        assert re.search(message, refused(train.main, *out, *flags))
    assert not (tmp_path / "out").exists()
    assert "--overwrite_output_dir" in refused(train.main, *data_flags, *SMALL, "--output_dir", finished)


# -- evaluate ---------------------------------------------------------------------------------------------------------


def test_an_output_folder_is_refused_before_anything_is_opened_or_said(finished, monkeypatch, capsys):
    monkeypatch.setattr(train, "_build_trainers", None)
    with pytest.raises(SystemExit):
        run(train.main, "--train_data", "no/such/data", "--output_dir", finished)
    shown = capsys.readouterr()
    assert not shown.out and len(shown.err.splitlines()) == 1 and str(finished) in shown.err


def test_evaluate_tries_its_output_before_it_opens_anything(refused, tmp_path):
    assert "/dev/null" in refused(evaluate.main, "no/such/model", "--data", "no/such/data", "--output", "/dev/null")
    (tmp_path / "file").write_text("")
    message = refused(evaluate.main, "no/such/model", "--data", "x", "--figure", tmp_path / "file" / "plot.png")
    assert str(tmp_path / "file") in message


def test_evaluate_measures_at_the_ks_it_is_given(finished, embeddings, tmp_path, capsys):
    output = tmp_path / "new" / "metrics.json"
    run(evaluate.main, finished, "--data", embeddings / "test.npy", "--output", output, "--ks", 1, 4, LATENTS)
    result = EvaluationResult.load(output)
    assert list(result.by_k) == ["1", "4", str(LATENTS)]
    assert result.fvu == pytest.approx(EvaluationResult.load(finished).fvu, rel=1e-9)
    assert result.data["source"] == "test.npy"
    assert str(result) in capsys.readouterr().out


def test_evaluate_measures_a_prefix_model_at_its_widths(embeddings, tmp_path, capsys):
    model = MSAEModel(MSAEConfig(d_in=WIDTH, num_latents=32, nesting="prefix", nesting_widths=[4, 16, 32]))
    model.save_pretrained(tmp_path / "model")
    command = [tmp_path / "model", "--data", embeddings / "test.npy", "--output", tmp_path / "m.json"]
    run(evaluate.main, *command)
    assert "other levels" not in capsys.readouterr().out
    assert list(EvaluationResult.load(tmp_path / "m.json").by_width) == ["4", "16", "32"]
    run(evaluate.main, *command, "--ks", 2, 31, 32, "--figure", tmp_path / "plot.png")
    out = capsys.readouterr().out
    assert "first 4, 16, 32 latents" in out and list(EvaluationResult.load(tmp_path / "m.json").by_k) == [
        "2",
        "31",
        "32",
    ]
    run(evaluate.main, *command, "--widths", 8)
    assert list(EvaluationResult.load(tmp_path / "m.json").by_width) == ["8", "32"]


def test_evaluate_knows_what_was_held_out(finished, embeddings, tmp_path, refused):
    other, output = tmp_path / "other.npy", tmp_path / "metrics.json"
    np.save(other, np.random.default_rng(5).normal(size=(80, WIDTH)).astype(np.float32))
    train_data = embeddings / "train.npy"
    for data, flags, held_out in (
        (embeddings / "test.npy", [], True),
        (train_data, [], False),
        (other, [], None),
        (other, ["--held_out", "true"], True),
    ):
        run(evaluate.main, finished, "--data", data, "--output", output, *flags)
        assert EvaluationResult.load(output).data["held_out"] is held_out
    assert "held_out" in refused(evaluate.main, finished, "--data", train_data, "--held_out", "true")


@pytest.fixture
def labelled(embeddings, tmp_path):
    """The embeddings as data sets with a column of labels: the half of space that an embedding lies in."""
    for name in ("train", "test"):
        x = np.load(embeddings / f"{name}.npy")
        side = np.where(x[:, 0] > np.median(x[:, 0]), "right", "left")
        Dataset.from_dict({"image_embeds": x.tolist(), "side": side.tolist()}).save_to_disk(tmp_path / name)
    return tmp_path


def test_evaluate_measures_progressive_recovery_with_probes_and_another_encoder(finished, labelled, tmp_path, capsys):
    figure, output = tmp_path / "new" / "f.pdf", tmp_path / "m.json"
    with EmbeddingWriter(
        tmp_path / "other", {"image_embeds": 5}, metadata={"base_model_name_or_path": "else"}
    ) as other:
        other.write({"image_embeds": np.random.default_rng(0).normal(size=(160, 5)).astype(np.float32)})
    flags = ["--data", labelled / "test", "--progressive", "--figure", figure, "--train_data", labelled / "train"]
    flags += ["--probe_columns", "side", "--output", output, "--encoder_data", tmp_path / "other"]
    run(evaluate.main, finished, *flags)
    result = EvaluationResult.load(output)
    assert list(result.by_k) == ["16", "32", "64"]
    probe = result.classifiers["probe side"]
    assert probe["accuracy"] > 0.9 and probe["agreement"] > 0.8 and probe["num_labelled"] == 160
    assert result.monosemanticity_encoder == "else"
    assert figure.read_bytes().startswith(b"%PDF")
    assert "probe side" in capsys.readouterr().out
    assert 0.6 < result.by_k["16"]["sparse_probing"]["side"]["auroc_1"] <= result.sparse_probing["side"]["auroc_5"]
    assert result.sparse_probing["side"]["num_train"] == 320 and result.seed_stability == {}


def test_evaluate_compares_with_other_seeds(finished, embeddings, tmp_path, capsys, refused):
    other = MSAEModel.from_pretrained(finished)
    with torch.no_grad():
        other.decoder += 0.1 * torch.randn(other.decoder.shape, generator=torch.Generator().manual_seed(0))
    other.save_pretrained(tmp_path / "other")
    flags = [finished, "--data", embeddings / "test.npy", "--output", tmp_path / "m.json", "--other_seeds"]
    run(evaluate.main, *flags, tmp_path / "other")
    found = EvaluationResult.load(tmp_path / "m.json").seed_stability
    assert found["by_chance"] < 0.6 < found["mean_cosine"] < 0.99
    assert "stability across seeds" in capsys.readouterr().out
    assert str(finished) in refused(evaluate.main, *flags, tmp_path / "other", finished)


def test_evaluate_classifies_zero_shot_with_the_models_backbone(tmp_path, refused):
    colors = ["red", "blue", "green"] * 8
    texts = Backbone.from_pretrained("scenes").text_embeds([f"a {color} shape" for color in colors]).detach()
    x = texts + 0.01 * torch.randn(texts.shape, generator=torch.Generator().manual_seed(0))
    Dataset.from_dict({"image_embeds": x.tolist(), "color": colors}).save_to_disk(tmp_path / "data")
    model = MSAEModel(MSAEConfig(d_in=x.shape[1], num_latents=64, base_model_name_or_path="scenes"))
    model.save_pretrained(tmp_path / "model")
    flags = ["--data", tmp_path / "data", "--zero_shot_columns", "color", "--zero_shot_template", "a {} shape"]
    evaluate.main([*map(str, [tmp_path / "model", *flags, "--output", tmp_path / "m.json"]), *QUIET[2:]])
    assert EvaluationResult.load(tmp_path / "m.json").classifiers["zero-shot color"]["accuracy"] == 1.0

    moved = shutil.copytree(BACKBONE_DIR, tmp_path / "moved")
    model.config.base_model_weights_sha256 = Backbone.from_pretrained(moved).provenance()["base_model_weights_sha256"]
    model.config.base_model_name_or_path = "../siglip"
    model.save_pretrained(tmp_path / "model")
    flags = [*map(str, [tmp_path / "model", *flags]), *QUIET[2:]]
    assert "--backbone" in refused(evaluate.main, *flags)
    evaluate.main([*flags, "--backbone", str(moved)])
    model.config.base_model_weights_sha256 = "1" * 64
    model.save_pretrained(tmp_path / "model")
    assert "--allow_other_backbone" in refused(evaluate.main, *flags, "--backbone", moved)
    evaluate.main([*flags, "--backbone", str(moved), "--allow_other_backbone"])


def test_evaluate_refuses_flags_that_do_not_fit(finished, embeddings, labelled, tmp_path, refused):
    narrow, train_data = tmp_path / "narrow.npy", ["--train_data", labelled / "train"]
    np.save(narrow, np.load(embeddings / "test.npy")[:, :8])
    for flags, message in (
        (["--progressive", "--ks", 4], "ks.*progressive"),
        (["--widths", 4, "--ks", 4], "ks and widths"),
        (["--widths", 4], r"widths is \[4\].*k = 2, 8, 64"),
        (["--sparse_probe_ks", "0"], "sparse_probe_ks"),
        (["--sparse_probe_samples", "-1"], "sparse_probe_samples.*-1"),
        (["--probe_columns", "side"], "train_data"),
        (train_data, "probe_columns"),
        (["--figure", tmp_path / "f.docx"], r"f\.docx"),
        (["--zero_shot_columns", "side"], "backbone.*--backbone"),
        (["--probe_columns", "size", *train_data], "'size'"),
        (["--ks", 65], "k .*64.* 65"),
        (["--data", narrow], "8 columns.* 16"),
    ):
        words = [finished, "--data", labelled / "test", "--output", tmp_path / "m.json", *flags]
        assert re.search(message, refused(evaluate.main, *words))
    assert not (tmp_path / "m.json").exists()


# -- processes --------------------------------------------------------------------------------------------------------

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
]
TRAIN = str(ROOT / "training" / "train_msae.py")


def start(*command, **environment):
    """Start Python with these arguments; one thread for each process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, *map(str, command)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def end(process):
    """Wait for a process to succeed and return its output."""
    output, errors = process.communicate(timeout=480)
    assert process.returncode == 0, errors
    return output


BATCH_TOPK = ["--nesting", "none", "--activation", "batch_topk", "--k", "5", "--num_latents", str(LATENTS)]
BATCH_TOPK += [*SMALL[SMALL.index("--max_steps") :], "--resample_steps", "8", "--dead_steps", "4"]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory, data_flags, finished, embeddings):
    """What two processes write: two trainings and an evaluation, in one launch."""
    folder = tmp_path_factory.mktemp("two")
    common = [*data_flags, "--per_device_train_batch_size", "16", "--adam_epsilon", "1e-3"]
    of_evaluation = [finished, "--data", embeddings / "test.npy", "--output", folder / "metrics.json", *QUIET]
    commands = [
        ("train", [*common, "--output_dir", folder / "out", *SMALL, "--save_steps", "20"]),
        ("train", [*common, "--output_dir", folder / "batch_topk", *BATCH_TOPK]),
        ("evaluate", [*of_evaluation, "--per_device_eval_batch_size", "64"]),
    ]
    commands = json.dumps(commands, default=str)
    shown = end(start(*TORCHRUN, Path(__file__).with_name("two_processes.py"), commands))
    assert shown.count("on 2 x cpu") == shown.count("from hf_msae import MSAEModel") == 2, "only one process prints"
    return folder


def assert_close_weights(one, two):
    expected, actual = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert expected.keys() == actual.keys()
    for name in expected:
        assert torch.allclose(expected[name], actual[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.slow
def test_two_processes_train_the_model_of_one_with_twice_the_batch(of_two, finished, data_flags):
    assert_close_weights(finished, of_two / "out")
    one, two = (EvaluationResult.load(folder) for folder in (finished, of_two / "out"))
    assert two.fvu == pytest.approx(one.fvu, rel=1e-3)
    assert (two.num_samples, two.dead_latents) == (one.num_samples, one.dead_latents)
    for alone, together in zip(steps_of(finished), steps_of(of_two / "out"), strict=True):
        for key in ("step", "epoch", "loss", "fvu", "sparsity", "learning_rate", "grad_norm", "dead_latents"):
            assert together[key] == pytest.approx(alone[key], rel=1e-3), key

    checkpoint = of_two / "out" / "checkpoint-20"
    assert json.loads((checkpoint / "trainer_state.json").read_text())["num_processes"] == 2
    resumed = of_two / "resumed"  # by one process
    flags = ["--output_dir", resumed, "--per_device_train_batch_size", 32, *SMALL, "--adam_epsilon", "1e-3"]
    run(train.main, *data_flags, *flags, "--resume_from_checkpoint", checkpoint)
    assert_close_weights(of_two / "out", resumed)


@pytest.mark.slow
def test_two_processes_stop_early_where_one_does(tmp_path, data_flags):
    flags = [*data_flags, "--eval_steps", "2", "--early_stopping_patience", "2", "--early_stopping_threshold", "0.02"]
    flags += [*SMALL, "--adam_epsilon", "1e-3"]
    run(train.main, *flags, "--per_device_train_batch_size", "32", "--output_dir", tmp_path / "one")
    both = ["--per_device_train_batch_size", "16", "--output_dir", tmp_path / "two"]
    commands, output = [("train", [*map(str, flags), *map(str, both)])], tmp_path / "output.txt"
    launched = forking.start(debug_launcher, two_processes.run, (commands,), output=output)
    assert forking.end(launched) == 0, output.read_text()
    assert_close_weights(tmp_path / "one", tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "training.json").read_text())["result"] for name in ("one", "two"))
    assert (two["num_processes"], two["global_step"], two["best_step"]) == (2, one["global_step"], one["best_step"])
    assert two["global_step"] < 30


@pytest.mark.slow
def test_batch_topk_and_resampling_see_the_batch_of_all_processes(of_two, tmp_path, data_flags):
    flags = [*data_flags, "--output_dir", tmp_path, "--per_device_train_batch_size", 32, "--adam_epsilon", "1e-3"]
    run(train.main, *flags, *BATCH_TOPK)
    assert load_file(tmp_path / "model.safetensors")["activation_threshold"] > 0
    assert_close_weights(tmp_path, of_two / "batch_topk")


@pytest.mark.slow
def test_two_processes_evaluate_as_one(of_two, finished):
    one, two = EvaluationResult.load(finished), EvaluationResult.load(of_two / "metrics.json")
    assert two.to_dict().keys() == one.to_dict().keys()
    for key in ("fvu", "cosine_similarity", "sparsity", "cknna", "dead_latents", "num_samples"):
        assert getattr(two, key) == pytest.approx(getattr(one, key), rel=1e-6), key


@pytest.mark.slow
def test_accelerate_launches_two_processes_on_a_cpu(tmp_path, data_flags):
    flags = [*data_flags, "--output_dir", tmp_path, "--per_device_train_batch_size", 16, *SMALL, "--max_steps", 2]
    flags.remove("--use_cpu")  # not needed without a GPU
    environment = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    assert "on 2 x cpu" in end(start(*ACCELERATE, TRAIN, *flags, **environment))
    assert len(steps_of(tmp_path)) == 2 and (tmp_path / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "signum"), [(1, signal.SIGINT), (2, signal.SIGTERM)])
def test_an_interrupted_script_saves_its_state_and_says_how_to_continue(tmp_path, data_flags, processes, signum):
    flags = [*data_flags, "--output_dir", tmp_path, "--per_device_train_batch_size", 32 // processes, *SMALL]
    flags += ["--max_steps", 100_000, "--save_strategy", "no"]
    running = start(*(TORCHRUN if processes == 2 else []), TRAIN, *flags)
    try:
        deadline = time.monotonic() + 240
        log = tmp_path / "training_log.jsonl"
        while not (log.exists() and len(log.read_text().splitlines()) >= 3):
            assert running.poll() is None and time.monotonic() < deadline, "training did not start"
            time.sleep(0.2)
        running.send_signal(signum)
        _, errors = running.communicate(timeout=120)
    finally:
        running.kill()
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    step = int(checkpoint.name.removeprefix("checkpoint-"))
    assert json.loads((checkpoint / "trainer_state.json").read_text())["num_processes"] == processes
    assert f"step {step} of 100000" in errors and "--resume_from_checkpoint last" in errors
    assert running.returncode == 128 + signum if processes == 1 else running.returncode
    assert processes == 2 or "Traceback" not in errors


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_exactly_the_same_weights(tmp_path, data_flags):
    """SIGKILL at random moments, while checkpoints are written too: every step saves one."""
    steps, whole, cut = 40, tmp_path / "whole", tmp_path / "cut"
    flags = [*data_flags, "--per_device_train_batch_size", 32, *SMALL, "--max_steps", steps]
    flags += ["--save_steps", 1, "--logging_steps", 1]

    def newest():
        return max((int(path.name.split("-")[1]) for path in cut.glob("checkpoint-*")), default=0)

    def started(folder, *resume):
        argv = [*map(str, flags), "--output_dir", str(folder), *resume]
        return forking.start(train.main, argv, output=tmp_path / "output.txt")

    uninterrupted = started(whole)
    resume, moments = [], random.Random(0)
    for _ in range(2):
        target = newest() + moments.randrange(3, 10)
        running = started(cut, *resume)
        while newest() < target and running.is_alive():
            time.sleep(0.001)
        time.sleep(moments.random() * 0.05)  # anywhere within a step
        assert running.is_alive(), (tmp_path / "output.txt").read_text()
        running.kill()
        assert forking.end(running) == -signal.SIGKILL
        resume = ["--resume_from_checkpoint", "last"]
    assert 0 < newest() < steps
    for process in (started(cut, *resume), uninterrupted):
        assert forking.end(process) == 0, (tmp_path / "output.txt").read_text()
    expected, actual = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    losses = [[record["loss"] for record in steps_of(folder)] for folder in (whole, cut)]
    assert losses[0] == losses[1] and len(losses[0]) == steps
    assert not list(cut.glob(".tmp*"))
