"""What can go wrong on the way to the stub Hub, to order."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Fault:
    """What happens to the next `times` requests of a method whose path a pattern is found in.

    Args:
        method: GET, HEAD, POST or PUT.
        pattern: regular expression, searched for in the path.
        times: how many of them.
        status: answer this, and do nothing else.
        request_bytes: close the connection after so many bytes of the request's body.
        response_bytes: carry the request out, and close the connection after so many bytes of the answer's body.
        lose_answer: carry the request out, and close the connection without an answer.
        action: called before the request is carried out, which then goes on as usual.
        then: called after the request was carried out, before it is answered.
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
        """Whether it happens to this request; counts it."""
        due = self.times > 0 and method == self.method and re.search(self.pattern, path) is not None
        self.times -= due
        return due


def cut(connection: socket.socket) -> None:
    """Close a connection as a network does that fails: at once, with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
