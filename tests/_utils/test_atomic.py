"""Files and folders appear whole or not at all."""

import os
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hf_msae._utils.atomic import atomic_path, check_writable, make_folder
from hf_msae._utils.json_files import write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with atomic_path(tmp_path / "a") as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "b").write_text("1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "inner" / "b").read_text() == "1"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path, kind):
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyError), atomic_path(tmp_path / "a") as temporary:
        temporary.mkdir() if kind == "folder" else temporary.write_text("new")
        raise KeyError
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_the_data_is_flushed_before_the_rename(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    write_json(tmp_path / "a.json", {})
    assert order[:2] == ["fsync", "replace"]


def test_what_another_machine_may_still_write_is_removed_after_a_week(tmp_path):
    running = os.getppid()  # which says nothing about another machine
    kept = {
        f".a.json.{running}-1-young.tmp": 6.9,
        ".a.json.tmp": 99,
        ".a.json.mine.tmp": 99,
        ".b.json.1-1-old.tmp": 99,
    }
    gone = {f".a.json.{running}-1-file.tmp": 7.1, f".a.json.{running}-1-folder.tmp": 7.1}
    for name, days in {**kept, **gone}.items():
        if "folder" in name:
            (tmp_path / name / "inner").mkdir(parents=True)
        else:
            (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - days * 24 * 3600,) * 2)
    write_json(tmp_path / "a.json", {})
    assert set(names(tmp_path)) == {"a.json", *kept}


@pytest.mark.skipif(sys.platform != "linux", reason="machines are told apart on Linux alone")
def test_what_a_dead_process_of_this_machine_left_is_removed_at_once(tmp_path):
    write = (
        "import os, sys\nfrom hf_msae._utils.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as file:\n    file.write_text('half')\n    {}"
    )
    target = str(tmp_path / "a.json")
    subprocess.run([sys.executable, "-c", write.format("os.kill(os.getpid(), 9)"), target])
    (left,) = names(tmp_path)
    elsewhere = left.rpartition("-")[0] + "-0123456789ab.tmp"
    (tmp_path / elsewhere).write_text("")
    os.utime(tmp_path / elsewhere, (time.time() - 3600,) * 2)
    command = [sys.executable, "-c", write.format("print(file.name, flush=True)\n    input()"), target]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as alive:
        in_use = alive.stdout.readline().strip()
        write_json(tmp_path / "a.json", {})
        assert set(names(tmp_path)) == {"a.json", in_use, elsewhere}
        alive.communicate("\n")


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "a.json"
    target.write_text("old")
    (tmp_path / "link.json").symlink_to(target)
    write_json(tmp_path / "link.json", 1)
    assert (tmp_path / "link.json").is_symlink()
    assert target.read_text() == "1\n"


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert make_folder("~/a/b") == tmp_path / "a" / "b"
    check_writable("~/a/b/c.json")
    write_json("~/a/b/c.json", 1)
    assert names(tmp_path / "a" / "b") == ["c.json"] and names(tmp_path) == ["a"]


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "out")
    with pytest.raises(OSError, match="out is not a regular file"):
        write_json(tmp_path / "out", 1)
    with pytest.raises(OSError, match="/dev/null"):
        write_json("/dev/null", 1)
    assert stat.S_ISFIFO((tmp_path / "out").stat().st_mode)


def test_a_missing_parent_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_json(tmp_path / "nowhere" / "a.json", 1)


def test_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_it_cannot_hold(tmp_path, value):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"a": value})
    assert names(tmp_path) == []


def test_threads_that_write_the_same_path_do_not_meet(tmp_path):
    barrier = threading.Barrier(4)

    def write(number):
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_text(str(number))
            barrier.wait(timeout=30)
            assert temporary.read_text() == str(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert (tmp_path / "a").read_text() in "0123" and names(tmp_path) == ["a"]


def test_files_that_safetensors_wrote_for_their_owner_alone_become_like_others(tmp_path):
    (tmp_path / "plain").write_text("")
    with atomic_path(tmp_path / "a.safetensors") as temporary:
        temporary.touch(0o600)
    with atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "b.safetensors").touch(0o600)
        (temporary / "secret").touch(0o600)  # not by safetensors
    written = ("plain", "a.safetensors", "folder/b.safetensors")
    assert len({stat.S_IMODE((tmp_path / name).stat().st_mode) for name in written}) == 1
    assert stat.S_IMODE((tmp_path / "folder" / "secret").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "folder", "plain"]


def test_writing_is_tried_without_touching_what_is_there(tmp_path):
    (tmp_path / "a.json").write_text("old")
    check_writable(tmp_path / "a.json")
    check_writable(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_text() == "old" and names(tmp_path) == ["a.json"]
    for bad in ("/dev/null", tmp_path / "nowhere" / "a.json", tmp_path / "a.json" / "b.json"):
        with pytest.raises(OSError, match=str(bad).rpartition("/")[0]):
            check_writable(bad)


def test_a_folder_is_made_but_not_a_whole_mistyped_path(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir() and make_folder(tmp_path / "a").is_dir()
    with pytest.raises(FileNotFoundError, match="tpm does not exist"):
        make_folder(tmp_path / "tpm" / "a" / "b")
    assert names(tmp_path) == ["a"]
