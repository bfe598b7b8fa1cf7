"""HTTP for the stub Hub, with faults that a test can order."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


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


class FaultyHandler(BaseHTTPRequestHandler):
    """Answers requests by the first of `routes` that fits, unless a fault of `hub` is due."""

    hub: Any
    routes: Sequence[tuple[str | tuple[str, ...], str, Callable[..., None]]]
    protocol_version = "HTTP/1.1"
    # An answer in several small packets waits 40 ms for the client's acknowledgement of the first.
    disable_nagle_algorithm = True
    wbufsize = 2**16

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        method = self.command
        address = urlsplit(self.path)
        path = unquote(address.path)
        length = int(self.headers.get("Content-Length") or 0)
        with self.hub.lock:
            self.hub.requests.append(f"{method} {path}")
            self.fault = next((fault for fault in self.hub.faults if fault.is_due(method, path)), None)
        if self.fault is not None and self.fault.request_bytes is not None:
            self.rfile.read(min(length, self.fault.request_bytes))
            return self._cut()
        self.body = self.rfile.read(length)
        self.query = parse_qs(address.query)
        if self.fault is not None and self.fault.action is not None:
            self.fault.action()
        if self.fault is not None and self.fault.status is not None:
            return self._answer(self.fault.status, {"error": "ordered by the test"})
        for of_method, pattern, action in self.routes:
            # Before it is unquoted: the revision refs%2Fpr%2F1 is one part of the path.
            if (found := re.fullmatch(pattern, address.path)) and method in of_method:
                return action(self, **{name: each and unquote(each) for name, each in found.groupdict().items()})
        self._answer(404, {"error": f"the stub has no {method} {path}"})

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        cut(self.connection)

    def _answer(self, status: int, content: object = None, headers: dict[str, str] | None = None) -> None:
        if self.fault is not None and self.fault.then is not None:
            self.fault.then()
        if self.fault is not None and self.fault.lose_answer:
            return self._cut()
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.fault is not None and self.fault.response_bytes is not None:
            self.wfile.write(body[: self.fault.response_bytes])
            return self._cut()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, what: str) -> None:
        self._answer(404, {"error": what}, {"X-Error-Code": what, "X-Error-Message": what})

    def _forbidden(self, why: str) -> None:
        self._answer(403, {"error": why}, {"X-Error-Message": why})
