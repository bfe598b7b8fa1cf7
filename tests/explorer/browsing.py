"""The explorer in a real Chromium, for tests: it is opened, and its tabs are shown and photographed."""

from pathlib import Path

SHOTS = Path(__file__).parents[2] / "outputs" / "explorer-screenshots"
SECONDS = 30_000
TABS = ("See", "Match", "Search", "Concepts", "Bias", "Steer")


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
