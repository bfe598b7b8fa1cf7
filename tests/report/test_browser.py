"""The page in a real browser: nothing goes wrong, nothing is fetched, it fits a phone, filters, and can be dark."""

import io

import numpy as np
import pytest
from PIL import Image

from hf_msae import VisionTextMSAE
from hf_msae.report import write_report
from hf_msae.report.sections.concepts import OPEN
from tests.report.conftest import QUICK, WIDTH, names, row_of

pytestmark = pytest.mark.slow

OUTSIDE = """[...document.querySelectorAll("body *")].filter((element) => {
    if (element.getBoundingClientRect().right <= innerWidth + 0.5) return false;
    for (let above = element.parentElement; above; above = above.parentElement)
        if (getComputedStyle(above).overflowX !== "visible") return false;
    return true;
}).map((element) => `${element.tagName}.${element.className}`)"""
BRIGHTNESS = """(element) => getComputedStyle(element).backgroundColor.match(/[0-9.]+/g).slice(0, 3)
    .reduce((sum, value) => sum + Number(value) / 765, 0)"""


@pytest.fixture
def visit(browser, written):
    """Open the page; what went wrong, and what was fetched, is in `.problems` and `.fetched`."""
    contexts = []

    def visit(width=1280, path=written, **settings):
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **settings))
        page = contexts[-1].new_page()
        page.problems, page.fetched = [], []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda request: page.fetched.append(request.url))
        page.goto(path.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_it_opens_without_errors_or_network_and_fits(visit, written, width, scheme):
    page = visit(width, color_scheme=scheme)
    page.wait_for_load_state("networkidle")
    assert page.problems == []
    assert [url for url in page.fetched if not url.startswith("data:")] == [written.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == width and page.evaluate(OUTSIDE) == []
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 50)")
    paper, panel = page.locator("body"), page.locator(".drawing").first
    assert (paper.evaluate(BRIGHTNESS) < 0.2) == (scheme == "dark")
    assert panel.evaluate(BRIGHTNESS) == 1, "figures stay on white"


def test_pictures_are_painted(visit):
    """A tile has the color of the picture of its row."""
    page = visit()
    for tile in page.locator("#searches .tile .pic").all()[:4]:
        row = int(tile.get_attribute("class").split(" p")[1])
        middle = np.asarray(Image.open(io.BytesIO(tile.screenshot())).convert("RGB"))
        height, width = middle.shape[:2]
        assert row_of(middle[height // 2 - 5 : height // 2 + 5, width // 4 : -width // 4]) == row


def test_the_filter_shows_what_is_asked_for(visit):
    page = visit()
    cards, told = page.locator(".card"), page.locator("#filter output")
    assert page.locator(".card:visible").count() == OPEN and cards.count() == 7 and told.inner_text() == "7 of 7"
    page.get_by_label("Show concepts that contain").fill(" N3")
    assert page.locator(".card:visible h3").all_inner_texts() == ["n3"] and told.inner_text() == "1 of 7"
    page.keyboard.press("Enter")
    assert page.url.endswith("report.html") and page.locator(".card:visible").count() == 1
    page.get_by_label("Show concepts that contain").fill("nothing")
    assert page.locator(".card:visible").count() == 0 and told.inner_text() == "0 of 7"
    page.get_by_label("Show concepts that contain").fill("")
    assert page.locator(".card:visible").count() == 7 and page.problems == []


@pytest.mark.parametrize("opened_by", ["the filter", "printing"])
def test_folded_cards_open_to_be_found_and_printed(visit, world, tmp_path, opened_by):
    table = names(q_value=np.full(WIDTH, 0.01))
    model = VisionTextMSAE(world.model.backbone, world.model.msae, table)
    settings = {**QUICK, "num_concepts": 12, "metrics": world.metrics}
    page = visit(path=write_report(tmp_path / "report.html", model, world.embeddings, **settings))
    cards = page.locator(".card")
    last = cards.nth(11)
    assert cards.count() == 12 and page.locator(".card:visible").count() == OPEN
    if opened_by == "the filter":
        page.get_by_label("Show concepts that contain").fill(last.locator("h3").text_content())
    else:
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert last.is_visible() and page.problems == []


def test_it_is_readable_without_scripts_and_by_keyboard(visit):
    page = visit(java_script_enabled=False)
    assert page.locator(".card:visible").count() == OPEN and not page.locator("#filter").is_visible()
    page.locator("details.more > summary").click()
    assert page.locator(".card:visible").count() == 7, "folded cards open without scripts"
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(8):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#limits"
    page.keyboard.press("Enter")
    page.wait_for_url("**#limits")
    pytest.importorskip("playwright.sync_api").expect(page.locator("#limits-title")).to_be_in_viewport()


def test_injected_scripts_do_not_run(visit, written, tmp_path):
    """Should escaping ever fail, the page's policy still stands."""
    hostile = "<script>document.title = 'hacked'</script><img src=x onerror=\"document.title = 'hacked'\">"
    path = tmp_path / "hostile.html"
    path.write_text(written.read_text().replace("<main>", f"<main>{hostile}", 1))
    page = visit(path=path)
    assert "hacked" not in page.title() and any("Content Security Policy" in problem for problem in page.problems)
