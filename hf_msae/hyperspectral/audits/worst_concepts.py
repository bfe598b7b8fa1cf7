"""The worst case: which small change of a few concepts costs a classifier most."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...statistics import Finding, candidate, resampled_means
from ..subject import Subject
from .attacks import LITTLE, WORST
from .outcome import interval

BUDGET = 3
"""Concepts that are changed at most."""
SHARE = 0.05
"""How far each of them may move an embedding, relative to the embedding's length."""
COLUMNS = ["target", "search", "concepts", "dose", "loss", "low", "high"]
_NUM_RANDOM = 20
_ADVICE = "Train on rows in which these concepts vary independently of the class, or erase them (hf_msae.steering)."
Choice = tuple[tuple[int, int], ...]  # places of latents, and whether there is more (1) or less (-1) of them


def worst_concepts(subject: Subject, rows: np.ndarray, places: list[int]) -> tuple[pd.DataFrame, list[Finding | None]]:
    """Search for the few concepts whose change makes the errors of each target largest.

    Up to three concepts at `places` get more or less active, in all `rows` alike, each by 5% of the embedding's length
    at most. They are searched for greedily on one half of the rows and measured on the other, beside the mean over
    random choices. In the table, dose is the mean change of what the model is given, relative to its length, and loss
    the mean squared error over that without a change.
    """
    rng = np.random.default_rng((subject.seed, 1))
    half = rng.random(len(rows)) < 0.5
    search, judge = _Changes(subject, rows[half]), _Changes(subject, rows[~half])
    number = min(BUDGET, len(places))
    if not number:
        return pd.DataFrame(columns=COLUMNS), []
    options = [(place, sign) for place in places for sign in (-1, 1)]
    orders = [rng.permutation(len(places))[:number] for _ in range(_NUM_RANDOM)]
    picks = [tuple((places[i], int(rng.choice((-1, 1)))) for i in order) for order in orders]
    usual = np.mean([judge.errors(each) for each in picks], axis=0)
    usual_dose, clean = float(np.mean([judge.dose(each) for each in picks])), judge.errors(())
    records, tests = [], []
    for t, target in enumerate(subject.targets):
        choice = search.worst(options, number, t)
        columns = np.stack([judge.errors(choice)[:, t], usual[:, t], clean[:, t]], axis=1) / subject.Y[:, t].var()
        means, draws = columns.mean(axis=0), resampled_means(columns, subject.num_resamples, subject.seed)
        loss, usual_loss = means[0] / means[2], means[1] / means[2]
        worst, random = (draws[:, i] / draws[:, 2] for i in (0, 1))
        shown = subject.space.names["concept"].iloc[[place for place, _ in choice]]
        signs = ["more" if sign > 0 else "less" for _, sign in choice]
        what, dose = ", ".join(f"{sign} {name}" for sign, name in zip(signs, shown, strict=True)), judge.dose(choice)
        records.append((target, "worst", what, dose, loss, *interval(worst)))
        records.append((target, "random", "", usual_dose, usual_loss, *interval(random)))
        evidence = (
            f"With {what}, found on other rows, which moves what the model is given by {dose:.1%} of its length, the "
            f"{subject.error_name} of {target} is {loss:.2f} times as large; random concepts, moved as far, make it "
            f"{usual_loss:.2f} times as large on average."
        )
        title = f"Small changes of {number} concepts mislead predictions of {target}"
        limits = WORST if means[0] - means[2] >= LITTLE else WORST[:1]
        arguments = ("concepts", "few concepts", target, title, "worst_case_loss", loss, worst, limits)
        tests.append(candidate(*arguments, evidence, _ADVICE, log=True))
    return pd.DataFrame(records, columns=COLUMNS), tests


class _Changes:
    """Small changes of concepts in some rows."""

    def __init__(self, subject: Subject, rows: np.ndarray) -> None:
        self.subject, self.rows, self.X = subject, rows, subject.X[rows]
        self.inputs, self.steps = subject.inputs[rows], subject.space.steps
        self.length = np.linalg.norm(self.inputs, axis=1)

    def change(self, choice: Choice) -> np.ndarray:
        """Return what is added to what the model is given."""
        found = np.zeros_like(self.inputs)
        for place, sign in choice:
            step = sign * SHARE * self.length / np.linalg.norm(self.steps[place])
            found += np.maximum(-self.X[:, place], step)[:, None] * self.steps[place]  # none gets less than inactive
        return found

    def errors(self, choice: Choice) -> np.ndarray:
        """Return squared errors (rows, t), each by the model of the fold that did not see the row."""
        predicted = self.subject.predict_inputs(self.inputs + self.change(choice), self.rows)
        return (self.subject.Y[self.rows] - predicted) ** 2

    def dose(self, choice: Choice) -> float:
        """Return how far the choice moves the inputs, relative to their length."""
        return float((np.linalg.norm(self.change(choice), axis=1) / self.length).mean())

    def worst(self, options: list[tuple[int, int]], number: int, target: int) -> Choice:
        """Add the worst option, again and again."""
        choice: Choice = ()
        for _ in range(number):
            taken = {place for place, _ in choice}
            left = [(*choice, each) for each in options if each[0] not in taken]
            choice = max(left, key=lambda each: self.errors(each)[:, target].mean())
        return choice
