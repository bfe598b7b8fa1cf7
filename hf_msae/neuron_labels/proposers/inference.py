"""Concepts from a language model behind an HTTP server."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from huggingface_hub import ChatCompletionOutput, InferenceClient
from huggingface_hub.errors import HTTPError, InferenceTimeoutError

from ..retrying import ServiceError, with_retries
from ..services import check_address, service_key
from ..words import one_line
from .language_model import Generation, LanguageModelProposer
from .parsing import MOST_REASONING

_LETTERS_A_TOKEN = 4
"""For estimates, in English."""
_FILTER = re.compile(r"content[ _-](filter|management|policy)|moderat|safety", re.IGNORECASE)
_NOT_CALLED = "it was not called, because another call failed"


class BadAnswerError(ValueError):
    """What a service sent is not an answer of the protocol."""


class InferenceProposer(LanguageModelProposer):
    """Asks a chat model behind Hugging Face's Inference Providers or any server that speaks OpenAI's chat protocol.

    Calls are repeated after errors that may pass (`retrying.with_retries`), and after answers that the protocol does
    not have. Other failures, such as a wrong key, end the run at once. The seed is sent along; whether it decides the
    answer is up to the server. Where a server does not count tokens, they are estimated, and the answer says so.

    The key is read from an environment variable whenever the model is called. It is in no repr, setting, error, log
    or history.

    Args:
        model: Id on the Hub, or what the server calls the model.
        provider: One of `InferenceClient`'s, such as "auto" (the default) or "together".
        base_url: Address of a server instead, such as "http://127.0.0.1:8080/v1".
        api_key_variable: Name of the environment variable with the key. By default, providers get HF_TOKEN or the
            token that you logged in with, and a server at `base_url` gets none.
        temperature: Of sampling.
        top_p: Probability of the tokens that are sampled from.
        max_new_tokens: Most tokens of an answer.
        timeout: Seconds without any data from the server after which a call has failed.
        call_retries: How often a failed call is repeated at most.
        wait: Seconds before the first repetition.
        sleep: Waits.
        prices: Of a million tokens of prompts, and of answers, for the cost.
        max_concurrency: Number of calls at the same time.
        options: `shown`, `avoided` and `retries` of `LanguageModelProposer`.

    Raises:
        ValueError: There is neither model nor base_url, or both a provider and a base_url; the address is none, or
            holds a password or query; or an option is out of range.
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
        wait: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
        prices: tuple[float, float] = (0.0, 0.0),
        max_concurrency: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(chat=True, **options)
        if (model is None and base_url is None) or (provider is not None and base_url is not None):
            there = "a" if base_url else "no"
            raise ValueError(
                f"give a model, or a base_url and no provider; got {model=}, {provider=}, {there} base_url"
            )
        if base_url is not None:
            check_address(base_url)
        numbers = {"timeout": timeout, "max_new_tokens": max_new_tokens, "max_concurrency": max_concurrency}
        for name, number in numbers.items():
            if not number > 0:
                raise ValueError(f"{name} must be positive, got {number!r}")
        if call_retries < 0 or wait < 0 or len(prices) != 2 or min(prices) < 0:
            raise ValueError(
                f"call_retries, wait and the two prices must not be negative, got {call_retries}, {wait}, {prices}"
            )
        self.model, self.provider, self.base_url = model, provider, base_url
        self.temperature, self.top_p, self.max_new_tokens = temperature, top_p, max_new_tokens
        self.timeout, self.call_retries, self.wait, self.sleep = timeout, call_retries, wait, sleep
        self.api_key_variable, self.prices, self.max_concurrency = api_key_variable, prices, max_concurrency

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
        return self.base_url or f"provider {self.provider or 'auto'}"

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], not_first: Sequence[Sequence[str]] = ()
    ) -> list[Generation]:
        """Send the prompts, several at a time."""
        key, stop = service_key(self.api_key_variable, self.base_url), threading.Event()
        with ThreadPoolExecutor(self.max_concurrency, thread_name_prefix="proposer") as pool:
            pairs = zip(prompts, seeds, strict=True)
            futures = [pool.submit(self._generate, prompt, seed, key, stop) for prompt, seed in pairs]
            try:
                return [future.result() for future in futures]
            except BaseException:  # an interrupt
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _generate(self, prompt: str, seed: int, key: str | None, stop: threading.Event) -> Generation:
        calls = 0

        def ask() -> Generation:
            nonlocal calls
            if stop.is_set():
                raise ServiceError(_NOT_CALLED)
            calls += 1
            return self._read(prompt, self._send(prompt, seed, key), key)

        try:
            generation = with_retries(
                ask,
                f"{self!r}",
                retries=self.call_retries,
                wait=self.wait,
                also=(BadAnswerError,),
                secret=key,
                sleep=self.sleep,
            )
            return replace(generation, calls=calls)
        except ServiceError as error:
            if error.status == 400 and _FILTER.search(str(error)):  # it refuses this prompt alone
                return Generation("", calls=calls, refusal="the server's content filter refused the prompt")
            stop.set()  # the other calls would fail likewise
            return Generation("", calls=calls, failure=str(error))

    def _send(self, prompt: str, seed: int, key: str | None) -> ChatCompletionOutput:
        # Without a key of its own, the client would send a server the token of the Hub.
        headers = {"authorization": ""} if self.base_url is not None and key is None else None
        place = {"model": self.model, "provider": self.provider}
        if self.base_url is not None:
            place = {"base_url": self.base_url}
        client = InferenceClient(**place, api_key=key, timeout=self.timeout, headers=headers)
        try:
            return client.chat_completion(
                [{"role": "user", "content": prompt}],
                model=self.model,
                max_tokens=self.max_new_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                seed=seed,
            )
        except InferenceTimeoutError as error:  # it does not say how long that was
            raise TimeoutError(f"no answer within {self.timeout:g} s") from error
        except (HTTPError, ConnectionError):
            raise
        except (ValueError, AttributeError, KeyError, TypeError) as error:  # from reading another form than expected
            raise BadAnswerError(f"the answer cannot be read ({type(error).__name__}: {error})") from error

    def _read(self, prompt: str, response: ChatCompletionOutput, key: str | None) -> Generation:
        try:
            choice = response.choices[0]
            message = choice.message
            text = "" if message.content is None else message.content
            reasoning = message.reasoning or message.get("reasoning_content") or ""
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise BadAnswerError(f"the answer holds no message ({type(error).__name__}: {error})") from error
        if not isinstance(text, str) or not isinstance(reasoning, str):
            raise BadAnswerError(f"the answer's message is {type(text).__name__}, not text")
        if key:  # an answer becomes part of the history
            text, reasoning = text.replace(key, "***"), reasoning.replace(key, "***")
        reasoning = one_line(reasoning, MOST_REASONING)
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
