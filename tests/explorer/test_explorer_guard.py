"""What strangers can make the server do: nothing is fetched for them, and what they send is bounded and goes."""

import asyncio
import http.client
import json
import os
import socket
import threading
import time
import urllib.request
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from PIL import Image

gradio = pytest.importorskip("gradio")

from hf_msae.explorer import app, guard, housekeeping, page  # noqa: E402 (they need gradio)
from hf_msae.explorer.answers import CONCURRENCY, answering, slots  # noqa: E402
from hf_msae.explorer.housekeeping import forget_sessions, make_room, own_upload_folder  # noqa: E402
from hf_msae.explorer.inputs import VisitorError  # noqa: E402
from tests.explorer.asking import address, ask, launched, num_bytes, request, upload, wait_for  # noqa: E402

META = {"meta": {"_type": "gradio.FileData"}}


@pytest.fixture
def url(demo):
    return address(demo)


@pytest.fixture
def elsewhere(monkeypatch):
    """A server that counts who asks it for something, under a name that gradio would fetch from."""
    from gradio import processing_utils

    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"here")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(processing_utils, "PUBLIC_HOSTNAME_WHITELIST", ["localhost"])
    yield SimpleNamespace(url=f"http://localhost:{server.server_port}", asked=asked)
    server.shutdown()
    server.server_close()


def test_no_address_that_a_client_names_is_fetched(url, elsewhere):
    def named(name):
        return {"path": f"{elsewhere.url}/{name}.png", **META}

    for answer in (
        ask(url, "see", named("a"), "16"),
        ask(url, "see", None, named("b")),
        ask(url, "see", f"{elsewhere.url}/c.png", "16"),
        ask(url, "see", {"path": f"{elsewhere.url}/d.png"}, "16"),
        ask(url, "see", {"path": "x", "url": f"{elsewhere.url}/e.png", **META}, "16"),
        ask(url, "match_pictures", named("f"), [named("g")]),
        ask(url, "concept", named("h")),
        ask(url, "dose_response", "star", "", "", [{"deep": named("i")}]),
    ):
        assert "event: error" in answer and ("not fetched" in answer or "upload a file" in answer), answer
    for path in (f"file={elsewhere.url}/j.png", f"file/{elsewhere.url}/k.png", f"proxy={elsewhere.url}/l.png"):
        assert request(f"{url}/gradio_api/{path}") == (404, "This is not served here.")
    assert elsewhere.asked == []


def test_gradio_would_fetch_them(url, elsewhere, monkeypatch):
    """Else the test above shows nothing; should this fail, gradio does it no longer, and `Page` can go."""
    monkeypatch.setattr(page.Page, "preprocess_data", gradio.Blocks.preprocess_data)
    ask(url, "concept", {"path": f"{elsewhere.url}/a.png", **META})
    assert elsewhere.asked == ["/a.png"]


def test_an_upload_is_known_by_its_path_and_by_its_address(url, tmp_path, uploads):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    status, text = upload(url, (tmp_path / "red.png").read_bytes())
    path = json.loads(text)[0]
    assert status == 200 and path.startswith(str(uploads))
    for name in (path, f"{url}/gradio_api/file={path}"):
        assert "event: complete" in ask(url, "see", {"path": name, **META}, "16")
    for name in (f"{url}/gradio_api/file=/etc/passwd", f"{url}/gradio_api/file={path}/../../../passwd", "a\0b"):
        with pytest.raises(VisitorError, match="upload a file"):
            page.uploaded(name)


def test_what_the_page_does_not_need_is_not_served(url):
    closed = (
        "deep_link?session_hash=x process_recording component_server runs vibe-edit custom_component/a/b/c/d "
        "stream/a/b/1/playlist.m3u8 run-history/records"
    )
    for path in closed.split():
        for body in (None, b"{}"):
            assert request(f"{url}/gradio_api/{path}", body) == (404, "This is not served here."), path
    for path in ("monitoring", "monitoring/summary"):
        assert request(f"{url}/{path}")[0] == 403


