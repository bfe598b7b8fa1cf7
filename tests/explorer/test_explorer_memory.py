"""What visitors leave in memory: objects, and what the C library keeps of those that are gone."""

import asyncio
import gc
import inspect
import os
import platform
import subprocess
import sys
from contextlib import contextmanager

import pytest

gradio = pytest.importorskip("gradio")

import pandas as pd  # noqa: E402 (what follows needs gradio)
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from hf_msae.explorer import app, housekeeping  # noqa: E402
from tests.explorer.asking import address, ask, wait_for  # noqa: E402

NONE = ("", 0) * 3
FREED_IN_A_THREAD = """
import ctypes, os, runpy, sys, threading

for function in sys.argv[2:]:
    runpy.run_path(sys.argv[1])[function]()

def resident():
    with open("/proc/self/statm") as counts:
        return int(counts.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

def work():
    blocks, before = [None] * 300, resident()
    large = bytearray(20 << 20)  # when it is freed, glibc raises its limits
    del large
    for filling in (lambda: bytearray(300_000), lambda: None):
        for place in range(100):
            blocks[place] = filling()
    ctypes.CDLL(None).malloc_trim(0)
    print(resident() - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
QUESTIONS = {
    "see": lambda picture: (picture, "16"),
    "look_closer": lambda picture: (picture, "star"),
    "match_words": lambda picture: (picture, "a star"),
    "search": lambda picture: ("my picture", picture, "", 0, "star", 1, *NONE),
    "concept": lambda picture: ("star",),
    "concepts": lambda picture: ("star", False, "name"),
    "steer": lambda picture: (picture, "a star, night", "as it is", "star", "multiply", 0, *("", "multiply", 1) * 3),
}


@pytest.fixture(scope="module")
def demo(explorer, demo):
    """The page, which makes nothing meanwhile."""
    app.warm_up(explorer)
    return demo


@contextmanager
def new_objects():
    """A function that lists the objects that have been made since, and are still there."""

    def found():
        gc.collect()
        return gc.get_objects()

    gc.collect()
    gc.freeze()  # what is there by now is not listed
    try:
        yield found
    finally:
        gc.unfreeze()


@pytest.mark.slow
@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_leave_no_pictures_tensors_or_tables(name, demo, upload):
    def ask_it():
        assert "event: complete" in ask(address(demo), name, *QUESTIONS[name](picture))

    def left():
        housekeeping.forget_sessions(demo.app.state_holder, 0)  # the page of a visitor keeps the last embedding
        return [type(each) for each in new() if issubclass(type(each), (torch.Tensor, Image.Image, pd.DataFrame))]

    picture = {**upload, "meta": {"_type": "gradio.FileData"}}
    ask_it()
    with new_objects() as new:
        for _ in range(3):
            ask_it()
        wait_for(lambda: len(left()) < 3)


def test_a_visitor_who_may_come_back_costs_no_copy_of_the_page(demo):
    sessions = demo.app.state_holder.session_data
    ask(address(demo), "concept", "star")
    came = len(sessions)
    with new_objects() as new:
        for _ in range(5):
            ask(address(demo), "concept", "star")
        housekeeping.forget_sessions(demo.app.state_holder, 3600)  # as the page does each minute
        assert not any(state.config_values for state in sessions.values())
        assert len(new()) < 5 * 500  # a page has 198 components, each described by several objects
    assert len(sessions) == came + 5  # none has been forgotten


def test_giving_memory_back_needs_glibc(monkeypatch):
    housekeeping.give_back_memory()
    monkeypatch.setattr(housekeeping.ctypes, "CDLL", lambda name: object())  # musl
    housekeeping.give_back_memory()
    housekeeping.keep_heaps_small()
    monkeypatch.setattr(housekeeping.sys, "platform", "win32")
    monkeypatch.setattr(housekeeping.ctypes, "CDLL", None)
    housekeeping.give_back_memory()
    housekeeping.keep_heaps_small()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(
    ("chosen", "kept"),
    [({}, False), ({"MALLOC_MMAP_THRESHOLD_": "30000000", "MALLOC_TRIM_THRESHOLD_": "60000000"}, True)],
)
def test_a_thread_keeps_no_heap_of_freed_memory_unless_the_user_wants_it(chosen, kept):
    environment = {name: value for name, value in os.environ.items() if "MALLOC_" not in name}
    environment.pop("GLIBC_TUNABLES", None)

    def megabytes_left(*functions, **chosen):
        command = [sys.executable, "-c", FREED_IN_A_THREAD, housekeeping.__file__, *functions]
        return int(subprocess.check_output(command, env={**environment, **chosen}))

    assert megabytes_left() > 20  # what happens by default
    assert (megabytes_left("keep_heaps_small", **chosen) > 20) == kept


def test_the_server_keeps_its_heaps_small_and_gives_free_memory_back(demo, monkeypatch, tmp_path):
    kept, given = [], []
    monkeypatch.setattr(housekeeping, "keep_heaps_small", lambda: kept.append(True))
    monkeypatch.setattr(housekeeping, "give_back_memory", lambda: given.append(True))

    async def serve():
        async with housekeeping.keeping(tmp_path, 0.01, 3600)(demo.app):
            assert kept == [True]
            while not given:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(serve(), 30))


def test_gradio_is_imported_without_stubs_for_editors():
    with housekeeping.gradio_without_stubs():
        with pytest.raises(OSError):
            inspect.getfile(gradio.Textbox)  # gradio asks for it first
        assert inspect.getfile(housekeeping) == housekeeping.__file__
    assert inspect.getfile(gradio.Textbox).endswith(".py")
