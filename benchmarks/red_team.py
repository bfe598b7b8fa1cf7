"""Which planted blind spots a red team reports, and what it reports of sound models, over seeds.

    python benchmarks/red_team.py --seeds 10 --model ridge

Prints one row per blind spot: how often it was reported, of what severity, and how often a severe finding was reported
that was not planted.
"""

import argparse
import time
from collections import Counter

from tqdm.auto import tqdm

from hf_msae.hyperspectral import BLIND_SPOTS, make_patches, red_team
from hf_msae.hyperspectral.models import MODELS, make_model

EXPECTED = {
    "range": ("tail_response", "outlier_response", "range_ratio", "calibration_slope"),
    "outliers": ("tail_response", "outlier_response"),
    "drift": ("share_of_remainder",),
    "leak": ("share_of_remainder",),
    "farm": ("shortcut_index",),
}
"""Metrics of findings that report a blind spot; the target, or the band, must be the planted one."""


def is_about(finding, spot, truth):
    if finding.metric not in EXPECTED[spot]:
        return False
    if "bands" in truth[spot]:
        return f"and {truth[spot]['bands'][0]} (" in finding.title
    return truth[spot]["target"] in finding.title.split() or f"{truth[spot]['target']} by farm" in finding.evidence


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--model", default="ridge", choices=list(MODELS))
    parser.add_argument("--fields", type=int, default=300)
    parser.add_argument("--small_share", type=float, default=0.375, help="share of fields of 11x11 pixels")
    parser.add_argument("--spots", nargs="+", default=["none", *BLIND_SPOTS], choices=["none", *BLIND_SPOTS])
    parser.add_argument("--audits", nargs="+", default=["shortcuts", "performance", "bands"])
    args = parser.parse_args()
    started = time.time()
    print("| planted | reported | as | other severe findings | other findings a run |\n|---|---|---|---|---|")
    for spot in args.spots:
        reported, severities, false, others = 0, Counter(), [], 0
        for seed in tqdm(range(args.seeds), desc=spot):
            planted = [] if spot == "none" else [spot]
            patches = make_patches(
                args.fields, seed, blind_spots=planted, edges=(14, 20), small_share=args.small_share
            )
            model = make_model(args.model, seed)
            report = red_team(model, patches, audits=args.audits, seed=seed, progress=False)
            planted = patches.truth["blind_spots"]
            hits = [each for each in report.findings if spot != "none" and is_about(each, spot, planted)]
            reported += bool(hits)
            severities.update([hits[0].severity] if hits else [])
            rest = [each for each in report.findings if each not in hits]
            others += len(rest)
            false += [each.title for each in rest if each.severity == "severe"]
        how = ", ".join(f"{severity} {number}" for severity, number in severities.most_common()) or "-"
        count = "-" if spot == "none" else f"{reported} of {args.seeds}"
        also = "; ".join(f"{title} ({number})" for title, number in Counter(false).most_common()) or "0"
        print(f"| {spot} | {count} | {how} | {also} | {others / args.seeds:.1f} |", flush=True)
    audits = ", ".join(args.audits)
    print(f"\n{args.seeds} seeds, {args.fields} fields, {args.model}, audits {audits}; {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
