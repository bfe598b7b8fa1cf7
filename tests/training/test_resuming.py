"""Damaged checkpoints: the newest whole one continues, and one that is asked for by name is refused."""

import json
import logging
import os
import pickle
import re
import resource
import shutil
import signal

import pytest
import torch

from hf_msae import MSAEModel
from hf_msae.embeddings import load_embeddings
from hf_msae.training import checkpointing
from hf_msae.training.checkpointing import list_checkpoints
from hf_msae.training.resuming import describe_differences, find_checkpoint
from tests.training.small_runs import assert_equal_weights, new_trainer, sparse_embeddings, weights


class Malicious:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip(file):
    content = bytearray(file.read_bytes())
    content[-10] ^= 255
    file.write_bytes(content)


DAMAGES = {
    "truncated weights": ("model.safetensors", truncate),
    "a flipped byte": ("model.safetensors", flip),
    "no weights": ("model.safetensors", lambda file: file.unlink()),
    "an empty optimizer": ("optimizer.bin", lambda file: file.write_bytes(b"")),
    "another file as optimizer": ("optimizer.bin", lambda file: torch.save({"a": 1}, file)),
    "a pickle that asks for code": ("random_states_0.pkl", lambda file: file.write_bytes(pickle.dumps(Malicious()))),
    "half a state": ("trainer_state.json", truncate),
    "a state of another form": ("trainer_state.json", lambda file: file.write_text('{"steps": 3}')),
}


def trainer_in(folder):
    return new_trainer(folder, load_embeddings(sparse_embeddings()), save_steps=10)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    trainer = trainer_in(tmp_path_factory.mktemp("whole"))
    trainer.train()
    return trainer.output_dir, weights(trainer)


@pytest.fixture
def folder(tmp_path, whole):
    return shutil.copytree(whole[0], tmp_path / "run")


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_whole_checkpoint_is_continued_to_the_bit(folder, whole, damage, caplog, capsys):
    name, spoil = DAMAGES[damage]
    spoil(folder / "checkpoint-25" / name)
    with pytest.raises(ValueError, match=f"checkpoint-25/{name}"):
        trainer_in(folder).train(folder / "checkpoint-25")
    trainer = trainer_in(folder)
    with caplog.at_level(logging.WARNING):
        trainer.train("last")
    assert f"checkpoint-25/{name}" in caplog.text and "checkpoint-25.damaged" in caplog.text
    assert_equal_weights(trainer, whole[1])
    assert (folder / "checkpoint-25.damaged").is_dir() and "never be printed" not in capsys.readouterr().out
    MSAEModel.from_pretrained(folder / "checkpoint-25")  # saved again


def test_checkpoints_of_earlier_versions_have_no_checksums(folder, whole):
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        content = json.loads(state.read_text())
        del content["files"]
        state.write_text(json.dumps(content))
    trainer = trainer_in(folder)
    trainer.train("last")
    assert_equal_weights(trainer, whole[1])


def test_where_none_is_whole_each_is_named_and_stays(folder):
    for step in (20, 25):
        (folder / f"checkpoint-{step}" / "scheduler.bin").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-25/scheduler.bin.*checkpoint-20/scheduler.bin.*overwrite"):
        trainer_in(folder).train("last")
    assert (folder / "checkpoint-25").is_dir()


def test_a_checkpoint_may_be_the_folder_one_is_in(folder, whole, monkeypatch):
    checkpoint = list_checkpoints(folder)[-1]
    monkeypatch.chdir(checkpoint)
    assert find_checkpoint(".", folder) == checkpoint.resolve() and find_checkpoint(".", folder).parent == folder


def test_differences_are_found_at_every_depth():
    saved = {"a": {"b": {"c": {"d": 1.0, "e": 2}}, "only": None}, "f": 1}
    now = {"a": {"b": {"c": {"d": 1.0 + 1e-9, "e": 3}}}, "f": 1}
    assert describe_differences(saved, now) == ["a.b.c.e: 2 in the checkpoint, 3 now"]


@pytest.mark.parametrize("room", [600, 5000, 5300])
def test_a_disk_that_is_full_in_the_middle_of_an_optimizer_is_recognized(tmp_path, room):
    """Torch writes its data, its index and its end in different ways, which fail with different messages."""

    def save():
        with checkpointing._naming_full_disk(tmp_path):
            torch.save({"a": torch.zeros(1000)}, tmp_path / "optimizer.bin")

    save()
    assert (tmp_path / "optimizer.bin").stat().st_size > room
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match=r"no space left for .*--resume_from_checkpoint last"):
            save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_clear_error_and_leaves_the_checkpoints_before(folder):
    """Here: a limit on the size of files, which the checkpoint's exceed."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoint-25")
    read, sent = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
            trainer_in(folder).train("last")
        except BaseException as error:
            os.write(sent, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(sent)
    os.waitpid(process, 0)
    with os.fdopen(read) as message:
        assert re.match(
            r"OSError: .*no space left for .*checkpoint-25: .*--resume_from_checkpoint last", message.read()
        )
    assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-20"]
