"""Performance: how good the model is, for which targets, groups and values, and where it fails."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from ..._utils.wording import joined
from ...statistics import Finding, auroc, auroc_interval, candidate, percentiles, resampled_means, wilson_interval
from ..subject import ALL, Subject
from .outcome import (
    RELATED,
    Outcome,
    chance_score,
    r2_draws,
    score_draws,
    score_limits,
    score_name,
    target_names,
)
from .slices import FEWEST, FLAT, OUTLIER, UNSEEN, far_rows, quantile_ratio, slices, slopes, unusual_rows

NOTHING = 0.05
"""An R2 below this is no better than the mean."""
_TOO_NARROW, _TOO_WIDE = (1.2, 1.35, 1.75), (0.85, 0.7, 0.4)  # limits of the calibration slope
_NARROW = (0.6, 0.4)  # of the range ratio
_UNUSUAL = (1.5, 2.5, 5.0)


def performance(subject: Subject) -> Outcome:
    """Measure predictions of held-out rows by target, by group, and by decile of the target.

    Figures of the table `performance`, one row per target and metric: r2; rmse; mae; score (the mean squared error
    over that of predicting the mean, the HYPERVIEW challenge's score); correlation; range_ratio (standard
    deviation of predictions over that of the targets, which is the correlation if the predictions are calibrated)
    and range_ratio_q (the same of the ranges from the 5th to the 95th percentile); calibration_slope (of the
    target on the prediction: 1 is calibrated, more is too narrow); outlier_error_ratio (mean squared error of
    targets more than 2 standard deviations from the mean over that of the others); outlier_response (how far
    predictions follow these from the mean, sum of y p over sum of y^2, over how far they follow the others: 1 for
    a linear model however weak, 0 if outliers are not seen); tail_response (slope of predictions beyond the median
    distance of targets from their mean, over the slope within: b / a of the least-squares fit of a clip(y) +
    b (y - clip(y)), 0 if predictions stop answering there); unreached_share (targets beyond the range of all
    predictions); extrapolation_share (rows far from those learned from, 5% if nothing is special); and
    unusual_error_ratio (mean squared error of the 5% of rows with the most unusual features over that of the others).

    Of a class: auroc, accuracy (of two classes), brier_skill (R2 of the probability), rmse, mae, calibration_slope,
    extrapolation_share and unusual_error_ratio. Only its AUROC, its calibration and its slices are tested.
    """
    values, draws = score_draws(subject, subject.predictions)
    brier = None if subject.classes is None else r2_draws(subject, subject.predictions)
    score, nothing = score_name(subject), chance_score(subject) + score_limits(subject, (NOTHING,))[0]
    far, unusual = far_rows(subject.inputs, subject.folds), unusual_rows(subject.inputs)
    records: list[tuple] = []
    candidates: list[Finding | None] = []
    remarks: list[str] = []
    not_tested: dict[str, list[str]] = {}
    useful = {}
    for place, target in enumerate(target_names(subject)):
        ends = percentiles(draws[0, :, place])
        if subject.classes is None:
            records.append((target, "r2", values[0, place], *ends))
            records.append((target, "score", 1 - values[0, place], 1 - ends[1], 1 - ends[0]))
        else:
            records.append((target, "brier_skill", brier[0][0, place], *percentiles(brier[1][0, :, place])))
        if target == ALL:
            continue
        useful[target] = ends[0] > chance_score(subject)
        evidence = (
            f"{score} of {target} in held-out rows is {values[0, place]:.3f} ({ends[0]:.3f} to {ends[1]:.3f}); "
            f"predicting the mean has {chance_score(subject):g}."
        )
        advice = "Do not use these predictions. Check that targets and rows belong together before changing the model."
        candidates.append(
            candidate(
                "performance",
                "no better than the mean",
                target,
                f"Predictions of {target} are no better than the mean",
                score.lower(),
                values[0, place],
                draws[0, :, place],
                (nothing, nothing, nothing),
                evidence,
                advice,
                below=True,
            )
        )
    for place, target in enumerate(subject.targets):
        found, tests = _target(subject, place, target, far, unusual)
        records += found
        # R2 need not show that predictions are related to the truth if outliers ruin it.
        is_related = any(metric == "correlation" and low > RELATED for _, metric, _, low, _ in found)
        is_followed = is_related or (subject.classes is not None and useful[target])
        if is_followed:
            candidates += tests
        if not useful[target]:
            kinds = "range, calibration, outliers" if subject.classes is None else "calibration"
            untested = "errors by group" if is_followed else f"{kinds} and errors by group"
            not_tested.setdefault(untested, []).append(target)
    for untested, names in not_tested.items():
        are, its, mean = ("is", "its", "its mean") if len(names) == 1 else ("are", "their", "their means")
        remarks.append(
            f"{joined(names)} {are} not shown to be predicted better than by {mean}, so {its} {untested} were not "
            "tested."
        )
    cut, tests = slices(subject, useful)
    table = pd.DataFrame(records, columns=["target", "metric", "value", "low", "high"])
    kept = [each for each in candidates + tests if each is not None]
    return Outcome({"performance": table, "slices": cut, "predictions": _predictions(subject)}, kept, remarks)


def _predictions(subject: Subject) -> pd.DataFrame:
    n, t = subject.Y.shape
    named = {} if subject.ids is None else {"id": np.repeat(subject.ids, t)}
    found = {"row": np.repeat(np.arange(n), t), **named, "target": np.tile(subject.targets, n)}
    return pd.DataFrame({**found, "truth": subject.Y.ravel(), "prediction": subject.predictions.ravel()})


def _target(
    subject: Subject, place: int, target: str, far: np.ndarray, unusual: np.ndarray
) -> tuple[list[tuple], list[Finding | None]]:
    """Return records of a target's figures, and tests of range, calibration and outliers."""
    y, p = subject.Y[:, place], subject.predictions[:, place]
    mean, spread = y.mean(), y.std()
    y, p = (y - mean) / spread, (p - mean) / spread
    error, out = (y - p) ** 2, np.abs(y) > OUTLIER
    unreached = (y < p.min()) | (y > p.max())
    columns = [y, p, y**2, p**2, y * p, error, np.abs(y - p), out, out * error, out * y**2, far, unreached]
    columns = [*columns, unusual, unusual * error]
    within = np.clip(y, *(np.median(np.abs(y)) * np.array([-1, 1])))
    beyond = y - within
    columns += [out * y * p, within, within**2, within * beyond, beyond**2, within * p, beyond * p]
    columns = np.stack(columns, axis=1).astype(np.float64)

    def figures(means: np.ndarray) -> dict[str, np.ndarray]:
        my, mp, yy, pp, yp, e, absolute, n_out, e_out, y_out, is_far, far_off, n_odd, e_odd = means.T[:14]
        yp_out, within, *products = means.T[14:]
        var_y, var_p = yy - my**2, np.maximum(pp - mp**2, 0)
        covariance = yp - my * mp
        with np.errstate(all="ignore"):
            inner, outer = slopes(within, my - within, mp, *products)
            ratio = (e_out / n_out) / ((e - e_out) / (1 - n_out))
            extreme, others = yp_out / y_out, (yp - yp_out) / (yy - y_out)
            return {
                "rmse": np.sqrt(e) * spread,
                "mae": absolute * spread,
                "correlation": covariance / np.sqrt(var_y * var_p),
                "range_ratio": np.sqrt(var_p / var_y),
                "calibration_slope": covariance / var_p,
                "outlier_error_ratio": ratio,
                "outlier_response": extreme / others,
                "tail_response": outer / inner,
                "unreached_share": far_off,
                "extrapolation_share": is_far,
                "unusual_error_ratio": (e_odd / n_odd) / ((e - e_odd) / (1 - n_odd)),
                "of outlier_response": UNSEEN[0] * others - extreme,
                "of tail_response": FLAT[0] * inner - outer,
            }

    values = {name: float(value[0]) for name, value in figures(columns.mean(axis=0)[None]).items()}
    draws = figures(resampled_means(columns, subject.num_resamples, subject.seed))
    for number, names in (
        (out.sum(), ("outlier_error_ratio", "outlier_response")),
        (unusual.sum(), ("unusual_error_ratio",)),
    ):
        if number < FEWEST:
            values |= dict.fromkeys(names, np.nan)
    if subject.classes is not None:
        kept = ("rmse", "mae", "calibration_slope", "extrapolation_share", "unusual_error_ratio")
        values = {name: values[name] for name in kept}
    records = [
        (target, name, value, *(percentiles(draws[name]) if np.isfinite(value) else (np.nan, np.nan)))
        for name, value in values.items()
        if not name.startswith("of ")
    ]
    if subject.classes is not None:
        return records + _classified(subject, place, target), _calibration(subject, target, values, draws)
    records.append((target, "range_ratio_q", *quantile_ratio(y, p, subject.seed)))
    slope, width, r = values["calibration_slope"], values["range_ratio"], values["correlation"]
    narrow = (
        f"Predictions of {target} have {width:.2f} of the spread of the truth; calibrated ones with this correlation "
        f"would have {r:.2f}. The truth rises by {slope:.2f} for each unit of the prediction, and "
        f"{values['unreached_share']:.1%} of true values lie beyond all predictions."
    )
    flat = (
        f"In the half of the rows with the most extreme {target}, predictions rise with it "
        f"{values['tail_response']:.2f} times as steeply as in the others."
    )
    extreme = (
        f"Predictions follow the {int(out.sum())} rows with {target} more than {OUTLIER:g} standard deviations from "
        f"the mean {values['outlier_response']:.2f} times as far, in proportion, as the others; their mean squared "
        f"error is {values['outlier_error_ratio']:.2f} times that of the others."
    )
    strange = (
        f"The mean squared error of {target} in the {int(unusual.sum())} rows whose features are farthest from "
        f"the mean is {values['unusual_error_ratio']:.2f} times that of the others."
    )
    specs = [
        ("calibration_slope", f"Predictions of {target} are drawn to the mean", _TOO_NARROW, False, narrow, _STRETCH),
        ("calibration_slope", f"Predictions of {target} are too extreme", _TOO_WIDE, True, narrow, _SHRINK),
        ("range_ratio", f"Predictions of {target} lie in a narrow range", _NARROW, True, narrow, _STRETCH),
        ("tail_response", f"Predictions of {target} stop answering at its ends", FLAT, True, flat, _REACH),
        ("outlier_response", f"Extreme values of {target} are not seen", UNSEEN, True, extreme, _REACH),
        ("unusual_error_ratio", f"{target} is predicted worse in unusual rows", _UNUSUAL, False, strange, _GUARD),
    ]
    tests = []
    for metric, title, limits, below, evidence, advice in specs:
        kind = _kind(title, target)
        arguments = ("performance", kind, target, title, metric, values[metric], draws[metric], limits)
        contrast = (values[f"of {metric}"], draws[f"of {metric}"]) if metric.endswith("response") else None
        log = contrast is None
        tests.append(candidate(*arguments, evidence, advice, log=log, below=below, tested=contrast))
    return records, tests


