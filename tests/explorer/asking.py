"""A running explorer asked by plain HTTP, as those ask who mean it ill."""

import json
import time
import urllib.error
import urllib.request
from contextlib import contextmanager


def request(address, body=None, kind="application/json"):
    """(status, text) of an answer."""
    try:
        sent = urllib.request.Request(address, body, {"Content-Type": kind} if body is not None else {})
        with urllib.request.urlopen(sent, timeout=60) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def ask(url, name, *data):
    """The events that answer a question."""
    status, text = request(f"{url}/gradio_api/call/{name}", json.dumps({"data": data}).encode())
    assert status == 200, text
    return request(f"{url}/gradio_api/call/{name}/{json.loads(text)['event_id']}")[1]


def upload(url, *contents):
    head = '--x\r\nContent-Disposition: form-data; name="files"; filename="{}.png"\r\nContent-Type: image/png\r\n\r\n'
    parts = b"".join(head.format(i).encode() + content + b"\r\n" for i, content in enumerate(contents))
    return request(f"{url}/gradio_api/upload", parts + b"--x--\r\n", "multipart/form-data; boundary=x")


def num_bytes(folder):
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def wait_for(come_true, seconds=30):
    deadline = time.monotonic() + seconds
    while not come_true():
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.05)


@contextmanager
def launched(explorer):
    """A page of its own in this process."""
    from hf_msae.explorer import app

    demo = app.build_demo(explorer)
    demo.launch(prevent_thread_lock=True, quiet=True, **app.launch_options())
    try:
        yield demo
    finally:
        demo.server.force_exit = True  # streams of answers that nobody ends would be waited for, five seconds a page
        demo.close()


def address(demo):
    return demo.local_url.rstrip("/")
