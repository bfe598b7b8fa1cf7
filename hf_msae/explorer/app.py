"""The page: one tab for each question, over one explorer that all visitors share."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from typing import Any

import gradio as gr
import gradio.queueing
import gradio.routes
from starlette.middleware import Middleware

from ..hub.publishing.space_settings import ExplorerSettings
from .answers import CONCURRENCY, idle_seconds, log_kind_and_place
from .components.waiting import loading_status
from .explorer import Explorer
from .guard import MAX_SESSIONS, Guard, keeping, own_upload_folder
from .inputs import MAX_BYTES, VisitorError
from .page import Page
from .tabs.bias.answer import KEPT

logger = logging.getLogger(__name__)

TITLE = "Concept Explorer"
TABS = ("see", "match", "search", "concepts", "bias", "steer")
MAX_QUEUE = 200
MAX_WARM = KEPT
"""Columns that are explained before anybody asks: as many as are kept."""
_warming = threading.Lock()
_LEAVE = 10.0
"""Seconds that the end of the process waits for the loading."""
_PAUSE = 3.0
"""Seconds without an answer after which it is likely that nobody asks."""
_CACHE = (60, 3600)
"""Every so many seconds, what visitors have sent and been sent is deleted if it is older than so many."""
_NAME_THUMBNAILS = """() => {
    const name = () => document.querySelectorAll("button.thumbnail-item").forEach(button => {
        const text = button.querySelector("img")?.alt;
        if (text && button.ariaLabel !== text) button.ariaLabel = text;
    });
    const changes = {subtree: true, childList: true, attributeFilter: ["alt", "aria-label"]};
    new MutationObserver(name).observe(document.body, changes);
    name();
}"""
"""Gradio reads the pictures of a gallery out as "Thumbnail 3 of 8", whatever they show."""


class Loading:
    """An explorer that is loaded in the background while the page is shown already.

    Args:
        load: makes the explorer.
        then: is called with it, in the background too.
    """

    def __init__(self, load: Callable[[], Explorer], then: Callable[[Explorer], None] = lambda _: None) -> None:
        self._future: Future[Explorer] = Future()
        self._load, self._then = load, then
        self._started = threading.Lock()

    def start(self) -> None:
        """Begin to load, if that has not begun."""
        if self._started.acquire(blocking=False):
            thread = threading.Thread(target=self._run, name="load-explorer", daemon=True)
            thread.start()
            # Where Python ends such a thread by force inside torch, the whole process aborts.
            atexit.register(thread.join, _LEAVE)

    def _run(self) -> None:
        try:
            explorer = self._load()
        except BaseException as error:
            logger.exception("the explorer could not be loaded")
            self._future.set_exception(error)
            return
        self._future.set_result(explorer)
        self._then(explorer)

    @property
    def is_done(self) -> bool:
        """Whether the explorer is there."""
        return self._future.done() and self._future.exception() is None

    @property
    def has_failed(self) -> bool:
        """Whether it will never be there."""
        return self._future.done() and self._future.exception() is not None

    def get(self) -> Explorer:
        """The explorer, as soon as it is there.

        Raises:
            VisitorError: it could not be loaded; the log says why.
        """
        self.start()
        try:
            return self._future.result()
        except Exception as error:
            raise VisitorError(
                "The explorer could not be loaded. Its owner finds the reason in the log; asking again does not help."
            ) from error


def _warm(explorer: Explorer) -> None:
    """Compute what the first visitors would have to wait for, and have it kept."""
    from .tabs.bias.answer import Target, bias, first_to_ask, usable_columns

    for part in ("concepts", "codes", "hierarchy"):
        getattr(explorer, part)
    if explorer.patch_model is not None:
        from .components.where import highest

        highest(explorer)
    first = first_to_ask(explorer)
    for column in sorted(usable_columns(explorer), key=lambda name: name != first)[:MAX_WARM]:
        # Answers take twice as long beside this: the others are for when nobody asks.
        while column != first and idle_seconds() < _PAUSE and threading.main_thread().is_alive():
            time.sleep(_PAUSE / 10)
        if not threading.main_thread().is_alive():  # the process ends, and waits for this
            return
        try:
            with _warming:  # pages of the same explorer wait for each other's answers
                bias(explorer, Target(column=column))
        except VisitorError:  # there is nothing to explain about it, which who asks is told
            continue


class _DiscreetTraceback:
    """Stands where gradio has the module `traceback`, for whose printing of whole errors it has no setting."""

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)

    def print_exc(self, *_: Any, **__: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None:
            log_kind_and_place(error)


def build_demo(source: Explorer | ExplorerSettings | None = None) -> gr.Blocks:
    """The page.

    Args:
        source: an explorer, or what to load; None for what the environment says. Loading begins at
            once, in the background.

    Returns:
        Blocks; launch them with `**launch_options()`.
    """
    settings = ExplorerSettings.from_environment() if source is None else source

    def load() -> Explorer:
        explorer = settings if isinstance(settings, Explorer) else Explorer.load(settings)
        # Gradio would check, hash and copy each of them for each answer.
        gr.set_static_paths(explorer.thumbnails)
        return explorer

    loading = Loading(load, _warm)
    loading.start()
    own_upload_folder()
    gradio.queueing.traceback = gradio.routes.traceback = _DiscreetTraceback()
    with Page(title=TITLE, analytics_enabled=False, delete_cache=_CACHE) as demo:
        gr.Markdown(
            "# Concept Explorer\n"
            "A vision-language model turns a picture into a few hundred numbers that mean nothing one by one. A "
            "sparse autoencoder rewrites them as a few concepts with names. Names are hypotheses; those in grey "
            "italics are not validated.",
            elem_classes="msae-lead",
        )
        loading_status(loading, demo.load)
        with gr.Tabs(overflow_behavior="wrap", elem_classes="msae-tabs"):
            for name in TABS:
                tab = import_module(f".tabs.{name}.view", __package__)
                with gr.Tab(tab.TITLE, id=name) as box:
                    # The first tab is open from the start; the others need no answer before somebody looks at them.
                    tab.build(loading, demo.load if name == TABS[0] else box.select)
        demo.load(None, js=_NAME_THUMBNAILS, api_visibility="private")
    # Without `api_open=False` a client could ask past the queue.
    demo.queue(default_concurrency_limit=CONCURRENCY, max_size=MAX_QUEUE, api_open=False)
    return demo


def launch_options() -> dict[str, Any]:
    """Keyword arguments of `launch` for the page's look and its limits."""
    theme = gr.themes.Soft(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    folder = own_upload_folder()
    every, age = _CACHE
    return {
        "theme": theme,
        "css": Path(__file__).with_name("style.css").read_text(encoding="utf-8"),
        "max_file_size": MAX_BYTES,
        "footer_links": ["api"],
        "show_error": True,
        "ssr_mode": False,
        "app_kwargs": {
            "middleware": [Middleware(Guard, folder=folder, age=age)],
            "lifespan": keeping(folder, every, age),
        },
        "state_session_capacity": MAX_SESSIONS,
        "run_history": False,  # gradio would keep what visitors ask in their browsers
        "enable_monitoring": False,
    }
