"""Answers of a proposer, each asked for once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .._utils.atomic import make_folder
from .budget import Meter
from .json_lines import JsonLines
from .proposers.base import Answer, Proposer, Request
from .proposers.language_model import UnansweredError


class Proposals:
    """Asks a proposer, and keeps its answers in `proposals.jsonl`, so a run that goes on asks for what is missing."""

    def __init__(self, proposer: Proposer, meter: Meter, folder: str | Path | None = None) -> None:
        self.proposer, self.meter = proposer, meter
        self._of_proposer = hashlib.sha256(json.dumps(proposer.settings, sort_keys=True).encode()).hexdigest()[:16]
        self._answers: dict[str, Answer] = {}
        self._lines = None if folder is None else JsonLines(make_folder(folder) / "proposals.jsonl")
        for record in self._lines.records if self._lines else ():
            if record["proposer"] == self._of_proposer:
                self._answers[record["request"]] = Answer(**record["answer"])

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """Return the answer to each request."""
        missing = list({each.sha256: each for each in requests if each.sha256 not in self._answers}.values())
        if missing:
            self.meter.reserve(calls=len(missing) if self.proposer.is_language_model else 0)
            try:
                self._keep(missing, self.proposer.propose(missing))
            except UnansweredError as error:
                self._keep(missing, error.answers)
                raise
        return [self._answers[each.sha256] for each in requests]

    def _keep(self, requests: Sequence[Request], answers: Sequence[Answer | None]) -> None:
        if len(answers) != len(requests):
            raise ValueError(f"{self.proposer!r} gave {len(answers)} answers to {len(requests)} requests")
        for request, answer in zip(requests, answers, strict=True):
            if answer is None:
                continue
            tokens = {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens}
            self.meter.spend(calls=answer.calls, tokens=sum(tokens.values()), **tokens, cost=answer.cost)
            self._answers[request.sha256] = answer
            if self._lines is not None:
                record = {"proposer": self._of_proposer, "request": request.sha256, "answer": asdict(answer)}
                self._lines.append(record)
