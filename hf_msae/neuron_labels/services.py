"""Models behind an API: their address and key, and calls of several at a time that are tried again."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from huggingface_hub import HfApi, InferenceClient, get_session, get_token, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from transformers.utils import logging

from .words import one_line

if TYPE_CHECKING:
    from .result import NeuronLabels

S, T = TypeVar("S"), TypeVar("T")
_NOT_CALLED = "it was not called, because another call failed"
_MOST_NAMED = 5


@dataclass(repr=False)
class Service:
    """A model behind an API, with the options of `InferenceProposer`; `name` is what uses it, in messages."""

    name: str
    model: str | None = None
    provider: str | None = None
    base_url: str | None = None
    api_key_variable: str | None = None
    timeout: float = 60.0
    retries: int = 5
    wait: float = 1.0
    sleep: Callable[[float], None] = time.sleep
    concurrency: int = 4

    def __post_init__(self) -> None:
        if (self.model is None and self.base_url is None) or (self.provider is not None and self.base_url is not None):
            there = "a" if self.base_url else "no"
            raise ValueError(
                f"give a model, or a base_url and no provider; got model={self.model!r}, provider={self.provider!r}, "
                f"{there} base_url"
            )
        if self.base_url is not None:
            check_address(self.base_url)
        for name in ("timeout", "concurrency"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")
        if self.retries < 0 or self.wait < 0:
            raise ValueError(f"retries and wait must not be negative, got {self.retries} and {self.wait}")

    def __repr__(self) -> str:
        return f"{self.name}({self.model or 'the model of the server'} at {self.place})"

    @property
    def place(self) -> str:
        """Where the model is."""
        return self.base_url or f"provider {self.provider or 'auto'}"

    def key(self) -> str | None:
        """Read the key: from the environment variable, or else, for a provider, the Hub token."""
        if self.api_key_variable is None:
            if self.base_url is not None:
                return None
            if key := get_token():
                return key
            raise ValueError(f"{self!r} needs a key: set HF_TOKEN, log in with `hf auth login`, or name a variable")
        key = os.environ.get(self.api_key_variable, "")
        if not key:
            raise ValueError(f"the environment variable {self.api_key_variable} with the key is not set")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(f"the environment variable {self.api_key_variable} holds characters that no key has")
        return key

    def client(self, key: str | None, **place: str | None) -> InferenceClient:
        """Return a client with a key."""
        # Without a key of its own, the client would send a server the token of the Hub.
        headers = {"authorization": ""} if self.base_url is not None and key is None else None
        return InferenceClient(**place, api_key=key, timeout=self.timeout, headers=headers)

    def call(
        self, ask: Callable[[], T], key: str | None, also: tuple[type[Exception], ...] = (), stop: Event | None = None
    ) -> T:
        """Make a call, and repeat it while that can help (see `with_retries`) and `stop` is not set."""

        def ask_on() -> T:
            if stop is not None and stop.is_set():
                raise ServiceError(_NOT_CALLED)
            return ask()

        options = {"retries": self.retries, "wait": self.wait, "sleep": self.sleep}
        return with_retries(ask_on, repr(self), also=also, secret=key, **options)

    def map(self, function: Callable[[S, Event], T], items: Sequence[S]) -> list[T]:
        """Call a function for each of several items, some at the same time, and return the results in their order.

        The function's second argument is set once another call has failed, or may be set by the function.
        """
        stop = Event()

        def one(item: S) -> T:
            try:
                return function(item, stop)
            except BaseException:  # an interrupt as well
                stop.set()
                raise

        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="service") as pool:
            futures = [pool.submit(one, item) for item in items]
            try:
                for future in futures:
                    future.exception()  # waits
            except BaseException:  # an interrupt
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        errors = [error for future in futures if (error := future.exception())]
        if errors:
            raise min(errors, key=lambda error: str(error) == _NOT_CALLED)
        return [future.result() for future in futures]

    def check(self, models_path: str | None = None) -> None:
        """See whether there is a key and a model, as far as that can be asked.

        A server of one's own lists its models at `models_path` below base_url, if that is given.
        """
        key = self.key()
        if self.base_url is None:
            # A key of a provider is no business of the Hub's.
            token = key if key == get_token() or (key or "").startswith("hf_") else False
            model = (self.model or "").partition(":")[0]  # the router takes "model:provider"
            info = self.call(lambda: HfApi(token=token).model_info(model, expand=_PROVIDERS), key)
            there = sorted({each.provider for each in info.inference_provider_mapping or ()})
            if self.provider not in (None, "auto", *there) or not there:
                raise ValueError(f"{self.model} is not served by {self.place}, only by {', '.join(there) or 'none'}")
        elif models_path is not None:
            listed = self.call(lambda: self._listed(self.base_url.rstrip("/") + models_path, key), key)
            if listed and self.model is not None and self.model not in listed:
                some = ", ".join(map(repr, listed[:_MOST_NAMED]))
                raise ValueError(f"the server at {self.base_url} has no model {self.model!r}; it has {some}")

    def _listed(self, address: str, key: str | None) -> list[str]:
        """Return the models that a server lists; none if it does not say."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        response = get_session().get(address, headers=headers, timeout=self.timeout)
        if response.status_code in (401, 403, 408, 429) or response.status_code >= 500:
            hf_raise_for_status(response)
        try:
            return [str(each["id"]) for each in response.json()["data"]]
        except (ValueError, KeyError, TypeError):  # its answer is no list of models, as of some servers
            return []


_PROVIDERS = ["inferenceProviderMapping"]


def check_address(base_url: str) -> None:
    """Check that an address is safe to log and show: httpx logs it, and settings hold it."""
    parts = urlsplit(base_url)
    if "@" in parts.netloc or parts.query:
        raise ValueError(
            f"base_url, an address at {parts.hostname}, has a name, a password or a query, which would stand in "
            "settings and logs: put the key into an environment variable, and name that in api_key_variable"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"base_url must begin with http:// or https://, got {base_url!r:.80}")


logger = logging.get_logger(__name__)

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
    back together. A `Retry-After` header in seconds is respected; if it asks for more than `longest`
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
    except ValueError:  # a date, so the waits of our own have to do
        return None
