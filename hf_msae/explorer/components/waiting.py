"""An explorer that loads in the background, and what the page says and does meanwhile."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import gradio as gr
from gradio.components import Component

from ..answers import answering
from ..explorer import Explorer
from ..inputs import VisitorError
from ..rendering import macros

logger = logging.getLogger(__name__)

_EVERY = 1.0
"""Seconds after which the page asks again whether the explorer is loaded."""
_LEAVE = 10.0
"""Seconds that the end of the process waits for the loading."""
_html = macros("components.html")


class Loading:
    """An explorer that `load` makes in the background while the page is shown; afterwards `then` is called with it."""

    def __init__(self, load: Callable[[], Explorer], then: Callable[[Explorer], None] = lambda _: None) -> None:
        self._load, self._then = load, then
        self._future: Future[Explorer] = Future()
        self._starting = threading.Lock()
        self._stage: tuple[str | None, float | None] = None, None

    def report(self, stage: str, share: float | None = None) -> None:
        """Tell visitors what is being done, and which share of it is done if that is known."""
        self._stage = stage, share

    def start(self) -> None:
        """Begin to load, unless that has begun."""
        if self._starting.acquire(blocking=False):
            thread = threading.Thread(target=self._run, name="load-explorer", daemon=True)
            thread.start()
            # If Python kills such a thread inside torch at its end, the whole process aborts.
            atexit.register(thread.join, _LEAVE)

    def _run(self) -> None:
        try:
            explorer = self._load()
        except BaseException as error:  # of any kind: whoever waits for the future would wait forever
            logger.exception("the explorer could not be loaded")
            self._future.set_exception(error)
            return
        self._future.set_result(explorer)
        self._then(explorer)

    @property
    def is_done(self) -> bool:
        """Whether the explorer is loaded."""
        return self._future.done() and self._future.exception() is None

    @property
    def has_failed(self) -> bool:
        """Whether it could not be loaded."""
        return self._future.done() and self._future.exception() is not None

    def get(self) -> Explorer:
        """Wait for the explorer; raise `VisitorError` if it could not be loaded."""
        self.start()
        try:
            return self._future.result()
        except Exception as error:  # whatever `load` has raised
            raise VisitorError(
                "The explorer could not be loaded. Its owner will find the reason in the log; asking again does not "
                "help."
            ) from error

    def html(self) -> str:
        """What the page says about it: what is being done, that it failed, or nothing once it is loaded."""
        if self.is_done:
            return ""
        return _html.loading_failed() if self.has_failed else _html.loading(*self._stage)


def loading_status(loading: Loading, on_open: Callable[..., Any]) -> gr.HTML:
    """Make a line that says how far the loading is, updated every second until it is done."""
    status, timer = gr.HTML(visible=False), gr.Timer(_EVERY, active=False)

    def update() -> tuple[gr.HTML, gr.Timer]:
        return (
            gr.HTML(loading.html(), visible=not loading.is_done),
            gr.Timer(active=not (loading.is_done or loading.has_failed)),
        )

    # Not queued: it has to run while the answers that fill the queue wait for the explorer.
    for event in (on_open, timer.tick):
        event(update, None, [status, timer], queue=False, show_progress="hidden", api_visibility="private")
    return status


def on_first_open(
    loading: Loading,
    on_open: Callable[..., Any],
    function: Callable[..., Sequence[Any]],
    inputs: Sequence[Component],
    outputs: Sequence[Component],
) -> None:
    """Fill a tab when a visitor has opened it for the first time and the explorer is loaded, so it is never empty.

    Other events may wait for the explorer with the inputs they were given. One that fills a component must not, since
    a visitor may have filled it meanwhile: `function` takes the values that `inputs` hold by then, and returns a tuple
    with those of `outputs`. Later events answer what it puts there as they answer a visitor.
    """
    timer, answer, opened = gr.Timer(_EVERY, active=False), answering(function), gr.State(False)

    def attempt(is_open: bool, *given: Any) -> tuple[Any, ...]:
        answered: Sequence[Any] = [gr.skip()] * len(outputs)
        if loading.is_done and not is_open:
            try:
                answered, is_open = answer(*given), True
            except gr.Error as error:  # an event that fails updates nothing: the timer would run forever
                gr.Warning(str(error.message))
        return (*answered, is_open, gr.Timer(active=not (loading.is_done or loading.has_failed)))

    for event in (on_open, timer.tick):
        event(
            attempt,
            [opened, *inputs],
            [*outputs, opened, timer],
            preprocess=False,
            show_progress="hidden",
            api_visibility="private",
        )
