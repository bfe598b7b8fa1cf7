"""What the page says while the explorer is being loaded, and what it does as soon as that is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
from tqdm import tqdm

from ..answers import answering
from ..rendering import macros

if TYPE_CHECKING:
    from gradio.components import Component

    from ..app import Loading

_EVERY = 1.0
"""Seconds between two looks at whether the explorer is there."""
_html = macros("components.html")


@dataclass(frozen=True)
class Work:
    """What is being done.

    Attributes:
        name: of the work, e.g. "embedding".
        part: of it that is done, 0 to 1.
    """

    name: str
    part: float


def work() -> Work | None:
    """The work that has begun last, of all that shows a progress bar in this process; None where there is none.

    Downloads, reading of weights and embedding have bars of tqdm already, so that a visitor is told what the owner
    sees in the log.
    """
    # The lock is the one under which tqdm itself adds bars and takes them away.
    with tqdm.get_lock():
        bars = [bar for bar in tqdm._instances if bar.total]
    if not bars:
        return None
    last = max(bars, key=lambda bar: bar.start_t)
    return Work(str(last.desc).strip().rstrip(":") or "working", min(1.0, last.n / last.total))


def loading_html(loading: Loading) -> str:
    """What is being loaded and how far that is; that it failed; or nothing, when it is there."""
    if loading.is_done:
        return ""
    if loading.has_failed:
        return _html.loading_failed()
    done = work()
    return _html.loading(None, None) if done is None else _html.loading(done.name, done.part)


def loading_status(loading: Loading, on_open: Callable[..., Any]) -> gr.HTML:
    """Make a line that says how far loading is, renewed every second, and gone when all is there."""
    status, timer = gr.HTML(visible=False), gr.Timer(_EVERY, active=False)

    def told() -> tuple[gr.HTML, gr.Timer]:
        return (
            gr.HTML(loading_html(loading), visible=not loading.is_done),
            gr.Timer(active=not (loading.is_done or loading.has_failed)),
        )

    # Not queued: it has to be told while answers, which the queue limits, wait for the explorer.
    for event in (on_open, timer.tick):
        event(told, None, [status, timer], queue=False, show_progress="hidden", api_visibility="private")
    return status


def once_loaded(
    loading: Loading,
    on_open: Callable[..., Any],
    function: Callable[..., Sequence[Any]],
    inputs: Sequence[Component],
    outputs: Sequence[Component],
    **settings: Any,
) -> None:
    """An event that is answered when the explorer is there, with what the inputs hold then.

    Others may wait for the explorer with what they were given; one that puts something where a visitor may have put
    something meanwhile must not.

    Args:
        loading: the explorer.
        on_open: the event of opening the page or a tab, such as `page.load` or `tab.select`.
        function: gives as many values as there are `outputs`, in a tuple.
        inputs, outputs: components.
        settings: further ones of the event.
    """
    timer, answer = gr.Timer(_EVERY, active=False), answering(function)

    def attempt(*given: Any) -> tuple[Any, ...]:
        answered: Sequence[Any] = [gr.skip()] * len(outputs)
        if loading.is_done:
            try:
                answered = answer(*given)
            except gr.Error as error:  # of an event that fails nothing is changed: the timer would go on for ever
                gr.Warning(str(error.message))
        return (*answered, gr.Timer(active=not (loading.is_done or loading.has_failed)))

    for each in (on_open, timer.tick):
        each(attempt, [*inputs], [*outputs, timer], preprocess=False, api_visibility="private", **settings)
