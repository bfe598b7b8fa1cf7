"""The explorer in a real Chromium: every tab is used as a person would, and no error is logged.

Screenshots go to outputs/explorer-screenshots; docs/images/space has those that were looked at.
"""

import re
import threading

import pytest

from tests.explorer.browsing import SECONDS, TABS, choose, first_bars, open_tab, shoot, wait_for_other_bars

pytestmark = pytest.mark.slow


def leave_and_return(page, tab):
    """Visit another tab, and wait for an example that must not come again."""
    open_tab(page, "Match" if tab == "See" else "See")
    panel = open_tab(page, tab)
    page.wait_for_timeout(1000)
    return panel


def test_what_the_model_sees(open_page, picture, tmp_path):
    page = open_page()
    panel = open_tab(page, "See")
    panel.locator("table.msae-bars").first.wait_for()  # an example is there when the page is opened
    panel.locator(".msae-gallery img").first.wait_for()
    page.wait_for_timeout(500)
    names = panel.locator("button.thumbnail-item").evaluate_all("all => all.map(each => each.ariaLabel)")
    assert len(names) == 6 + 8 and "a huge striped crescent" in names[0] and names[6].startswith("crescent ")
    for _ in range(2):  # an example can be chosen again
        panel.locator(".msae-examples button").nth(1).click()
        panel.get_by_text("heart", exact=True).first.wait_for()
        panel.get_by_label("Remove Image").first.click()
        panel.get_by_text("The concepts appear here").wait_for()
    page.wait_for_timeout(500)
    for empty in ("Look closer at a concept", "range slider for How many concepts?"):
        assert not panel.get_by_label(empty).is_visible()
    assert not panel.locator(".msae-gallery").is_visible() and not panel.get_by_text("Where it is").is_visible()
    panel.locator("input[type=file]").first.set_input_files(picture)
    panel.locator("table.msae-bars").first.wait_for()
    coarse = first_bars(page)
    slider = panel.get_by_label("range slider for How many concepts?")
    assert int(slider.get_attribute("min")) == 8
    slider.fill(slider.get_attribute("max"))
    wait_for_other_bars(page, coarse)
    assert panel.get_by_text(re.compile(r"^All \d+ concepts rebuild the embedding")).is_visible()
    assert panel.locator("table.msae-levels tr[aria-current]").inner_text().startswith("all")
    shoot(page, "see")
    (tmp_path / "text.png").write_text("no picture")
    panel.get_by_label("Remove Image").first.click()
    panel.locator("input[type=file]").first.set_input_files(tmp_path / "text.png")
    panel.get_by_role("alert").wait_for()


def test_the_explanation_follows_the_slider_while_it_is_dragged_and_never_fades(open_page):
    page = open_page()
    panel = open_tab(page, "See")
    panel.locator("table.msae-bars").first.wait_for()
    page.wait_for_timeout(1500)  # what is shown at the beginning is all there
    page.evaluate(
        """() => {
            window.told = []; window.faintest = 1;
            const look = () => {
                const panel = document.querySelector(".msae-rebuilt");
                if (!panel) window.faintest = 0;
                for (let each = panel; each; each = each.parentElement)
                    window.faintest = Math.min(window.faintest, +getComputedStyle(each).opacity);
                const told = panel?.innerText;
                if (told !== window.told.at(-1)) window.told.push(told);
                requestAnimationFrame(look);
            };
            look();
        }"""
    )
    place = panel.get_by_label("range slider for How many concepts?").bounding_box()
    height = place["y"] + place["height"] / 2
    page.mouse.move(place["x"] + 2, height)
    page.mouse.down()
    for step in range(1, 11):
        page.mouse.move(place["x"] + place["width"] * step / 20, height)
        page.wait_for_timeout(150)
    during = page.evaluate("window.told.length")
    page.mouse.up()
    chosen = panel.get_by_label("number input for How many concepts?").input_value()
    panel.get_by_text(re.compile(f"^{chosen} concepts rebuild")).wait_for()
    assert during >= 4 and page.evaluate("window.faintest") == 1


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
            # Nothing that is reached lacks a visible frame; the body is where the page's end is.
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


def test_why_a_picture_and_words_match(open_page, picture):
    page = open_page()
    panel = open_tab(page, "Match")
    panel.locator("table.msae-bars").first.wait_for()  # an example is answered when the tab is opened
    words = panel.get_by_role("textbox", name="Words")
    assert words.input_value()
    before = first_bars(page)
    panel.get_by_label("Remove Image").first.click()
    panel.locator("input[type=file]").first.set_input_files(picture)
    words.fill("a red star on snow")
    panel.get_by_role("button", name="Explain").first.click()
    wait_for_other_bars(page, before)
    shoot(page, "match")
    panel.get_by_label("Remove Image").first.click()
    panel = leave_and_return(page, "Match")
    assert words.input_value() == "a red star on snow" and panel.get_by_label("Remove Image").count() == 0