def test_errors_of_gradio_itself_reach_the_visitor_and_not_the_log(caplog):
    with page.Page() as demo:
        boxes = [gradio.Textbox(), gradio.Textbox()]
        boxes[0].submit(lambda one, other: None, boxes)
    (asked,) = demo.fns.values()
    with pytest.raises(gradio.Error, match="secret") as caught:
        asyncio.run(demo.process_api(asked, ["a secret"]))
    assert not caught.value.print_exception
    assert "ValueError at blocks.py" in caplog.text and "secret" not in caplog.text


def test_nobody_asks_past_the_queue(url):
    status, text = request(f"{url}/gradio_api/run/concepts", json.dumps({"data": ["", True, "name"]}).encode())
    assert status == 404 and "queue" in text


def test_requests_that_are_too_large_are_refused_before_they_are_kept(url, uploads):
    before = sum(1 for _ in uploads.rglob("*"))
    status, text = upload(url, b"a" * (15 * 2**20), b"b" * (15 * 2**20))
    assert status == 413 and "20 MB" in text
    status, text = request(f"{url}/gradio_api/call/concepts", json.dumps({"data": ["x" * 2**20]}).encode())
    assert status == 413 and "1 MB" in text
    assert sum(1 for _ in uploads.rglob("*")) == before


def test_a_body_that_hides_its_length_is_refused_too(url, uploads):
    before = num_bytes(uploads)
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    one = [head, *[b"a" * 2**20] * 12, b"\r\n"]  # not too large by itself, as gradio sees to
    chunks = [*one, *one, b"--x--\r\n"]
    try:
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        connection.request("POST", "/gradio_api/upload", iter(chunks), kind, encode_chunked=True)
        assert connection.getresponse().status == 413
    except OSError:  # the server hung up while this was still sending
        pass
    finally:
        connection.close()
    assert num_bytes(uploads) == before


def test_of_an_upload_that_breaks_off_nothing_stays(url, uploads):
    before = num_bytes(uploads)
    head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\nContent-Type: "
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", urlsplit(url).port)) as connection:
        connection.sendall(head + b"multipart/form-data; boundary=x\r\n\r\n" + part + b"a" * 2**20)
        wait_for(lambda: num_bytes(uploads) > before)
    wait_for(lambda: num_bytes(uploads) == before)


def test_a_file_of_more_than_20_mb_and_any_while_the_disk_is_full_are_refused(url, monkeypatch):
    assert upload(url, b"a" * (20 * 2**20 + 1))[0] == 413
    monkeypatch.setattr(housekeeping, "MAX_DISK", 2**17)
    assert upload(url, b"a" * 2**17)[0] == 503
    monkeypatch.undo()
    assert upload(url, b"a" * 2**17)[0] == 200


def test_what_is_too_old_is_deleted_and_then_the_oldest(tmp_path, monkeypatch):
    for name in "abc":  # the time at which a file came cannot be set, so they are made one after the other
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * 100_000)
        time.sleep(0.05)
    assert make_room(tmp_path, 0, 3600) and len(list(tmp_path.iterdir())) == 3
    assert not make_room(tmp_path, 0, 3600, most=250_000)  # all are spared
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(housekeeping, "SPARED", 0)
    assert make_room(tmp_path, 0, 3600, most=250_000)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["b", "c"]
    assert not make_room(tmp_path, 300_000, 3600, most=250_000)
    assert list(tmp_path.iterdir()) == []


def test_many_tiny_files_count_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(housekeeping, "SPARED", 0)
    for number in range(20):
        (tmp_path / f"{number}").write_bytes(b"x")
    make_room(tmp_path, 0, 3600, most=2**16 * 10)
    assert len(list(tmp_path.iterdir())) == 10


