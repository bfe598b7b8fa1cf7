"""Requests that no page sends: they are refused, nothing of them is logged, and they hold nothing for long."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio")

from hf_msae.explorer import guard, housekeeping
from hf_msae.explorer.guard import Guard
from hf_msae.explorer.housekeeping import make_room, own_folder
from tests.explorer.asking import address, ask, num_bytes, request, upload, wait_for

MULTIPART = "multipart/form-data; boundary=x"
HEAD = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'


@pytest.fixture
def url(demo, capfd, caplog):
    """The address of a page, of which nothing but kind and place of errors may be logged."""
    yield address(demo)
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "Traceback" not in logged and "FAKE" not in logged and "secret" not in logged


def test_a_path_with_a_line_break_is_not_served(url):
    for path in ("run/X%0AFAKE", "call/X%0D%0AFAKE", "call/v2/X%E2%80%A8FAKE", "file=a%00FAKE"):
        assert request(f"{url}/gradio_api/{path}", b'{"data": []}') == (404, "This is not served here."), path
    assert request(f"{url}/assets/{'FAKE' * 100}")[0] == 404


@pytest.mark.parametrize(
    "route", ["run/concept", "call/concept", "call/v2/concept", "call/secret", "queue/join", "cancel"]
)
def test_odd_json_is_the_senders_fault(url, route):
    good = {"data": ["star"], "session_hash": "secret", "fn_index": 0, "event_id": "secret"}
    odd = [{**good, name: value} for name in good for value in (None, "\ud800", {"secret": "secret"})]
    odd += [{**good, "fn_index": value} for value in (10**40, -1, [])]
    bodies = [json.dumps(each).encode() for each in odd]
    bodies += [b"", b"null", b'"secret"', b"{", b"\xff", b'{"data": [NaN]}', b"[" * 9999, b'{"secret": 1}']
    for body in bodies:
        status, text = request(f"{url}/gradio_api/{route}", body)
        assert status < 500, (body, text)
    assert status >= 400 or route == "call/concept"


def test_half_a_character_is_a_word_like_others(url):
    assert "event: complete" in ask(url, "concepts", "\ud800", True, "name")
    assert "event: error" in ask(url, "concept", "\ud800")


@pytest.mark.parametrize("name", [b"", b".", b"..", b"/", b"\0", b"a" * 300, b"\xff", b"a/../../secret"])
def test_files_may_have_odd_names_or_none(url, uploads, name):
    body = HEAD.replace(b"a.png", name) + b"x\r\n--x--\r\n"
    status, text = request(f"{url}/gradio_api/upload", body, MULTIPART)
    assert status == 400 or (status == 200 and all(path.startswith(str(uploads)) for path in json.loads(text)))


def test_what_is_not_a_file_is_no_upload(url):
    for body in (HEAD.replace(b'; filename="a.png"', b"") + b"secret\r\n--x--\r\n", b"secret"):
        assert request(f"{url}/gradio_api/upload", body, MULTIPART)[0] == 400


@pytest.fixture
def begin(url):
    """Begin a request of 20 MB that does not arrive; from another address of this machine, if one is given."""
    opened = []

    def begin(route="upload", body=HEAD, source="127.0.0.1"):
        sent = socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=20, source_address=(source, 0))
        opened.append(sent)
        length = 20 * 2**20 if route == "upload" else 1000
        head = f"POST /gradio_api/{route} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nContent-Type: "
        sent.sendall(f"{head}{MULTIPART if route == 'upload' else 'application/json'}\r\n\r\n".encode() + body)
        return sent

    yield begin
    for each in opened:
        each.close()


def status_of(sent):
    answer = http.client.HTTPResponse(sent)
    answer.begin()
    return answer.status


@pytest.mark.parametrize("route", ["upload", "call/concept"])
def test_a_body_that_does_not_arrive_is_cut_off(begin, monkeypatch, uploads, route):
    monkeypatch.setattr(guard, "STALLED", 0.3)
    before = num_bytes(uploads)
    assert status_of(begin(route)) in (400, 408)
    assert num_bytes(uploads) == before


def test_a_body_that_trickles_is_cut_off(begin, monkeypatch):
    monkeypatch.setattr(guard, "TOO_SLOW", 1.0)
    sent, stop = begin(), threading.Event()

    def trickle():
        while not stop.wait(0.1):
            sent.sendall(b"a")

    thread = threading.Thread(target=trickle)
    thread.start()
    assert status_of(sent) == 400
    stop.set()
    thread.join()


def test_whoever_holds_many_uploads_hinders_nobody_else(begin, url, monkeypatch):
    monkeypatch.setattr(guard, "MAX_UPLOADS_EACH", 2)
    for _ in range(2):
        begin(source="127.0.0.2")
    wait_for(lambda: status_of(begin(source="127.0.0.2", body=b"a" * 20 * 2**20)) == 429)
    assert upload(url, b"a" * 1000)[0] == 200


def test_slots_are_given_back(begin, url, monkeypatch):
    guards = []
    serve = Guard._serve

    async def noted(self, *args):
        guards.append(self)
        return await serve(self, *args)

    monkeypatch.setattr(Guard, "_serve", noted)
    monkeypatch.setattr(guard, "STALLED", 0.3)
    for _ in range(3):
        assert status_of(begin()) == 400
    monkeypatch.setattr(guard, "STALLED", 30)  # a busy machine may be late with what does arrive
    assert upload(url, b"a")[0] == 200
    wait_for(lambda: not guards[0]._coming and not guards[0]._uploads)


def test_room_is_made_while_others_write_and_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(housekeeping, "SPARED", 0)
    end, errors = time.monotonic() + 0.4, []

    def write(number):
        while time.monotonic() < end:
            folder = tmp_path / f"{number}-{time.monotonic_ns()}"
            folder.mkdir()
            try:
                (folder / "file").write_bytes(b"a")
            except FileNotFoundError:  # it was empty
                pass

    def clear():
        try:
            while time.monotonic() < end:
                make_room(tmp_path, 0, 3600, most=0)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    threads += [threading.Thread(target=clear) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert errors == []


@pytest.mark.slow
@pytest.mark.skipif(housekeeping.fcntl is None, reason="needs locks")
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(tmp_path):
    program = (
        "import sys, time\nfrom hf_msae.explorer.housekeeping import own_folder\n"
        "made = own_folder('msae-test-', sys.argv[1])\nprint(made.name, flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    left = process.stdout.readline().strip()
    open(f"{left}/picture", "w").close()
    (tmp_path / "msae-other").mkdir()
    mine = own_folder("msae-test-", str(tmp_path))
    assert os.path.exists(f"{left}/picture")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    again = own_folder("msae-test-", str(tmp_path))
    assert not os.path.exists(left)
    assert os.path.isdir(mine.name) and os.path.isdir(again.name) and (tmp_path / "msae-other").is_dir()
    again.cleanup()
    assert not os.path.exists(again.name)


def test_gradio_keeps_no_analytics(url, demo):
    for _ in range(2):
        ask(url, "concept", "star")
    assert len(demo._queue.event_analytics) <= 1 and demo._queue.cached_event_analytics_summary == {"functions": {}}
