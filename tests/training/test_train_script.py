"""training/train_msae.py and training/evaluate_msae.py, as a user runs them: in one process and in two."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.cli import evaluate, train
from hf_msae.embeddings import EmbeddingWriter, load_embeddings
from hf_msae.metrics import EvaluationResult, evaluate_msae

ROOT = Path(__file__).parents[2]
WIDTH, LATENTS = 16, 64
SMALL = [
    *("--num_latents", str(LATENTS), "--nesting_ks", "2", "8", str(LATENTS), "--max_steps", "30"),
    *("--learning_rate", "5e-3", "--logging_steps", "10", "--cknna_batch_size", "64", "--use_cpu", "--disable_tqdm"),
]


def launch(command, *argv, **environment):
    """Run a script in processes of its own; one thread each, so that two fit on a small machine."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, *command, *map(str, argv)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=480)


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
    """A run's folder."""
    folder = tmp_path_factory.mktemp("run") / "out"
    train.main([*data_flags, "--output_dir", str(folder), "--per_device_train_batch_size", "32", *SMALL])
    return folder


@pytest.fixture
def refuse(capsys):
    """The message with which train_msae.py refuses its arguments."""

    def refuse(*argv):
        with pytest.raises(SystemExit) as exit:
            train.main([*map(str, argv)])
        assert exit.value.code in (1, 2)
        return capsys.readouterr().err

    return refuse


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
    assert "160" in (finished / "README.md").read_text()
    assert written["data"]["held_out"] is True and written["data"]["source"] == "test.npy"
    record = json.loads((finished / "training.json").read_text())
    assert record["model_sha256"] == written["model_sha256"] and record["base_model_is_local"] is None


def test_the_end_of_a_run_shows_the_table_and_how_to_load_it(tmp_path, data_flags, capsys):
    folder = tmp_path / "out"
    train.main([*data_flags, "--output_dir", str(folder), "--per_device_train_batch_size", "32", *SMALL])
    shown = capsys.readouterr().out
    assert "320 embeddings of width 16, 64 latents, 30 steps of 32 embeddings on 1 x cpu" in shown
    assert str(EvaluationResult.load(folder)) in shown
    loading = shown[shown.index("from hf_msae import MSAEModel") :].strip().splitlines()
    assert len(loading) == 3
    names = {"embeddings": torch.randn(5, WIDTH)}
    exec("\n".join(loading), names)
    assert names["latents"].shape == (5, LATENTS)


def test_yaml_resume_and_training_data_as_evaluation_data(tmp_path, embeddings, capsys):
    folder, recipe = tmp_path / "out", tmp_path / "recipe.yaml"
    recipe.write_text(
        f"train_data: {embeddings / 'train.npy'}\noutput_dir: {folder}\nnum_latents: {LATENTS}\nnesting_ks: [2, 64]\n"
        "learning_rate: 5e-3\nper_device_train_batch_size: 32\nnum_train_epochs: 2\nsave_steps: 10\nuse_cpu: true\n"
        "cknna_batch_size: 64\ndisable_tqdm: true\n"
    )
    main = train.main
    main(["--config", str(recipe)])
    first = load_file(folder / "model.safetensors")
    assert json.loads((folder / "metrics.json").read_text())["num_samples"] == 320
    assert "--eval_data" in capsys.readouterr().out

    with pytest.raises(SystemExit):
        main(["--config", str(recipe)])
    assert "--overwrite_output_dir" in capsys.readouterr().err
    main(["--config", str(recipe), "--resume_from_checkpoint", str(folder / "checkpoint-10")])
    resumed = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in first.items())
    main(["--config", str(recipe), "--overwrite_output_dir", "--seed", "1"])
    assert not torch.equal(load_file(folder / "model.safetensors")["decoder"], first["decoder"])


def test_columns_are_found_by_hook_point_and_provenance_is_kept(tmp_path, embeddings):
    rows = np.load(embeddings / "train.npy")
    metadata = {"base_model_name_or_path": "some/siglip", "base_model_revision": "abc"}
    with EmbeddingWriter(
        tmp_path / "data", columns={"image_embeds": WIDTH, "text_embeds": WIDTH}, metadata=metadata
    ) as writer:
        writer.write({"image_embeds": rows, "text_embeds": rows[::-1].copy() * 2})
    flags = ["--train_data", tmp_path / "data", "--output_dir", tmp_path / "out", "--hook_point", "text_embeds"]
    train.main([*map(str, flags), "--per_device_train_batch_size", "32", *SMALL])
    model = MSAEModel.from_pretrained(tmp_path / "out")
    assert (model.config.hook_point, model.config.base_model_name_or_path) == ("text_embeds", "some/siglip")
    assert torch.allclose(model.input_mean, torch.from_numpy(rows.mean(axis=0) * 2), atol=1e-4)


