import json
import logging
import time
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from hf_msae.neuron_labels import label_neuron
from hf_msae.neuron_labels.proposers.base import Request
from hf_msae.neuron_labels.proposers.inference import InferenceProposer
from hf_msae.neuron_labels.proposers.language_model import UnansweredError
from hf_msae.neuron_labels.services import ServiceError
from tests.neuron_labels.color_world import ColorImager
from tests.neuron_labels.proposers.chat_server import GOOD, ChatServer, completion

KEY = "sk-a-very-secret-key-0123456789"
TOKEN = "hf_the_users_own_token"
REQUEST = Request((("red apple", 0.93), ("tree", 0.41)), ("red apple", "tree"), seed=3)
OTHERS = [Request(seed=number) for number in range(6)]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("CHAT_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with ChatServer() as server:
        yield server


@pytest.fixture
def waits():
    return []


@pytest.fixture
def make(server, waits):
    def make(**options):
        options = {"base_url": server.url, "api_key_variable": "CHAT_KEY", "sleep": waits.append, **options}
        return InferenceProposer("tiny", **options)

    return make


def test_asks_and_counts(server, make):
    [answer] = make(prices=(2.0, 10.0), temperature=0.3, top_p=0.8, max_new_tokens=77).propose([REQUEST])
    assert (answer.concept, answer.reasoning, answer.malformed) == ("red fruit", "They are red.", 0)
    assert (answer.calls, answer.input_tokens, answer.output_tokens, answer.estimated) == (1, 120, 30, False)
    assert answer.cost == pytest.approx(120 * 2e-6 + 30 * 10e-6)
    [(path, headers, body)] = server.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("tiny", 0.3, 0.8, 77)
    assert '"red apple" 0.93' in body["messages"][0]["content"]


def test_seeds_are_sent_and_the_same_for_the_same_request(server, make):
    make().propose([REQUEST, REQUEST, Request(seed=4)])
    by_prompt = sorted((body["messages"][0]["content"], body["seed"]) for _, _, body in server.requests)
    seeds = [seed for _, seed in by_prompt]
    assert len(set(seeds)) == 2
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    "event",
    [
        (500, {}, []),
        (503, {"Content-Type": "text/html"}, b"<html>"),
        (429, {}, {}),
        (200, {}, b"nonsense"),
        (200, {}, b"\xff\xfe\x00"),
        (200, {}, 3),
        (200, {}, [1]),
        (200, {}, {}),
        (200, {}, {"error": {"message": "overloaded"}}),
        (200, {}, {"choices": []}),
        (200, {}, {"choices": [{}]}),
        (200, {}, {"choices": [{"message": "text"}]}),
        (200, {}, {"choices": [{"message": {"content": 7}}]}),
        "cut",
    ],
    ids=str,
)
def test_repeats_calls_that_fail_for_now(event, server, make, waits):
    server.script = [event, event]
    [answer] = make().propose([REQUEST])
    assert (answer.concept, answer.calls, answer.malformed) == ("red fruit", 3, 0)
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2
    assert len(server.requests) == 3


def test_waits_as_long_as_the_server_asks(server, make, waits):
    server.script = [(429, {"Retry-After": "7"}, {"error": "slow down"})]
    assert make().propose([REQUEST])[0].concept == "red fruit"
    assert waits == [7]


def test_gives_up_on_a_server_that_does_not_answer(server, make, waits):
    server.script = [5.0]
    start = time.monotonic()
    with pytest.raises(ServiceError, match=r"0\.2 s"):
        make(timeout=0.2, call_retries=0).propose([REQUEST])
    assert time.monotonic() - start < 4


def test_a_timeout_is_repeated(server, make):
    server.script = [5.0]
    [answer] = make(timeout=0.3).propose([REQUEST])
    assert answer.concept == "red fruit" and answer.calls >= 2  # a busy machine may be late again


