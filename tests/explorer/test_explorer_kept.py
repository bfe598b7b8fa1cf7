"""Answers are computed once, kept for a while, and not too many of them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hf_msae.explorer import kept
from hf_msae.explorer.kept import Kept


def test_questions_do_not_wait_for_other_questions():
    answers, asked = Kept(2), threading.Event()

    def slow():
        assert asked.wait(10)
        return 1

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(answers.get, "slow", slow)
        assert answers.get("fast", lambda: 2) == 2
        asked.set()
        assert first.result() == 1


def test_the_oldest_and_what_is_too_old_is_forgotten(monkeypatch):
    now = 0.0
    monkeypatch.setattr(kept.time, "monotonic", lambda: now)
    answers = Kept(2, seconds=10)
    for key in "abc":
        answers.get(key, lambda: "first")
    assert [answers.get(key, lambda: "second") for key in "cba"] == ["first", "first", "second"]
    now = 11.0
    assert answers.get("a", lambda: "third") == "third"
    assert len(answers._answers) == 1


def test_an_error_reaches_whoever_asked_and_is_not_kept():
    answers = Kept(2)
    with pytest.raises(ZeroDivisionError):
        answers.get("a", lambda: 1 / 0)
    assert answers.get("a", lambda: 1) == 1
