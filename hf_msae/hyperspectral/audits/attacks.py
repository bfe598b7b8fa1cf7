"""Attacks: how much worse predictions get when spectra and patches are a little different."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from ..._utils.wording import joined
from ...statistics import Finding, candidate, percentiles, resampled_means
from ..patches import Pair
from ..subject import Subject
from .outcome import Outcome, chance_score, score_draws
from .perturbations import DRIFT, SPATIAL, Attack, about_haze, drifted, spectral_attacks, unit_of_bands
from .stability import attribution_shift

NUM_ATTACKED = 60
"""Patches that are attacked; of rows without patches, up to 20 times as many."""
COLUMNS = ["attack", "strength", "unit", "allowed", "target", "error", "low", "high"]
COLUMNS += ["loss", "loss_low", "loss_high", "change"]
WORST_COLUMNS = ["target", "search", "loss", "low", "high", *DRIFT]
WORST = (1.5, 3.0)
"""Errors in the worst case, over those without it, that are a minor and a moderate finding."""
ROWS_PER_PATCH = 20
"""Rows without patches are attacked in this many times the number of patches."""
_WORSE = (1.25, 2.0)
LITTLE = 0.1
"""Of the variance of a target: less than this is minor, even if it is a multiple of a tiny error."""
NO_ERROR = " There is no error without it, so the loss is over half of that of one row."
_CANDIDATES = 24


@dataclass(frozen=True, eq=False)
class Inputs:
    """The rows that are attacked, and what an attack can change: patches, spectra in X, or only columns of X."""

    subject: Subject
    rows: np.ndarray
    spectrum: np.ndarray | None  # places of the columns of X, band by band
    on_patches: bool
    wavelengths: np.ndarray | None = None  # of the bands in nm, None if unknown

    def attacked(self, attack: Attack, strength: float, rng: np.random.Generator) -> np.ndarray:
        """Return X of the attacked rows."""
        if self.on_patches:
            return self._transformed(lambda patch: _attacked_patch(patch, attack, strength, rng))
        X = self.subject.X[self.rows].copy()
        if self.spectrum is not None:
            for x in X:
                x[self.spectrum] = attack.spectral(x[self.spectrum], strength, rng)
        else:
            X = attack.spectral(X, strength, rng)
        return X

    def drifted(self, drift: np.ndarray) -> np.ndarray:
        """Return X of the rows as an instrument with this drift would see them."""
        if self.on_patches:
            # As a patch of one row, since an offset of the sensor is the same in all pixels.
            return self._transformed(lambda patch: _changed(patch, lambda field: drifted(field[:, None], drift)[:, 0]))
        X = self.subject.X[self.rows].copy()
        X[:, self.spectrum] = drifted(X[:, self.spectrum].T, drift).T
        return X

    def _transformed(self, change) -> np.ndarray:
        changed = [change(patch) for patch in self.patches]
        return np.asarray(self.subject.transformer.transform(changed), dtype=np.float64)

    @cached_property
    def patches(self) -> list[Pair]:
        """The patches that are attacked, which are read once."""
        return [self.subject.patches[row] for row in self.rows]

    def errors(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return squared errors and predictions (rows, t), each by the model of the fold that did not see the row."""
        predicted = self.subject.predict_changed(X, self.rows)
        return (self.subject.Y[self.rows] - predicted) ** 2, predicted


