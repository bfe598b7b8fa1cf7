"""The loop of LINE: propose a concept, make pictures of it, see how the neuron responds, and propose a better one."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .budget import BudgetSpentError
from .gallery import Gallery
from .imagers.base import CannotDrawError
from .neuron import Neuron
from .proposers.base import Answer, Request
from .scoring import Metric, p_value, score
from .words import KnownConcepts

Origin = Literal["start", "proposal", "merge"]

LEAST_IMAGES = 5
"""Fewer pictures say nothing about a concept."""
SHOWN = 10
"""Concepts that a proposer sees with their scores."""
LEADERS = 3
"""The best concepts, whose scores are measured on more pictures."""
ATTEMPTS = 3
"""Proposals in an iteration, at most: another one is asked for where one is known already or cannot be drawn."""
_FIRST_HARD = 900  # number of the first picture that lacks a concept
MOST_ROUNDS = 4
"""Rounds of pictures for a leader, at most; other concepts get one."""


@dataclass(eq=False)
class Trial:
    """A concept that was tried, or could not be."""

    iteration: int
    origin: Origin
    concept: str | None
    images: list[str] = field(default_factory=list)  # SHA-256
    activations: np.ndarray = field(default_factory=lambda: np.empty(0))
    score: float = np.nan
    first_score: float = np.nan  # on the first pictures
    accepted: bool = False
    problem: str = ""
    reasoning: str = ""
    malformed: int = 0
    has_no_more: bool = False  # the imager makes no further pictures


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search; `images_per_concept` are those of one round, and the others as in `label_neurons`."""

    iterations: int = 10
    images_per_concept: int = 5
    metric: Metric = "auc"
    seed: int = 0
    hard_negatives: int = 0

    def seeds(self, start: int, number: int) -> list[int]:
        """Return the seeds of the pictures from number `start` on. They are consecutive, so none repeats.

        All are below 2^32, which imagers and services take.
        """
        first = self.seed * 1000 % 2**31 + start
        return list(range(first, first + number))

    @property
    def most_images(self) -> int:
        """The most pictures that a search makes of one concept."""
        return MOST_ROUNDS * self.images_per_concept


