"""What visitors are told while the explorer is being loaded, and what happens as soon as it is there."""

import subprocess
import sys
import textwrap
import threading

import pytest

pytest.importorskip("gradio")

import gradio as gr

from hf_msae.explorer import Explorer, ExplorerSettings, VisitorError
from hf_msae.explorer.components.waiting import Loading, on_first_open

SECONDS = 20


@pytest.fixture
def gate():
    """Opens when the test says so, and at its end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def late(explorer, gate):
    """The explorer, being loaded until the gate opens."""
    loading = Loading(lambda: (gate.wait(SECONDS), explorer)[1])
    loading.start()
    return loading


@pytest.fixture
def failed():
    def load():
        raise ValueError("there is no <model> at /a/secret/place")

    loading = Loading(load)
    with pytest.raises(VisitorError) as caught:
        loading.get()
    assert "secret" not in str(caught.value) and "secret" in str(caught.value.__cause__)
    return loading


def test_the_page_says_what_is_being_done_until_it_is_done(late, gate):
    assert "<progress aria-label" in late.html() and "max=" not in late.html()
    late.report("<b>embedding", 0.3)
    assert 'value="0.300"' in late.html() and "&lt;b&gt;embedding, 30%" in late.html()
    gate.set()
    late.get()
    assert late.html() == ""


def test_loading_reports_its_stages():
    stages = []
    Explorer.load(ExplorerSettings(dataset="scenes:test:70:7"), lambda *stage: stages.append(stage))
    assert [share for _, share in stages] == [None, None, None, 0.0, pytest.approx(64 / 70), None]
    assert "embedding" in stages[4][0]


def test_the_page_says_that_loading_failed_but_not_what_the_error_holds(failed):
    assert 'role="alert"' in failed.html() and "secret" not in failed.html()
    assert failed.has_failed and not failed.is_done


def attempts(loading, function):
    """What the events of `on_first_open` call."""
    with gr.Blocks() as page:
        word = gr.Textbox()
        on_first_open(loading, page.load, function, [word], [word])
    events = [each for each in page.fns.values() if each.fn is not None]
    assert {each.targets[0][1] for each in events} == {"load", "tick"}
    assert all(each.api_visibility == "private" for each in events)
    return events[0].fn


def is_active(timer):
    return timer.active


def test_what_the_inputs_hold_when_the_explorer_is_there_counts(late, gate):
    attempt = attempts(late, lambda word: (f"{word}!",))
    value, is_open, timer = attempt(False, "before")
    assert value == gr.skip() and not is_open and is_active(timer)
    gate.set()
    late.get()
    value, is_open, timer = attempt(False, "now")
    assert value == "now!" and is_open and not is_active(timer)
    assert attempt(True, "later")[0] == gr.skip()  # a tab is filled once


def test_nothing_is_waited_for_after_a_failure(failed):
    value, _, timer = attempts(failed, lambda word: (word,))(False, "word")
    assert value == gr.skip() and not is_active(timer)


@pytest.mark.slow
def test_a_process_that_ends_while_it_loads_ends_well():
    """Python ends background threads by force, which torch answers with an abort."""
    program = """
        import time
        from hf_msae.explorer import Explorer, ExplorerSettings
        from hf_msae.explorer.components.waiting import Loading
        loading = Loading(lambda: Explorer.load(ExplorerSettings(dataset="scenes:test:500:7"), loading.report))
        loading.start()
        while "embedding" not in loading.html():
            time.sleep(0.01)
        time.sleep(0.3)  # the model is at work
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "terminate" not in done.stderr, done.stderr


@pytest.mark.parametrize("error", [VisitorError("there are no names"), RuntimeError("a secret")])
def test_an_answer_that_fails_is_told_once_and_not_tried_again(explorer, error, monkeypatch, caplog):
    warnings = []
    monkeypatch.setattr(gr, "Warning", warnings.append)
    loading = Loading(lambda: explorer)
    loading.get()

    def answer(word):
        raise error

    value, is_open, timer = attempts(loading, answer)(False, "word")
    assert value == gr.skip() and not is_open and not is_active(timer)
    assert len(warnings) == 1 and "secret" not in warnings[0] + caplog.text