def attacks(subject: Subject) -> Outcome:
    """Perturb held-out inputs, weakly to strongly, and measure how errors grow.

    With patches and a transformer, patches are attacked: noise, gain, offset, tilt, a shift of the spectrum, lost
    bands, haze, an eroded mask and a crop. Where X are spectra (a band for each column), the spectral attacks apply to
    X. Otherwise columns get noise, in their standard deviations, or are lost, which is all that can be done to them.
    Where wavelengths are unknown, haze is left out and a remark says so, and shifts are in bands alone.

    In the table `attacks`, error is the mean squared error over the variance of the target, and loss is that error
    over the one without an attack (`loss_over`). Table `worst_case`: a drift of the instrument, the same for all rows,
    that is searched for among those allowed (`DRIFT`) on one half of the rows and measured on the other, beside the
    mean over random drifts. Table `attribution_shift`: how the attributions of rows change under the allowed attacks.
    """
    inputs, chosen, remarks = _inputs(subject)
    clean_X = inputs._transformed(lambda patch: patch) if inputs.on_patches else subject.X[inputs.rows]
    if inputs.on_patches:
        gap = np.abs(clean_X - subject.X[inputs.rows]).max() / max(1e-12, float(np.abs(clean_X).max()))
        if gap > 1e-6:
            raise ValueError(f"the transformer does not turn the patches into X: they differ by up to {gap:.2g}")
    clean, before = inputs.errors(clean_X)
    spread = subject.Y.std(axis=0)
    draws = score_draws(subject, subject.predictions)[1][0].T[: len(subject.targets)]
    is_shown = np.array([percentiles(each)[0] > chance_score(subject) for each in draws])
    useful = (clean.mean(axis=0) < spread**2) & is_shown
    if not useful.all():
        names = joined([name for name, each in zip(subject.targets, useful, strict=True) if not each])
        remarks = [*remarks, f"Attacks were not tested of {names}, which the model is not shown to predict."]
    records, tests = [], []
    survived: dict[str, np.ndarray] = {}
    for attack in chosen:
        for strength in attack.strengths:
            rng = np.random.default_rng((subject.seed, round(1e6 * strength)))
            X = inputs.attacked(attack, strength, rng)
            errors, after = inputs.errors(X)
            if strength == attack.allowed:
                survived[attack.name] = X
                if lost := int((~np.isfinite(after)).any(axis=1).sum()):
                    what = f"Under {attack.name} of {strength:g} ({attack.unit}), which a model has to survive, "
                    what += f"predictions of {lost} of {len(after)} rows are not finite"
                    remarks = [*remarks, f"{what}: look at these first, since no loss could be tested."]
            change = np.abs(after - before).mean(axis=0) / spread
            for place, target in enumerate(subject.targets):
                columns = np.stack([errors[:, place], clean[:, place]], axis=1) / spread[place] ** 2
                draws = resampled_means(columns, subject.num_resamples, subject.seed)
                error, without = columns.mean(axis=0)
                loss = loss_over(error, without, columns)
                loss_draws = loss_over(draws[:, 0], draws[:, 1], columns)
                allowed = strength == attack.allowed
                found = (error, *percentiles(draws[:, 0]), loss, *percentiles(loss_draws), change[place])
                records.append((attack.name, strength, attack.unit, allowed, target, *found))
                if allowed and useful[place]:
                    tests.append(_test(attack, strength, target, loss, loss_draws, error, draws[:, 0], without))
    shift, further = attribution_shift(subject, inputs.rows, survived)
    tables = {"attacks": pd.DataFrame(records, columns=COLUMNS), "attribution_shift": shift}
    if inputs.on_patches or inputs.spectrum is not None:
        tables["worst_case"], worst = _worst_case(inputs, clean, useful)
        tests += worst
    return Outcome(tables, [each for each in tests if each is not None], remarks + further)


def _inputs(subject: Subject) -> tuple[Inputs, tuple[Attack, ...], list[str]]:
    number = subject.limits.get("num_attacked", NUM_ATTACKED)
    on_patches = subject.patches is not None and subject.transformer is not None
    n = len(subject.X)
    order = np.random.default_rng(subject.seed).permutation(n)
    if on_patches:
        known = getattr(subject.patches, "wavelengths", getattr(subject.transformer, "wavelengths_", None))
        wavelengths = None if known is None else np.asarray(known, dtype=np.float64)
        inputs = Inputs(subject, np.sort(order[:number]), None, True, wavelengths)
        return inputs, (*spectral_attacks(wavelengths, of_pixels=True), *SPATIAL), [about_haze(wavelengths)]
    rows = np.sort(order[: ROWS_PER_PATCH * number])
    if subject.patches is not None:
        remarks = ["Patches were given without the transformer that turns them into X, so only X was attacked."]
    else:
        remarks = ["No patches were given, so masks and shapes were not attacked."]
    band = subject.features["band"]
    if band.notna().all() and band.is_unique and len(band) > 4:
        places = np.argsort(band.to_numpy(), kind="stable")
        wavelengths = subject.features["wavelength"].to_numpy()[places]
        wavelengths = wavelengths if np.isfinite(wavelengths).all() else None
        remarks.append(about_haze(wavelengths))
        return Inputs(subject, rows, places, False, wavelengths), spectral_attacks(wavelengths), remarks
    remarks.append("Columns of X are not one band each, so instead of physical attacks they get noise or are lost.")
    return Inputs(subject, rows, None, False), _column_attacks(subject), remarks