class Search:
    """The search for one neuron's label; `run` does it.

    Each concept is scored against all control pictures of the search. The best ones get more pictures, since the best
    of many noisy scores is too good. Concepts that are known, in another number or wording as well, are not tried
    again.
    """

    def __init__(
        self, neuron: Neuron, gallery: Gallery, control: np.ndarray, settings: SearchSettings, known: KnownConcepts
    ) -> None:
        self.neuron, self.gallery, self.control = neuron, gallery, control
        self.settings, self.known = settings, known
        self.trials: list[Trial] = []
        self._hard: dict[str, np.ndarray] = {}
        self.stopped = ""

    def run(self, first: Sequence[str]) -> Generator[Request, Answer, Trial | None]:
        """Search from these concepts: yields requests, is sent their answers, and returns the best trial, if any.

        A budget that is spent ends it early; `stopped` says so.
        """
        try:
            for concept in first:
                if self.known.find(concept) is None:
                    self._try(Trial(0, "start", concept))
            for iteration in range(1, self.settings.iterations + 1):
                yield from self._ask(iteration, "proposal")
                self._measure_leaders()
            yield from self._ask(self.settings.iterations + 1, "merge")
            self._measure_leaders()
        except BudgetSpentError as error:
            self.stopped = str(error)
        return self.best()

    def ranked(self) -> list[Trial]:
        """Return the trials with a score, best first; of equal scores, the one that stands out further."""
        scored = [trial for trial in self.trials if np.isfinite(trial.score)]
        return sorted(scored, key=lambda trial: (-trial.score, -score("mad", trial.activations, self.control)))

    def best(self) -> Trial | None:
        """Return the trial whose concept becomes the label.

        It is the best one, unless a simpler concept does as well: of the leaders whose pictures do not activate the
        neuron significantly less (Mann-Whitney, 5%), the one with the fewest words. A label that is too specific
        ("red star" for a neuron of red things) scores as well as the right one.

        Few pictures say little: a concept with fewer than five is only chosen where none has more, and a simpler one
        only if it has at least half as many as the best.
        """
        ranked = self.ranked()
        least = min(LEAST_IMAGES, max((len(trial.images) for trial in ranked), default=0))
        leaders = [trial for trial in ranked if len(trial.images) >= least][:LEADERS]
        if not leaders:
            return None
        top, *others = leaders
        as_good = [
            trial
            for trial in others
            if 2 * len(trial.images) >= len(top.images) and p_value(top.activations, trial.activations) > 0.05
        ]
        return min([top, *as_good], key=lambda trial: len(trial.concept.split()))

    def _ask(self, iteration: int, origin: Origin) -> Generator[Request, Answer, None]:
        if origin == "merge" and len(self.ranked()) < 2:
            return
        for attempt in range(ATTEMPTS):
            answer = yield Request(
                scores=tuple((trial.concept, round(trial.score, 4)) for trial in self.ranked()),
                avoid=tuple(self.known),
                merge=origin == "merge",
                seed=(self.settings.seed * ATTEMPTS + attempt) * 1000 + iteration,
            )
            trial = Trial(iteration, origin, answer.concept, problem=answer.problem, reasoning=answer.reasoning)
            trial.malformed = answer.malformed
            if answer.concept is None:  # the proposer has tried again already
                self.trials.append(trial)
                return
            if same := self.known.find(answer.concept):
                trial.problem = f"{same} was tried before"
                self.trials.append(trial)
            elif self._try(trial):
                return

    def _try(self, trial: Trial) -> bool:
        """Score a concept, and say whether it could be drawn."""
        self.trials.append(trial)
        self.known.add(trial.concept)
        try:
            self._measure(trial)
        except CannotDrawError as error:
            trial.problem = str(error)
            return False
        except BudgetSpentError as error:
            trial.problem = str(error)
            raise
        trial.first_score = trial.score
        trial.accepted = trial in self.ranked()[:SHOWN]
        return True

    def _measure(self, trial: Trial) -> None:
        seeds = self.settings.seeds(len(trial.images), self.settings.images_per_concept)
        trial.images = trial.images + self.gallery.draw(trial.concept, seeds)
        trial.activations = self.gallery.activations(self.neuron, trial.images)
        trial.score = score(self.settings.metric, trial.activations, self._compared(trial.concept))

    def _compared(self, concept: str) -> np.ndarray:
        """Return the activations of control pictures, and as many of hard negatives, where the imager makes any."""
        if concept not in self._hard:
            self._hard[concept] = self.control
            if self.settings.hard_negatives:
                seeds = self.settings.seeds(_FIRST_HARD, self.settings.hard_negatives)
                try:
                    names = self.gallery.draw_pairs(concept, seeds)[1]
                except CannotDrawError:  # without pairs, there are none
                    return self.control
                hard = np.resize(self.gallery.activations(self.neuron, names), len(self.control))
                self._hard[concept] = np.concatenate([self.control, hard])
        return self._hard[concept]

    def _measure_leaders(self) -> None:
        """Measure the leaders again, until those that lead have all their rounds, or there are no more pictures."""
        while True:
            short = [trial for trial in self.ranked()[:LEADERS] if not self._is_measured(trial)]
            if not short:
                return
            try:
                self._measure(short[0])
            except CannotDrawError as error:  # a service may refuse a prompt that it took before
                short[0].has_no_more, short[0].problem = True, str(error)

    def _is_measured(self, trial: Trial) -> bool:
        if trial.has_no_more:
            return True
        there_are = self.gallery.most_pictures(trial.concept)
        # Where pictures are few, half of them are left to confirm the label.
        most = self.settings.most_images if there_are is None else min(self.settings.most_images, there_are // 2)
        return len(trial.images) + self.settings.images_per_concept > most
