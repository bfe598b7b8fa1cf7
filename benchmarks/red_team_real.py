"""Shortcuts in real spectra: what a red team says of farms and sources, and of groups that mean nothing.

    pip install "hf_msae[soil]" earthlib
    python benchmarks/red_team_real.py soils --seeds 5
    python benchmarks/red_team_real.py library --seeds 5
    python benchmarks/red_team_real.py fields --seeds 5

soils: pH and clay of 600 of the 1,229 samples of eight farms (LimeSoDa), by farm; library: bare soil against all else
in 1,000 spectra of earthlib, by source; fields: generated fields, where the farm is in the spectrum and nothing rests
on it. The control is the same labels in another order. Seeds are of folds, models and samples.

Counted is how often predictions are found to rest on the group, beside three simpler ways to ask: the score in random
folds, which is what is usually reported (R2, or AUROC); the share of rows whose group a linear classifier decodes; and
grouped cross-validation, whose score is the second column.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np
import pandas as pd
from scipy.stats import t as t_distribution
from sklearn.ensemble import RandomForestClassifier
from tqdm.auto import tqdm

from hf_msae.hyperspectral import load_earth_library, load_soil_spectra, make_patches, red_team
from hf_msae.hyperspectral.models import CLASSIFIERS, make_model

SOILS = 600
"""Samples that are drawn for a seed."""


def soils(seed: int) -> tuple[np.ndarray, pd.DataFrame, str, np.ndarray]:
    found = load_soil_spectra()
    found = found[np.sort(np.random.default_rng(seed).permutation(len(found))[:SOILS])]
    return found.mean_spectra / 1e4, found.targets, "farm", found.groups["farm"]


def library(seed: int) -> tuple[np.ndarray, pd.Series, str, np.ndarray]:
    found = load_earth_library()
    found = found[np.sort(np.random.default_rng(seed).permutation(len(found))[:1000])]
    cover = np.where(found.groups["cover"] == "bare", "bare", "covered")
    return found.mean_spectra / 1e4, pd.Series(cover, name="cover"), "source", found.groups["source"]


def fields(seed: int) -> tuple[np.ndarray, pd.DataFrame, str, np.ndarray]:
    found = make_patches(300, seed, edges=(14, 20))
    return found.mean_spectra / 1e4, found.targets, "farm", found.groups["farm"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["soils", "library", "fields"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="+", help="by default ridge, pls and forest, or logistic and forest")
    args = parser.parse_args()
    classify = args.data == "library"
    models = args.models or (["logistic", "forest"] if classify else ["ridge", "pls", "forest"])
    started, records = time.time(), []
    for seed in tqdm(range(args.seeds)):
        X, y, grouping, labels = globals()[args.data](seed)
        shuffled = np.random.default_rng(seed).permutation(labels)
        for name in models:
            if classify:
                model = RandomForestClassifier(100, random_state=seed) if name == "forest" else CLASSIFIERS[name](seed)
            else:
                model = make_model(name, seed)
            for control, groups in ((False, labels), (True, shuffled)):
                report = red_team(model, X, y, {grouping: groups}, audits=["shortcuts"], seed=seed, progress=False)
                severity = next((each.severity for each in report.findings if each.audit == "shortcuts"), None)
                for row in report.tables["shortcuts"].itertuples():
                    if row.target != "all":
                        found = (row.random, row.left_out, row.shortcut_index, row.decoded, row.chance)
                        records.append(
                            (name, "in another order" if control else grouping, row.target, *found, severity)
                        )
    columns = ["model", "groups", "target", "random folds", "left out", "shortcut index", "decoded", "most frequent"]
    table = pd.DataFrame(records, columns=[*columns, "severity"])
    print("| " + " | ".join([*columns, "found (any target)"]) + " |\n|" + "---|" * 9)
    for keys, some in table.groupby(columns[:3], sort=False):
        counts = Counter(some["severity"].fillna("nothing"))
        how = ", ".join(f"{name} {number}" for name, number in counts.most_common())
        print(f"| {' | '.join([*keys, *(written(some[each]) for each in columns[3:]), how])} |")
    print(
        f"\n{args.seeds} seeds, {len(X)} rows; {time.time() - started:.0f} s, {time.process_time():.0f} s of processor"
    )


def written(values: pd.Series) -> str:
    """Return mean and 95% t-interval over seeds."""
    half = t_distribution.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values)) if len(values) > 1 else 0
    return f"{values.mean():.2f} ({values.mean() - half:.2f} to {values.mean() + half:.2f})"


if __name__ == "__main__":
    main()