@pytest.mark.slow
def test_pictures_and_sessions_are_gone_after_an_hour(explorer, monkeypatch):
    assert app._TIDY_AGE == 3600
    monkeypatch.setattr(app, "_TIDY_EVERY", 1)
    monkeypatch.setattr(app, "_TIDY_AGE", 1)
    with launched(explorer) as demo:
        sent = json.loads(upload(address(demo), b"a" * 1000)[1])[0]
        ask(address(demo), "concept", "star")
        wait_for(lambda: not demo.app.state_holder.session_data)
        wait_for(lambda: not os.path.exists(sent))
        # An answer that is never fetched, and the names of what is deleted.
        request(f"{address(demo)}/gradio_api/call/concept", json.dumps({"data": ["star"]}).encode())
        assert demo._queue.pending_messages_per_session and sent in demo.upload_file_set | {sent}
        wait_for(lambda: not demo._queue.pending_messages_per_session)
        wait_for(lambda: not any(demo.temp_file_sets) and not demo._queue.pending_event_ids_session)


def test_sessions_that_are_still_are_forgotten():
    now = datetime.now()
    holder = SimpleNamespace(
        lock=threading.Lock(),
        session_data={name: SimpleNamespace(config_values={1: {}}) for name in ("old", "new")},
        time_last_used={"old": now - timedelta(hours=2), "new": now},
    )
    forget_sessions(holder, 3600)
    assert set(holder.session_data) == set(holder.time_last_used) == {"new"}


def test_thumbnails_are_served_from_where_they_lie(explorer, url, uploads):
    events = ask(url, "search", "a picture of the collection", None, "", 5, *("", 0) * 4)
    before, *_ = json.loads(events.rpartition("data: ")[2])
    path = before[0]["image"]["path"]
    assert path.startswith(str(explorer.thumbnails)) and not list(uploads.rglob("*.webp"))
    with urllib.request.urlopen(before[0]["image"]["url"]) as answer:
        assert answer.read()[8:12] == b"WEBP"
    status, _ = request(f"{url}/gradio_api/file={explorer.folder}/index/index.json")
    assert status in (403, 404)


def test_all_that_is_asked_takes_one_of_the_slots_and_nothing_is_forgotten(demo):
    """Gradio drops what is asked meanwhile from events with trigger_mode="once", its default."""
    events = demo.fns.values()
    public = [each for each in events if each.api_visibility == "public"]
    assert len(public) == 10
    assert all(each.fn.__code__ is answering(len).__code__ for each in public), [each.api_name for each in public]
    opening = {"load", "tick", "select"}  # of the page or a tab
    asked = [
        each for each in events if each.inputs and each.targets and not opening & {name for _, name in each.targets}
    ]
    assert len(asked) > 15
    assert [each.name for each in asked if each.trigger_mode != "always_last"] == []


def test_a_full_queue_refuses_questions(demo, url, monkeypatch):
    assert demo._queue.max_size == app.MAX_QUEUE
    monkeypatch.setattr(demo._queue, "max_size", 2)
    for _ in range(CONCURRENCY):
        slots.acquire()
    try:
        body = json.dumps({"data": ["star"]}).encode()
        answers = [request(f"{url}/gradio_api/call/concept", body) for _ in range(12)]
    finally:
        for _ in range(CONCURRENCY):
            slots.release()
    assert answers[0][0] == 200 and answers[-1][0] == 503
    assert "ask again in a minute" in json.loads(answers[-1][1])["detail"]


def test_so_many_requests_are_open_at_a_time_and_those_that_end_make_room(url, monkeypatch):
    monkeypatch.setattr(guard, "MAX_OPEN", 3)
    wait_for(lambda: request(url)[0] == 200)
    held = [http.client.HTTPConnection(urlsplit(url).netloc, timeout=20) for _ in range(3)]
    for number, each in enumerate(held):
        each.request("GET", f"/gradio_api/heartbeat/{number}")
        assert each.getresponse().status == 200
    assert request(url)[0] == 503
    for each in held:
        each.close()
    wait_for(lambda: request(url)[0] == 200)


def test_uploads_lie_in_a_folder_of_their_own(monkeypatch, tmp_path):
    """Whatever is old in it is deleted: nothing of others may lie there."""
    (tmp_path / "of others").write_text("")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    own = own_upload_folder()
    assert own.parent == tmp_path and own.is_dir() and not list(own.iterdir())
    assert os.environ["GRADIO_TEMP_DIR"] == str(own) and own_upload_folder() == own
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    assert own_upload_folder().name.startswith("msae-uploads-") and own_upload_folder() != own
