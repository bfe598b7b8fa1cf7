"""The loop as the code of the paper has it, to compare with."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from .budget import BudgetSpentError
from .control import Control
from .gallery import Gallery
from .imagers.base import CannotDrawError
from .neuron import Neuron
from .proposers.base import Answer, Request
from .scoring import score
from .search import SearchSettings, Trial
from .words import WordEmbeds, unit_rows

_START = 5
_MERGED = 3


class PaperSearch:
    """LINE as published, with the interface of `Search`, for control pictures by class.

    It starts with the five classes whose control pictures, of the half for the search, activate the neuron most, and
    five random ones. Each concept is scored once, against the pictures of one class, drawn with a probability that
    grows with how little its name has to do with the concept. The proposer sees these concepts, ten or fewer, since
    one that is drawn twice counts once; a new one takes the place of the worst if it is better, or else of a random
    one, the more probably the worse that is. The label is the best of them. (Zaigrajew et al., "LINE", arXiv
    2604.08039. Where all scores are equal, its code fails; here, each concept is equally likely to go.)
    """

    def __init__(
        self, neuron: Neuron, gallery: Gallery, control: Control, settings: SearchSettings, word_embeds: WordEmbeds
    ) -> None:
        if len(control.classes) < 2:
            raise ValueError("paper=True needs control pictures by class: a mapping from names to lists of pictures")
        self.neuron, self.gallery, self.settings, self.word_embeds = neuron, gallery, settings, word_embeds
        found = control.activations(neuron)
        self.classes = {name: found[rows] for name, rows in control.search_classes.items()}
        self._names = list(self.classes)
        self._units = unit_rows(word_embeds(self._names))
        self.trials: list[Trial] = []
        self.stopped = ""
        self._history: dict[str, Trial] = {}
        self._most = 0
        self._rng = np.random.default_rng([settings.seed, 1])

    def run(self, first: Sequence[str] = ()) -> Generator[Request, Answer, Trial | None]:
        """Search: yields requests, is sent their answers, and returns the best trial, if any. `first` is not used."""
        by_mean = sorted(self._names, key=lambda name: -self.classes[name].mean())
        start = [*by_mean[:_START], *self._rng.choice(self._names, _START).tolist()]
        self._most = len(set(start))
        try:
            for concept in start:
                self._try(Trial(0, "start", concept))
            for iteration in range(1, self.settings.iterations + 1):
                yield from self._ask(iteration, merge=False)
            yield from self._ask(self.settings.iterations + 1, merge=True)
        except BudgetSpentError as error:
            self.stopped = str(error)
        return self.best()

    def ranked(self) -> list[Trial]:
        """Return the history, best first."""
        return sorted(self._history.values(), key=lambda trial: -trial.score)

    def best(self) -> Trial | None:
        """Return the best of the history."""
        return next(iter(self.ranked()), None)

    def _ask(self, iteration: int, merge: bool) -> Generator[Request, Answer, None]:
        ranked = self.ranked()[: _MERGED if merge else None]
        answer = yield Request(
            scores=tuple((trial.concept, round(trial.score, 4)) for trial in ranked),
            avoid=tuple(dict.fromkeys(trial.concept for trial in self.trials if trial.concept)),
            merge=merge,
            seed=self.settings.seed * 1000 + iteration,
        )
        trial = Trial(iteration, "merge" if merge else "proposal", answer.concept, problem=answer.problem)
        trial.reasoning, trial.malformed = answer.reasoning, answer.malformed
        if answer.concept is None:
            self.trials.append(trial)
        else:
            self._try(trial)

    def _try(self, trial: Trial) -> None:
        self.trials.append(trial)
        try:
            trial.images = self.gallery.draw(trial.concept, self.settings.seeds(0, self.settings.images_per_concept))
        except CannotDrawError as error:
            trial.problem = str(error)
            return
        trial.activations = self.gallery.activations(self.neuron, trial.images)
        trial.score = trial.first_score = score(self.settings.metric, trial.activations, self._control(trial.concept))
        trial.accepted = True
        if trial.origin != "start" and len(self._history) >= self._most:
            del self._history[self._to_drop(trial.score)]
        self._history[trial.concept] = trial

    def _control(self, concept: str) -> np.ndarray:
        cosines = self._units @ unit_rows(self.word_embeds([concept]))[0]
        weights = np.clip(1 - cosines, 0, None)  # 1 + rounding where the concept is a class
        return self.classes[str(self._rng.choice(self._names, p=weights / weights.sum()))]

    def _to_drop(self, new: float) -> str:
        concepts, scores = list(self._history), np.array([trial.score for trial in self._history.values()])
        if new > scores.min():
            return concepts[int(scores.argmin())]
        weights = scores.max() - scores
        return concepts[int(self._rng.choice(len(scores), p=weights / weights.sum() if weights.any() else None))]
