"""What red teaming says where the truth is known: causal bands, small models, findings on sound data, attacks.

    python benchmarks/red_team_truth.py bands --seeds 10
    python benchmarks/red_team_truth.py pruning --seeds 10
    python benchmarks/red_team_truth.py alarms --seeds 10 --model forest pls
    python benchmarks/red_team_truth.py attacks --seeds 5
    python benchmarks/red_team_truth.py claims --seeds 10

Fields have 11x11 pixels and nothing is planted, so each target is in its own absorption band and nowhere else.

bands: the 13 to 17 of 150 bands that are causal for a target, by average precision of a ranking of bands, by precision
of the first m (m is their number, so it is also the recall), and by precision and recall of the bands that carry half
of the importance. Models of the 2,400 features are single-target; rankings use 60 held-out fields.

pruning: the error of a model refitted to its strongest columns over that of the whole, ranked inside of three folds.

alarms: findings on these fields, and whether the same test finds the same on other fields of the same world (p < 0.05,
uncorrected); one that does not may be a false alarm.

attacks: the loss at the strength that a model has to survive, through patches and features, and how the attributions
change. Here five eighths of the fields have up to 20 pixels.

claims: what of the paper's findings holds: the share of the attribution that 1% of the columns carry, the range of the
predictions, errors on outliers; and how stable attributions are over bootstrap samples, and how additive.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import t as t_distribution
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from hf_msae.hyperspectral import EagleEyesFeatures, MeanSpectrum, make_patches
from hf_msae.hyperspectral.audits.attacks import attacks
from hf_msae.hyperspectral.audits.explainers import explain
from hf_msae.hyperspectral.audits.pruning import pruning
from hf_msae.hyperspectral.from_patches import inputs_of_patches
from hf_msae.hyperspectral.models import MODELS, make_model
from hf_msae.hyperspectral.run import AUDITS
from hf_msae.hyperspectral.subject import Subject, make_subject, splits
from hf_msae.statistics import Finding, confirmed

REPEATS = 5
"""Permutations of a band."""


def forest(seed: int) -> TransformedTargetRegressor:
    """A forest of 50 trees on standardized targets."""
    trees = RandomForestRegressor(50, min_samples_leaf=2, max_features=0.3, random_state=seed)
    return TransformedTargetRegressor(trees, transformer=StandardScaler())


def models_of_features(seed: int) -> Iterator[tuple[str, TransformerMixin, BaseEstimator]]:
    """Yield the name of a model, the features that it is given, and the model."""
    yield "forest, 2,400 features", EagleEyesFeatures(), forest(seed)
    yield "ridge, 2,400 features", EagleEyesFeatures(), make_model("ridge")
    yield "ridge, mean spectrum", MeanSpectrum(), make_model("ridge")
    yield "least squares, mean spectrum", MeanSpectrum(), make_model("pls")


def subject_of(model, patches, transformer, seed, targets=None, folds=5) -> Subject:
    y = patches.targets if targets is None else patches.targets[targets]
    return make_subject(**inputs_of_patches(model, patches, y, transformer=transformer), num_folds=folds, seed=seed)


def bands(fields: int, seeds: int) -> pd.DataFrame:
    rows = []
    for seed in tqdm(range(seeds)):
        patches = make_patches(fields, seed, small_share=1)
        for name, features, model in list(models_of_features(seed))[:3]:
            whole = subject_of(model, patches, features, seed)
            for target in patches.targets:
                subject = make_subject(model, whole.X, patches.targets[target], features=whole.features, seed=seed)
                causal = np.isin(np.arange(150), patches.truth["bands"][target])
                for ranking, importance in importances(subject):
                    rows.append((name, ranking, seed, *scores(causal, importance)))
    columns = ["model", "ranking", "seed", "average precision", "precision of the first m", "precision", "recall"]
    return over_seeds(pd.DataFrame(rows, columns=columns), ["model", "ranking"])


def importances(subject: Subject) -> Iterator[tuple[str, np.ndarray]]:
    """Yield rankings of bands with the importance of each."""
    train, test = splits(subject.folds)[0]
    fitted = subject.fit(train)
    band = subject.features["band"].to_numpy()
    known = np.flatnonzero(~np.isnan(band))
    membership = np.zeros((len(band), 150))
    membership[known, band[known].astype(int)] = 1
    phi = explain(subject, fitted, test, train[:100]).values[:, :, 0]
    yield "SHAP, signed values of a band summed", np.abs(phi @ membership).mean(axis=0)
    if len(band) > 150:
        yield "SHAP, absolute values summed", (np.abs(phi) @ membership).mean(axis=0)
    model = getattr(fitted.model, "regressor_", None)
    if model is not None:
        yield "impurity", model.feature_importances_ @ membership
    yield "permutation of a band", permuted(subject, fitted, test, membership > 0)
    means = np.flatnonzero(subject.features["transformation"] == "mean")
    r = np.corrcoef(subject.X[train][:, means].T, subject.Y[train, 0])[-1, :-1]
    yield "correlation of band and target", np.abs(r)


def permuted(subject, fitted, test, membership) -> np.ndarray:
    rng = np.random.default_rng(subject.seed)
    X, y, found = subject.X[test], subject.Y[test, 0], np.zeros(membership.shape[1])
    for band, columns in enumerate(membership.T):
        copies = np.repeat(X[None], REPEATS, axis=0)
        copies[:, :, columns] = [X[rng.permutation(len(X))][:, columns] for _ in range(REPEATS)]
        found[band] = ((fitted(copies.reshape(-1, X.shape[1]))[:, 0] - np.tile(y, REPEATS)) ** 2).mean()
    return np.maximum(0, found - ((fitted(X)[:, 0] - y) ** 2).mean())


def scores(causal: np.ndarray, importance: np.ndarray) -> tuple[float, float, float, float]:
    order = np.argsort(-importance, kind="stable")
    half = order[: int(np.searchsorted(np.cumsum(importance[order]) / importance.sum(), 0.5)) + 1]
    hits = causal[half].sum()
    first = causal[order[: causal.sum()]].mean()
    return average_precision_score(causal, importance), first, hits / len(half), hits / causal.sum()


def prune(fields: int, seeds: int) -> pd.DataFrame:
    curves, smallest = [], []
    for seed in tqdm(range(seeds)):
        patches = make_patches(fields, seed, small_share=1)
        for name, model in (("forest", forest(seed)), ("ridge", make_model("ridge"))):
            started = time.process_time()
            outcome = pruning(subject_of(model, patches, EagleEyesFeatures(), seed, folds=3))
            curves.append(outcome.tables["pruning"].assign(model=name, seed=seed))
            smallest.append(outcome.tables["smallest"].assign(model=name, seed=seed))
            tqdm.write(f"{name}, seed {seed}: {time.process_time() - started:.0f} s of processor")
    number = pd.concat(smallest)
    found = number.groupby(["model", "ranking"], sort=False)["features"]
    print(markdown(found.agg(["median", "min", "max"]).reset_index()))
    table = pd.concat(curves)
    table = table[table["features"].isin([1, 5, 24, 120, 600])]
    long = table.pivot_table(index=["model", "ranking", "seed"], columns="features", values="loss", sort=False)
    within = (long[24] <= 1.05).groupby(level=["model", "ranking"], sort=False).sum()
    return over_seeds(long.reset_index(), ["model", "ranking"]).assign(within=within.to_numpy())


def alarms(fields: int, seeds: int, models: list[str], audits: list[str]) -> pd.DataFrame:
    rows = []
    for name in models:
        number, repeated, titles = Counter(), Counter(), Counter()
        for seed in tqdm(range(seeds), desc=name):
            both = make_patches(2 * fields, seed, small_share=1)
            first, second = (
                candidates(subject_of(make_model(name, seed), part, MeanSpectrum(), seed), audits)
                for part in (both[:fields], both[fields:])
            )
            again = {(each.audit, each.kind, each.subject): each.p_value < 0.05 for each in second}
            for finding in confirmed(first, 0.05):
                number[finding.severity] += 1
                repeated[finding.severity] += again.get((finding.audit, finding.kind, finding.subject), False)
                titles[f"{finding.audit}: {finding.metric}"] += 1
        for severity in ("severe", "moderate", "minor"):
            if number[severity]:
                rows.append((name, severity, number[severity], repeated[severity]))
        if not number:
            rows.append((name, "none", 0, 0))
        tqdm.write(f"{name}: {dict(titles)}")
    return pd.DataFrame(rows, columns=["model", "severity", "findings", "found again"])


def candidates(subject: Subject, audits: list[str]) -> list[Finding]:
    return [each for audit in audits for each in AUDITS[audit](subject).candidates]


def attack(fields: int, seeds: int) -> pd.DataFrame:
    rows, shifts = [], []
    for seed in tqdm(range(seeds)):
        patches = make_patches(fields, seed, edges=(14, 20))
        for name, model in (("forest", forest(seed)), ("ridge", make_model("ridge"))):
            subject = subject_of(model, patches, EagleEyesFeatures(), seed)
            subject.predictions  # noqa: B018 (fits the models, which is not part of an attack)
            started = time.process_time()
            outcome = attacks(subject)
            tqdm.write(f"{name}, seed {seed}: {time.process_time() - started:.0f} s of processor for the attacks")
            table = outcome.tables["attacks"]
            mean = table[table["allowed"]].groupby("attack", sort=False)["loss"].mean()
            worst = outcome.tables["worst_case"].groupby("search", sort=False)["loss"].mean()
            rows.append({"model": name, "seed": seed, **mean, "worst drift": worst["worst"]})
            moved = outcome.tables["attribution_shift"].groupby("attack", sort=False)["rank_correlation"].mean()
            shifts.append({"model": name, "seed": seed, **moved})
    print(markdown(over_seeds(pd.DataFrame(shifts), ["model"])))
    return over_seeds(pd.DataFrame(rows), ["model"])


def claims(fields: int, seeds: int) -> pd.DataFrame:
    rows = []
    for seed in tqdm(range(seeds)):
        patches = make_patches(fields, seed, small_share=1)
        for name, features, model in models_of_features(seed):
            subject = subject_of(model, patches, features, seed)
            subject.limits["num_seeds"] = 2
            found = {k: v for audit in ("performance", "attributions", "stability") for k, v in run(audit, subject)}
            few = max(1, round(0.01 * subject.X.shape[1]))
            strongest = found["attributions"].groupby("target")["share"].nlargest(few).groupby("target").sum()
            figures = found["performance"].groupby("metric")["value"].mean()
            stable = found["stability"].groupby("metric")["value"].mean()
            rows.append(
                {
                    "model": name,
                    "seed": seed,
                    "share of 1% of columns": strongest.mean(),
                    **figures[["r2", "range_ratio", "calibration_slope", "outlier_error_ratio", "outlier_response"]],
                    **stable[["rank_correlation", "top_overlap"]],
                }
            )
            gaps = found["additivity"].iloc[0]
            tqdm.write(
                f"{name}, seed {seed}: gaps {gaps['largest_gap']:.1g} at most, {gaps['median_gap']:.1g} usually"
            )
    return over_seeds(pd.DataFrame(rows), ["model"])


def run(audit: str, subject: Subject):
    return AUDITS[audit](subject).tables.items()


def over_seeds(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return mean and 95% t-interval over seeds (each the mean over its rows) as text."""
    values = [column for column in table if column not in (*by, "seed")]
    means = table.groupby([*by, "seed"], sort=False)[values].mean()

    def written(column: pd.Series) -> str:
        if len(column) == 1:
            return f"{column.iloc[0]:.2f}"
        half = t_distribution.ppf(0.975, len(column) - 1) * column.std() / np.sqrt(len(column))
        return f"{column.mean():.2f} ({column.mean() - half:.2f} to {column.mean() + half:.2f})"

    return means.groupby(level=by, sort=False).agg(written).reset_index()


def markdown(frame: pd.DataFrame) -> str:
    rows = [list(map(str, frame.columns)), ["---"] * frame.shape[1], *frame.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["bands", "pruning", "alarms", "attacks", "claims"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--fields", type=int, default=300)
    parser.add_argument("--model", nargs="+", default=["ridge", "pls", "forest"], choices=list(MODELS))
    parser.add_argument("--audits", nargs="+", default=["shortcuts", "performance", "bands"], choices=list(AUDITS))
    args = parser.parse_args()
    started, processor = time.time(), time.process_time()
    if args.what == "bands":
        table = bands(args.fields, args.seeds)
    elif args.what == "pruning":
        table = prune(args.fields, args.seeds)
    elif args.what == "alarms":
        table = alarms(args.fields, args.seeds, args.model, args.audits)
    elif args.what == "claims":
        table = claims(args.fields, args.seeds)
    else:
        table = attack(args.fields, args.seeds)
    print(markdown(table))
    print(f"\n{args.seeds} seeds, {args.fields} fields; {time.time() - started:.0f} s by the clock, ", end="")
    print(f"{time.process_time() - processor:.0f} s of processor")


if __name__ == "__main__":
    main()
