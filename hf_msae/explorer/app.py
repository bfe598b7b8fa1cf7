"""The page: one tab for each question, over one explorer that all visitors share."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from ..hub.publishing.space_settings import ExplorerSettings
from .answers import CONCURRENCY, idle_seconds
from .components.waiting import Loading, loading_status
from .components.where import highest
from .explorer import Explorer
from .guard import MAX_SESSIONS, Guard
from .housekeeping import keeping, own_upload_folder
from .inputs import MAX_BYTES, VisitorError
from .page import Page
from .tabs.bias.answer import KEPT, Target, bias, first_to_ask, usable_columns

TITLE = "Concept Explorer"
TABS = ("see", "match", "search", "concepts", "bias", "steer")
STEER_PAGES = ("edits", "swordbench")
"""Pages of the tab "Steer" that are there if the explorer has what they show."""
MAX_QUEUE = 200
MAX_WARM = KEPT
"""Columns that are explained before anybody asks: as many as are kept."""
_PAUSE = 3.0
"""Seconds without an answer after which probably nobody is asking."""
_TIDY_EVERY, _TIDY_AGE = 60, 3600
"""Seconds between deletions of what visitors sent and got, and its age in seconds when it is deleted."""
_MEND_PICTURES = """() => {
    const mend = () => {
        document.querySelectorAll("button.thumbnail-item").forEach(button => {
            const text = button.querySelector("img")?.alt;
            if (text && button.ariaLabel !== text) button.ariaLabel = text;
        });
        for (const image of document.images) {
            const enlarged = Math.min(image.width / image.naturalWidth, image.height / image.naturalHeight) >= 2;
            image.style.imageRendering = enlarged ? "pixelated" : "";
        }
    };
    const changes = {subtree: true, childList: true, attributeFilter: ["alt", "aria-label"]};
    new MutationObserver(mend).observe(document.body, changes);
    document.addEventListener("load", () => requestAnimationFrame(mend), true);
    mend();
}"""
"""Gradio labels the pictures of a gallery "Thumbnail 3 of 8" for screen readers, whatever they show, and blurs a small
picture that fills its panel."""


def warm_up(explorer: Explorer) -> None:
    """Compute what the first visitors would otherwise have to wait for."""
    for part in ("concepts", "codes", "hierarchy"):
        getattr(explorer, part)
    if explorer.patch_model is not None:
        highest(explorer)
    first = first_to_ask(explorer)
    for column in sorted(usable_columns(explorer), key=lambda name: name != first)[:MAX_WARM]:
        # This makes answers take twice as long, so all columns but the first wait until nobody asks.
        while column != first and idle_seconds() < _PAUSE and threading.main_thread().is_alive():
            time.sleep(_PAUSE / 10)
        if not threading.main_thread().is_alive():  # the process is ending, and waits for this
            return
        try:
            bias(explorer, Target(column=column))
        except VisitorError:  # there is nothing to explain; a visitor who asks is told so
            continue


def build_demo(source: Explorer | ExplorerSettings | None = None) -> gr.Blocks:
    """Build the page, to be launched with `**launch_options()`.

    `source` is an explorer, or what to load, which begins at once in the background; by default what the environment
    says.
    """
    source = ExplorerSettings.from_environment() if source is None else source

    def load() -> Explorer:
        explorer = source if isinstance(source, Explorer) else Explorer.load(source, loading.report)
        # Gradio would check, hash and copy each of them for each answer.
        gr.set_static_paths(explorer.thumbnails)
        return explorer

    # Nobody reads gradio's analytics, which are computed from the last 10,000 questions after each question.
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    loading = Loading(load, warm_up)
    loading.start()
    own_upload_folder()
    with Page(title=TITLE, analytics_enabled=False) as demo:
        gr.Markdown(
            "# Concept Explorer\n"
            "A vision-language model turns a picture into a few hundred numbers that mean nothing one by one. A "
            "sparse autoencoder rewrites them as a few concepts with names. Names are hypotheses; those in gray "
            "italics are not validated.",
            elem_classes="msae-lead",
        )
        loading_status(loading, demo.load)
        with gr.Tabs(overflow_behavior="wrap", elem_classes="msae-tabs"):
            for name in TABS:
                tab = import_module(f".tabs.{name}.view", __package__)
                with gr.Tab(tab.TITLE, id=name) as box:
                    # The first tab is open from the start; the others need no answer before somebody looks at them.
                    on_open = demo.load if name == TABS[0] else box.select
                    if name == "steer" and (pages := [each for each in STEER_PAGES if getattr(source, each)]):
                        build_steer(tab, pages, loading, on_open)
                    else:
                        tab.build(loading, on_open)
        demo.load(None, js=_MEND_PICTURES, api_visibility="private")
    # Without `api_open=False` a client could bypass the queue.
    demo.queue(default_concurrency_limit=CONCURRENCY, max_size=MAX_QUEUE, api_open=False)
    return demo


def build_steer(tab: ModuleType, pages: Sequence[str], loading: Loading, on_open: Callable[..., Any]) -> None:
    """Build the tab "Steer" with further pages, each on a tab inside it."""
    with gr.Tabs(overflow_behavior="wrap", elem_classes="msae-tabs"):
        with gr.Tab("Named concepts"):
            tab.build(loading, on_open)
        for name in pages:
            page = import_module(f".tabs.{name}.view", __package__)
            with gr.Tab(page.TITLE, id=name) as box:
                page.build(loading, box.select)


def launch_options() -> dict[str, Any]:
    """Arguments of `launch` for the look of the page and its limits."""
    folder = own_upload_folder()
    return {
        "theme": gr.themes.Soft(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        "css_paths": Path(__file__).with_name("style.css"),
        "max_file_size": MAX_BYTES,
        "footer_links": ["api"],
        "show_error": True,
        "ssr_mode": False,
        "app_kwargs": {
            "middleware": [Middleware(Guard, folder=folder, age=_TIDY_AGE)],
            "lifespan": keeping(folder, _TIDY_EVERY, _TIDY_AGE),
        },
        "state_session_capacity": MAX_SESSIONS,
        "run_history": False,  # gradio would keep visitors' questions in their browsers
        "enable_monitoring": False,
    }
