"""The explorer in a real Chromium: every tab is used as a person would, and no error is logged.

Screenshots go to outputs/explorer-screenshots; docs/images/space has those that were looked at.
"""

import shutil
from pathlib import Path

import pytest

from tests.explorer.serving import serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SHOTS = Path(__file__).parents[2] / "outputs" / "explorer-screenshots"
SECONDS = 30_000
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    pytest.importorskip("gradio")
    with serving(tmp_path_factory.mktemp("explorer"), "scenes:test:300:7") as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def open_page(served, browser):
    """Opens the page; at the end of the test nothing may have been logged as an error."""
    errors, contexts = [], []

    def open_page(width=1280, height=900, theme="light"):
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{served.url}/?__theme={theme}")
        page.get_by_role("heading", name="Concept Explorer").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    from hf_msae.scenes import load_scenes

    path = tmp_path_factory.mktemp("pictures") / "scene.png"
    load_scenes("test", 300, 7)[34]["image"].save(path)
    return path


def open_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()
    return page.locator("div[role=tabpanel]:visible").first


def shoot(page, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(400)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def test_what_the_model_sees(open_page, picture):
    page = open_page()
    panel = open_tab(page, "What does the model see?")
    panel.locator("table.msae-bars").first.wait_for()  # an example is there when the page is opened
    panel.get_by_label("Remove Image").first.click()
    panel.get_by_text("The concepts appear here").wait_for()
    panel.locator("input[type=file]").first.set_input_files(picture)
    panel.locator("table.msae-bars").first.wait_for()
    coarse = panel.locator("table.msae-bars").first.inner_text()
    panel.get_by_text("all", exact=True).first.click()
    page.wait_for_function(
        "before => document.querySelector('div[role=tabpanel] table.msae-bars').innerText !== before", arg=coarse
    )
    shoot(page, "see")


def test_why_a_picture_and_words_match(open_page, picture):
    page = open_page()
    panel = open_tab(page, "Why did this match?")
    panel.locator("input[type=file]").first.set_input_files(picture)
    panel.locator("textarea:visible, input[type=text]:visible").first.fill("a red star on snow")
    panel.get_by_role("button", name="Explain").first.click()
    panel.locator("table.msae-bars").first.wait_for()
    shoot(page, "match")


def test_search_and_edit(open_page):
    page = open_page()
    panel = open_tab(page, "Search and edit")
    concept = panel.get_by_label("Concept 1").first
    concept.click()
    concept.fill("star")
    page.get_by_role("option", name="star", exact=True).first.click()
    panel.get_by_role("button", name="Search", exact=True).click()
    panel.locator(".msae-tiles img, .grid-container img, .gallery img, button.thumbnail-item img").first.wait_for()
    page.wait_for_timeout(1500)
    shoot(page, "search")


def test_concepts_are_browsed(open_page):
    page = open_page()
    panel = open_tab(page, "Concepts")
    panel.locator("table").first.wait_for()
    panel.get_by_text("beach", exact=True).first.click()
    panel.get_by_text("From the middle of its activations").wait_for()
    page.wait_for_function("document.querySelectorAll('div[role=tabpanel] img').length > 5")
    shoot(page, "concepts")


def test_what_drives_a_classifier(open_page):
    page = open_page()
    panel = open_tab(page, "Bias")
    target = panel.get_by_label("What does the classifier decide?").first
    target.click()
    target.fill("star")
    page.get_by_role("option", name="star", exact=True).first.click()
    panel.get_by_role("button", name="Ask", exact=True).click()
    panel.locator("table.msae-bars").first.wait_for()
    page.wait_for_timeout(1500)
    shoot(page, "bias")


def test_steering(open_page, picture):
    page = open_page()
    panel = open_tab(page, "Steer")
    panel.locator("input[type=file]").first.set_input_files(picture)
    page.wait_for_timeout(2500)
    shoot(page, "steer")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_a_phone_nothing_lies_beside_the_screen(open_page, picture, theme):
    page = open_page(390, 844, theme)
    panel = open_tab(page, "What does the model see?")
    panel.locator("table.msae-bars").first.wait_for()  # the example's
    panel.locator("input[type=file]").first.set_input_files(picture)
    panel.locator("table.msae-bars").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(page, f"phone-{theme}")


def test_what_is_no_picture_gets_a_message_and_the_page_goes_on(open_page, picture, tmp_path):
    page = open_page()
    (tmp_path / "text.png").write_text("no picture")
    panel = open_tab(page, "What does the model see?")
    panel.locator("table.msae-bars").first.wait_for()  # the example's
    panel.locator("input[type=file]").first.set_input_files(tmp_path / "text.png")
    page.get_by_text("no picture", exact=False).first.wait_for()
    shoot(page, "refused")


def test_every_picture_has_a_text_and_every_control_a_name(open_page, picture):
    page = open_page()
    panel = open_tab(page, "What does the model see?")
    panel.locator("table.msae-bars").first.wait_for()  # the example's
    panel.locator("input[type=file]").first.set_input_files(picture)
    panel.locator("table.msae-bars").first.wait_for()
    page.wait_for_timeout(1500)
    assert page.evaluate("[...document.querySelectorAll('img')].filter(each => !each.hasAttribute('alt')).length") == 0
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button:not([aria-hidden=true])')].filter(each => each.offsetParent && "
        "!each.innerText.trim() && !each.ariaLabel && !each.title && !each.querySelector('img[alt]')).length"
    )
    assert unnamed == 0