def test_mistakes_are_told_in_one_line_before_training(refuse, embeddings, data_flags, tmp_path, finished):
    out = ["--output_dir", tmp_path / "out", *SMALL]
    assert "nowhere" in refuse("--train_data", tmp_path / "nowhere.npy", *out)
    assert "nesting_ks" in refuse(*data_flags, *out, "--nesting_ks", 2, 900)
    assert "eval_strategy is epoch" in refuse(*data_flags[:2], *out, "--eval_strategy", "epoch")
    narrow, broken = tmp_path / "narrow.npy", tmp_path / "broken.npy"
    np.save(narrow, np.load(embeddings / "test.npy")[:, :8])
    assert "8 columns" in refuse(*data_flags[:2], "--eval_data", narrow, *out)
    rows = np.load(embeddings / "test.npy")
    rows[42] = np.nan
    np.save(broken, rows)
    message = refuse(*data_flags[:2], "--eval_data", broken, *out)
    assert "row 42" in message and "Traceback" not in message
    rows[42] = 0
    np.save(broken, rows)
    assert "row 42" in refuse("--train_data", broken, *out)
    assert not (tmp_path / "out").exists()
    assert "--overwrite_output_dir" in refuse(*data_flags, "--output_dir", finished, *SMALL)


def test_evaluate_script_measures_at_the_ks_it_is_given(finished, embeddings, tmp_path, capsys):
    output = tmp_path / "new" / "metrics.json"
    flags = [
        "--model",
        finished,
        "--data",
        embeddings / "test.npy",
        "--output",
        output,
        "--ks",
        1,
        4,
        LATENTS,
    ]
    evaluate.main([*map(str, flags), "--cknna_batch_size", "64", "--use_cpu", "--disable_tqdm"])
    result = EvaluationResult.load(output)
    assert list(result.by_k) == ["1", "4", str(LATENTS)]
    assert result.fvu == pytest.approx(EvaluationResult.load(finished).fvu, rel=1e-9)
    assert str(result) in capsys.readouterr().out
    assert result.data["held_out"] is True and result.data["source"] == "test.npy"


def test_evaluate_script_says_held_out_only_of_what_is_known_to_be(finished, embeddings, tmp_path, capsys):
    other = np.random.default_rng(5).normal(size=(80, WIDTH)).astype(np.float32)
    np.save(tmp_path / "other.npy", other)

    def held_out(data, *flags):
        output = tmp_path / "metrics.json"
        words = ["--model", finished, "--data", data, "--output", output, *flags]
        evaluate.main([*map(str, words), "--cknna_batch_size", "64", "--use_cpu", "--disable_tqdm"])
        return EvaluationResult.load(output).data["held_out"]

    assert held_out(embeddings / "test.npy") is True
    assert held_out(embeddings / "train.npy") is False
    assert held_out(tmp_path / "other.npy") is None
    assert held_out(tmp_path / "other.npy", "--held_out", "true") is True
    with pytest.raises(SystemExit):
        held_out(embeddings / "train.npy", "--held_out", "true")
    assert "held_out" in capsys.readouterr().err


@pytest.fixture
def labelled(embeddings, tmp_path):
    """The same embeddings as data sets with a column of labels: which half of space an embedding lies in."""
    for name in ("train", "test"):
        x = np.load(embeddings / f"{name}.npy")
        side = np.where(x[:, 0] > np.median(x[:, 0]), "right", "left")
        Dataset.from_dict({"image_embeds": x.tolist(), "side": side.tolist()}).save_to_disk(tmp_path / name)
    return tmp_path


