"""What all language models share: prompts, reading answers, and asking again."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..._utils.checks import check_integers
from ..services import ServiceError
from ..words import form_of, one_line
from .base import Answer, Proposer, Request
from .prompts import (
    MalformedAnswerError,
    Prompt,
    concept_lines,
    parse_line,
    parse_tagged,
    plain,
    quoted,
    score_lines,
)

_MERGED = 5
"""Number of concepts that are merged."""


class UnansweredError(ServiceError):
    """Some requests were not answered, since the model could not be called; `answers` has None for these."""

    def __init__(self, message: str, answers: Sequence[Answer | None]) -> None:
        super().__init__(message)
        self.answers = list(answers)


@dataclass(frozen=True)
class Generation:
    """What a language model wrote.

    `is_cut` says whether the text ends because it became too long, `refusal` why the model was not asked although it
    could be called, and `failure` why the call failed, both in one line without secrets. Failed calls count in
    `calls`.
    """

    text: str
    reasoning: str = ""
    is_cut: bool = False
    calls: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    estimated: bool = False
    refusal: str = ""
    failure: str = ""


class LanguageModelProposer(Proposer):
    """Asks a language model for concepts, and again if an answer cannot be used. Subclasses write `generate`.

    A chat model gets instructions, and answers in tags. A base model gets examples, and completes a line. It is shown
    the concepts whose scores are nearer to the best than to the worst, without scores and without what to avoid, and
    asked again without being told why: small base models repeat whatever they are shown. Instead, the second answer
    must not begin like a concept in the prompt.

    What a model wrote is data: concepts from earlier answers stand in a prompt quoted, one a line and cleaned,
    and what was wrong with an answer is told in a new prompt, not in a conversation.

    Args:
        chat: Whether the model takes part in conversations; otherwise it completes texts.
        shown: Number of concepts with scores in a prompt, the best ones.
        avoided: Number of further concepts that the prompt says to avoid, the latest ones. Answers are always
            compared with all of them.
        retries: How often a request is asked again after a malformed answer.
    """

    def __init__(self, *, chat: bool, shown: int = 10, avoided: int = 40, retries: int = 2) -> None:
        check_integers(shown=(shown, 1), avoided=(avoided, 0), retries=(retries, 0))
        self.chat, self.shown, self.avoided, self.retries = chat, shown, avoided, retries
        if chat:
            self._idea, self._merger, self._retry = Prompt("idea"), Prompt("merger"), Prompt("retry")
        else:
            self._idea = self._merger = Prompt("idea_completion")
            self._retry = None

    @abstractmethod
    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], not_first: Sequence[Sequence[str]]
    ) -> list[Generation]:
        """Let the model answer each prompt, with a seed each.

        A completion must not begin with the texts of its prompt in `not_first`, which is empty for chat models.
        """

    def fits(self, prompt: str) -> bool:
        """Whether the model's context holds a prompt and an answer."""
        return True

    @property
    def settings(self) -> dict[str, Any]:
        """What the answers of every language model depend on."""
        prompts = {"idea": self._idea, "merger": self._merger, **({"retry": self._retry} if self._retry else {})}
        return {
            "proposer": type(self).__name__,
            "is_language_model": self.is_language_model,
            "chat": self.chat,
            "shown": self.shown,
            "avoided": self.avoided,
            "retries": self.retries,
            "prompts_sha256": {name: prompt.sha256 for name, prompt in prompts.items()},
        }

    def propose(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer requests together: first all of them, then again those whose answers were malformed.

        Raises UnansweredError with the other answers if calls failed.
        """
        talks = [_Talk(request) for request in requests]
        for attempt in range(self.retries + 1):
            waiting = [talk for talk in talks if talk.is_waiting]
            if not waiting:
                break
            prompts = [self._prompt(talk) for talk in waiting]
            digests = [hashlib.sha256(f"{talk.request.seed} {attempt}".encode()).hexdigest() for talk in waiting]
            seeds = [int(digest[:8], 16) >> 1 for digest in digests]  # of 31 bits, which all servers take
            not_first: list[list[str]] = [[] for _ in waiting]
            if attempt and not self.chat:  # a base model would repeat the concepts that it is shown
                not_first = [_near_best(self._shown(talk.request, self.shown)) for talk in waiting]
            for talk, generation in zip(waiting, self.generate(prompts, seeds, not_first), strict=True):
                talk.hear(generation, self.chat)
        failed = [talk for talk in talks if talk.failure]
        if failed:
            answers = [None if talk.failure else talk.answer for talk in talks]
            why = max(failed, key=lambda talk: talk.answer.calls).failure  # not one that was never sent
            raise UnansweredError(f"{len(failed)} of {len(talks)} requests were not answered: {why}", answers)
        return [talk.answer for talk in talks]

    def _prompt(self, talk: _Talk) -> str:
        """Write the prompt of a request, with as many concepts as the model's context holds."""
        shown, avoided = max(min(self.shown, len(talk.request.scores)), 1), self.avoided
        while not self.fits(prompt := self._filled(talk, shown, avoided)):
            if avoided:
                avoided //= 2
            elif shown > 1:
                shown -= 1
            else:
                raise ValueError("the model's context is too short for the prompt with one concept: use another model")
        return prompt

    def _filled(self, talk: _Talk, shown: int, avoided: int) -> str:
        request = talk.request
        scores = self._shown(request, shown)
        if self._retry is None:
            return self._idea.fill(scores=concept_lines(_near_best(scores))).rstrip("\n")
        known = {concept for concept, _ in scores}
        avoid = [concept for concept in request.avoid if concept not in known]
        avoid = avoid[max(len(avoid) - avoided, 0) :]
        prompt = self._merger if request.merge else self._idea
        rejected = "".join(self._retry.fill(problem=problem) for problem in talk.rejected)
        return prompt.fill(scores=score_lines(scores), avoid=concept_lines(avoid), rejected=rejected).rstrip("\n")

    def _shown(self, request: Request, shown: int) -> list[tuple[str, float]]:
        scores = [(concept, score) for concept, score in request.scores if math.isfinite(score)]
        return scores[: min(shown, _MERGED) if request.merge else shown]


def _near_best(scores: Sequence[tuple[str, float]]) -> list[str]:
    values = [score for _, score in scores]
    return [concept for concept, score in scores if score >= (max(values) + min(values)) / 2]


@dataclass
class _Talk:
    request: Request
    rejected: list[str] = field(default_factory=list)
    answer: Answer = field(default_factory=lambda: Answer(None))
    failure: str = ""

    @property
    def is_waiting(self) -> bool:
        return self.answer.concept is None and not self.failure

    def hear(self, generation: Generation, chat: bool) -> None:
        old = self.answer
        answer = replace(
            old,
            calls=old.calls + generation.calls,
            input_tokens=old.input_tokens + generation.input_tokens,
            output_tokens=old.output_tokens + generation.output_tokens,
            cost=old.cost + generation.cost,
            estimated=old.estimated or generation.estimated,
        )
        self.failure = generation.failure
        if not self.failure:
            try:
                if generation.refusal:
                    raise MalformedAnswerError(generation.refusal)
                if generation.is_cut and not chat:
                    raise MalformedAnswerError("it is too long for a concept")
                concept, reasoning = (parse_tagged if chat else parse_line)(generation.text)
                self._refuse_known(concept)
                answer = replace(answer, concept=concept, reasoning=reasoning or generation.reasoning, problem="")
            except MalformedAnswerError as error:
                answer = replace(answer, malformed=old.malformed + 1, problem=one_line(plain(str(error)), 200))
                self.rejected.append(answer.problem)
        self.answer = answer

    def _refuse_known(self, concept: str) -> None:
        tried = {*self.request.avoid, *(known for known, _ in self.request.scores)}
        if form_of(concept) in set(map(form_of, tried)):
            raise MalformedAnswerError(f"{quoted(concept)} has been tried; propose another concept")
