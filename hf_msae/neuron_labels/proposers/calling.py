"""Calling a server that may be busy or broken."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from transformers.utils import logging

from .parsing import one_line

logger = logging.get_logger(__name__)
Result = TypeVar("Result")

_FIRST_WAIT = 1.0
_WORTH_REPEATING = (408, 409, 425, 429)
_OF_CONTENT = ("content_filter", "content_policy", "content_management_policy")


class InvalidResponseError(ValueError):
    """A server answered something that the protocol does not have."""


class CallFailedError(RuntimeError):
    """A call failed, after all attempts.

    Attributes:
        is_final: Whether it would fail every time, such as with a wrong key.
        is_refusal: Whether the server refuses this prompt because of what it says.
    """

    def __init__(self, message: str, is_final: bool = False, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_final, self.is_refusal = is_final, is_refusal


def call_with_retries(
    call: Callable[[], Result], retries: int, most_wait: float, stop: threading.Event, conceal: Callable[[str], str]
) -> Result:
    """Call a server, and again if it fails for now, after waits with jitter that double.

    Args:
        call: Makes one attempt.
        retries: Number of further attempts.
        most_wait: Seconds of the longest wait. A server that asks for a longer one has failed.
        stop: Set when waiting has become useless.
        conceal: Takes secrets out of a text before it is logged or raised.

    Raises:
        CallFailedError: No attempt succeeded.
    """
    for attempt in range(retries + 1):
        try:
            return call()
        # An answer in another form than expected can raise any of these within huggingface_hub.
        except (HTTPError, OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            reason = conceal(_reason(error))
            if not _is_transient(error):
                refusal = _is_refusal(error)
                raise CallFailedError(reason, is_final=not refusal, is_refusal=refusal) from None
            asked = _retry_after(error)
        wait = min(_FIRST_WAIT * 2**attempt, most_wait) * random.uniform(0.5, 1) if asked is None else asked
        if attempt == retries or wait > most_wait:
            break
        logger.warning(f"the server {reason}; the next attempt is in {wait:.1f} s")
        if stop.wait(wait):
            break
    attempts = f"{attempt + 1} attempts" if attempt else "1 attempt"
    asked_for = f", and asks to wait {asked:.0f} s" if asked is not None else ""
    raise CallFailedError(f"{reason} ({attempts}{asked_for})")


def _status(error: Exception) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _is_transient(error: Exception) -> bool:
    if isinstance(error, OfflineModeIsEnabled):
        return False
    status = _status(error)
    return status is None or status in _WORTH_REPEATING or status >= 500


def _is_refusal(error: Exception) -> bool:
    return _status(error) == 400 and any(code in error.response.text for code in _OF_CONTENT)


def _retry_after(error: Exception) -> float | None:
    """Return the seconds that a server asks to wait, given as a number or a date."""
    value = error.response.headers.get("Retry-After") if isinstance(error, HfHubHTTPError) else None
    if value is None:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:  # neither
        return None


def _reason(error: Exception) -> str:
    """Say what went wrong, without addresses and headers; those of huggingface_hub's messages may hold secrets."""
    status = _status(error)
    if status is not None:
        # A server that refuses a key may repeat a part of it.
        said = "" if status in (401, 403) else one_line(error.server_message or "", 200)
        return f"answered {status}" + (f": {said}" if said else "")
    if isinstance(error, OfflineModeIsEnabled):
        return "was not called, because HF_HUB_OFFLINE is set: unset it"
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, (HTTPError, OSError)):
        return f"could not be reached, or broke off ({type(error).__name__}: {one_line(str(error), 100)})"
    return f"answered something else than the protocol has ({type(error).__name__}: {one_line(str(error), 100)})"