def test_evaluate_script_measures_progressive_recovery_with_probes_and_another_encoder(
    finished, embeddings, labelled, tmp_path, capsys
):
    flags = [
        "--model",
        finished,
        "--data",
        labelled / "test",
        "--progressive",
        "--figure",
        tmp_path / "new" / "f.pdf",
    ]
    flags += ["--train_data", labelled / "train", "--probe_columns", "side", "--output", tmp_path / "m.json"]
    other = EmbeddingWriter(tmp_path / "other", {"image_embeds": 5}, metadata={"base_model_name_or_path": "else"})
    with other:
        other.write({"image_embeds": np.random.default_rng(0).normal(size=(160, 5)).astype(np.float32)})
    flags += ["--encoder_data", tmp_path / "other"]
    evaluate.main([*map(str, flags), "--cknna_batch_size", "64", "--use_cpu", "--disable_tqdm"])
    result = EvaluationResult.load(tmp_path / "m.json")
    assert list(result.by_k) == ["16", "32", "64"]
    probe = result.classifiers["probe side"]
    assert probe["accuracy"] > 0.9 and probe["agreement"] > 0.8 and probe["num_labelled"] == 160
    assert result.monosemanticity_encoder == "else"
    assert (tmp_path / "new" / "f.pdf").read_bytes().startswith(b"%PDF")
    shown = capsys.readouterr().out
    assert "probe side" in shown
    assert "parse probing of side" in shown
    assert 0.6 < result.by_k["16"]["sparse_probing"]["side"]["auroc_1"] <= result.sparse_probing["side"]["auroc_5"]
    assert result.sparse_probing["side"]["num_train"] == 320 and result.seed_stability == {}


def test_evaluate_script_compares_with_other_seeds(finished, embeddings, tmp_path, capsys):
    other = MSAEModel.from_pretrained(finished)
    with torch.no_grad():
        other.decoder += 0.1 * torch.randn(other.decoder.shape, generator=torch.Generator().manual_seed(0))
    other.save_pretrained(tmp_path / "other")
    flags = ["--model", finished, "--data", embeddings / "test.npy", "--other_seeds", tmp_path / "other"]
    flags += ["--output", tmp_path / "m.json", "--cknna_batch_size", "64"]
    evaluate.main([*map(str, flags), "--use_cpu", "--disable_tqdm"])
    found = EvaluationResult.load(tmp_path / "m.json").seed_stability
    assert found["by_chance"] < 0.6 < found["mean_cosine"] < 0.99
    assert "stability across seeds" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        evaluate.main([*map(str, flags[:-5]), str(finished), "--use_cpu"])
    assert "is the model itself" in capsys.readouterr().err


def test_evaluate_script_classifies_zero_shot_with_the_models_backbone(tmp_path, capsys):
    backbone = Backbone.from_pretrained("scenes")
    texts = backbone.text_embeds(["a red shape", "a blue shape", "a green shape"] * 8).detach()
    colours = ["red", "blue", "green"] * 8
    x = texts + 0.01 * torch.randn(texts.shape, generator=torch.Generator().manual_seed(0))
    Dataset.from_dict({"image_embeds": x.tolist(), "colour": colours}).save_to_disk(tmp_path / "data")
    model = MSAEModel(MSAEConfig(d_in=x.shape[1], num_latents=64, base_model_name_or_path="scenes"))
    model.save_pretrained(tmp_path / "model")
    flags = ["--model", tmp_path / "model", "--data", tmp_path / "data", "--zero_shot_columns", "colour"]
    flags += ["--zero_shot_template", "a {} shape", "--cknna_batch_size", "24", "--output", tmp_path / "m.json"]
    evaluate.main([*map(str, flags), "--use_cpu", "--disable_tqdm"])
    assert EvaluationResult.load(tmp_path / "m.json").classifiers["zero-shot colour"]["accuracy"] == 1.0


def test_evaluate_script_refuses_flags_that_do_not_go_together(finished, embeddings, labelled, tmp_path, capsys):
    for flags, message in (
        (["--progressive", "--ks", 4], "ks or progressive"),
        (["--sparse_probe_ks", "0"], "sparse_probe_ks"),
        (["--sparse_probe_samples", "-1"], "-1"),
        (["--probe_columns", "side"], "without train_data"),
        (["--train_data", labelled / "train"], "probe_columns"),
        (["--figure", tmp_path / "f.docx"], "f.docx"),
        (["--zero_shot_columns", "side"], "zero_shot_columns"),
        (["--probe_columns", "size", "--train_data", labelled / "train"], "no column 'size'"),
    ):
        with pytest.raises(SystemExit) as exit:
            all_flags = ["--model", finished, "--data", labelled / "test", *flags]
            evaluate.main([*map(str, all_flags), "--use_cpu", "--disable_tqdm"])
        assert exit.value.code in (1, 2)
        assert message in capsys.readouterr().err


