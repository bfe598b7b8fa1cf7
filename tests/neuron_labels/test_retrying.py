import logging

import pytest
from httpx2 import Request, Response
from huggingface_hub.errors import HfHubHTTPError, HTTPError, InferenceTimeoutError, OfflineModeIsEnabled

from hf_msae.neuron_labels.services import ServiceError, with_retries


def http_error(status, said="no", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    response = Response(status, headers=headers, request=Request("POST", "http://127.0.0.1"))
    return HfHubHTTPError("with a long page", response=response, server_message=said)


class Failing:
    """Raises these errors, one a call, and then returns "done"."""

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture
def waits():
    return []


def test_returns_what_the_call_returns(waits):
    assert with_retries(Failing(), "service", sleep=waits.append) == "done"
    assert waits == []


@pytest.mark.parametrize(
    "error",
    [
        *(http_error(status) for status in (408, 429, 500, 502, 503, 504, 529)),
        *(InferenceTimeoutError("slow"), HTTPError("cut off"), ConnectionResetError("gone"), TimeoutError("late")),
    ],
    ids=lambda error: f"{type(error).__name__} {getattr(getattr(error, 'response', None), 'status_code', '')}",
)
def test_repeats_what_may_pass(error, waits):
    call = Failing(error, error)
    assert with_retries(call, "service", wait=1, sleep=waits.append) == "done"
    assert call.calls == 3
    assert 0.5 <= waits[0] <= 1
    assert 1 <= waits[1] <= 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        *((http_error(status, "wrong model"), "wrong model") for status in (400, 401, 403, 404, 422)),
        (http_error(429, Retry_After="3600"), "3600 s"),
        (OfflineModeIsEnabled("HF_HUB_OFFLINE is set"), "HF_HUB_OFFLINE"),
    ],
)
def test_does_not_repeat_what_stays_wrong(error, said, waits):
    call = Failing(error)
    with pytest.raises(ServiceError, match=f"the drawing service.*{said}") as caught:
        with_retries(call, "the drawing service", sleep=waits.append)
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    assert (caught.value.status, caught.value.attempts, call.calls, waits) == (status, 1, 1, [])


def test_gives_up_after_the_last_repetition(waits):
    call = Failing(*[http_error(503)] * 9)
    with pytest.raises(ServiceError, match="503") as caught:
        with_retries(call, "service", retries=3, sleep=waits.append)
    assert (caught.value.attempts, call.calls, len(waits)) == (4, 4, 3)


def test_waits_double_up_to_the_longest(waits):
    with_retries(Failing(*[http_error(500)] * 8), "service", retries=8, wait=1, longest=10, sleep=waits.append)
    for found, most in zip(waits, (1, 2, 4, 8, 10, 10, 10, 10), strict=True):
        assert most / 2 <= found <= most


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("17", 17, 17),
        ("Mon, 30 Nov 2026 12:00:00 GMT", 0.5, 1),
    ],
    ids=["seconds", "a date"],
)
def test_respects_retry_after(said, least, most, waits):
    with_retries(Failing(http_error(429, Retry_After=said)), "service", wait=1, sleep=waits.append)
    assert least <= waits[0] <= most


def test_repeats_other_errors_only_if_they_are_named(waits):
    with pytest.raises(ValueError, match="odd"):
        with_retries(Failing(ValueError("odd")), "service", sleep=waits.append)
    assert with_retries(Failing(ValueError("odd")), "service", also=(ValueError,), sleep=waits.append) == "done"


def test_the_secret_is_in_no_message(waits, caplog, monkeypatch):
    from transformers.utils import logging as transformers_logging

    monkeypatch.setattr(transformers_logging.get_logger("hf_msae"), "propagate", True)
    secret = "key-0123456789"
    errors = [http_error(500, f"your key is {secret}"), HTTPError(f"illegal header Bearer {secret}")] * 2
    with caplog.at_level(logging.WARNING), pytest.raises(ServiceError) as caught:
        with_retries(Failing(*errors), "service", retries=3, secret=secret, sleep=waits.append)
    assert len(caplog.records) == 3
    assert "your key is ***" in caplog.text
    assert secret not in caplog.text + str(caught.value)
    # A traceback would print what the error came from.
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_long_answers_are_cut_to_one_line(waits):
    with pytest.raises(ServiceError) as caught:
        with_retries(Failing(http_error(400, "page\n" * 1000)), "service", sleep=waits.append)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_what_a_service_says_is_one_line_without_control_characters():
    with pytest.raises(ServiceError) as caught:
        with_retries(Failing(http_error(403, "no\x1b[2J\u202emodel\r\nhere" + "x" * 400)), "service")
    assert "no [2J model here" in str(caught.value) and str(caught.value).isprintable()
    assert len(str(caught.value)) < 350
