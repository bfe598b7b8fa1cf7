"""Faults of the stub Hub that a test can order."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Fault:
    """What happens to the next requests whose path contains a pattern.

    Args:
        method: GET, HEAD, POST, PUT or DELETE.
        pattern: Regular expression that is searched for in the path.
        times: Number of requests.
        status: Answer with this status, and do nothing else.
        request_bytes: Close the connection after this many bytes of the request's body.
        response_bytes: Carry the request out, and close the connection after this many bytes of the answer's body.
        lose_answer: Carry the request out, and close the connection without an answer.
        action: Called before the request is carried out as usual.
        then: Called after the request was carried out, before it is answered.
    """

    method: str
    pattern: str
    times: int = 1
    status: int | None = None
    request_bytes: int | None = None
    response_bytes: int | None = None
    lose_answer: bool = False
    action: Callable[[], object] | None = None
    then: Callable[[], object] | None = None

    def is_due(self, method: str, path: str) -> bool:
        """Whether this request fails; counts it."""
        due = self.times > 0 and method == self.method and re.search(self.pattern, path) is not None
        self.times -= due
        return due


def cut(connection: socket.socket) -> None:
    """Close a connection at once with a reset, as a failing network does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