def _calibration(subject: Subject, target: str, values: dict, draws: dict) -> list[Finding | None]:
    evidence = (
        f"The share of {target} rises by {values['calibration_slope']:.2f} for each unit of the probability that is "
        "predicted."
    )
    found = []
    for title, limits, below, advice in (
        (f"Probabilities of {target} are drawn to the mean", _TOO_NARROW, False, _STRETCH),
        (f"Probabilities of {target} are too extreme", _TOO_WIDE, True, _SHRINK),
    ):
        arguments = ("performance", _kind(title, target), target, title, "calibration_slope")
        arguments += (values["calibration_slope"], draws["calibration_slope"], limits, evidence, advice)
        found.append(candidate(*arguments, log=True, below=below))
    return found


def _kind(title: str, target: str) -> str:
    """Return a title without the target, which may be a letter of other words."""
    return re.sub(rf"(?<!\S){re.escape(target)}(?!\S)", "*", title)


_STRETCH = (
    "Do not read single predictions as levels of the target. Recalibrate on held-out rows (a line suffices), or use a "
    "model with less shrinkage: fewer neighbors, smaller leaves, less regularization."
)
_SHRINK = "The model is overfitted: regularize it more, or recalibrate on held-out rows."
_REACH = (
    "State the range in which predictions can be trusted. Collect more rows with extreme values, weight them more, or "
    "learn the logarithm of the target."
)
_GUARD = "Refuse or flag inputs that are far from the training data, and collect more like them."


def _classified(subject: Subject, place: int, target: str) -> list[tuple]:
    truth, p = subject.Y[:, place] > 0.5, subject.predictions[:, place]
    area = float(auroc(truth, p))
    low, high = auroc_interval(area, truth.sum(), (~truth).sum())
    records = [(target, "auroc", area, float(low), float(high))]
    if len(subject.targets) == 1:
        right = (p > 0.5) == truth
        records.append((target, "accuracy", float(right.mean()), *map(float, wilson_interval(right.sum(), len(p)))))
    return records
