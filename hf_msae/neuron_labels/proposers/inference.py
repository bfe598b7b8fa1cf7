"""Concepts from a language model behind an HTTP server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Event
from typing import Any

from huggingface_hub import ChatCompletionOutput
from huggingface_hub.errors import HTTPError, InferenceTimeoutError

from ..services import Service, ServiceError
from ..words import one_line
from .language_model import Generation, LanguageModelProposer
from .prompts import MOST_REASONING

_LETTERS_A_TOKEN = 4
"""For estimates, in English."""
_FILTER = re.compile(r"content[ _-](filter|management|policy)|moderat|safety", re.IGNORECASE)


class BadAnswerError(ValueError):
    """What a service sent is not an answer of the protocol."""


class InferenceProposer(LanguageModelProposer):
    """Asks a chat model behind Hugging Face's Inference Providers or any server that speaks OpenAI's chat protocol.

    Calls are repeated after errors that may pass (`services.with_retries`), and after answers that the protocol does
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
        concurrency: Number of calls at the same time.
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
        concurrency: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(chat=True, **options)
        if not max_new_tokens > 0:
            raise ValueError(f"max_new_tokens must be positive, got {max_new_tokens!r}")
        if len(prices) != 2 or min(prices) < 0:
            raise ValueError(f"there are two prices, which must not be negative, got {prices}")
        place = (model, provider, base_url, api_key_variable)
        self.service = Service("InferenceProposer", *place, timeout, call_retries, wait, sleep, concurrency)
        self.model, self.prices = model, prices
        self.temperature, self.top_p, self.max_new_tokens = temperature, top_p, max_new_tokens

    def __repr__(self) -> str:
        return repr(self.service)

    @property
    def settings(self) -> dict[str, Any]:
        """The model, the prompts, and how answers are sampled; the key is not among them."""
        return {
            **super().settings,
            "model": self.model,
            "at": self.service.place,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_new_tokens": self.max_new_tokens,
        }

    def check(self) -> None:
        """See whether there is a key and a model; see `Service.check`."""
        self.service.check("/models")

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], not_first: Sequence[Sequence[str]] = ()
    ) -> list[Generation]:
        """Send the prompts, several at a time."""
        key = self.service.key()

        def one(item: tuple[str, int], stop: Event) -> Generation:
            return self._generate(*item, key, stop)

        return self.service.map(one, list(zip(prompts, seeds, strict=True)))

    def _generate(self, prompt: str, seed: int, key: str | None, stop: Event) -> Generation:
        calls = 0

        def ask() -> Generation:
            nonlocal calls
            calls += 1
            return self._read(prompt, self._send(prompt, seed, key), key)

        try:
            return replace(self.service.call(ask, key, (BadAnswerError,), stop), calls=calls)
        except ServiceError as error:
            if error.status == 400 and _FILTER.search(str(error)):  # it refuses this prompt alone
                return Generation("", calls=calls, refusal="the server's content filter refused the prompt")
            stop.set()  # the other calls would fail likewise
            return Generation("", calls=calls, failure=str(error))

    def _send(self, prompt: str, seed: int, key: str | None) -> ChatCompletionOutput:
        service = self.service
        here = {"model": self.model, "provider": service.provider}
        client = service.client(key, **(here if service.base_url is None else {"base_url": service.base_url}))
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
            raise TimeoutError(f"no answer within {service.timeout:g} s") from error
        except (HTTPError, ConnectionError):
            raise
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            # A ValueError is of a request that cannot be made, now or later, unless it is from reading the answer.
            if type(error) is ValueError and "Invalid data type" not in str(error):
                raise ServiceError(f"{self!r} cannot be asked: {_without(str(error), key)}") from None
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
        text, reasoning = _without(text, key), _without(reasoning, key)  # an answer becomes part of the history
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


def _without(text: str, key: str | None) -> str:
    return text.replace(key, "***") if key else text
