"""How visitors are answered: a few at a time, and with errors whose text stays out of the log."""

from __future__ import annotations

import functools
import logging
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from .inputs import VisitorError
from .rendering import macros

logger = logging.getLogger(__name__)

CONCURRENCY = 2
"""Number of answers computed at a time, of all kinds together: as many as a small Space has cores. Gradio's own limit
is per kind of question; the pictures of many visitors at once would fill the memory."""
slots = threading.BoundedSemaphore(CONCURRENCY)
_last = float("-inf")
_html = macros("components.html")


def answering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the function of an event wait for a free slot, and turn its errors into messages for the visitor."""

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
        except Exception as error:  # of any kind: a visitor must not see its text, which may quote another
            log_kind_and_place(error)
            raise gr.Error("Something went wrong here; it is not your fault.", print_exception=False) from None
        finally:
            _notice()

    return answer


def _notice() -> None:
    global _last
    _last = time.monotonic()


def idle_seconds() -> float:
    """Seconds since an answer last began or ended."""
    return time.monotonic() - _last


def in_place(function: Callable[..., Any], refused: Callable[[str], Any]) -> Callable[..., Any]:
    """Make the function of an event say why there is no answer, in place of the answer.

    The answer to an earlier question must not stay next to a question that is refused: `refused` takes the reason as
    HTML, and returns what the function returns. Endpoints of clients take the function without this: an error serves
    them better.
    """

    @functools.wraps(function)
    def answer(*args: Any) -> Any:
        try:
            return function(*args)
        except VisitorError as error:
            return refused(_html.refused(str(error)))

    answer.__name__ += "_in_place"  # gradio names endpoints after functions, and clients have the name without this
    return answer


def log_kind_and_place(error: BaseException) -> None:
    """Log the kind and place of an error, but not its text, which may quote a visitor."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    logger.error("%s at %s:%d", type(error).__name__, Path(place.filename).name, place.lineno)
