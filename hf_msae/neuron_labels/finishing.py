"""What a search found, as a label with its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._utils.images import thumbnail
from .budget import BudgetSpentError
from .confirming import MOST_MEANINGS, Confirmation, clusters, confirm, is_confirmed, is_strong, joined
from .evaluation.pairs import confirm_by_pairs
from .imagers.base import CannotDrawError
from .looks import Looks
from .result import HISTORY, MEANINGS, PICTURES, NeuronLabel
from .search import Trial

if TYPE_CHECKING:
    from .run import Active, Run

CHANCE = 0.05
"""A label whose p-value on fresh pictures is larger is at chance."""

_BEST_PICTURES = 12
_SHOWN_SIDE = 320  # pixels of control pictures in figures
_FIRST_PAIR = 500  # number of the first pair's picture, if no search or confirmation comes so far
_QUANTILES = {"median": 0.5, "q90": 0.9, "q99": 0.99, "max": 1.0}


class Finish:
    """Confirms what a search that has ended found, with fresh pictures."""

    def __init__(self, run: Run, each: Active) -> None:
        self.run, self.each, self.search = run, each, each.search
        self.activations = run.control.activations(each.neuron)
        self.searched = self.activations[run.control.search_rows]
        self.fresh = self.activations[run.control.confirm_rows]
        self.seen = {name for trial in self.search.trials for name in trial.images}

    def label(self) -> NeuronLabel:
        """Confirm the label and the other meanings."""
        run, neuron = self.run, self.each.neuron
        meanings, found = self._meanings()
        best, own = found[0] if found else (None, Confirmation(""))  # the label's comes first
        guess = best.concept if best else None
        return NeuronLabel(
            neuron=self.each.name,
            label=None if own.p_value > CHANCE else guess,
            guess=guess,
            score=own.score,
            low=own.low,
            high=own.high,
            metric=run.settings.metric,
            p_value=own.p_value,
            confirmed=bool(meanings["confirmed"].iloc[0]) if best else False,
            search_score=best.score if best else np.nan,
            meanings=meanings,
            pairs=self._pairs(best),
            history=pd.DataFrame([_record(trial) for trial in self.search.trials], columns=list(HISTORY)),
            pictures=self._pictures([one for _, one in found]),
            control={
                "num": float(len(self.activations)),
                **{name: float(np.quantile(self.activations, q)) for name, q in _QUANTILES.items()},
            },
            spent=run.meter.to_dict(),
            stopped=self.search.stopped,
            seed=run.settings.seed,
            settings=run.label_settings(),
            folder=None if run.folder is None else str(run.folder.resolve()),
            latent=getattr(neuron, "latent", None),
        )

    def _meanings(self) -> tuple[pd.DataFrame, list[tuple[Trial, Confirmation]]]:
        """Confirm the best concept, and that of each other cluster of strong concepts."""
        run, best = self.run, self.each.best
        if best is None:
            return pd.DataFrame(columns=list(MEANINGS)), []
        looks = Looks(self.each.neuron, run.gallery, run.control, run.embedded, run.word_embeds)
        strong = [trial for trial in self.search.ranked() if is_strong(trial, self.searched)]
        groups = clusters(strong, looks)
        own = next((group for group in groups if best in group), [best])
        groups = [own, *(group for group in groups if group is not own)][:MOST_MEANINGS]
        chosen = [best, *(group[0] for group in groups[1:])]
        found = [self._confirm(trial) for trial in chosen]
        records: dict[int, dict[str, Any]] = {}
        for place, (first, confirmed) in enumerate(zip(joined(found, looks), is_confirmed(found), strict=True)):
            concepts = ", ".join(trial.concept for trial in groups[place])
            if first != place:  # another wording
                records[first]["concepts"] += f", {concepts}"
                continue
            one = found[place]
            figures = ("score", "low", "high", "auc", "limit", "p_value", "problem")
            records[place] = {
                "meaning": one.concept,
                "concepts": concepts,
                **{name: getattr(one, name) for name in figures},
                "num_images": len(one.images),
                "confirmed": confirmed,
            }
        # What is confirmed is the label, rather than what did better in the search and is not.
        order = sorted(records, key=lambda place: not (records[place]["confirmed"] or run.paper))
        meanings = pd.DataFrame([records[place] for place in order], columns=list(MEANINGS))
        return meanings, [(chosen[place], found[place]) for place in order]

    def _confirm(self, trial: Trial) -> Confirmation:
        """Confirm a concept; a budget that does not allow that stops the search, so that it is done another time."""
        run = self.run
        run.meter.is_overtime = trial is self.each.best
        number = run.confirm_images
        try:
            found = confirm(trial, self.each.neuron, run.gallery, self.fresh, run.settings, number, self.seen)
            self.search.stopped = self.search.stopped or found.stopped
            return found
        except BudgetSpentError as error:
            self.search.stopped = self.search.stopped or str(error)
            return Confirmation(trial.concept, problem=str(error))
        finally:
            run.meter.is_overtime = False

    def _pairs(self, best: Trial | None) -> dict[str, Any] | None:
        """Take the label out of pictures, if the imager can, and see what that does to the activation."""
        run = self.run
        if best is None or run.num_pairs < 2:
            return None
        first = max(_FIRST_PAIR, run.settings.most_images + 4 * run.confirm_images)
        try:
            drawn = run.gallery.draw_pairs(best.concept, run.settings.seeds(first, run.num_pairs))
        except CannotDrawError:  # most imagers make no pairs
            return None
        except BudgetSpentError as error:
            self.search.stopped = self.search.stopped or str(error)
            return None
        read = [run.gallery.activations(self.each.neuron, part) for part in drawn]
        return confirm_by_pairs(*read, reference=self.activations, seed=run.settings.seed).to_dict()

    def _pictures(self, found: Sequence[Confirmation]) -> pd.DataFrame:
        run, activations = self.run, self.activations
        made = {
            name: ("made", name, each.concept, float(activation))
            for each in (*self.search.trials, *found)
            if len(each.images)
            for name, activation in zip(each.images, each.activations, strict=True)
        }
        best = sorted(made.values(), key=lambda record: -record[3])[:_BEST_PICTURES]
        rows = np.argsort(-activations, kind="stable")[:_BEST_PICTURES] if run.folder is not None else ()
        small = [run.gallery.keep(thumbnail(run.control.picture(row), _SHOWN_SIDE)) for row in rows]
        kept = [("control", name, "", float(activations[row])) for row, name in zip(rows, small, strict=True)]
        return pd.DataFrame([*best, *kept], columns=list(PICTURES))


def _record(trial: Trial) -> dict[str, Any]:
    return {
        **{name: getattr(trial, name) for name in ("iteration", "origin", "concept", "score", "first_score")},
        "accepted": trial.accepted,
        "num_images": len(trial.images),
        "mean_activation": float(trial.activations.mean()) if len(trial.activations) else np.nan,
        **{name: getattr(trial, name) for name in ("malformed", "problem", "reasoning")},
        "images": list(trial.images),
    }