def test_no_server(make, server):
    server.__exit__()
    with pytest.raises(UnansweredError, match="2 attempts") as caught:
        make(call_retries=1).propose([REQUEST])
    assert caught.value.answers == [None]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_what_stays_wrong_ends_the_run_at_once_and_keeps_other_answers(status, server, make, waits):
    server.script = [(200, {}, completion()), (status, {}, {"error": {"message": "no such thing"}})]
    with pytest.raises(UnansweredError, match=str(status)) as caught:
        make(concurrency=1).propose([REQUEST, *OTHERS])
    assert waits == []
    assert len(server.requests) == 2
    assert [answer and answer.concept for answer in caught.value.answers] == ["red fruit", *[None] * 6]


def test_a_content_filter_refuses_one_prompt_only(server, make):
    filtered = (400, {}, {"error": {"message": "the content policy", "code": "content_filter"}})
    server.script = [filtered] * 3
    answers = make(concurrency=1, retries=0).propose([REQUEST, *OTHERS])
    assert [answer.concept for answer in answers] == [None] * 3 + ["red fruit"] * 4
    assert [answer.malformed for answer in answers] == [1] * 3 + [0] * 4
    assert all("content filter" in answer.problem for answer in answers[:3])


def test_other_errors_that_speak_of_content_are_not_a_filter(server, make):
    server.script = [(400, {}, {"error": {"message": "Invalid type for messages[0].content"}})]
    with pytest.raises(UnansweredError, match="Invalid type"):
        make(concurrency=1, retries=0).propose([REQUEST])


def test_malformed_answers_are_asked_again_with_the_error(server, make):
    server.script = [
        (200, {}, completion(None)),
        (200, {}, completion("<concept>red apples</concept>")),
        (200, {}, completion("<concept>a</concept>", "length")),
    ]
    [answer] = make(retries=3).propose([REQUEST])
    assert (answer.concept, answer.malformed, answer.calls, answer.input_tokens) == ("a", 2, 3, 360)
    assert '"red apples" has been tried' in server.requests[2][2]["messages"][0]["content"]


