"""How visitors are answered: so many at a time, and errors told to them in words that a log does not get."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from .inputs import VisitorError
from .rendering import macros

logger = logging.getLogger(__name__)

CONCURRENCY = 2
"""Answers that are computed at a time, of all kinds together: as many as a small Space has cores.
(Gradio's own limit is for each kind of question; pictures of many visitors at once would fill the memory.)"""
slots = threading.BoundedSemaphore(CONCURRENCY)
_last = float("-inf")


def answering(function: Callable[..., Any]) -> Callable[..., Any]:
    """An event's function whose errors become messages on the page. Logs hold no visitor's words or pictures."""

    @functools.wraps(function)
    def answer(*args: Any, **kwargs: Any) -> Any:
        try:
            with slots:
                _notice()
                return function(*args, **kwargs)
        except VisitorError as error:
            raise gr.Error(str(error), print_exception=False) from None
        except gr.Error:
            raise
        except Exception as error:
            log_kind_and_place(error)
            raise gr.Error("Something went wrong here; it is not your fault.", print_exception=False) from None
        finally:
            _notice()

    return answer


def _notice() -> None:
    global _last
    _last = time.monotonic()


def idle_seconds() -> float:
    """Seconds since an answer has begun or ended."""
    return time.monotonic() - _last


def in_place(function: Callable[..., Any], refused: Callable[[str], Any]) -> Callable[..., Any]:
    """An event's function that says in place of its answer why there is none.

    The answer to what was asked before must not stay beside a question that is refused. Clients are better served by
    errors: their endpoints take the function without this.

    Args:
        function: raises `VisitorError`.
        refused: takes the reason as HTML and gives what the function gives.
    """

    @functools.wraps(function)
    def answer(*args: Any) -> Any:
        try:
            return function(*args)
        except VisitorError as error:
            return refused(macros("components.html").refused(str(error)))

    answer.__name__ += "_in_place"  # gradio names endpoints after functions: clients have this one's
    return answer


def log_kind_and_place(error: BaseException) -> None:
    """Log an error without its text, which may quote what a visitor gave: its kind and place do not."""
    trace, where = error.__traceback__, "an unknown place"
    while trace is not None:
        where, trace = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}", trace.tb_next
    logger.error("%s at %s", type(error).__name__, where)
