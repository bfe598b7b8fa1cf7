"""Errors become messages, and answers wait for each other."""

import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("gradio")

import gradio as gr

from hf_msae.explorer import VisitorError
from hf_msae.explorer.answers import CONCURRENCY, answering, in_place


@answering
def fails(kind, text):
    raise kind(text)


def test_errors_become_messages_and_the_log_keeps_to_kind_and_place(caplog):
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(gr.Error, match="Choose a star"):
            fails(VisitorError, "Choose a star")
        assert not caplog.records
        with pytest.raises(gr.Error, match="Something went wrong") as caught:
            fails(RuntimeError, "a secret")
    assert "secret" not in str(caught.value) and "secret" not in caplog.text
    assert re.search(r"RuntimeError at test_explorer_answers\.py:\d+", caplog.text)


def test_no_more_answers_are_computed_at_a_time_than_there_are_slots():
    running, most, lock = 0, 0, threading.Lock()

    def ask():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    questions = [answering(ask) for _ in range(8)]  # of different kinds
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda question: question(), questions * 3))
    assert most == CONCURRENCY


def test_a_refusal_stands_in_place_of_the_answer_and_other_errors_do_not():
    def ask(kind, text):
        if kind:
            raise kind(text)
        return text, 1

    answer = in_place(ask, lambda told: (told, None))
    assert answer(None, "answer") == ("answer", 1)
    told, number = answer(VisitorError, "Choose <one> first")
    assert 'role="alert"' in told and "Choose &lt;one&gt; first" in told and number is None
    with pytest.raises(RuntimeError, match="broken"):
        answer(RuntimeError, "broken")
