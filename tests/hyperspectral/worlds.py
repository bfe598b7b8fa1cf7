"""Small spectra with known causes and planted faults, for tests of red teaming."""

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hf_msae.hyperspectral import red_team

BANDS = 40
WAVELENGTHS = np.linspace(462, 942, BANDS)
CAUSES = {"K": 560, "pH": 850}
"""Wavelengths in nm whose absorption depends on the target."""


def spectra(fault=None, seed=0, n=200):
    """X (n, 40), y (DataFrame), groups and the feature table; `fault` is planted."""
    rng = np.random.default_rng(seed)
    farm = rng.integers(0, 5, n)
    Y = rng.normal(size=(n, 2))
    seen = Y.copy()
    if fault == "flat ends":
        seen[:, 0] = np.clip(seen[:, 0], -0.4, 0.4)
    elif fault == "unseen outliers":
        Y[: n // 15, 0] = 2.6 * rng.choice((-1, 1), n // 15)
    X = (0.1 + 0.3 * (WAVELENGTHS - 462) / 480) * (1 + 0.1 * rng.normal(size=(n, 1)))
    for target, center in enumerate(CAUSES.values()):
        X = X - 0.01 * (seen[:, [target]] + 0.5 * rng.normal(size=(n, 1))) * absorption(center, 35)
    X = X + 0.001 * rng.normal(size=X.shape)
    if fault == "farm":  # tells K, and is seen in the spectrum
        Y[:, 0] += 2 * np.array([-2.0, -1, 0, 1, 2])[farm]
        X = X + sum(
            0.02 * rng.normal(size=5)[farm][:, None] * absorption(center, 25) for center in (500, 640, 720, 780)
        )
    elif fault == "leaking band":
        X[:, 20] += 0.01 * Y[:, 0]
    elif fault == "drifting band":
        X[:, 20] += 0.005 * farm
    elif fault == "unusual rows":
        odd = np.arange(n) < n // 20
        X[odd] += 0.3
        Y[odd] = 2.5 * rng.permutation(Y[odd])
    elif fault == "noise":
        Y = rng.normal(size=(n, 2))
    table = pd.DataFrame({"feature": [f"{w:.0f} nm" for w in WAVELENGTHS], "transformation": "reflectance"})
    table = table.assign(band=range(BANDS), wavelength=WAVELENGTHS, level=np.nan)
    return X, pd.DataFrame(Y, columns=list(CAUSES)), {"farm": np.array(list("abcde"))[farm]}, table


def absorption(center, width):
    """A Gaussian over the wavelengths."""
    return np.exp(-0.5 * ((WAVELENGTHS - center) / width) ** 2)


QUICK = {"num_folds": 4, "num_bootstrap": 100, "num_seeds": 2, "num_attacked": 4, "progress": False}
MODEL = make_pipeline(StandardScaler(), Ridge(1.0))


def audited(fault, *audits, seed=0, model=MODEL, n=200):
    X, y, groups, table = spectra(fault, seed, n)
    return red_team(model, X, y, groups, features=table, audits=audits, seed=seed, **QUICK)


def of_kind(report, metric):
    return [finding for finding in report.findings if finding.metric == metric]
