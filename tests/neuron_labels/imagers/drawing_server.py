"""A server on this machine that draws, and fails as it is told."""

import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


def picture_bytes(color, file_format="PNG", size=(6, 5)):
    stored = io.BytesIO()
    Image.new("RGB", size, color).save(stored, file_format)
    return stored.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Fails as `server.failures` say, one a request, and then answers with a picture in the color of the seed."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body, dict(self.headers)))
        failure = self.server.failures.pop(0) if self.server.failures else None
        if failure == "hang":
            self.server.released.wait(20)
            return
        status, content, headers = failure or (200, picture_bytes((body["parameters"]["seed"], 0, 9)), {})
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def drawing_server():
    """The server, with its requests and with the failures to come."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.failures, server.released = [], [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/draw"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