def _column_attacks(subject: Subject) -> tuple[Attack, ...]:
    scale, mean, p = subject.X.std(axis=0), subject.X.mean(axis=0), subject.X.shape[1]

    def add_noise(X: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
        return X + strength * scale * rng.normal(size=X.shape)

    def lose(X: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
        return np.where(rng.random(X.shape) < strength, mean, X)

    strengths = (0.01, 0.05, 0.1, 0.25, 0.5)
    found = [Attack("noise", "standard deviations of a column", strengths, 0.1, add_noise)]
    if p > 1:
        found.append(Attack("lost columns", "share of columns, replaced by their mean", strengths, 0.01, lose))
    return tuple(found)


def _attacked_patch(patch: Pair, attack: Attack, strength: float, rng: np.random.Generator) -> Pair:
    if attack.spatial is not None:
        return attack.spatial(patch, strength, rng)
    return _changed(patch, lambda field: attack.spectral(field, strength, rng))


def _changed(patch: Pair, change: Callable[[np.ndarray], np.ndarray]) -> Pair:
    """Return a patch with another field (bands, pixels); what is outside may be anything, such as NaN, and stays."""
    data, mask = patch
    changed = np.array(data, dtype=np.float64)
    if not mask.all():
        changed[:, ~mask] = change(changed[:, ~mask])
    return changed, mask


def _test(
    attack: Attack,
    strength: float,
    target: str,
    loss: float,
    loss_draws: np.ndarray,
    error: float,
    error_draws: np.ndarray,
    without: float,
) -> Finding | None:
    evidence = (
        f"With {attack.name} of {strength:g} ({attack.unit}), the mean squared error of {target} grows from "
        f"{without:.2f} to {error:.2f} of its variance.{'' if without else NO_ERROR}"
    )
    found = candidate(
        "attacks",
        attack.name,
        target,
        f"{attack.name.capitalize()} misleads predictions of {target}",
        "loss",
        loss,
        loss_draws,
        _WORSE,
        evidence,
        f"Train with {attack.name} as augmentation, or on features that it does not change; monitor the instrument.",
        log=True,
    )
    low, _ = percentiles(error_draws)
    if found is not None and found.severity is not None and low > 1:
        return replace(found, severity="severe", evidence=evidence + " That is worse than predicting the mean.")
    if found is not None and found.severity == "moderate" and error - without < LITTLE:
        return replace(found, severity="minor")
    return found


def loss_over(errors: np.ndarray, without: np.ndarray, of_rows: np.ndarray) -> np.ndarray:
    """Return errors over those without an attack; where there are none, over half of the largest `of_rows`."""
    least = of_rows.max() / (2 * len(of_rows))
    with np.errstate(invalid="ignore"):  # not defined where an attack changes nothing either
        return np.divide(errors, np.where(without > 0, without, least))


def _worst_case(inputs: Inputs, clean: np.ndarray, useful: np.ndarray) -> tuple[pd.DataFrame, list[Finding | None]]:
    subject = inputs.subject
    half = np.random.default_rng(subject.seed).random(len(inputs.rows)) < 0.5
    if half.all() or not half.any():  # as happens with few rows
        half[: len(half) // 2] ^= True
    budget = np.array(list(DRIFT.values()))
    rng = np.random.default_rng((subject.seed, 1))
    trials: list[tuple[np.ndarray, np.ndarray]] = []

    def measure(drift: np.ndarray) -> np.ndarray:
        trials.append((drift, inputs.errors(inputs.drifted(drift))[0]))
        return trials[-1][1]

    # Corners first: for most models the worst drift is as large as allowed.
    signs = np.array(list(np.ndindex(*[2] * len(budget)))) * 2.0 - 1
    for drift in [*signs, *rng.uniform(-1, 1, size=(_CANDIDATES, len(budget)))]:
        measure(drift * budget)
    random = np.mean([errors for _, errors in trials[len(signs) :]], axis=0)
    records, tests = [], []
    for place, target in enumerate(subject.targets):
        best = max(range(len(trials)), key=lambda i: trials[i][1][half, place].mean())
        drift, errors = trials[best]
        for width in np.repeat((0.5, 0.25, 0.1), _CANDIDATES // 6):
            nearby = np.clip(drift + width * budget * rng.normal(size=len(budget)), -budget, budget)
            found = measure(nearby)
            if found[half, place].mean() > errors[half, place].mean():
                drift, errors = nearby, found
        columns = (
            np.stack([each[~half, place] for each in (errors, random, clean)], axis=1) / subject.Y[:, place].var()
        )
        means = columns.mean(axis=0)
        draws = resampled_means(columns, subject.num_resamples, subject.seed)
        losses = [float(loss_over(means[i], means[2], columns)) for i in (0, 1)]
        worst, usual = (loss_over(draws[:, i], draws[:, 2], columns) for i in (0, 1))
        records.append((target, "worst", losses[0], *percentiles(worst), *drift))
        records.append((target, "random", losses[1], *percentiles(usual), *[np.nan] * len(budget)))
        if useful[place]:
            size = ", ".join(f"{name} {value:+.3g}" for name, value in zip(DRIFT, drift, strict=True))
            size += f" {unit_of_bands(inputs.wavelengths)}"
            evidence = (
                f"With the drift {size}, found on other rows, the mean squared error of {target} is "
                f"{losses[0]:.2f} times as large; random drifts of that size make it {losses[1]:.2f} times as large "
                f"on average.{'' if means[2] else NO_ERROR}"
            )
            title = f"A small drift of the instrument misleads predictions of {target}"
            advice = "Calibrate against a reference panel before each flight, and train with drifts of this size."
            limits = WORST if means[0] - means[2] >= LITTLE else WORST[:1]
            arguments = ("attacks", "drift", target, title, "worst_case_loss", losses[0], worst, limits)
            tests.append(candidate(*arguments, evidence, advice, log=True))
    return pd.DataFrame(records, columns=WORST_COLUMNS), tests
