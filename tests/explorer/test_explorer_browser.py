"""The explorer in a real Chromium: every tab is used as a person would, and no error is logged.

What is shown belongs to what was asked last: where a question is refused, nothing of an earlier answer stays.
Screenshots go to outputs/explorer-screenshots; docs/images/space has those that were looked at.
"""

import re

import pytest

from tests.explorer.browsing import (
    SECONDS,
    choose,
    first_bars,
    leave,
    open_tab,
    shoot,
    told,
    upload,
    wait_for_other_bars,
)

pytestmark = pytest.mark.slow


ENDS = """boxes => boxes.map(box => {
    const input = box.querySelector("input"), arrow = box.querySelector(".dropdown-arrow").getBoundingClientRect();
    return [input.getBoundingClientRect().right - parseFloat(getComputedStyle(input).paddingRight), arrow.left];
})"""


def leave_and_come_back(page, name):
    """What opening a tab fills in comes once: it must not replace what a visitor has put there."""
    open_tab(page, "See" if name != "See" else "Match")
    panel = open_tab(page, name)
    page.wait_for_timeout(1500)
    return panel


def test_what_the_model_sees(open_page, picture, no_picture):
    page = open_page()
    panel = open_tab(page, "See")
    panel.locator("table.msae-bars").first.wait_for()  # an example is there when the page is opened
    for _ in range(2):  # and another can be chosen, also again
        panel.locator(".msae-examples button").nth(1).click()
        panel.get_by_text("heart", exact=True).first.wait_for()
        panel.get_by_label("Remove Image").first.click()
        panel.get_by_text("The concepts appear here").wait_for()
    upload(panel, picture)
    panel.locator("table.msae-bars").first.wait_for()
    coarse = first_bars(page)
    slider = panel.get_by_label("range slider for How many concepts?")
    assert int(slider.get_attribute("min")) == 8
    slider.fill(slider.get_attribute("max"))
    wait_for_other_bars(page, coarse)
    assert panel.get_by_text(re.compile(r"^All \d+ concepts rebuild the embedding")).is_visible()
    assert panel.locator("table.msae-levels tr[aria-current]").inner_text().startswith("all")
    # Gradio would read the pictures of a gallery out as "Thumbnail 3 of 8".
    panel.locator(".msae-gallery img").first.wait_for()
    page.wait_for_timeout(500)
    names = panel.locator("button.thumbnail-item").evaluate_all("all => all.map(each => each.ariaLabel)")
    assert len(names) == 6 + 8 and not any(name.startswith("Thumbnail") for name in names)
    assert "a huge striped crescent" in names[0] and re.match(r".* \d", names[6])
    assert panel.locator(".image-frame img").first.evaluate("each => each.style.imageRendering") == "pixelated"
    leave(page, "See")
    field = panel.get_by_label("Look closer at a concept", exact=True)
    field.fill("nonsense")
    field.press("Enter")
    told(panel, "no such concept")
    assert panel.locator(".msae-gallery img").count() == 0
    upload(panel, no_picture)
    told(panel, "not a picture")
    assert panel.locator("table.msae-bars").count() == 0


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


def test_why_a_picture_and_words_match(open_page, picture, no_picture):
    page = open_page()
    panel = open_tab(page, "Match")
    bars, words = panel.locator("table.msae-bars"), panel.get_by_role("textbox", name="Words")
    bars.wait_for()  # an example is answered when the tab is opened
    assert words.input_value()
    before = first_bars(page)
    upload(panel, picture)
    words.fill("a red star on snow")
    panel.get_by_role("button", name="Explain").first.click()
    wait_for_other_bars(page, before)
    leave(page, "Match")
    panel.get_by_label("Remove Image").first.click()
    panel = leave_and_come_back(page, "Match")
    assert words.input_value() == "a red star on snow" and panel.get_by_label("Remove Image").count() == 0
    panel.get_by_role("button", name="a picture").first.click()
    bars.wait_for()
    panel.get_by_label("another picture", exact=True).check()
    panel.get_by_text("The cosine and its parts appear here").wait_for()
    assert bars.count() == 0
    upload(panel, picture, 1)
    panel.get_by_text("the second picture is").wait_for()
    upload(panel, no_picture)
    told(panel, "not a picture")
    assert bars.count() == 0


