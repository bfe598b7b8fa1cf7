"""Concepts from a language model of transformers that runs on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from ..._utils.checks import check_integers
from ..._utils.fingerprint import weights_sha256
from ..._utils.redaction import public_model_name
from .language_model import Generation, LanguageModelProposer
from .sampling import PrefixCache, SeededSampling, StopAtText

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CHAT_TOKENS, _COMPLETION_TOKENS = 512, 16


class TransformersProposer(LanguageModelProposer):
    """Asks a language model of transformers.

    A tokenizer with a chat template makes it a chat model; otherwise it completes a list of examples.

    Requests are answered in batches. Every request draws its random numbers from its own seed, so its answer does not
    depend on what else is in the batch, up to rounding: padding changes the last bits of the model's logits, which
    now and then tips the choice between two tokens. `batch_size=1` rules that out.

    Args:
        model: Id on the Hub, folder, or a loaded model for text generation.
        tokenizer: Its tokenizer, needed for a loaded model; otherwise it is loaded with the model.
        gguf_file: Name of a GGUF file in the folder or repository, which is read with the package `gguf`.
        revision: Revision on the Hub.
        device: Where the model runs. By default the CPU, or where a loaded model is.
        dtype: Type of the weights of a model that is loaded, such as "bfloat16". By default float32 on the CPU, and
            otherwise that of the file.
        temperature: Of sampling; 0 always takes the most likely token.
        top_p: Probability of the tokens that are sampled from.
        max_new_tokens: Most tokens of an answer. By default 512 for chat models, and 16 for others.
        batch_size: Number of requests that are answered together.
        options: `shown`, `avoided` and `retries` of `LanguageModelProposer`.

    Raises:
        ValueError: A loaded model comes without tokenizer, or a number is out of range.
    """

    def __init__(
        self,
        model: str | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        gguf_file: str | None = None,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        temperature: float = 0.5,
        top_p: float = 0.9,
        max_new_tokens: int | None = None,
        batch_size: int = 8,
        **options: Any,
    ) -> None:
        if not temperature >= 0 or not 0 < top_p <= 1:
            raise ValueError(f"temperature must not be negative and top_p in (0, 1], got {temperature!r}, {top_p!r}")
        check_integers("max_new_tokens", batch_size=(batch_size, 1), max_new_tokens=(max_new_tokens, 1))
        self._name = model if isinstance(model, str) else model.name_or_path or type(model).__name__
        self._is_given = not isinstance(model, str)
        self.gguf_file = gguf_file
        if isinstance(model, str):
            device = device or "cpu"
            model, loaded = _load(model, tokenizer is None, gguf_file, revision, device, dtype)
            tokenizer = tokenizer or loaded
        if tokenizer is None:
            raise ValueError("a loaded model needs its tokenizer: TransformersProposer(model, tokenizer)")
        self.model = (model if device is None else model.to(device)).eval()
        self.tokenizer = tokenizer
        super().__init__(chat=bool(tokenizer.chat_template), **options)
        self.temperature, self.top_p, self.batch_size = temperature, top_p, batch_size
        self.max_new_tokens = max_new_tokens or (_CHAT_TOKENS if self.chat else _COMPLETION_TOKENS)
        self._prefix = PrefixCache(self.model, [self._tokens(each.head) for each in (self._idea, self._merger)])

    def __repr__(self) -> str:
        return f"TransformersProposer({public_model_name(self._name)}, {'chat' if self.chat else 'completion'})"

    @property
    def settings(self) -> dict[str, Any]:
        """The model, the prompts, and how answers are sampled; not the device, which only changes rounding."""
        return {
            **super().settings,
            "model": public_model_name(self._name),
            "gguf_file": self.gguf_file,
            "revision": getattr(self.model.config, "_commit_hash", None),
            "weights_sha256": self._weights_sha256,
            "tokenizer_sha256": self._tokenizer_sha256,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_new_tokens": self.max_new_tokens,
            "generation_config": self._generation_config,
        }

    @property
    def _generation_config(self) -> dict[str, Any]:
        """Return what else the model's own configuration does to answers, such as a repetition penalty."""
        own = self.model.generation_config.to_diff_dict()
        ours = ("transformers_version", "do_sample", "temperature", "top_p", "top_k", "max_new_tokens", "max_length")
        return json.loads(json.dumps({name: own[name] for name in own if name not in ours}, default=str))

    @cached_property
    def _weights_sha256(self) -> str:
        return weights_sha256(self.model)

    @cached_property
    def _tokenizer_sha256(self) -> str:
        content = [sorted(self.tokenizer.get_vocab().items()), self.tokenizer.chat_template]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def fits(self, prompt: str) -> bool:
        """Whether prompt and answer are within the model's positions."""
        most = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return most is None or len(self._tokens(prompt)) + self.max_new_tokens <= most

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], not_first: Sequence[Sequence[str]] = ()
    ) -> list[Generation]:
        """Sample an answer to each prompt, in batches."""
        firsts = [self._first_tokens(texts) for texts in not_first or [()] * len(prompts)]
        found: list[Generation] = []
        for start in range(0, len(prompts), self.batch_size):
            batch = slice(start, start + self.batch_size)
            sampling = SeededSampling(self.temperature, self.top_p, seeds[batch], firsts[batch])
            found += self._generate([self._tokens(prompt) for prompt in prompts[batch]], sampling)
        return found

    def _first_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens that texts begin with, with a capital as well, alone and after a quote."""
        forms = [form for text in texts for form in (text, text.capitalize())]
        rows = [self.tokenizer(form, add_special_tokens=False)["input_ids"] for form in ('"', *forms)]
        after = [self.tokenizer(f'"{form}', add_special_tokens=False)["input_ids"][len(rows[0]) :] for form in forms]
        return sorted({row[0] for row in (*rows[1:], *after) if row})

    def _tokens(self, prompt: str) -> list[int]:
        if not self.chat:
            return self.tokenizer(prompt)["input_ids"]
        messages = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]  # the template writes them

    @torch.no_grad()
    def _generate(self, rows: list[list[int]], sampling: SeededSampling) -> list[Generation]:
        pad = next((token for token in (self.tokenizer.pad_token_id, *self._ends) if token is not None), 0)
        # The padding goes between the beginning that all rows share and the rest of each.
        shared, cache = self._prefix.shared(rows, self.max_new_tokens)
        width = max(map(len, rows))
        padded = torch.tensor([row[:shared] + [pad] * (width - len(row)) + row[shared:] for row in rows])
        mask = torch.tensor([[1] * shared + [0] * (width - len(row)) + [1] * (len(row) - shared) for row in rows])
        stop = StopAtText(self.tokenizer, width, ("</concept>",) if self.chat else ('"', "\n"))
        output = self.model.generate(
            input_ids=padded.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            max_new_tokens=self.max_new_tokens,
            **({} if cache is None else {"past_key_values": cache}),
            pad_token_id=pad,
            logits_processor=[sampling],
            stopping_criteria=[stop],
            # The processor has drawn the token already: the likeliest is taken. The rest are transformers' defaults,
            # against a warning that the model's own are not used.
            do_sample=False,
            temperature=1.0,
            top_p=1.0,
            top_k=50,
        )
        written = output[:, width:].tolist()
        return [self._read(row, stop.lengths[place], len(rows[place])) for place, row in enumerate(written)]

    def _read(self, tokens: list[int], stopped: int | None, input_tokens: int) -> Generation:
        ended = next((place + 1 for place, token in enumerate(tokens) if token in self._ends), None)
        length = min(length for length in (stopped, ended, len(tokens)) if length is not None)
        text = self.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        is_cut = stopped is None and ended is None
        return Generation(text, is_cut=is_cut, input_tokens=input_tokens, output_tokens=length)

    @property
    def _ends(self) -> list[int]:
        ends = self.model.generation_config.eos_token_id
        return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def _load(
    name: str,
    with_tokenizer: bool,
    gguf_file: str | None,
    revision: str | None,
    device: str | torch.device,
    dtype: str | torch.dtype | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = dtype or ("float32" if torch.device(device).type == "cpu" else "auto")
    source = {"gguf_file": gguf_file, "revision": revision or "main"}
    model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **source)
    return model.to(device), AutoTokenizer.from_pretrained(name, **source) if with_tokenizer else None
