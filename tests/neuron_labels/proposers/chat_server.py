"""A server on 127.0.0.1 that speaks OpenAI's chat protocol, and fails as it is told."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.hub_faults import cut

GOOD = "<reasoning>They are red.</reasoning><concept>red fruit</concept>"


def completion(content=GOOD, finish_reason="stop", usage=True, **message):
    """The body of an answer."""
    body = {
        "id": "1",
        "created": 0,
        "model": "tiny",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content}}
        ],
    }
    body["choices"][0]["message"].update(message)
    if usage:
        body["usage"] = {"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150}
    return body


class ChatServer:
    """The server, a context manager.

    Attributes:
        script: What happens to the next requests: (status, headers, body), "cut" (the connection breaks in the middle
            of the answer), or a number of seconds after which it answers. Without any, it answers well.
        models: Status and content of the list of models.
        requests: (path, headers, body) of all requests.
        most_at_once: The most requests at the same time.
    """

    def __init__(self):
        self.script, self.requests, self.lock = [], [], threading.Lock()
        self.active = self.most_at_once = 0
        self.seconds = 0.0
        self.models = 200, json.dumps({"data": [{"id": "tiny"}, {"id": "large"}]}).encode()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                server.answer(self)

            def do_GET(self):
                status, content = server.models
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.requests.append((handler.path, dict(handler.headers), body))
            event = self.script.pop(0) if self.script else (200, {}, completion())
            self.active += 1
            self.most_at_once = max(self.most_at_once, self.active)
        time.sleep(self.seconds if not isinstance(event, float) else event)
        with self.lock:
            self.active -= 1
        if isinstance(event, float):
            event = (200, {}, completion())
        if event == "cut":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"choices": [')
            handler.wfile.flush()
            cut(handler.connection)
            return
        status, headers, content = event
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            handler.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        except OSError:  # the client did not wait
            pass
