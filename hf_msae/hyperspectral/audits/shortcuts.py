"""Shortcuts: does the model read the group, such as the farm or the instrument, instead of the target?

For every grouping, the model is tested on groups that it has not seen, and on random folds of the same sizes:

    shortcut index = R2 in random folds - R2 with a group left out

Since the folds are equally large, it is not the smaller number of rows to learn from that costs R2. For classifiers,
AUROC takes the place of R2, with limits half as large, and log-odds are taken relative to the share of the class among
the rows that a model learned from.

Intervals are over rows: the index is about the groups at hand. How far it hangs on any one of them is said beside it,
by the index without each group. There is no interval over groups: of the three to ten that there usually are, the
bootstrap has few different resamples, and repeats of one group make the variance of the target, and so R2, another.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..._utils.wording import counted, joined
from ...statistics import candidate, log_odds, percentiles, wilson_interval
from ..reading import FIELD_SIZE
from ..subject import ALL, Subject, splits
from .outcome import Outcome, is_related, score_draws, score_limits, score_name, scores, target_names
from .pulls import pulls
from .slices import far_rows

LIMITS = (0.05, 0.15, 0.3)
"""Shortcut indices that are minor, moderate and severe."""
COLUMNS = ["grouping", "groups", "target", "metric", "random", "left_out", "shortcut_index", "low", "high"]
COLUMNS += ["least_without_one", "most_without_one"]
COLUMNS += ["group_mean", "decoded", "decoded_low", "decoded_high", "chance", "extrapolation_share"]
_MOST_FOLDS, _FEWEST_ROWS, _MOST_COMPONENTS = 10, 10, 30
_MOST_LEFT_OUT = 50  # groups: one of more has little weight
_FEWEST_OF_GROUP = 5  # rows, to learn from some and to read the group of the others
_ALONE = 0.9  # of rows that are the only one of their group: leaving groups out is leaving rows out
_NO_GROUPS = (
    "No grouping was given, so nothing is known of shortcuts: name columns, such as the source or the camera of the "
    "rows, with groups (--groups)."
)
_NO_GROUPS_OF_SPECTRA = (
    "No column of farms, instruments or dates was given, so nothing is known of shortcuts: have one in the ground "
    "truth or in a CSV file of its own (group_table, --group_table), named farm, field, site, date, instrument, "
    "campaign or source, or name it with groups (--groups)."
)
_ADVICE = (
    "Report the score with a {grouping} left out, since that is what a new one will see. Train on more of them, "
    "remove what identifies them (standardize within each, or erase the direction), and check again."
)


def shortcuts(subject: Subject) -> Outcome:
    """Compute the shortcut index of every grouping, with what may explain it.

    Beside it: the smallest and the largest index if the rows of any one group are not counted; the score of predicting
    the mean of the group (how much the group alone tells of the target); the share of rows whose group a linear
    classifier reads from what the model is given (in folds of rows, among groups of at least 5 rows), and the share of
    the most frequent of these groups; and the share of left-out rows that are farther from the rows that were learned
    from than 95% of these are from each other. A model that never saw a group cannot have learned to read it, so for
    classifiers the table `pulls` says what the model that did see it makes of it.
    """
    records, candidates, remarks = [], [], []
    not_predicted: dict[tuple[str, ...], list[str]] = {}
    is_left_out = subject.is_fixed and subject.classes is None  # no grouping would be of use
    if set(subject.groups) <= {FIELD_SIZE} and not is_left_out:
        remarks.append(_NO_GROUPS_OF_SPECTRA if is_spectral(subject) else _NO_GROUPS)
    tables = {}
    if subject.classes is not None:
        tables["pulls"], candidates, more = pulls(subject)
        remarks += more
    if is_left_out or (subject.groups and subject.is_fixed):
        see = "" if subject.classes is None else ": see how far groups pull"
        remarks.append(f"The model is not fitted again, so no group was left out{see}.")
        return Outcome(tables, [each for each in candidates if each is not None], remarks)
    score, limits = score_name(subject), score_limits(subject, LIMITS)
    nothing = 0.0 if subject.classes is None else 0.5
    for grouping, labels in subject.groups.items():
        names, places = np.unique(labels, return_inverse=True)
        counts = np.bincount(places)
        if len(names) < 2 or len(labels) - counts.max() < _FEWEST_ROWS:
            remarks.append(
                f"{grouping}: nearly all rows are of {str(names[counts.argmax()])!r}, so no group can be left out."
            )
            continue
        if (counts == 1).sum() > _ALONE * len(labels):
            remarks.append(
                f"{grouping}: nearly every row is a group of its own ({len(names)} groups of {len(labels)} rows), so "
                "leaving groups out shows nothing that random folds do not: join groups, such as times of a day."
            )
            continue
        left_out = _spread(counts)[places]
        if subject.classes is not None and any(
            np.ptp(subject.Y[train], axis=0).max() == 0 for train, _ in splits(left_out)
        ):
            remarks.append(f"{grouping}: without one group, all rows are of one class, so none can be left out.")
            continue
        matched = subject.drawn_folds(left_out, np.random.default_rng(subject.seed))
        random, unseen = (_comparable(subject, subject.predict_folds(folds), folds) for folds in (matched, left_out))
        values, draws = score_draws(subject, random, unseen, _group_means(subject, places))
        index, index_draws = values[0] - values[1], draws[0] - draws[1]
        decoded, low, high, chance = _decoded(subject, places)
        if (small := int((counts < _FEWEST_OF_GROUP).sum())) or not np.isfinite(decoded):
            remarks.append(_not_decoded(grouping, counts, small))
        one_less = _without_one(subject, places, random, unseen)
        far = far_rows(subject.inputs, left_out).mean()
        related = is_related(subject, random) & (subject.classes is None)
        unknown = []
        for place, target in enumerate(target_names(subject)):
            ends = percentiles(index_draws[:, place])
            found = (values[0, place], values[1, place], index[place], *ends, *one_less[:, place], values[2, place])
            records.append((grouping, len(names), target, score.lower(), *found, decoded, low, high, chance, far))
            if target == ALL:
                continue
            if percentiles(draws[0, :, place])[0] <= nothing and not related[place]:
                # Whatever a left-out group costs it, such as the mean that it learned, it cannot rest on the group.
                unknown.append(target)
                continue
            evidence = (
                f"{score} of {target} is {values[0, place]:.2f} in random folds and {values[1, place]:.2f} with a "
                f"{grouping} left out (folds of the same sizes; {len(names)} groups). "
                f"{_hangs_on(one_less[:, place], grouping)}The mean of the {grouping} alone reaches "
                f"{values[2, place]:.2f}, {_read(decoded, chance, grouping)}{far:.0%} of left-out rows lie outside "
                "the training data."
            )
            title = f"Predictions of {target} rest on the {grouping}"
            metric, advice = "shortcut_index", _ADVICE.format(grouping=grouping)
            name = f"{target} by {grouping}"
            draw = index_draws[:, place]
            candidates.append(
                candidate("shortcuts", grouping, name, title, metric, index[place], draw, limits, evidence, advice)
            )
        if unknown:
            not_predicted.setdefault(tuple(unknown), []).append(grouping)
    for names, groupings in not_predicted.items():
        which = ("is", "it") if len(names) == 1 else ("are", "them")
        remarks.append(
            f"{', '.join(groupings)}: in random folds as large as these groups, {joined(names)} {which[0]} not shown "
            f"to be predicted better than by the mean, so leaving a group out was not tested for {which[1]}."
        )
    table = pd.DataFrame(records, columns=COLUMNS)
    return Outcome({"shortcuts": table, **tables}, [each for each in candidates if each is not None], remarks)


def is_spectral(subject: Subject) -> bool:
    """Say whether rows are patches or spectra, which have farms, instruments and dates, and not any other features."""
    if subject.space is not None:
        return False
    return subject.patches is not None or bool(subject.features["band"].notna().any())


def _comparable(subject: Subject, predictions: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Make probabilities of models comparable that learned from rows with other shares of the classes.

    Subtracted are the log-odds of the share of the class among the rows learned from. Without that, leaving out a
    group with many rows of a class would bring its rows lower scores than those of other groups, and cost AUROC,
    whatever the model reads.
    """
    if subject.classes is None:
        return predictions
    found = log_odds(predictions)
    for train, test in splits(folds):
        found[test] -= log_odds(subject.Y[train].mean(axis=0))
    return found