def test_tokens_are_estimated_and_marked_where_the_server_does_not_count(server, make):
    server.script = [(200, {}, completion(usage=False))]
    [answer] = make(prices=(1.0, 1.0)).propose([REQUEST])
    prompt = server.requests[0][2]["messages"][0]["content"]
    assert answer.estimated
    assert answer.output_tokens == -(-len(GOOD) // 4)
    assert answer.input_tokens == -(-len(prompt) // 4)
    assert answer.cost == pytest.approx((answer.input_tokens + answer.output_tokens) / 1e6)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_may_come_separately(name, server, make):
    server.script = [(200, {}, completion("<concept>dog</concept>", **{name: "hm\n" * 5000}))]
    [answer] = make().propose([REQUEST])
    assert answer.concept == "dog"
    assert answer.reasoning.startswith("hm hm")
    assert len(answer.reasoning) <= 2000


def test_calls_run_at_the_same_time_up_to_the_limit(server, make):
    server.seconds = 0.1
    answers = make(concurrency=3).propose([REQUEST, *OTHERS])
    assert [answer.concept for answer in answers] == ["red fruit"] * 7
    assert 1 < server.most_at_once <= 3


def test_the_users_token_does_not_go_to_a_server_unasked(server, make):
    make(api_key_variable=None).propose([REQUEST])
    assert TOKEN not in json.dumps(server.requests[0][1])
    make(api_key_variable="HF_TOKEN").propose([REQUEST])
    assert server.requests[1][1]["authorization"] == f"Bearer {TOKEN}"


def test_the_key_is_nowhere(server, make, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    for name in ("transformers", "huggingface_hub"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    said = {"error": f"wrong key: {KEY}"}
    shown = []
    for status in (500, 401, 429, 422):
        server.script = [(status, {}, said)] * 2
        proposer = make(call_retries=1)
        with pytest.raises(UnansweredError, match=str(status)) as caught:
            proposer.propose([REQUEST])
        shown += [str(caught.value), repr(caught.value), repr(caught.value.answers), repr(proposer)]
        shown += [json.dumps(proposer.settings), repr(vars(proposer))]
    server.script = [(200, {}, completion(f"<reasoning>{KEY}</reasoning><concept>dog</concept>"))]
    shown.append(repr(make().propose([REQUEST])))
    server.script = [5.0]
    with pytest.raises(UnansweredError) as caught:
        make(timeout=0.2, call_retries=0).propose([REQUEST])
    shown += [str(caught.value), caplog.text]
    assert KEY not in "\n".join(shown)


def test_settings_are_json_without_what_does_not_change_answers(make, server):
    settings = make().settings
    assert json.loads(json.dumps(settings)) == settings
    assert (settings["model"], settings["temperature"], settings["at"]) == ("tiny", 0.5, server.url)
    assert make(timeout=3, prices=(1, 1), concurrency=9).settings == settings
    assert make(temperature=0.4).settings != settings
    assert InferenceProposer("tiny", provider="together").settings["at"] == "provider together"


@pytest.mark.parametrize(
    ("options", "offender"),
    [
        ({"model": None, "base_url": None}, "model"),
        ({"provider": "auto"}, "provider"),
        ({"base_url": "127.0.0.1:80"}, "127.0.0.1:80"),
        ({"base_url": f"http://me:{KEY}@host/v1"}, "api_key_variable"),
        ({"base_url": f"http://host/v1?key={KEY}"}, "api_key_variable"),
        ({"timeout": 0}, "timeout"),
        ({"concurrency": 0}, "concurrency"),
        ({"call_retries": -1}, "retries"),
        ({"prices": (1.0, -1.0)}, "prices"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses(options, offender):
    options = {"model": "tiny", "base_url": "http://127.0.0.1:1/v1", **options}
    with pytest.raises(ValueError, match=offender) as caught:
        InferenceProposer(**options)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("value", ["", "two words", "line\nbreak", "schlüssel"])
def test_refuses_keys_that_are_none(value, make, monkeypatch):
    monkeypatch.setenv("CHAT_KEY", value)
    with pytest.raises(ValueError, match="CHAT_KEY") as caught:
        make().propose([REQUEST])
    assert not value or value not in str(caught.value)


def test_a_model_or_key_that_is_not_there_is_noticed_before_any_work(
    server, make, monkeypatch, red_neuron, noise_pictures
):
    make().check()
    proposer = make()
    proposer.service.model = "huge"
    with pytest.raises(ValueError, match=r"'huge'.*'tiny', 'large'"):
        proposer.check()
    for said in ((404, b""), (200, b"nonsense"), (200, b'{"data": 3}')):  # servers that do not list their models
        server.models = said
        proposer.check()
    server.models = (401, b"")
    with pytest.raises(ServiceError, match="401"):
        make().check()
    monkeypatch.delenv("CHAT_KEY")
    imager = ColorImager()
    with pytest.raises(ValueError, match="CHAT_KEY"):
        label_neuron(red_neuron, make(), imager, noise_pictures, progress=False)
    assert not imager.calls and not server.requests


@pytest.mark.parametrize(
    ("provider", "there", "named"),
    [("together", ("novita",), "novita"), (None, (), "none"), ("groq", ("groq",), None)],
)
def test_the_providers_of_a_model_are_checked(provider, there, named, monkeypatch, server):
    info = SimpleNamespace(inference_provider_mapping=[SimpleNamespace(provider=name) for name in there])
    monkeypatch.setattr("hf_msae.neuron_labels.services.HfApi.model_info", lambda self, model, expand: info)
    proposer = InferenceProposer("some/model:fast", provider=provider)
    if named is None:
        proposer.check()
    else:
        with pytest.raises(ValueError, match=f"some/model.*{named}"):
            proposer.check()


@pytest.mark.parametrize("provider", ["no-such-provider", "black-forest-labs"])
def test_what_can_never_succeed_is_not_repeated(provider, server, waits):
    proposer = InferenceProposer("tiny", provider=provider, api_key_variable="CHAT_KEY", sleep=waits.append)
    with pytest.raises(UnansweredError, match=provider) as caught:
        proposer.propose([REQUEST])
    assert waits == [] and KEY not in str(caught.value)


def test_providers_need_a_key(monkeypatch):
    monkeypatch.setattr("hf_msae.neuron_labels.services.get_token", lambda: None)
    with pytest.raises(ValueError, match="HF_TOKEN"):
        InferenceProposer("some/model").check()