def test_search_and_edit(open_page, picture):
    page = open_page()
    panel = open_tab(page, "Search")
    tiles, number = panel.locator(".msae-tiles"), panel.get_by_label("Number of the picture")
    after = panel.locator(".msae-tiles", has_text="After the change")
    after.locator("img").first.wait_for()  # an edit is answered when the tab is opened
    assert after.locator("img").count() == 12
    concept = panel.get_by_label("Concept 1").first
    assert concept.input_value() not in ("", "none", "star")
    choose(page, concept, "star")
    panel.locator("li", has_text="star: activation").wait_for()
    leave(page, "Search")

    def other_than(before):
        page.wait_for_function(
            "before => { const all = [...document.querySelectorAll('.msae-tiles')].filter(each => each.offsetParent);"
            "return all.length && all[0].innerText.includes('1st') && all[0].innerText !== before; }",
            arg=before,
        )
        return tiles.first.inner_text()

    found = tiles.first.inner_text()
    number.fill("7")
    other_than(found)
    number.fill("5000")
    told(panel, "5000")
    assert tiles.locator("img").count() == panel.get_by_role("img", name="Picture of the collection").count() == 0
    panel.get_by_role("button", name="Another picture").click()
    found = other_than("")
    panel.get_by_label("words", exact=True).check()
    told(panel, "Write a text first")
    assert tiles.locator("img").count() == 0
    words = panel.get_by_role("textbox", name="Words")
    words.fill("a red star")
    words.press("Enter")
    found = other_than(found)
    leave_and_come_back(page, "Search")
    assert words.input_value() == "a red star" and tiles.first.inner_text() == found
    panel.get_by_label("my picture", exact=True).check()
    told(panel, "Choose a picture first")
    upload(panel, picture)
    tiles.get_by_text("1st, similarity 1.00").first.wait_for()


def test_concepts_are_browsed(open_page):
    page = open_page()
    panel = open_tab(page, "Concepts")
    middle = panel.locator(".msae-tiles", has_text="From the middle")
    middle.locator("img").first.wait_for()  # a concept is shown when the tab is opened
    head, field = panel.locator("h3"), panel.get_by_label("Concept", exact=True)
    assert field.input_value() == head.inner_text() != "beach"
    panel.get_by_text("beach", exact=True).first.click()
    panel.locator("h3", has_text="beach").wait_for()
    panel = leave_and_come_back(page, "Concepts")
    assert head.inner_text() == "beach"
    leave(page, "Concepts")
    assert panel.get_by_text("(unvalidated)").count() == 0
    panel.get_by_label("validated names only").uncheck()
    panel.get_by_text("arrow (unvalidated)").locator("visible=true").first.wait_for()
    panel.get_by_text("1,024 of 1,024 latents").wait_for()
    panel.get_by_label("Search", exact=True).press_sequentially("zzz", delay=50)
    panel.get_by_text("None of 1,024 latents").wait_for()
    field.fill("nonsense")
    field.press("Enter")
    told(panel, "no such concept")
    assert head.count() == 0


def test_what_drives_a_classifier(open_page):
    page = open_page()
    panel = open_tab(page, "Bias")
    chart, verdict = panel.locator(".msae-dose"), panel.locator(".msae-verdict")
    chart.wait_for()  # a column is asked about when the tab is opened
    target, ask = (
        panel.get_by_label("What does the classifier decide?").first,
        panel.get_by_role("button", name="Ask", exact=True),
    )
    assert target.input_value() not in ("", "star") and not ask.is_visible()
    choose(page, target, "star")
    panel.locator(".msae-verdict", has_text="'star'").wait_for()
    panel.locator("figcaption", has_text="Probability of star").wait_for()
    panel = leave_and_come_back(page, "Bias")
    assert target.input_value() == "star" and "'star'" in verdict.inner_text()
    leave(page, "Bias")
    choose(page, target, "two texts of mine")
    panel.get_by_text("Write in the two boxes").wait_for()
    chart.wait_for(state="detached")
    panel.get_by_label("1. Is it ...").fill("a red thing")
    ask.click()
    told(panel, "box 2")
    panel.get_by_label("2. ... or is it ...").fill("a blue thing")
    ask.click()
    panel.locator(".msae-verdict", has_text="a red thing").wait_for()
    chart.wait_for()


def test_steering(open_page, picture, no_picture):
    page = open_page()
    panel = open_tab(page, "Steer")
    table, labels = panel.locator("table.msae-steer"), panel.get_by_label("Labels, 2 to 10")
    panel.get_by_text("After the change “").wait_for()  # an edit is answered when the tab is opened
    ends = panel.locator(".wrap-inner:visible").evaluate_all(ENDS)
    assert ends and all(text <= arrow for text, arrow in ends), "a name runs into the arrow of its list"
    answered = table.inner_text()
    slider = panel.locator("input[type=range]:visible").first
    slider.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "before => document.querySelector('table.msae-steer').innerText !== before", arg=answered, timeout=SECONDS
    )
    leave(page, "Steer")
    before = table.inner_text()
    panel.get_by_label("Remove Image").first.click()
    panel.get_by_text("The probabilities of the labels appear here").wait_for()
    panel = leave_and_come_back(page, "Steer")
    assert panel.get_by_label("Remove Image").count() == 0
    upload(panel, picture)
    table.wait_for()
    assert table.inner_text() != before
    for words, reason in (("star, star", "the same"), ("star", "there is 1")):
        labels.fill(words)
        labels.press("Enter")
        told(panel, reason)
        assert table.count() == 0
    shoot(page, "steer-refused")
    labels.fill("star, heart")
    labels.press("Enter")
    table.wait_for()
    upload(panel, no_picture)
    told(panel, "not a picture")
    assert table.count() == 0
