"""Errors become messages, answers wait for each other, and what is shown belongs to what was asked last."""

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
from tests.explorer.browsing import choose, first_bars, open_tab, shoot, wait_for_other_bars


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


@pytest.fixture
def refused(open_page):
    """The page; at the end of the test no message may have come up beside the place of the answer."""
    page = open_page()
    yield page
    assert page.locator(".toast-body").count() == 0


def told(panel, text):
    panel.get_by_role("alert").filter(has_text=text).wait_for()


@pytest.fixture
def no_picture(tmp_path):
    path = tmp_path / "text.png"
    path.write_text("no picture")
    return path


@pytest.mark.slow
def test_search_follows_what_is_searched_by(refused, picture):
    panel = open_tab(refused, "Search")
    tiles, number = panel.locator(".msae-tiles"), panel.get_by_label("Number of the picture")
    shown = panel.get_by_role("img", name="Picture of the collection")
    tiles.locator("img").first.wait_for()

    def other_than(before):
        refused.wait_for_function(
            "before => { const all = [...document.querySelectorAll('.msae-tiles')].filter(each => each.offsetParent);"
            "return all.length && all[0].innerText.includes('1st') && all[0].innerText !== before; }",
            arg=before,
        )
        return tiles.first.inner_text()

    found = tiles.first.inner_text()
    for row in ("7", "8"):
        number.fill(row)
        found = other_than(found)
    number.fill("5000")
    told(panel, "5000, but has to be from 0 to 299")
    assert tiles.locator("img").count() == shown.count() == 0
    panel.get_by_role("button", name="Another picture").click()
    shown.wait_for()
    found = other_than("")
    panel.get_by_label("words", exact=True).check()
    told(panel, "Write a text first")
    assert tiles.locator("img").count() == 0
    panel.get_by_role("textbox", name="Words").fill("a red star")
    panel.get_by_role("textbox", name="Words").press("Enter")
    found = other_than(found)
    panel.get_by_label("my picture", exact=True).check()
    told(panel, "Choose a picture first")
    panel.locator("input[type=file]").first.set_input_files(picture)
    tiles.get_by_text("1st, similarity 1.00").first.wait_for()


@pytest.mark.slow
def test_match_follows_its_pictures(refused, picture, no_picture):
    panel = open_tab(refused, "Match")
    bars = panel.locator("table.msae-bars")
    bars.wait_for()
    before = first_bars(refused)
    panel.get_by_role("button", name="Take a picture").first.click()
    wait_for_other_bars(refused, before)
    panel.get_by_label("another picture", exact=True).check()
    panel.get_by_text("The cosine and its parts appear here").wait_for()
    assert bars.count() == 0
    panel.locator("input[type=file]").last.set_input_files(picture)
    panel.get_by_text("picture and the second picture is").wait_for()
    panel.get_by_label("Remove Image").first.click()
    panel.locator("input[type=file]").first.set_input_files(no_picture)
    told(panel, "This is not a picture")
    assert bars.count() == 0


@pytest.mark.slow
def test_bias_does_not_leave_the_findings_of_a_column_beside_texts(refused):
    panel = open_tab(refused, "Bias")
    panel.locator(".msae-dose").wait_for()
    target = panel.get_by_label("What does the classifier decide?").first
    assert not panel.get_by_role("button", name="Ask", exact=True).is_visible()
    choose(refused, target, "two texts of mine")
    panel.get_by_text("Write in the two boxes").wait_for()
    panel.locator(".msae-dose").wait_for(state="detached")
    panel.get_by_label("1. Is it ...").fill("a red thing")
    panel.get_by_role("button", name="Ask", exact=True).click()
    told(panel, "Write a text in box 2 first")
    panel.get_by_label("2. ... or is it ...").fill("a blue thing")
    panel.get_by_role("button", name="Ask", exact=True).click()
    panel.locator(".msae-verdict", has_text="a red thing").wait_for()
    panel.locator(".msae-dose").wait_for()
    choose(refused, target, "star")
    panel.locator(".msae-verdict", has_text="'star'").wait_for()


@pytest.mark.slow
def test_steer_does_not_leave_the_table_of_other_labels(refused, no_picture):
    panel = open_tab(refused, "Steer")
    table, labels = panel.locator("table.msae-steer"), panel.get_by_label("Labels, 2 to 10")
    table.wait_for()
    labels.fill("star, star")
    panel.get_by_role("button", name="Compare").click()
    told(panel, "the same")
    assert table.count() == 0
    shoot(refused, "steer-refused")
    labels.fill("star")
    labels.press("Enter")
    told(panel, "there is 1")
    assert table.count() == 0
    labels.fill("star, heart")
    labels.press("Enter")
    table.wait_for()
    panel.get_by_label("Remove Image").first.click()
    panel.locator("input[type=file]").first.set_input_files(no_picture)
    told(panel, "This is not a picture")
    assert table.count() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tab", "label", "gone"),
    [("Concepts", "Concept", "h3"), ("See", "Look closer at a concept", ".msae-gallery img")],
)
def test_a_concept_that_there_is_not_leaves_nothing_of_another(refused, tab, label, gone):
    panel = open_tab(refused, tab)
    panel.locator(gone).first.wait_for()
    panel.get_by_label(label, exact=True).fill("nonsense")
    panel.get_by_label(label, exact=True).press("Enter")
    told(panel, "There is no such concept")
    assert panel.locator(gone).count() == 0
