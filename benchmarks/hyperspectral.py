"""How fast are the features of hyperspectral patches, and what do models predict from synthetic fields and real soils?

    python benchmarks/hyperspectral.py --speed
    python benchmarks/hyperspectral.py --scores --seeds 0 1 2
    python benchmarks/hyperspectral.py --soils

Speed: `EagleEyesFeatures` on 1,732 patches of 60x60 pixels and 150 bands, as many as the challenge has for training,
in two threads. Beside it the same operations without checks, tables or reading: once as they are here (eigenvalues),
and once as in the published code (singular value decompositions of the images), on a tenth of the patches.

Scores: the challenge's score (1 is predicting the mean) of the winners' hybrid (100 trees, two crops of each larger
field) and of partial least squares of log mean spectra, five folds of synthetic fields; nothing is planted.

Soils: R2 of partial least squares in ten random folds and with a farm left out, and how well the farm is decoded.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pywt
from sklearn.cross_decomposition import PLSRegression
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import KFold, LeaveOneGroupOut, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from hf_msae.hyperspectral import (
    HYPERVIEW_WAVELENGTHS,
    EagleEyesFeatures,
    HybridRegressor,
    MeanSpectrum,
    load_soil_spectra,
    make_patches,
    predict_out_of_fold,
    score_by_size,
)


class Repeated:
    """Hands out the same few patches over and over: what is timed is not making them."""

    def __init__(self, pairs: list, times: int):
        self.pairs, self.times = pairs, times

    def __len__(self) -> int:
        return len(self.pairs) * self.times

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[index % len(self.pairs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true", help="Time the features.")
    parser.add_argument("--scores", action="store_true", help="Score models on synthetic fields.")
    parser.add_argument("--soils", action="store_true", help="Predict pH and clay of real soils.")
    parser.add_argument("--patches", type=int, default=1732, help="Patches to time.")
    parser.add_argument("--fields", type=int, default=400, help="Synthetic fields to score.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Random seeds of synthetic fields.")
    arguments = parser.parse_args()
    if arguments.speed:
        print(_table(speed(arguments.patches)))
    if arguments.scores:
        print(_table(scores(arguments.fields, arguments.seeds)), flush=True)
    if arguments.soils:
        print(_table(soils()))


def speed(patches: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    mask = np.hypot(*np.mgrid[-1:1:60j, -1:1:60j]) > 1
    distinct = [(rng.integers(300, 2000, (150, 60, 60)).astype(np.int16), mask) for _ in range(4)]
    X = Repeated(distinct, -(-patches // 4))
    features = EagleEyesFeatures(HYPERVIEW_WAVELENGTHS, n_jobs=2).fit(X)
    rows = []
    for name, compute, number in [
        ("EagleEyesFeatures", lambda number: features.transform(Repeated(distinct, number // 4)), len(X)),
        ("bare operations, eigenvalues", lambda number: _bare(_eigenvalues, distinct, number), len(X)),
        ("bare operations, published", lambda number: _bare(_published, distinct, number), len(X) // 10),
    ]:
        wall, processor = time.perf_counter(), time.process_time()
        compute(number)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        rows.append(
            {
                "what": name,
                "patches": number,
                "ms of processor a patch": 1000 * processor / number,
                "s for 1,732, two cores free": 1732 * processor / number / 2,
                "s as run, for 1,732": 1732 * wall / number,
            }
        )
    table = pd.DataFrame(rows)
    table["ratio"] = table["ms of processor a patch"] / table["ms of processor a patch"].iloc[1]
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    return table


def _bare(singular: Callable, pairs: list, number: int) -> None:
    def one(index: int) -> None:
        data, mask = pairs[index % len(pairs)]
        mean = data[:, ~mask].mean(axis=1) / 2210
        values = singular(data * ~mask / 2210)
        derivative = mean
        for _ in range(3):
            derivative = np.gradient(derivative)
        np.fft.fft(mean), np.fft.fft(values[:, 0])
        for wavelet in ("sym3", "dmey"):
            signal = mean
            for _ in range(4):
                signal = pywt.dwt(signal, wavelet, mode="constant")[0]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(number)))


def _eigenvalues(image: np.ndarray) -> np.ndarray:
    return np.sqrt(np.linalg.eigvalsh(image @ image.transpose(0, 2, 1))[:, :-6:-1].clip(0))


def _published(image: np.ndarray) -> np.ndarray:
    return np.linalg.svd(image, full_matrices=False, compute_uv=False)[:, :5]


def scores(fields: int, seeds: list[int]) -> pd.DataFrame:
    rows = []
    for seed in seeds:
        patches = make_patches(fields, seed=seed)
        models = {
            "hybrid": HybridRegressor(n_estimators=100, crops=2, random_state=0, n_jobs=2),
            "least squares": make_pipeline(MeanSpectrum(), FunctionTransformer(np.log), PLSRegression(15)),
        }
        for name, model in models.items():
            predictions, baseline = predict_out_of_fold(model, patches)
            table = score_by_size(patches.targets, predictions, baseline, patches.edges).set_index("edge")
            whole = table.loc["all", ["P", "K", "Mg", "pH", "score"]].astype(float)
            rows.append({"model": name, "seed": seed, **whole, "11x11": table.loc["0-11", "score"]})
    table = pd.DataFrame(rows).drop(columns="seed").groupby("model", sort=False)
    return pd.concat([table.mean(), table.std().add_suffix(" sd")], axis=1).reset_index()


def soils() -> pd.DataFrame:
    soils = load_soil_spectra()
    X, farms = MeanSpectrum().fit_transform(soils), soils.groups["farm"]
    folds = KFold(10, shuffle=True, random_state=0)
    rows = []
    for target in soils.targets:
        y = soils.targets[target].to_numpy()
        total = ((y - y.mean()) ** 2).sum()
        for components in (10, 15, 20):
            model = PLSRegression(components)
            pooled = cross_val_predict(model, X, y, cv=folds).ravel()
            left_out = cross_val_predict(model, X, y, cv=LeaveOneGroupOut(), groups=farms).ravel()
            means = soils.targets[target].groupby(farms).transform("mean").to_numpy()
            rows.append(
                {
                    "target": target,
                    "components": components,
                    "R2, random folds": 1 - ((y - pooled) ** 2).sum() / total,
                    "R2, farm left out": 1 - ((y - left_out) ** 2).sum() / total,
                    "R2 of the farm's mean": 1 - ((y - means) ** 2).sum() / total,
                }
            )
    decoded = cross_val_score(
        LinearDiscriminantAnalysis(), X, farms, cv=StratifiedKFold(10, shuffle=True, random_state=0)
    )
    print(f"the farm is decoded from the spectrum at {decoded.mean():.3f}")
    return pd.DataFrame(rows)


def _table(frame: pd.DataFrame) -> str:
    rows = [list(map(str, frame.columns)), ["---"] * frame.shape[1]]
    rows += [[f"{value:.2f}" if isinstance(value, float) else str(value) for value in row] for row in frame.to_numpy()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