def _spread(counts: np.ndarray) -> np.ndarray:
    """Return the fold of each group: its own, or one of a few equally large ones if there are many groups."""
    if len(counts) <= _MOST_FOLDS:
        return np.arange(len(counts))
    folds, sizes = np.empty(len(counts), dtype=np.int64), np.zeros(_MOST_FOLDS)
    for group in np.argsort(-counts, kind="stable"):
        folds[group] = sizes.argmin()
        sizes[folds[group]] += counts[group]
    return folds


def _group_means(subject: Subject, places: np.ndarray) -> np.ndarray:
    """Predict the mean target of the row's group among the other folds; the mean of all where it is not there."""
    found = np.empty_like(subject.Y)
    for train, test in splits(subject.folds):
        counts = np.bincount(places[train], minlength=places.max() + 1)
        mean = subject.Y[train].mean(axis=0)
        for target, y in enumerate(subject.Y[train].T):
            sums = np.bincount(places[train], weights=y, minlength=len(counts))
            means = np.where(counts > 0, sums / np.maximum(counts, 1), mean[target])
            found[test, target] = means[places[test]]
    return found


def _without_one(subject: Subject, places: np.ndarray, random: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Return the smallest and the largest index (2, t + 1) if any one of the largest groups does not count."""
    found = []
    for group in np.argsort(-np.bincount(places), kind="stable")[:_MOST_LEFT_OUT]:
        rows = places != group
        found.append(scores(subject, random, rows) - scores(subject, unseen, rows))
    return np.stack([np.fmin.reduce(found), np.fmax.reduce(found)])


def _hangs_on(ends: np.ndarray, grouping: str) -> str:
    low, high = ends
    return f"Without any one {grouping}, the index is {low:.2f} to {high:.2f}. " if np.isfinite(low) else ""


def _read(decoded: float, chance: float, grouping: str) -> str:
    if not np.isfinite(decoded):
        return "and "
    return f"the {grouping} is read from X in {decoded:.1%} of rows (the most frequent one is {chance:.1%}), and "


def _not_decoded(grouping: str, counts: np.ndarray, small: int) -> str:
    few = f"fewer than {_FEWEST_OF_GROUP} rows"
    if len(counts) - small < 2:
        have = f"{small} of {len(counts)} groups have" if small < len(counts) else f"all {small} groups have"
        return f"{grouping}: whether it is read from X was not measured, since {have} {few}."
    rows = int(counts[counts < _FEWEST_OF_GROUP].sum())
    groups = counted(small, "group") + f" of {few} ({counted(rows, 'row')})"
    return f"{grouping}: how well it is read from X was measured without {groups}."


def _decoded(subject: Subject, places: np.ndarray) -> tuple[float, float, float, float]:
    """Return the share of rows whose group a linear classifier reads from X, Wilson's interval, and the largest share.

    Of groups with fewer than 5 rows, most folds would leave one or none to learn from: their rows are left out. NaN if
    there are not two other groups.
    """
    counts = np.bincount(places)
    known = counts[places] >= _FEWEST_OF_GROUP
    if (counts >= _FEWEST_OF_GROUP).sum() < 2:
        return np.nan, np.nan, np.nan, np.nan
    right = np.zeros(len(places), dtype=bool)
    for train, test in splits(subject.folds):
        train, test = train[known[train]], test[known[test]]
        if not len(test):
            continue
        if len(np.unique(places[train])) < 2:
            right[test] = places[test] == places[train][0]
            continue
        components = min(_MOST_COMPONENTS, subject.inputs.shape[1], len(train) // 2)
        scale = make_pipeline(
            StandardScaler(), PCA(components, whiten=True, svd_solver="randomized", random_state=subject.seed)
        )
        reader = make_pipeline(scale, LogisticRegression(max_iter=500))
        right[test] = reader.fit(subject.inputs[train], places[train]).predict(subject.inputs[test]) == places[test]
    number, largest = int(known.sum()), int(counts.max())
    low, high = wilson_interval(right.sum(), number)
    return float(right.sum() / number), float(low), float(high), largest / number
