"""The explorer in a real Chromium, for tests: it is opened, and its tabs are shown and photographed."""

from pathlib import Path

SHOTS = Path(__file__).parents[2] / "outputs" / "explorer-screenshots"
SECONDS = 30_000
TABS = ("See", "Match", "Search", "Concepts", "Bias", "Steer")
UNNAMED = """() => {
    const seen = [...document.querySelectorAll("img, button:not([aria-hidden=true]), input, textarea, select")]
        .filter(each => each.offsetParent && each.type !== "file");
    const told = each => each.ariaLabel || each.title || each.labels?.length || each.innerText.trim();
    const named = each => each.tagName === "IMG" ? each.alt.trim()
        : told(each) || [...each.querySelectorAll("img")].some(img => img.alt.trim());
    return seen.filter(each => !named(each)).map(each => each.outerHTML.slice(0, 200));
}"""


def open_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()
    return page.locator("div[role=tabpanel]:visible").first


def shoot(page, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.locator("footer").scroll_into_view_if_needed()  # pictures far below are loaded only when they come near
    page.wait_for_timeout(400)
    page.evaluate("window.scrollTo(0, 0)")
    page.mouse.move(0, 0)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def first_bars(page):
    """What the first table of bars on the open tab says."""
    return page.locator("div[role=tabpanel]:visible table.msae-bars").first.inner_text()


def wait_for_other_bars(page, before):
    page.wait_for_function(
        "before => [...document.querySelectorAll('div[role=tabpanel] table.msae-bars')]"
        ".find(each => each.offsetParent)?.innerText !== before",
        arg=before,
    )


def leave(page, name):
    """Photograph a tab that has been used; every picture has a text, and every control a name."""
    shoot(page, name.lower())
    assert page.evaluate(UNNAMED) == []


def told(panel, text):
    panel.get_by_role("alert").filter(has_text=text).wait_for()


def choose(page, field, name):
    field.click()
    field.fill(name)
    page.get_by_role("option", name=name, exact=True).first.click()


def upload(panel, path, place=0):
    """Put a file into a picture's place, which may be taken."""
    if panel.get_by_label("Remove Image").count() > place:
        panel.get_by_label("Remove Image").nth(place).click()
    panel.locator("input[type=file]").nth(place).set_input_files(path)
