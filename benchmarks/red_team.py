"""Which planted blind spots a red team reports, and what it reports of sound models, over seeds.

    python benchmarks/red_team.py --seeds 10 --model ridge pls forest
    python benchmarks/red_team.py --seeds 10 --model forest --spots range outliers --target pH
    python benchmarks/red_team.py --seeds 10 --model ridge pls --surfaces measured
    python benchmarks/red_team.py --seeds 2 --model hybrid --audits performance bands

Prints one row per blind spot and model: R2 (of the target that is planted), how often it was reported (with Wilson's
interval), of what severity, how often a severe finding was reported that was not planted, and how often the simplest
alternative reported it: to slice the errors, and look at each tenth of a target and each group whose error is three
times that of the others.

Models learn from mean spectra, but the hybrid of the challenge's winners from its 2,400 features: a forest of 50 trees
for larger fields, and neighbors for those of 11x11 pixels, with two crops of each larger field among them. One of its
fits takes 8 s of processor; an audit of performance needs 5 of them, and one of shortcuts 32.

Surfaces are the shapes of `soil_optics`, or spectra that were measured: soils and plants of the package earthlib
(pip install earthlib), on which targets, sensor and blind spots are laid as before.
"""

import argparse
import time
from collections import Counter

import numpy as np
from tqdm.auto import tqdm

from hf_msae.hyperspectral import BLIND_SPOTS, TARGETS, load_earth_library, make_patches, red_team
from hf_msae.hyperspectral.from_patches import inputs_of_patches
from hf_msae.hyperspectral.models import MODELS, make_model
from hf_msae.statistics import wilson_interval

EXPECTED = {
    "range": ("tail_response", "outlier_response"),  # not range_ratio: any weak model's predictions are narrow
    "outliers": ("tail_response", "outlier_response"),
    "drift": ("share_of_remainder",),
    "leak": ("share_of_remainder",),
    "farm": ("shortcut_index",),
}
"""Metrics of findings that report a blind spot; the target, or the band, must be the planted one."""
SLICED = {"range": "decile", "outliers": "decile", "drift": "date", "farm": "farm"}
"""The slices whose errors may show a blind spot; a leak makes no error."""
LARGE = 3.0
TREES = 50
"""Of the hybrid's forest."""


def is_about(finding, spot, truth):
    """Say whether a finding, or one that was joined with it, is of the right kind and names the target or band."""
    if finding.metric not in EXPECTED[spot] or (spot == "farm" and finding.kind != "farm"):
        return False
    joined = finding.evidence.partition(" Of the same kind: ")[2].split("; ")
    titles = [finding.title, *joined]
    if "bands" in truth[spot]:
        return any(f"and {truth[spot]['bands'][0]} (" in title for title in titles)
    return any(truth[spot]["target"] in title.split(":")[0].split() for title in titles)


def sliced(report, spot, truth):
    """Say whether a slice of the target has a large error; where nothing is planted, whether any slice has."""
    table = report.tables["slices"]
    large = table[table["error_ratio"] >= LARGE]
    if spot == "none":
        return bool(len(large))
    return bool(((large["target"] == truth[spot]["target"]) & (large["grouping"] == SLICED.get(spot))).any())


def arguments_of(model, patches):
    """Return the arguments of `red_team` that patches make: the same for all models of mean spectra."""
    made = inputs_of_patches(model, patches)
    return {name: made[name] for name in ("model", "X", "y", "groups", "features", "patches", "transformer")}


def inputs_of(name, seed, patches, spectra):
    """Return the arguments for a model: mean spectra, but the features of a hybrid if it is one."""
    model = make_model(name, seed)
    if name == "hybrid":
        return arguments_of(model.set_params(n_estimators=TREES), patches)
    return spectra | {"model": model}


def surfaces(name):
    """Reflectance of measured soils and plants, by the argument of `make_patches` that takes it."""
    if name == "shapes":
        return {}
    library = load_earth_library()
    kinds = {"soils": "soil", "plants": "canopy"}
    return {key: library.mean_spectra[library.groups["material"] == kind] / 1e4 for key, kind in kinds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--model", nargs="+", default=["ridge"], choices=list(MODELS))
    parser.add_argument("--fields", type=int, default=300)
    parser.add_argument("--small_share", type=float, default=0.375, help="share of fields of 11x11 pixels")
    parser.add_argument("--target", choices=list(TARGETS), help="what is planted concerns, instead of K, P, Mg or pH")
    parser.add_argument("--surfaces", default="shapes", choices=["shapes", "measured"])
    parser.add_argument("--spots", nargs="+", default=["none", *BLIND_SPOTS], choices=["none", *BLIND_SPOTS])
    parser.add_argument("--audits", nargs="+", default=["shortcuts", "performance", "bands"])
    args = parser.parse_args()
    started, given = time.time(), surfaces(args.surfaces)
    head = [
        "planted",
        "model",
        "R2",
        "reported (95%)",
        "as",
        "severe findings besides",
        "others a run",
        "sliced errors",
    ]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for spot in args.spots:
        runs = {model: [] for model in args.model}
        for seed in tqdm(range(args.seeds), desc=spot):
            planted = {} if spot == "none" else {spot: args.target or BLIND_SPOTS[spot]}
            patches = make_patches(
                args.fields, seed, blind_spots=planted, edges=(14, 20), small_share=args.small_share, **given
            )
            truth = patches.truth["blind_spots"]
            spectra = arguments_of(make_model("ridge"), patches)
            for name, each in runs.items():
                inputs = inputs_of(name, seed, patches, spectra)
                each.append((red_team(**inputs, audits=args.audits, seed=seed, progress=False), truth))
        for name, each in runs.items():
            print(f"| {' | '.join([spot, name, *row(spot, each)])} |", flush=True)
    audits = ", ".join(args.audits)
    what = f"{args.seeds} seeds, {args.fields} fields, surfaces {args.surfaces}, audits {audits}"
    print(f"\n{what}; {time.time() - started:.0f} s by the clock, {time.process_time():.0f} s of processor")


def row(spot, runs):
    """Count what the reports of a model say of a blind spot: the columns of the table."""
    reported, simple, severities, false, others, scores = 0, 0, Counter(), Counter(), 0, []
    for report, truth in runs:
        hits = [each for each in report.findings if spot != "none" and is_about(each, spot, truth)]
        reported += bool(hits)
        severities.update([hits[0].severity] if hits else [])
        rest = [each for each in report.findings if each not in hits]
        others += len(rest)
        false.update(each.title for each in rest if each.severity == "severe")
        simple += sliced(report, spot, truth)
        table = report.tables["performance"].set_index(["target", "metric"])["value"]
        (target,) = {each["target"] for each in truth.values()} or {"all"}
        scores.append(table[target, "r2"])
    number = len(runs)
    low, high = wilson_interval(reported, number)
    count = "-" if spot == "none" else f"{reported} of {number} ({low:.0%} to {high:.0%})"
    how = ", ".join(f"{severity} {times}" for severity, times in severities.most_common()) or "-"
    also = "; ".join(f"{title} ({times})" for title, times in false.most_common()) or "0"
    return f"{np.mean(scores):.2f}", count, how, also, f"{others / number:.1f}", f"{simple} of {number}"


if __name__ == "__main__":
    main()