def test_search_and_edit(open_page):
    page = open_page()
    panel = open_tab(page, "Search")
    after = panel.locator(".msae-tiles", has_text="After the change")
    after.locator("img").first.wait_for()  # an edit is answered when the tab is opened
    assert after.locator("img").count() == 12
    first, second, third = (panel.get_by_label(f"Concept {number}", exact=True) for number in (1, 2, 3))
    assert first.input_value() not in ("", "none", "star") and not third.is_visible()
    choose(page, first, "star")
    panel.locator("li", has_text="star: activation").wait_for()
    shoot(page, "search")
    choose(page, second, "red")  # places for concepts come one after the other
    third.wait_for()
    panel.get_by_label("range slider for Strength of concept 2").wait_for()
    panel.get_by_label("words", exact=True).check()
    words = panel.get_by_role("textbox", name="Words")
    words.fill("a red star")
    words.press("Enter")
    page.wait_for_timeout(1500)
    told = panel.locator(".msae-tiles").first.inner_text()
    panel = leave_and_return(page, "Search")
    assert words.input_value() == "a red star" and panel.locator(".msae-tiles").first.inner_text() == told


def test_concepts_are_browsed(open_page):
    page = open_page()
    panel = open_tab(page, "Concepts")
    middle = panel.locator(".msae-tiles", has_text="From the middle")
    middle.locator("img").first.wait_for()  # a concept is shown when the tab is opened
    begun = panel.locator("h3").inner_text()
    assert panel.get_by_label("Concept", exact=True).input_value() == begun != "beach"
    panel.get_by_text("beach", exact=True).first.click()
    panel.locator("h3", has_text="beach").wait_for()
    panel = leave_and_return(page, "Concepts")
    assert panel.locator("h3").inner_text() == "beach"
    shoot(page, "concepts")
    assert panel.get_by_text("(unvalidated)").count() == 0
    panel.get_by_label("validated names only").uncheck()
    panel.get_by_text("arrow (unvalidated)").locator("visible=true").first.wait_for()
    panel.get_by_text("1,024 of 1,024 latents").wait_for()
    panel.get_by_label("Search", exact=True).press_sequentially("zzz", delay=50)
    panel.get_by_text("None of 1,024 latents").wait_for()


def test_what_drives_a_classifier(open_page):
    page = open_page()
    panel = open_tab(page, "Bias")
    panel.locator(".msae-dose").wait_for()  # a column is asked about when the tab is opened
    target = panel.get_by_label("What does the classifier decide?").first
    assert target.input_value() not in ("", "star")
    choose(page, target, "star")
    panel.locator(".msae-verdict", has_text="prediction of 'star'").wait_for()
    panel.locator("figcaption", has_text="Probability of star").wait_for()
    panel = leave_and_return(page, "Bias")
    assert target.input_value() == "star" and "'star'" in panel.locator(".msae-verdict").inner_text()
    shoot(page, "bias")


def test_steering(open_page, picture):
    page = open_page()
    panel = open_tab(page, "Steer")
    panel.get_by_text("After the change it is").wait_for()  # an edit is answered when the tab is opened
    shoot(page, "steer")
    before = panel.locator("table.msae-steer").inner_text()
    panel.get_by_label("Remove Image").first.click()
    panel.get_by_text("The probabilities of the labels appear here").wait_for()
    panel = leave_and_return(page, "Steer")
    assert panel.get_by_label("Remove Image").count() == 0
    panel.locator("input[type=file]").first.set_input_files(picture)
    panel.locator(".msae-verdict").wait_for()
    assert panel.locator("table.msae-steer").inner_text() != before


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_a_phone_all_tabs_are_in_sight_and_nothing_lies_beside_the_screen(open_page, theme):
    page = open_page(390, 844, theme)
    places = [page.get_by_role("tab", name=name, exact=True).bounding_box() for name in TABS]
    assert all(place["x"] >= 0 and place["x"] + place["width"] <= 390 for place in places)
    assert len({place["y"] for place in places}) == 1 and places[0]["y"] < 844
    panel = open_tab(page, "See")
    panel.locator("table.msae-bars").first.wait_for()  # the example's
    panel.locator(".msae-gallery .caption-label").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(page, f"phone-{theme}")


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
