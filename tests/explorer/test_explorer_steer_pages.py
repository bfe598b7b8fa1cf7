"""The further pages of Steer in a real Chromium: saved edits on a picture, and the results of SwordBench."""

import numpy as np
import pytest

from hf_msae.backbones import Backbone
from hf_msae.backbones.extraction import extract_activations
from hf_msae.embeddings import load_embeddings
from hf_msae.scenes import load_scenes
from hf_msae.steering import METHODS, gaussian_task, run_swordbench
from tests.explorer.browsing import choose, leave, open_tab, told, upload
from tests.explorer.serving import QUIET_DEMO, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An explorer with edits and results, in place of the one of other tests."""
    place = tmp_path_factory.mktemp("explorer")
    scenes = load_scenes("train", 300, 3)
    written = extract_activations(Backbone.from_pretrained("scenes"), scenes, place / "embeddings", progress=False)
    X = load_embeddings(written)
    METHODS["leace"]().fit(X, np.array(scenes["night"])).save_pretrained(place / "edits" / "night")
    METHODS["reactive_pattern"]().fit(X, np.array(scenes["star"])).save_pretrained(place / "edits" / "star")
    tasks = [gaussian_task(num_rows=400, width=12, num_concepts=3)]
    run_swordbench(tasks, ["mean_difference", "lda"], place / "run", seeds=(0, 1), progress=False)
    options = ["--edits", str(place / "edits"), "--swordbench", str(place / "run")]
    with serving(place, "scenes:test:60:7", *options, program=QUIET_DEMO) as server:
        yield server


@pytest.mark.parametrize("width", [1280, 390])
def test_saved_edits_and_results_are_used(open_page, picture, no_picture, width):
    page = open_page(width)
    open_tab(page, "Steer")
    page.get_by_role("tab", name="Saved edits", exact=True).click()
    panel = page.locator("div[role=tabpanel]:visible").last
    verdict, tiles = panel.locator(".msae-verdict"), panel.locator(".msae-tiles img")
    verdict.filter(has_text="The edit reads").wait_for()  # a picture is answered when the page is opened
    tiles.nth(23).wait_for()
    before = verdict.first.inner_text()
    slider = panel.get_by_label("range slider for Amount")
    slider.focus()
    page.keyboard.press("End")
    page.wait_for_function(
        "before => ![...document.querySelectorAll('.msae-verdict')].some(each => each.innerText === before)",
        arg=before,
    )
    panel.get_by_label("Labels, 2 to 10").fill("star, star")
    page.keyboard.press("Enter")
    told(panel, "the same")
    assert tiles.count() == 0
    panel.get_by_label("Labels, 2 to 10").fill("")
    page.keyboard.press("Enter")
    tiles.nth(23).wait_for()
    assert panel.locator("table.msae-steer").count() == 0
    choose(page, panel.get_by_label("Edit", exact=True), "star, by reactive_pattern")
    panel.get_by_text("(reactive_pattern here)").wait_for()
    upload(panel, no_picture)
    told(panel, "not a picture")
    upload(panel, picture)
    tiles.nth(23).wait_for()
    leave(page, f"steer-edits-{width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    page.get_by_role("tab", name="SwordBench", exact=True).click()
    panel = page.locator("div[role=tabpanel]:visible").last
    drawings = panel.locator(".drawing img")
    drawings.nth(3).wait_for()  # the heat map, after the figures of doses
    assert panel.locator("table.steering tbody tr").count() == 2
    assert drawings.evaluate_all("all => all.every(each => each.naturalWidth > 100)")
    heat = drawings.nth(3).get_attribute("alt")
    method = panel.get_by_label("Method of the heat map")
    other = ({"lda", "mean_difference"} - {method.input_value()}).pop()
    choose(page, method, other)
    panel.get_by_role("img", name=f"after {other} removed each").wait_for()
    assert drawings.nth(3).get_attribute("alt") != heat
    leave(page, f"steer-swordbench-{width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
