"""The explorer in a real Chromium by keyboard alone, on a phone, and while it is being loaded."""

import re
import threading

import pytest

from tests.explorer.browsing import SECONDS, TABS, choose, first_bars, open_tab, shoot, upload, wait_for_other_bars

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_a_phone_all_is_in_sight_and_nothing_empty_is_shown(open_page, picture, theme):
    page = open_page(390, 844, theme)
    places = [page.get_by_role("tab", name=name, exact=True).bounding_box() for name in TABS]
    assert all(place["x"] >= 0 and place["x"] + place["width"] <= 390 for place in places)
    assert len({place["y"] for place in places}) == 1 and not page.get_by_label("More tabs").is_visible()
    panel = open_tab(page, "See")
    panel.locator("table.msae-bars").first.wait_for()
    panel.get_by_label("Remove Image").first.click()
    panel.get_by_text("The concepts appear here").wait_for()
    page.wait_for_timeout(1000)
    for what in ("Look closer at a concept", "range slider for How many concepts?"):
        assert not panel.get_by_label(what).is_visible()
    assert not panel.locator(".msae-gallery").is_visible()
    assert not panel.get_by_text("Where it is").is_visible()
    upload(panel, picture)
    panel.locator(".msae-gallery .caption-label", has_text="star").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(page, f"phone-{theme}")


def test_on_a_phone_places_for_concepts_come_one_after_the_other(open_page):
    page = open_page(390, 844)
    panel = open_tab(page, "Search")
    panel.locator(".msae-tiles img").first.wait_for()
    second, third = (panel.get_by_label(f"Concept {number}", exact=True) for number in (2, 3))
    second.wait_for()
    assert not third.is_visible()
    choose(page, second, "star")
    third.wait_for()
    panel.get_by_label("range slider for Strength of concept 2").wait_for()


@pytest.mark.parametrize("fails", [False, True])
def test_while_the_explorer_is_loaded_the_page_says_so(explorer, browser, monkeypatch, fails, tmp_path):
    from hf_msae.explorer import ExplorerSettings, app

    gate = threading.Event()

    def gated(settings, report):
        report("embedding", 0.34)
        gate.wait(60)
        if fails:
            raise ValueError("no such model")
        return explorer

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(app.Explorer, "load", gated)
    demo = app.build_demo(ExplorerSettings())
    _, url, _ = demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **app.launch_options())
    context = browser.new_context()
    try:
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.goto(url)
        page.get_by_text("embedding, 34%").wait_for()
        gate.set()
        if fails:
            page.locator(".msae-loading", has_text="could not be loaded").wait_for()
        else:
            page.locator("table.msae-bars").first.wait_for()  # the example has come by itself
            page.locator(".msae-loading").wait_for(state="hidden")
    finally:
        gate.set()
        context.close()
        demo.close()


def test_see_is_used_by_keyboard_alone(open_page):
    page = open_page()
    panel = open_tab(page, "See")
    panel.locator("table.msae-bars").first.wait_for()
    panel.locator(".msae-examples img").first.wait_for()
    page.wait_for_timeout(1500)
    before = first_bars(page)

    def tab_to(is_there):
        for _ in range(40):
            page.keyboard.press("Tab")
            focus = page.evaluate(
                """() => {
                    const each = document.activeElement, style = getComputedStyle(each);
                    return [each.ariaLabel || each.innerText || "", style.outlineStyle + parseInt(style.outlineWidth),
                            each.tagName];
                }"""
            )
            # Nothing that is reached lacks a name or a visible frame; the body is where the page's end is.
            assert focus[2] == "BODY" or (focus[1].startswith("solid") and int(focus[1][5:]) >= 2), focus
            if is_there(focus[0]):
                return
        raise AssertionError("it cannot be reached by the Tab key")

    third = panel.locator(".msae-examples img").nth(2).get_attribute("alt")
    page.get_by_role("tab", name="See").focus()
    tab_to(lambda name: name == third)
    page.keyboard.press("Enter")
    wait_for_other_bars(page, before)
    before = first_bars(page)
    tab_to(lambda name: name.startswith("range slider"))
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    panel.get_by_text(re.compile(r"^19 concepts rebuild")).wait_for()
    wait_for_other_bars(page, before)
    tab_to(lambda name: name == "Look closer at a concept")
    page.keyboard.press("Control+a")
    page.keyboard.type("watermark")
    page.keyboard.press("Enter")
    panel.locator(".msae-gallery .caption-label", has_text="watermark").first.wait_for()
    page.keyboard.press("Tab")
    tab_to(lambda name: name.startswith("watermark"))
