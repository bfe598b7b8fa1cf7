"""Concepts from a language model behind an HTTP server."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from .calling import CallFailedError, InvalidResponseError, call_with_retries
from .language_model import Generation, LanguageModelProposer
from .parsing import MOST_REASONING, one_line

if TYPE_CHECKING:
    from huggingface_hub import ChatCompletionOutput

_NO_KEY = "none"
"""Sent to servers that need no key. Without any, huggingface_hub would send the user's token to them."""
_LETTERS_A_TOKEN = 4
"""For estimates, in English."""
_NOT_CALLED = "was not called, because another call failed"


class InferenceProposer(LanguageModelProposer):
    """Asks a chat model behind Hugging Face's Inference Providers or any server that speaks OpenAI's chat protocol.

    Calls that fail for now (no connection, a timeout, HTTP 408, 409, 425, 429 and 5xx, answers that are not of the
    protocol) are repeated after a wait that doubles, or after as long as the server asks for with `Retry-After`. Other
    failures, such as a wrong key, end the run at once. The seed is sent along; whether it decides the answer is up to
    the server.

    The key comes from the environment. It is in no repr, setting, error, log or history.

    Args:
        model: Id on the Hub, or what the server calls the model.
        provider: One of `InferenceClient`'s, such as "auto" (the default) or "together".
        base_url: Address of a server instead, such as "http://127.0.0.1:8080/v1".
        api_key_variable: Environment variable with the key. By default HF_TOKEN, or the token of `hf auth login`, for
            Inference Providers, and **no key** for `base_url`: your token does not go to a server unasked.
        temperature: Of sampling.
        top_p: Probability of the tokens that are sampled from.
        max_new_tokens: Most tokens of an answer.
        timeout: Seconds without any data from the server after which a call has failed.
        call_retries: How often a failed call is repeated.
        most_wait: Seconds of the longest wait between calls. A server that asks for a longer one has failed.
        prices: Of a million tokens of prompts, and of answers, for the cost.
        max_concurrency: Number of calls at the same time.
        options: `shown`, `avoided` and `retries` of `LanguageModelProposer`.

    Raises:
        ValueError: There is neither model nor base_url, or both a provider and a base_url; the address holds a
            password; there is no key; or a number is out of range.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        provider: str | None = None,
        base_url: str | None = None,
        api_key_variable: str | None = None,
        temperature: float = 0.5,
        top_p: float = 0.9,
        max_new_tokens: int = 1024,
        timeout: float = 60.0,
        call_retries: int = 5,
        most_wait: float = 120.0,
        prices: tuple[float, float] = (0.0, 0.0),
        max_concurrency: int = 4,
        **options: Any,
    ) -> None:
        from huggingface_hub import InferenceClient

        super().__init__(chat=True, **options)
        if (model is None and base_url is None) or (provider is not None and base_url is not None):
            there = "a" if base_url else "no"
            raise ValueError(
                f"give a model, or a base_url and no provider; got {model=}, {provider=}, {there} base_url"
            )
        if base_url is not None:
            _check_address(base_url)
        numbers = {"timeout": timeout, "max_new_tokens": max_new_tokens, "max_concurrency": max_concurrency}
        for name, number in numbers.items():
            if not number > 0:
                raise ValueError(f"{name} must be positive, got {number!r}")
        if call_retries < 0 or len(prices) != 2 or min(prices) < 0:
            raise ValueError(f"call_retries and two prices must not be negative, got {call_retries!r} and {prices!r}")
        self.model, self.provider, self.base_url = model, provider, base_url
        self.temperature, self.top_p, self.max_new_tokens = temperature, top_p, max_new_tokens
        self.timeout, self.call_retries, self.most_wait = timeout, call_retries, most_wait
        self.prices, self.max_concurrency = prices, max_concurrency
        key = _read_key(api_key_variable, base_url)
        self._secrets = [key] if key != _NO_KEY else []
        self._secrets += [value for _, value in parse_qsl(urlsplit(base_url or "").query)]
        where = {"base_url": base_url} if base_url else {"model": model, "provider": provider}
        self._client = InferenceClient(api_key=key, timeout=timeout, **where)

    def __repr__(self) -> str:
        return f"InferenceProposer({self.model or 'the model of the server'} at {self._place})"

    @property
    def settings(self) -> dict[str, Any]:
        """The model, the prompts, and how answers are sampled; the key is not among them."""
        return {
            **super().settings,
            "model": self.model,
            "at": self._place,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_new_tokens": self.max_new_tokens,
        }

    @property
    def _place(self) -> str:
        """The server without what may be secret in its address."""
        if self.base_url is None:
            return f"provider {self.provider or 'auto'}"
        return urlunsplit(urlsplit(self.base_url)._replace(query="", fragment=""))

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Generation]:
        """Send the prompts, several at a time."""
        stop = threading.Event()
        with ThreadPoolExecutor(self.max_concurrency, thread_name_prefix="proposer") as pool:
            futures = [
                pool.submit(self._generate, prompt, seed, stop) for prompt, seed in zip(prompts, seeds, strict=True)
            ]
            try:
                return [future.result() for future in futures]
            except BaseException:  # an interrupt
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _generate(self, prompt: str, seed: int, stop: threading.Event) -> Generation:
        if stop.is_set():
            return Generation("", calls=0, failure=_NOT_CALLED)
        calls = 0

        def call() -> Generation:
            nonlocal calls
            calls += 1
            return self._read(prompt, self._send(prompt, seed))

        try:
            return replace(
                call_with_retries(call, self.call_retries, self.most_wait, stop, self._conceal), calls=calls
            )
        except CallFailedError as error:
            if error.is_refusal:
                return Generation("", calls=calls)
            if error.is_final:
                stop.set()  # the other calls would fail likewise
            return Generation("", calls=calls, failure=f"{self.model or 'the model'} at {self._place} {error}")

    def _send(self, prompt: str, seed: int) -> ChatCompletionOutput:
        return self._client.chat_completion(
            [{"role": "user", "content": prompt}],
            model=self.model,
            max_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=seed,
        )

    def _read(self, prompt: str, response: ChatCompletionOutput) -> Generation:
        if not response.choices:
            raise InvalidResponseError("no choices")
        choice = response.choices[0]
        text = "" if choice.message.content is None else choice.message.content
        if not isinstance(text, str):
            raise InvalidResponseError(f"a message that is {type(text).__name__} and no text")
        reasoning = choice.message.reasoning or choice.message.get("reasoning_content") or ""
        reasoning = one_line(reasoning, MOST_REASONING) if isinstance(reasoning, str) else ""
        tokens = [getattr(response.usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
        estimated = not all(isinstance(number, int) and number >= 0 for number in tokens)
        if estimated:
            tokens = [-(-len(each) // _LETTERS_A_TOKEN) for each in (prompt, text + reasoning)]
        return Generation(
            text,
            reasoning,
            is_cut=choice.finish_reason == "length",
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            cost=sum(number * price for number, price in zip(tokens, self.prices, strict=True)) / 1e6,
            estimated=estimated,
        )

    def _conceal(self, text: str) -> str:
        """Take what is secret out of a text; a server may have repeated it."""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text


def _check_address(base_url: str) -> None:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url must begin with http:// or https://, got {base_url.partition('?')[0]!r:.80}")
    if parts.username or parts.password:
        raise ValueError("base_url holds a name or password: put it into a variable and give api_key_variable")


def _read_key(variable: str | None, base_url: str | None) -> str:
    from huggingface_hub import get_token

    if variable is not None:
        key = os.environ.get(variable)
        if not key:
            raise ValueError(f"the environment variable {variable} with the key is not set")
        return key
    if base_url is not None:
        return _NO_KEY
    key = get_token()
    if not key:
        raise ValueError(
            "Inference Providers need a token: set HF_TOKEN, or log in with `hf auth login`"
        )
    return key
