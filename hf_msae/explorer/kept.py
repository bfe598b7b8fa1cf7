"""Answers that are computed once; apart from `answers`, since it needs no gradio."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any


class Kept:
    """Answers that are kept, so that each is computed once, even if several visitors ask for it at the same time.

    Errors are not kept. At most `number` answers are, the oldest going first, and each for `seconds`.
    """

    def __init__(self, number: int, seconds: float = float("inf")) -> None:
        self._number, self._seconds = number, seconds
        self._lock = threading.Lock()
        self._answers: dict[Hashable, tuple[float, Future[Any]]] = {}  # the oldest first

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the answer that is kept under a key; compute it if there is none, or wait for whoever does."""
        with self._lock:
            oldest = time.monotonic() - self._seconds
            self._answers = {each: kept for each, kept in self._answers.items() if kept[0] > oldest}
            is_new = key not in self._answers
            _, future = kept = self._answers.setdefault(key, (time.monotonic(), Future()))
            if len(self._answers) > self._number:
                del self._answers[next(iter(self._answers))]
        if is_new:
            try:
                future.set_result(compute())
            except BaseException as error:  # of any kind: raised below, and for those who wait for it
                with self._lock:
                    if self._answers.get(key) is kept:
                        del self._answers[key]
                future.set_exception(error)
        return future.result()
