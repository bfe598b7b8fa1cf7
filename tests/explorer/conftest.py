"""One explorer and one server for all tests: the model that comes with the package, and a few scenes."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from hf_msae.explorer.housekeeping import gradio_without_stubs
from tests.explorer.asking import launched
from tests.explorer.browsing import SECONDS
from tests.explorer.serving import QUIET_DEMO, serving

MARKUP = "<i>lda</i>"  # the name of a method

if find_spec("gradio") is not None:
    with gradio_without_stubs():
        import gradio  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def _one_app_for_each_page():
    """Gradio makes an app, in 0.2 s, when a page begins, ends, gets its queue and is launched; the last one serves."""
    if find_spec("gradio") is None:
        yield
        return
    from gradio.routes import App

    create_app = App.create_app

    def only_launched(page, **settings):
        return create_app(page, **settings) if settings.keys() - {"mcp_server"} else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(App, "create_app", staticmethod(only_launched))
        yield


@pytest.fixture(scope="session")
def explorer():
    from hf_msae.explorer import Explorer, ExplorerSettings

    return Explorer.load(ExplorerSettings(dataset="scenes:test:200:7"))


@pytest.fixture(scope="session")
def uploads(tmp_path_factory):
    """The folder in which the page of this process keeps what visitors send."""
    pytest.importorskip("gradio")
    from hf_msae.explorer.housekeeping import own_upload_folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        yield own_upload_folder()


@pytest.fixture(scope="session")
def demo(explorer, uploads):
    """A page in this process; to build and launch one takes seconds."""
    with launched(explorer) as demo:
        yield demo


@pytest.fixture(scope="session")
def star(explorer):
    """Which pictures of the collection have a star."""
    return np.array(explorer.images["star"])


@pytest.fixture(scope="session")
def fitted(explorer, star):
    """Method -> an edit of stars, as if fitted to embeddings that `hf-msae extract` wrote."""
    from hf_msae.steering import METHODS

    def fitted(method, **options):
        edit = METHODS[method](**options).fit(explorer.embeddings[:], star)
        edit.provenance |= {**explorer.model.backbone.provenance(), "hook_point": "image_embeds"}
        return edit

    return fitted


@pytest.fixture(scope="session")
def swordbench(tmp_path_factory):
    """The result of a run with two tasks, of which one has no exact pairs."""
    from hf_msae.steering import METHODS, gaussian_task, run_swordbench

    task = gaussian_task(num_rows=240, width=12, num_concepts=3)
    without = replace(task, name="no pairs", counterfactuals=None)
    methods = {"mean_difference": METHODS["mean_difference"](), MARKUP: METHODS["lda"]()}
    return run_swordbench([task, without], methods, tmp_path_factory.mktemp("run"), seeds=(0,), progress=False)


@pytest.fixture(scope="session")
def steered(explorer, fitted, swordbench):
    """The explorer with edits and with the results of SwordBench."""
    from hf_msae.explorer import Explorer

    edits = {
        **{"star": fitted("leace"), "reactive": fitted("reactive_pattern")},
        "code": fitted("msae", msae="scenes-image"),
    }
    parts = explorer.model, explorer.images, explorer.embeddings[:]
    return Explorer(*parts, edits=edits, swordbench=swordbench)


@pytest.fixture(scope="session")
def steered_demo(steered, uploads):
    with launched(steered) as demo:
        yield demo


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
    """Opens the page; at the end of the test nothing may have been logged or have come up as an error.

    Messages of refusals stand in place of answers, and do not come up beside them.
    """
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
    toasts = [page.locator(".toast-body").count() for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert not errors and not any(toasts)


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    from hf_msae.scenes import load_scenes

    path = tmp_path_factory.mktemp("pictures") / "scene.png"
    load_scenes("test", 300, 7)[34]["image"].save(path)
    return path


@pytest.fixture
def no_picture(tmp_path):
    path = tmp_path / "text.png"
    path.write_text("no picture")
    return path
