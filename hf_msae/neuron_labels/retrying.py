"""Calls of a service over the network, tried again while that can help."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from transformers.utils import logging

from .words import one_line

if TYPE_CHECKING:
    from .result import NeuronLabels

logger = logging.get_logger(__name__)

T = TypeVar("T")
_MOST_LETTERS = 300  # of what a service says about an error


class ServiceError(RuntimeError):
    """A service did not answer as it should, and asking again did not help or cannot help.

    `status` is the last HTTP status, None if there was no answer, and `labels` are those that were found before, if it
    ended `label_neurons`.
    """

    def __init__(self, message: str, status: int | None = None, attempts: int = 1) -> None:
        super().__init__(message)
        self.status, self.attempts = status, attempts
        self.labels: NeuronLabels | None = None


def with_retries(
    call: Callable[[], T],
    name: str,
    *,
    retries: int = 5,
    wait: float = 1.0,
    longest: float = 120.0,
    also: tuple[type[Exception], ...] = (),
    secret: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call a service, and call it again after HTTP status 408, 429 or 5xx, a timeout, or a connection that breaks.

    The waits double, and are shortened by up to a half at random, so that clients which failed together do not come
    back together. A `Retry-After` header, in seconds or as a date, is respected; if it asks for more than `longest`
    seconds, the service is not called again. The call is also repeated after errors in `also`, such as those of an
    answer that cannot be read. No message contains `secret`, even if the service repeats it.
    """
    for attempt in range(1, retries + 2):
        try:
            return call()
        except (HTTPError, ConnectionError, TimeoutError, *also) as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            problem = _problem(error, status, secret)
            pause = min(longest, wait * 2 ** (attempt - 1)) * random.uniform(0.5, 1)
            asked = _retry_after(error)
            if asked is not None:
                pause = max(pause, asked)
            hopeless = status is not None and not (status in (408, 429) or status >= 500)
            hopeless |= isinstance(error, OfflineModeIsEnabled)
            if not hopeless and pause > longest:
                problem += f"; it asks to be left alone for {pause:.0f} s, longer than the {longest:g} s allowed"
                hopeless = True
        if hopeless or attempt > retries:
            times = "" if attempt == 1 else f" ({attempt} attempts)"
            # Raised outside of the handler: what the service said could hold the secret.
            raise ServiceError(f"{name} failed{times}: {problem}", status, attempt)
        logger.warning(f"{name} failed: {problem}; trying again in {pause:.1f} s")
        sleep(pause)
    raise AssertionError  # the last attempt returns or raises


def _problem(error: Exception, status: int | None, secret: str | None) -> str:
    """Describe an error in one short line without the secret."""
    if isinstance(error, HfHubHTTPError):
        said = error.server_message or error.response.reason_phrase
        text = f"HTTP status {status}" + (f" ({said})" if said else "")
    else:
        text = f"{type(error).__name__}: {error}"
    text = one_line(text.replace(secret, "***") if secret else text, _MOST_LETTERS + 1)  # it may hold anything
    return text if len(text) <= _MOST_LETTERS else text[:_MOST_LETTERS] + "..."


def _retry_after(error: Exception) -> float | None:
    """Return the seconds that the header `Retry-After` asks for; None if there is none or it cannot be read."""
    value = error.response.headers.get("Retry-After") if isinstance(error, HfHubHTTPError) else None
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:  # a date
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:  # neither, so the waits of our own have to do
        return None
    date = date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
