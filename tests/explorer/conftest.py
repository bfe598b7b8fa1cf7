"""One explorer and one server for all tests: the model that comes with the package, and a few scenes."""

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.explorer.browsing import SECONDS, UNNAMED
from tests.explorer.serving import QUIET_DEMO, serving


@pytest.fixture(scope="session")
def explorer():
    from hf_msae.explorer import Explorer, ExplorerSettings

    return Explorer.load(ExplorerSettings(dataset="scenes:test:200:7"))


@pytest.fixture
def upload(explorer):
    """Picture 3 of the collection, as a visitor uploads it."""
    from gradio.utils import get_upload_folder

    uploads = Path(get_upload_folder())
    uploads.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=uploads) as folder:
        path = f"{folder}/upload.png"
        explorer.picture(3).save(path)
        yield {"path": path}


@pytest.fixture(scope="session", autouse=True)
def one_column_is_explained_ahead():
    """More would compete with the tests for the processor."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("gradio") is not None:
            patch.setattr("hf_msae.explorer.app.MAX_WARM", 1)
        yield


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    pytest.importorskip("gradio")
    options = ["--mcp_server"] if find_spec("mcp") else []
    place = tmp_path_factory.mktemp("explorer")
    with serving(place, "scenes:test:300:7", *options, program=QUIET_DEMO) as server:
        yield server


@pytest.fixture
def open_page(served, browser):
    """Opens the page. At the end of the test no error may be logged, and everything in sight has a name."""
    errors, pages = [], []

    def open_page(width=1280, height=900, theme="light"):
        page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        pages.append(page)
        page.set_default_timeout(SECONDS)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{served.url}/?__theme={theme}")
        page.get_by_role("heading", name="Concept Explorer").wait_for()
        return page

    yield open_page
    unnamed = [name for page in pages for name in page.evaluate(UNNAMED)]
    for page in pages:
        page.context.close()
    assert not errors and not unnamed


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    from hf_msae.scenes import load_scenes

    path = tmp_path_factory.mktemp("pictures") / "scene.png"
    load_scenes("test", 300, 7)[34]["image"].save(path)
    return path
