"""training.json holds how a model was trained, and nothing that is its maker's alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_msae import MSAETrainingArguments
from hf_msae.cli import train
from hf_msae.embeddings import EmbeddingWriter, load_embeddings
from hf_msae.hub import render_model_card
from hf_msae.training.log import TrainingResult
from hf_msae.training.record import TrainingRecord, command_line, describe_data, shown_arguments


def a_record(folder, **settings):
    data = load_embeddings(torch.randn(30, 4))
    arguments = MSAETrainingArguments(output_dir=str(folder / "secret-place" / "run"), learning_rate=3e-4)
    result = TrainingResult(12, 2, 64, 0.5, 3.0, 100.0, 0.1, 0.0, log_history=[{"step": 1}])
    return TrainingRecord.of(
        arguments, data, command=f"python train.py --output_dir {folder}/run", result=result, **settings
    )


def test_a_record_comes_back_from_its_file_as_it_was(tmp_path):
    record = a_record(tmp_path)
    path = record.save(tmp_path)
    assert path == tmp_path / "training.json" and [file.name for file in tmp_path.iterdir()] == ["training.json"]
    assert TrainingRecord.load(tmp_path) == record
    assert record.training_arguments["learning_rate"] == 3e-4 and record.evaluation_data is None
    assert (
        record.result["global_step"] == 12 and record.result["runtime"] == 3.0 and "log_history" not in record.result
    )
    assert record.versions["torch"] == torch.__version__


def test_no_folder_of_the_machine_stands_in_the_file(tmp_path):
    text = a_record(tmp_path).save(tmp_path).read_text()
    assert str(tmp_path.parent) not in text and "secret-place" not in text
    content = json.loads(text)
    assert content["training_arguments"]["output_dir"] == "run"
    assert content["command"] == "python train.py --output_dir run"


def test_there_is_no_record_where_there_is_no_file_and_a_damaged_one_is_named(tmp_path):
    assert TrainingRecord.load(tmp_path) is None
    file = tmp_path / "training.json"
    for content, message in (("{", "JSON"), ("[]", "list"), ('{"training_data": "x"}', "training_data.*'x'.*dict")):
        file.write_text(content)
        with pytest.raises(ValueError, match=message):
            TrainingRecord.load(tmp_path)
    file.write_text('{"command": "train", "of_a_later_version": 1, "training_data": null}')
    assert TrainingRecord.load(tmp_path) == TrainingRecord(command="train")


def test_data_is_told_with_its_size_mean_and_spread(tmp_path):
    rows = np.random.default_rng(0).normal(3.0, 2.0, size=(500, 8)).astype(np.float32)
    file = tmp_path / "deep" / "embeddings.npy"
    file.parent.mkdir()
    np.save(file, rows)
    told = describe_data(load_embeddings(file), split=None)
    assert told["source"] == "embeddings.npy" and told["is_local"] and told["hub_dataset"] is None
    assert (told["num_rows"], told["num_samples"], told["width"]) == (500, 500, 8)
    assert told["spread"] == pytest.approx(np.sqrt(rows.var(axis=0).mean()), rel=1e-4)
    assert told["mean_length"] == pytest.approx(np.linalg.norm(rows.mean(axis=0)), rel=1e-4)


@pytest.mark.parametrize(
    ("dataset", "hub"),
    [("pixparse/cc3m-wds", "pixparse/cc3m-wds"), ("scenes:train:9:1", None), ("LOCAL", None), (None, None)],
)
def test_a_data_set_on_the_hub_is_told_from_a_folder(tmp_path, dataset, hub):
    if dataset == "LOCAL":
        (tmp_path / "owner" / "pictures").mkdir(parents=True)
        dataset = str(tmp_path / "owner" / "pictures")
    folder = tmp_path / "embeddings"
    with EmbeddingWriter(folder, {"image_embeds": 4}, metadata={"dataset": dataset}) as writer:
        writer.write({"image_embeds": torch.randn(9, 4)})
    told = describe_data(load_embeddings(folder))
    assert told["hub_dataset"] == hub
    assert str(tmp_path) not in json.dumps(told)
    assert told["dataset"] == (Path(dataset).name if dataset and "/" in dataset and hub is None else dataset)


def test_commands_lose_secrets_and_folders_and_can_be_typed_again():
    command = command_line(
        "python training/train_msae.py",
        ["--train_data", "/home/me/data/train", "--eval_data=~/data/test", "--hub_token", "hf_abcdefghijklmnopqrst",
         "--password=letmein", "--name", "two words", "--nesting_ks", "8", "64", "relative/folder",
         "https://me:secret@host/x", "hf_ABCDEFGHIJKLMNOPQRSTUV"],
    )  # fmt: skip
    for private in ("/home", "me/data", "letmein", "hf_abc", "hf_ABC", "secret"):
        assert private not in command, command
    assert command.startswith("python training/train_msae.py --train_data train --eval_data=test --hub_token ***")
    assert "--name 'two words' --nesting_ks 8 64 relative/folder" in command


def test_arguments_that_were_chosen_are_told_from_defaults_and_bookkeeping_from_both():
    arguments = MSAETrainingArguments(output_dir="x", learning_rate=3e-4, seed=42, disable_tqdm=True).to_dict()
    chosen, defaults = shown_arguments(arguments)
    assert chosen == {"learning_rate": 3e-4}
    assert defaults["seed"] == 42 and "learning_rate" not in defaults
    assert not {"output_dir", "disable_tqdm", "save_steps"} & {*chosen, *defaults}


def test_the_training_script_leaves_a_record_from_which_alone_its_card_is_written(tmp_path):
    data, output = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for name in ("train", "test"):
        np.save(data / f"{name}.npy", np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
    argv = [
        "--train_data",
        str(data / "train.npy"),
        "--eval_data",
        str(data / "test.npy"),
        "--output_dir",
        str(output),
    ]
    argv += ["--num_latents", "16", "--max_steps", "2", "--cknna_batch_size", "32", "--use_cpu", "--disable_tqdm"]
    train.main(argv)
    record = TrainingRecord.load(output)
    assert record.command.startswith("hf-msae train --train_data train.npy --eval_data test.npy")
    assert record.training_data["source"] == "train.npy" and record.evaluation_data["source"] == "test.npy"
    assert record.result["global_step"] == 2 and record.training_arguments["max_steps"] == 2
    written = (output / "README.md").read_text()
    # The card's snippet runs from any folder, so it says where the model is; nothing else does, and no release does.
    assert str(tmp_path) not in written.replace(f'("{output}")', "") + (output / "training.json").read_text()
    assert written == render_model_card(output)