def test_evaluate_script_refuses_what_does_not_fit(finished, embeddings, tmp_path, capsys):
    np.save(tmp_path / "narrow.npy", np.load(embeddings / "test.npy")[:, :8])
    for flags, message in (
        (["--data", tmp_path / "narrow.npy"], "8 columns, but this MSAE was trained on 16"),
        (["--data", embeddings / "test.npy", "--ks", 65], "k must be between 1 and num_latents=64, got 65"),
    ):
        with pytest.raises(SystemExit) as exit:
            evaluate.main([*map(str, ["--model", finished, "--output", tmp_path / "m.json", *flags]), "--use_cpu"])
        assert exit.value.code == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "m.json").exists()


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory, data_flags):
    """The run that two processes should reproduce; epsilon is large so that Adam does not amplify rounding."""
    folder = tmp_path_factory.mktemp("one") / "out"
    train.main(
        [
            *(*data_flags, "--output_dir", str(folder), "--per_device_train_batch_size", "32"),
            *(*SMALL, "--adam_epsilon", "1e-3"),
        ]
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_two_processes_train_the_model_of_one_with_twice_the_batch(
    tmp_path, launcher, data_flags, one_process, embeddings
):
    command, environment = (TORCHRUN, {}) if launcher == "torchrun" else (ACCELERATE, {"ACCELERATE_USE_CPU": "true"})
    flags = [*data_flags, "--output_dir", tmp_path / "out", "--per_device_train_batch_size", 16, *SMALL]
    flags += ["--adam_epsilon", "1e-3", "--save_steps", 20]
    if launcher == "torchrun":  # --use_cpu is not needed where there is no GPU
        flags.remove("--use_cpu")
        environment = {"CUDA_VISIBLE_DEVICES": ""}
    done = launch([*command, str(ROOT / "training" / "train_msae.py")], *flags, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on 2 x cpu") == 1
    assert done.stdout.count("from hf_msae import MSAEModel") == 1
    state = json.loads((tmp_path / "out" / "checkpoint-30" / "trainer_state.json").read_text())
    assert state["num_processes"] == 2

    expected, actual = (load_file(folder / "model.safetensors") for folder in (one_process, tmp_path / "out"))
    for name in ("pre_bias", "encoder", "latent_bias", "decoder"):
        assert torch.allclose(expected[name], actual[name], rtol=1e-3, atol=1e-5), name
    assert torch.equal(expected["input_mean"], actual["input_mean"])
    assert torch.equal(expected["input_scale"], actual["input_scale"])
    one, two = (EvaluationResult.load(folder) for folder in (one_process, tmp_path / "out"))
    assert two.fvu == pytest.approx(one.fvu, rel=1e-3)
    assert (two.num_samples, two.dead_latents) == (one.num_samples, one.dead_latents)
    logs = [
        [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
        for folder in (one_process, tmp_path / "out")
    ]
    for alone, together in zip(*logs, strict=True):
        for key in ("step", "epoch", "loss", "fvu", "sparsity", "learning_rate", "grad_norm", "dead_latents"):
            assert together[key] == pytest.approx(alone[key], rel=1e-3), key

    # The checkpoint of two processes is one of one process, too.
    flags[flags.index("--per_device_train_batch_size") + 1] = "32"
    train.main([*map(str, flags), "--resume_from_checkpoint", str(tmp_path / "out" / "checkpoint-20")])
    resumed = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.allclose(resumed["decoder"], actual["decoder"], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_batch_topk_and_resampling_see_the_batch_of_all_processes(tmp_path, data_flags):
    flags = [*data_flags, *SMALL, "--adam_epsilon", "1e-3", "--resample_steps", "8", "--dead_steps", "4"]
    place = flags.index("--nesting_ks")
    flags[place : place + 4] = ["--nesting", "none", "--activation", "batch_topk", "--k", "5"]
    script_file = str(ROOT / "training" / "train_msae.py")
    one = launch([script_file], *flags, "--output_dir", tmp_path / "one", "--per_device_train_batch_size", 32)
    two = launch(
        [*TORCHRUN, script_file], *flags, "--output_dir", tmp_path / "two", "--per_device_train_batch_size", 16
    )
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert two.stdout.count("on 2 x cpu") == 1
    expected, actual = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert expected["activation_threshold"] > 0
    for name in expected:
        assert torch.allclose(expected[name], actual[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.slow
def test_two_processes_evaluate_as_one(tmp_path, one_process, embeddings):
    output = tmp_path / "metrics.json"
    flags = ["--model", one_process, "--data", embeddings / "test.npy", "--output", output, "--use_cpu"]
    flags += ["--cknna_batch_size", 64, "--per_device_eval_batch_size", 64, "--disable_tqdm"]
    done = launch([*TORCHRUN, str(ROOT / "training" / "evaluate_msae.py")], *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cosine") == 1
    one, two = EvaluationResult.load(one_process), EvaluationResult.load(output)
    assert two.to_dict().keys() == one.to_dict().keys()
    for key in ("fvu", "cosine_similarity", "sparsity", "cknna", "dead_latents", "num_samples"):
        assert getattr(two, key) == pytest.approx(getattr(one, key), rel=1e-6), key


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "signum"), [(1, signal.SIGINT), (2, signal.SIGTERM)])
def test_an_interrupted_script_saves_its_state_and_says_how_to_go_on(tmp_path, data_flags, processes, signum):
    folder = tmp_path / "out"
    flags = [*data_flags, "--output_dir", str(folder), "--per_device_train_batch_size", str(32 // processes), *SMALL]
    flags[flags.index("--max_steps") + 1] = "100000"
    flags += ["--save_strategy", "no"]
    command = [sys.executable, *(TORCHRUN if processes == 2 else []), str(ROOT / "training" / "train_msae.py"), *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 240
        log = folder / "training_log.jsonl"
        while not (log.exists() and len(log.read_text().splitlines()) >= 3):
            assert running.poll() is None and time.monotonic() < deadline, "training did not start"
            time.sleep(0.2)
        running.send_signal(signum)
        _, errors = running.communicate(timeout=120)
    finally:
        running.kill()
    (checkpoint,) = folder.glob("checkpoint-*")
    step = int(checkpoint.name.removeprefix("checkpoint-"))
    assert json.loads((checkpoint / "trainer_state.json").read_text())["num_processes"] == processes
    assert f"step {step} of 100000" in errors and "--resume_from_checkpoint last" in errors
    if processes == 1:
        assert running.returncode == 128 + signum
        assert "Traceback" not in errors
    else:
        assert running.returncode != 0


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_very_weights(tmp_path, data_flags):
    """SIGKILL at random moments, while checkpoints are being written too: every step saves one."""
    steps = 60
    flags = [*data_flags, "--per_device_train_batch_size", "32", *SMALL, "--save_steps", "1", "--logging_steps", "1"]
    flags[flags.index("--max_steps") + 1] = str(steps)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(folder, *more):
        command = [
            sys.executable,
            str(ROOT / "training" / "train_msae.py"),
            *flags,
            "--output_dir",
            str(folder),
            *more,
        ]
        return subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def newest():
        return max((int(path.name.split("-")[1]) for path in cut.glob("checkpoint-*")), default=0)

    moments, killed = random.Random(0), 0
    uninterrupted = start(whole)
    while killed < 4:
        begun_at = newest()
        running = start(cut, *(["--resume_from_checkpoint", "last"] if begun_at else ["--overwrite_output_dir"]))
        target = begun_at + moments.randrange(3, 10)
        while newest() < target and running.poll() is None:
            time.sleep(0.001)
        time.sleep(moments.random() * 0.05)  # anywhere within a step
        assert running.poll() is None, running.communicate()[1]
        running.kill()
        running.communicate()
        killed += 1
    assert 0 < newest() < steps
    last = start(cut, "--resume_from_checkpoint", "last")
    for process in (last, uninterrupted):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    expected, actual = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    records = [
        [json.loads(line) for line in (f / "training_log.jsonl").read_text().splitlines()] for f in (whole, cut)
    ]
    losses = [[record["loss"] for record in log] for log in records]
    assert losses[0] == losses[1] and len(losses[0]) == steps
    assert not list(cut.glob(".tmp*"))
