"""The searches of several neurons, side by side."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers.utils import logging

from .._utils.atomic import make_folder
from .._utils.fingerprint import array_fingerprint
from .budget import BudgetSpentError, Meter
from .control import Control, best_classes
from .finishing import Finish
from .gallery import Gallery
from .imagers.base import Imager
from .looks import Embedded, PictureEmbeds
from .neuron import Neuron, NeuronError
from .paper import PaperSearch
from .proposals import Proposals
from .proposers.base import FIRST_CONCEPTS, Answer, Proposer, Request
from .result import LABEL_FORMAT, NeuronLabel
from .search import Search, SearchSettings, Trial
from .words import KnownConcepts, WordEmbeds, clean_concept, concepts_among, unit_rows

logger = logging.get_logger(__name__)

_NUM_FIRST = 10
_PROBES = 4  # pictures whose features say which function computes them


@dataclass
class Active:
    """A neuron whose search is under way."""

    name: str
    neuron: Neuron
    search: Search | PaperSearch
    generator: Generator[Request, Answer, Trial | None]
    request: Request | None = None
    best: Trial | None = None
    failure: str = ""

    @property
    def iteration(self) -> int:
        """The last iteration in which something was tried."""
        return self.search.trials[-1].iteration if self.search.trials else 0


@dataclass
class Run:
    """What the searches of a run share; `all` runs them."""

    proposer: Proposer
    imager: Imager
    control: Control
    settings: SearchSettings
    meter: Meter
    folder: Path | None
    gallery: Gallery
    proposals: Proposals
    start: Sequence[str] | Callable[[Neuron], Sequence[str]] | None
    confirm_images: int
    num_pairs: int
    word_embeds: WordEmbeds | None
    picture_embeds: PictureEmbeds | None
    paper: bool

    def __post_init__(self) -> None:
        self.found: dict[str, NeuronLabel] = {}
        self.problems: dict[str, str] = {}
        self._starts: dict[str, list[str]] = {}
        embeds = None if self.word_embeds is None else unit_rows(self.word_embeds(FIRST_CONCEPTS))
        self._word_embeds = None if embeds is None else array_fingerprint(embeds)
        self.embedded = self._picture_embeds = None
        if self.picture_embeds is not None:
            self.embedded = Embedded(self.picture_embeds)
            first = [self.control.picture(row) for row in range(_PROBES)]
            self._picture_embeds = array_fingerprint(self.embedded.features(first))

    def all(self, neurons: Mapping[str, Neuron], at_once: int, bar: tqdm) -> None:
        """Find the labels of neurons, given by name, some at a time; `problems` says why others have none."""
        waiting, active = deque(neurons.items()), []
        while waiting or active:
            while waiting and len(active) < at_once:
                name, neuron = waiting.popleft()
                with self._isolated(name):
                    if saved := self._saved(name, neuron):
                        self.found[name] = saved
                    else:
                        active.append(self._begin(name, neuron))
            self._step([each for each in active if each.request is not None])
            for each in [each for each in active if each.request is None]:
                active.remove(each)
                with self._isolated(each.name):
                    self.found[each.name] = self._finish(each)
            ended = len(neurons) - len(waiting) - len(active)
            bar.set_postfix(images=self.meter.spent.images, calls=self.meter.spent.calls, refresh=False)
            bar.update(ended * (self.settings.iterations + 1) + sum(each.iteration for each in active) - bar.n)

    @contextmanager
    def _isolated(self, name: str) -> Iterator[None]:
        """Record what keeps one neuron from being labeled, so that others still are."""
        try:
            yield
        except (NeuronError, BudgetSpentError) as error:
            self.problems[name] = str(error)
            logger.warning(f"{name} has no label: {error}")

    def _begin(self, name: str, neuron: Neuron) -> Active:
        activations = self.control.activations(neuron)
        first = self._first(neuron)
        self.meter.reserve(images=self.settings.images_per_concept + self.confirm_images)
        if self.paper:
            search = PaperSearch(neuron, self.gallery, self.control, self.settings, self.word_embeds)
        else:
            searched = activations[self.control.search_rows]
            search = Search(neuron, self.gallery, searched, self.settings, KnownConcepts(self.word_embeds))
        self.meter.kept_back += self.confirm_images
        each = Active(name, neuron, search, search.run(first))
        self._advance(each, None)
        return each

    def _first(self, neuron: Neuron) -> Sequence[str]:
        if neuron.key not in self._starts:
            self._starts[neuron.key] = list(self._start(neuron))
        return self._starts[neuron.key]

    def _start(self, neuron: Neuron) -> Sequence[str]:
        if self.start is not None:
            return self._own_start(neuron) if callable(self.start) else list(map(clean_concept, self.start))
        known = best_classes(self.control, neuron)
        return [*known, *self.proposer.first(_NUM_FIRST - len(known), self.settings.seed)]

    def _own_start(self, neuron: Neuron) -> Sequence[str]:
        """Return the concepts among what the function of the user gives: what is none must not end other searches."""
        try:
            given = list(self.start(neuron))
            found = concepts_among(given)
        except NeuronError:
            raise
        except Exception as error:  # a function of the user may raise anything
            raise NeuronError(f"start failed for {neuron!r} ({type(error).__name__}: {error})") from error
        if given and not found:
            raise NeuronError(f"start gives no concept for {neuron!r}, but {given!r:.80}")
        return found

    def _step(self, asking: Sequence[Active]) -> None:
        if not asking:
            return
        try:
            answers: Sequence[Answer | BudgetSpentError] = self.proposals.ask([each.request for each in asking])
        except BudgetSpentError as error:
            if len(asking) > 1:  # it may allow some of them, and answers that are there already
                for each in asking:
                    self._step([each])
                return
            answers = [error]
        for each, answer in zip(asking, answers, strict=True):
            self._advance(each, answer)

    def _advance(self, each: Active, answer: Answer | BudgetSpentError | None) -> None:
        try:
            if isinstance(answer, BudgetSpentError):
                each.request = each.generator.throw(answer)
            else:
                each.request = each.generator.send(answer)
        except StopIteration as end:
            each.request, each.best = None, end.value
        except NeuronError as error:
            each.request, each.failure = None, str(error)

    def _finish(self, each: Active) -> NeuronLabel:
        self.meter.kept_back -= self.confirm_images
        if each.failure:
            raise NeuronError(each.failure)
        label = Finish(self, each).label()
        if self.folder is not None:
            label.save(self._path(each.neuron))
        return label

    def label_settings(self) -> dict[str, Any]:
        """Return everything that labels depend on, but the neuron, its start and the control pictures."""
        return {
            "format": LABEL_FORMAT,
            "proposer": self.proposer.settings,
            "imager": self.imager.settings,
            **asdict(self.settings),
            "confirm_images": self.confirm_images,
            "num_pairs": self.num_pairs,
            "paper": self.paper,
            "word_embeds": self._word_embeds,
            "picture_embeds": self._picture_embeds,
            "start": list(self.start) if isinstance(self.start, list | tuple) else None,
        }

    def _path(self, neuron: Neuron) -> Path:
        control = [self.control.search_rows.tolist(), list(self.control.classes)]
        content = [self.label_settings(), neuron.key, self._first(neuron), control]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        digest.update(array_fingerprint(self.control.activations(neuron)).encode())
        name = "".join(letter if letter.isalnum() else "-" for letter in neuron.name)[:60]
        return make_folder(self.folder / "neurons") / f"{name}-{digest.hexdigest()[:12]}.json"

    def _saved(self, name: str, neuron: Neuron) -> NeuronLabel | None:
        """Return a finished label; one whose search was stopped, or whose file is damaged, is found again."""
        if self.folder is None:
            return None
        path = self._path(neuron)
        try:
            saved = NeuronLabel.load(path)
        except (FileNotFoundError, ValueError):  # not labeled yet, or damaged
            return None
        # The folder may have been moved, and other neurons of the same name have come or gone.
        return None if saved.stopped else replace(saved, folder=str(self.folder.resolve()), neuron=name)
