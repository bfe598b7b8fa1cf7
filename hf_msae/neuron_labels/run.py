"""The searches of several neurons, side by side."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .._utils.atomic import make_folder
from .._utils.fingerprint import array_fingerprint
from .._utils.images import thumbnail
from .budget import BudgetSpentError, Meter
from .confirming import MOST_MEANINGS, Confirmation, clusters, confirm, is_confirmed
from .control import Control
from .evaluation.pairs import confirm_by_pairs
from .gallery import Gallery
from .imagers.base import CannotDrawError, Imager
from .neuron import Neuron
from .paper import PaperSearch
from .proposals import Proposals
from .proposers.base import FIRST_CONCEPTS, Answer, Proposer, Request
from .result import HISTORY, LABEL_FORMAT, MEANINGS, PICTURES, NeuronLabel
from .search import Search, SearchSettings, Trial
from .starts import best_classes
from .words import KnownConcepts, WordEmbeds, clean_concept, unit_rows

_NUM_FIRST = 10
_BEST_PICTURES = 12
_SHOWN_SIDE = 320  # pixels of control pictures in figures
_FIRST_PAIR = 500  # number of the first pair's picture, if no search or confirmation comes so far
_QUANTILES = {"median": 0.5, "q90": 0.9, "q99": 0.99, "max": 1.0}


@dataclass
class _Active:
    neuron: Neuron
    search: Search | PaperSearch
    generator: Generator[Request, Answer, Trial | None]
    request: Request | None = None
    best: Trial | None = None

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
    paper: bool

    def __post_init__(self) -> None:
        self.problems: dict[str, str] = {}
        self._starts: dict[str, list[str]] = {}
        embeds = None if self.word_embeds is None else unit_rows(self.word_embeds(FIRST_CONCEPTS))
        self._word_embeds = None if embeds is None else array_fingerprint(embeds)

    def all(self, neurons: Sequence[Neuron], at_once: int, bar: tqdm) -> dict[str, NeuronLabel]:
        """Search for the labels of all neurons, some at a time, and return them by the neurons' keys."""
        found: dict[str, NeuronLabel] = {}
        waiting, active = deque(neurons), []
        while waiting or active:
            while waiting and len(active) < at_once:
                neuron = waiting.popleft()
                if saved := self._saved(neuron):
                    found[neuron.key] = saved
                elif each := self._begin(neuron):
                    active.append(each)
            self._step([each for each in active if each.request is not None])
            for each in [each for each in active if each.request is None]:
                active.remove(each)
                found[each.neuron.key] = self._finish(each)
            ended = len(neurons) - len(waiting) - len(active)
            bar.set_postfix(images=self.meter.spent.images, calls=self.meter.spent.calls, refresh=False)
            bar.update(ended * (self.settings.iterations + 1) + sum(each.iteration for each in active) - bar.n)
        return found

    def _begin(self, neuron: Neuron) -> _Active | None:
        try:
            activations = self.control.activations(neuron)
            self.meter.reserve(images=self.settings.images_per_concept + self.confirm_images)
        except (ValueError, BudgetSpentError) as error:
            self.problems[neuron.name] = str(error)
            return None
        if self.paper:
            search = PaperSearch(neuron, self.gallery, self.control, self.settings, self.word_embeds)
        else:
            searched = activations[self.control.search_rows]
            search = Search(neuron, self.gallery, searched, self.settings, KnownConcepts(self.word_embeds))
        self.meter.kept_back += self.confirm_images
        each = _Active(neuron, search, search.run(self._first(neuron)))
        self._advance(each, None)
        return each

    def _first(self, neuron: Neuron) -> Sequence[str]:
        if neuron.key not in self._starts:
            self._starts[neuron.key] = list(self._start(neuron))
        return self._starts[neuron.key]

    def _start(self, neuron: Neuron) -> Sequence[str]:
        if self.start is not None:
            return [clean_concept(each) for each in (self.start(neuron) if callable(self.start) else self.start)]
        known = best_classes(self.control, neuron)
        return [*known, *self.proposer.first(_NUM_FIRST - len(known), self.settings.seed)]

    def _step(self, asking: Sequence[_Active]) -> None:
        """Ask for the next concept of several searches together, and let them try it."""
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

    def _advance(self, each: _Active, answer: Answer | BudgetSpentError | None) -> None:
        try:
            if isinstance(answer, BudgetSpentError):
                each.request = each.generator.throw(answer)
            else:
                each.request = each.generator.send(answer)
        except StopIteration as end:
            each.request, each.best = None, end.value

    def _finish(self, each: _Active) -> NeuronLabel:
        self.meter.kept_back -= self.confirm_images
        neuron, search = each.neuron, each.search
        activations = self.control.activations(neuron)
        fresh, searched = activations[self.control.confirm_rows], activations[self.control.search_rows]
        meanings, found = self._meanings(each, searched, fresh)
        own = found[0] if found else Confirmation("")  # the label's comes first
        pairs = self._pairs(each, activations)
        is_own_confirmed = any(meanings["confirmed"] & (meanings["meaning"] == own.concept)) if own.concept else False
        label = NeuronLabel(
            neuron=neuron.name,
            label=each.best.concept if each.best else None,
            score=own.score,
            low=own.low,
            high=own.high,
            metric=self.settings.metric,
            p_value=own.p_value,
            confirmed=bool(is_own_confirmed),
            search_score=each.best.score if each.best else np.nan,
            meanings=meanings,
            history=pd.DataFrame([_record(trial) for trial in search.trials], columns=list(HISTORY)),
            pictures=self._pictures(search.trials, found, activations),
            control={
                "num": float(len(activations)),
                **{name: float(np.quantile(activations, q)) for name, q in _QUANTILES.items()},
            },
            spent=self.meter.to_dict(),
            stopped=search.stopped,
            seed=self.settings.seed,
            settings=self._settings(),
            folder=None if self.folder is None else str(self.folder.resolve()),
            latent=getattr(neuron, "latent", None),
            pairs=pairs,
        )
        if self.folder is not None:
            label.save(self._path(neuron))
        return label

    def _meanings(
        self, each: _Active, searched: np.ndarray, fresh: np.ndarray
    ) -> tuple[pd.DataFrame, list[Confirmation]]:
        """Confirm the label, and the best concept of each other cluster of strong concepts."""
        if each.best is None:
            return pd.DataFrame(columns=list(MEANINGS)), []
        groups = clusters(each.search.ranked(), searched, self.word_embeds)
        own = next((group for group in groups if each.best in group), [each.best])
        groups = [own, *(group for group in groups if group is not own)][:MOST_MEANINGS]
        best = [each.best, *(group[0] for group in groups[1:])]
        found = [self._confirm(each, trial, fresh) for trial in best]
        records = [
            {
                "meaning": one.concept,
                "concepts": ", ".join(trial.concept for trial in group),
                **{name: getattr(one, name) for name in ("score", "low", "high", "auc", "p_value", "problem")},
                "num_images": len(one.images),
                "confirmed": is_true,
            }
            for one, group, is_true in zip(found, groups, is_confirmed(found), strict=True)
        ]
        return pd.DataFrame(records, columns=list(MEANINGS)), found

    def _confirm(self, each: _Active, trial: Trial, fresh: np.ndarray) -> Confirmation:
        """Confirm a concept; a budget that does not allow that stops the search, so that it is done another time."""
        self.meter.is_overtime = trial is each.best
        try:
            return confirm(trial.concept, each.neuron, self.gallery, fresh, self.settings, self.confirm_images)
        except BudgetSpentError as error:
            each.search.stopped = each.search.stopped or str(error)
            return Confirmation(trial.concept, problem=str(error))
        finally:
            self.meter.is_overtime = False

    def _pairs(self, each: _Active, activations: np.ndarray) -> dict[str, Any] | None:
        """Take the label out of pictures, if the imager can, and see what that does to the activation."""
        if each.best is None or self.num_pairs < 2:
            return None
        first = max(_FIRST_PAIR, self.settings.most_images + self.confirm_images)
        try:
            self.meter.reserve(images=2 * self.num_pairs)
            drawn = self.imager.draw_pairs(each.best.concept, self.settings.seeds(first, self.num_pairs))
        except CannotDrawError:
            return None
        except BudgetSpentError as error:
            each.search.stopped = each.search.stopped or str(error)
            return None
        self.meter.spend(images=2 * self.num_pairs)
        read = [self.gallery.activations(each.neuron, list(map(self.gallery.keep, part))) for part in drawn]
        return confirm_by_pairs(*read, reference=activations, seed=self.settings.seed).to_dict()

    def _pictures(
        self, trials: Sequence[Trial], found: Sequence[Confirmation], activations: np.ndarray
    ) -> pd.DataFrame:
        """List the pictures that activate the neuron most, of those that were made and of the control."""
        made = {
            name: ("made", name, concept, float(activation))
            for concept, names, values in (
                *((trial.concept, trial.images, trial.activations) for trial in trials),
                *((one.concept, one.images, one.activations) for one in found if one.images),
            )
            for name, activation in zip(names, values, strict=True)
        }
        best = sorted(made.values(), key=lambda record: -record[3])[:_BEST_PICTURES]
        rows = np.argsort(-activations, kind="stable")[:_BEST_PICTURES] if self.folder is not None else ()
        small = (thumbnail(self.control.picture(row), _SHOWN_SIDE) for row in rows)  # photographs are large
        kept = [
            ("control", self.gallery.keep(picture), "", float(activations[row]))
            for row, picture in zip(rows, small, strict=True)
        ]
        return pd.DataFrame([*best, *kept], columns=list(PICTURES))

    def _settings(self) -> dict[str, Any]:
        return {
            "format": LABEL_FORMAT,
            "proposer": self.proposer.settings,
            "imager": self.imager.settings,
            **asdict(self.settings),
            "confirm_images": self.confirm_images,
            "num_pairs": self.num_pairs,
            "paper": self.paper,
            "word_embeds": self._word_embeds,
            "start": list(self.start) if isinstance(self.start, list | tuple) else None,
        }

    def _path(self, neuron: Neuron) -> Path:
        """Name the file of a neuron's label after everything that it depends on."""
        control = [self.control.search_rows.tolist(), list(self.control.classes)]
        content = [self._settings(), neuron.key, self._first(neuron), control]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        digest.update(array_fingerprint(self.control.activations(neuron)).encode())
        name = "".join(letter if letter.isalnum() else "-" for letter in neuron.name)[:60]
        return make_folder(self.folder / "neurons") / f"{name}-{digest.hexdigest()[:12]}.json"

    def _saved(self, neuron: Neuron) -> NeuronLabel | None:
        """Return a finished label; one whose search was stopped, or whose file is damaged, is found again."""
        if self.folder is None:
            return None
        try:
            saved = NeuronLabel.load(self._path(neuron))
        except (FileNotFoundError, ValueError):
            return None
        return None if saved.stopped else replace(saved, folder=str(self.folder.resolve()))  # it may have been moved


def _record(trial: Trial) -> dict[str, Any]:
    return {
        **{name: getattr(trial, name) for name in ("iteration", "origin", "concept", "score", "first_score")},
        "accepted": trial.accepted,
        "num_images": len(trial.images),
        "mean_activation": float(trial.activations.mean()) if len(trial.activations) else np.nan,
        **{name: getattr(trial, name) for name in ("malformed", "problem", "reasoning")},
        "images": list(trial.images),
    }
