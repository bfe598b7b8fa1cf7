"""What the page says while the explorer is being loaded, and what it does as soon as that is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context
from tqdm import tqdm

from ..answers import answering

if TYPE_CHECKING:
    from gradio.components import Component

    from ..app import Loading

_EVERY = 1.0
"""Seconds between two looks at whether the explorer is there."""


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
        return (
            '<p class="msae-loading" role="alert"><b>The explorer could not be loaded.</b> Its owner finds the reason '
            "in the log; nothing on this page can answer until it is started again.</p>"
        )
    done = work()
    bar = (
        '<progress aria-label="loading"></progress>'
        if done is None
        else f'<progress aria-label="{escape(done.name)}" max="1" value="{done.part:.3f}"></progress> '
        f"{escape(done.name)}, {done.part:.0%}"
    )
    return (
        '<p class="msae-loading"><b>The model and its pictures are being loaded.</b> You can choose a picture '
        f"already; it is answered as soon as they are there. {bar}</p>"
    )


def loading_status(loading: Loading) -> gr.HTML:
    """A line that says how far the loading is, renewed every second, gone when all is there."""
    status, timer = gr.HTML(visible=False), gr.Timer(_EVERY, active=False)

    def told() -> tuple[gr.HTML, gr.Timer]:
        return (
            gr.HTML(loading_html(loading), visible=not loading.is_done),
            gr.Timer(active=not (loading.is_done or loading.has_failed)),
        )

    # Not queued: it has to be told while answers, which the queue limits, wait for the explorer.
    for event in (_page().load, timer.tick):
        event(told, None, [status, timer], queue=False, show_progress="hidden", api_visibility="private")
    return status


def once_loaded(
    loading: Loading,
    function: Callable[..., Sequence[Any]],
    inputs: Sequence[Component],
    outputs: Sequence[Component],
    event: Callable[..., Any] | None = None,
    **settings: Any,
) -> None:
    """An event that is answered when the explorer is there, with what the inputs hold then.

    Others may wait for the explorer with what they were given; one that puts something where a visitor may have put
    something meanwhile must not.

    Args:
        loading: the explorer.
        function: gives as many values as there are `outputs`, in a tuple.
        inputs, outputs: components.
        event: by default the opening of the page.
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

    for each in (event or _page().load, timer.tick):
        each(attempt, [*inputs], [*outputs, timer], preprocess=False, api_visibility="private", **settings)


def _page() -> gr.Blocks:
    page = Context.root_block
    if page is None:
        raise RuntimeError("components that wait for the explorer have to be made inside gr.Blocks")
    return page
