"""Sparsity against fidelity for every family of sparse autoencoders, at equal budgets and over several seeds.

    python benchmarks/pareto.py                                             # on the embeddings of the quickstart
    python benchmarks/pareto.py --quick --output_dir outputs/pareto-quick   # one seed, under ten minutes
    python benchmarks/pareto.py --world outputs/clipart-42                  # counts true names, too
    python benchmarks/pareto.py --train_data my/train --eval_data my/test --label_columns species --steps 2000

All models of a seed see the same batches in the same order (they are trained as one sweep), with the same optimizer,
number of steps and width. The learning rate matters more than the family, so each family gets its own: one model per
family, at its middle setting, is first trained with several learning rates on nine tenths of the training data, and
the one with the lowest training loss on the remaining tenth is used. Every family is measured at its own levels. An
MSAE gives a whole curve, because its code can be cut to the largest k activations for every k, and so does a model of
prefixes, cut to the first latents of its dictionary; each model of the other families gives one point.

With --world, the latents of every model are named from pictures, as in benchmarks/naming.py, at each granularity: a
validated name is true if the latent detects what it means in other pictures, with an AUROC above 0.9. They
are compared with those of dictionaries that were not trained: random directions, and random training embeddings.

Writes table.csv (a row for each point and seed), pareto.md (means and spreads), dominance.md (each point of the other
families compared with the MSAEs' curves at the same L0), pareto.png and tuning.csv. After an interruption, the same
command continues without training finished models again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from comparison import Variant, check_variants, compare, run_reporting_errors, untrained_names
from comparison_data import Data, add_arguments, open_data, subset

from hf_msae.plotting import PALETTE, new_figure, save_figure

LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
SETTINGS = {
    "ReLU": (1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    "JumpReLU": (1e-5, 1e-4, 3e-4, 1e-3, 3e-3),
}
"""Sparsity coefficients. The other families are given k instead."""

METRICS = {  # column -> (heading, digits)
    "fvu": ("FVU", 4),
    "cknna": ("CKNNA", 3),
    "probe agreement": ("probe agreement", 3),
    "zero-shot accuracy_drop": ("drop in zero-shot accuracy", 3),
    "monosemanticity": ("monosemanticity", 3),
    "dead_latents": ("dead latents", 0),
    "stability": ("stability", 3),
    "chance": ("stability of random directions", 3),
    "cost": ("step time / fastest step time", 2),
    "true names": ("true names", 1),
    "distinct words": ("distinct true words", 1),
}
COMPARED = ("fvu", "cknna", "probe agreement", "true names", "distinct words")
COMPARISON_HEADINGS = {
    "point": "the other model",
    "L0": "its L0",
    "FVU, ratio": "FVU of the MSAE / FVU of the other",
    "CKNNA, difference": "CKNNA of the MSAE - CKNNA of the other",
    "probe agreement, difference": "probe agreement of the MSAE - probe agreement of the other",
    "true names, difference": "true names of the MSAE - true names of the other",
    "distinct true words, difference": "distinct true words of the MSAE - those of the other",
    "distinct true words at the same FVU, difference": "the same at the FVU of the other",
}


def families(
    num_latents: int, ks: list[int], coefficients: Mapping[str, Sequence[float]] = SETTINGS
) -> dict[str, dict[str, dict[str, Any]]]:
    """Fields of MSAEConfig for each family and setting, as `{family: {setting: fields}}`."""
    levels = [k for k in (2**power for power in range(3, 20)) if k < num_latents] + [num_latents]
    reverse = {"nesting_ks": levels, "nesting_weights": "reverse"}
    return {
        "MSAE, uniform": {"": {"nesting_ks": levels}},
        "MSAE, reverse": {"": reverse},
        "MSAE, reverse, L1": {"": {**reverse, "sparsity_coefficient": 5e-3}},
        "ReLU": {f"@{c:g}": {"nesting": "none", "sparsity_coefficient": c} for c in coefficients["ReLU"]},
        "JumpReLU": {
            f"@{c:g}": {"activation": "jump_relu", "nesting": "none", "sparsity_coefficient": c}
            for c in coefficients["JumpReLU"]
        },
        "TopK": {f"@{k}": {"activation": "topk", "nesting": "none", "k": k} for k in ks},
        "BatchTopK": {f"@{k}": {"activation": "batch_topk", "nesting": "none", "k": k} for k in ks},
        "prefixes of BatchTopK": {f"@{k}": {"activation": "batch_topk", "nesting": "prefix", "k": k} for k in ks},
    }


def tune(arguments: argparse.Namespace, data: Data, output_dir: Path) -> dict[str, float]:
    """The best learning rate of each family, measured on a tenth of the training data that the models do not see."""
    rows = np.random.default_rng(0).permutation(len(data.train))
    border = len(rows) * 9 // 10
    halves = Data(subset(data.train, np.sort(rows[:border])), subset(data.train, np.sort(rows[border:])))
    variants = {}
    for family, settings in families(arguments.num_latents, arguments.ks).items():
        name, config = list(settings.items())[len(settings) // 2]
        for rate in arguments.learning_rates:
            variants[f"{family}{name}, lr {rate:g}"] = Variant(family, config, rate, _ks(family, arguments.ks))
    alone = argparse.Namespace(**{**vars(arguments), "seeds": [max(arguments.seeds) + 1]})
    table = compare(alone, variants, halves, output_dir / "tuning")
    losses = table.groupby(["family", "learning_rate"], sort=False)["loss"].first().reset_index()
    losses.to_csv(output_dir / "tuning.csv", index=False)
    best = losses.loc[losses.groupby("family", sort=False)["loss"].idxmin()]
    rates = dict(zip(best["family"], best["learning_rate"], strict=True))
    for family, rate in rates.items():
        if rate in (min(arguments.learning_rates), max(arguments.learning_rates)):
            print(
                f"warning: the best learning rate of {family}, {rate:g}, is the lowest or highest of those tried",
                file=sys.stderr,
            )
    return rates


def _ks(family: str, ks: list[int]) -> list[int] | None:
    return ks if family.startswith("MSAE") else None


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread (lowest to highest seed) of each point."""
    rows = []
    for (_, point), group in table.groupby(["family", "point"], sort=False):
        row = {"point": point, "seeds": len(group), "L0": f"{group['l0'].mean():.1f}"}
        for name, (heading, digits) in METRICS.items():
            if name in group and group[name].notna().any():
                row[heading] = spread(group[name], digits, len(group))
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def spread(values: pd.Series, digits: int, expected: int | None = None) -> str:
    """Mean (lowest to highest), and the number of seeds if it is smaller than expected."""
    values = values.dropna()
    if not len(values):
        return ""
    shown = [f"{value:.{digits}f}" for value in (values.mean(), values.min(), values.max())]
    text = shown[0] if len(values) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"
    return text if expected in (None, len(values)) else f"{text}, {len(values)} of {expected} seeds"


def dominance(table: pd.DataFrame) -> pd.DataFrame:
    """Compare each point of the other families with each MSAE of the same seed at the same L0.

    FVU is compared by the MSAE's divided by the other's (below 1, the MSAE is better), other metrics by the MSAE's
    minus the other's (above 0, the MSAE is better), as mean and spread over seeds. Between two granularities of an
    MSAE, log FVU and the other metrics are interpolated linearly in log L0. The distinct words of
    true names are also compared at the same FVU, interpolated in log FVU.
    """
    rows = []
    msaes = [family for family in table["family"].unique() if family.startswith("MSAE")]
    compared = [("l0", name) for name in COMPARED if name in table]
    compared += [("fvu", "distinct words")] if "distinct words" in table else []
    for point, group in table[~table["family"].isin(msaes)].groupby("point", sort=False):
        for msae in msaes:
            row = {"point": point, "L0": f"{group['l0'].mean():.1f}", "MSAE": msae.removeprefix("MSAE, ")}
            for at, name in compared:
                values = []
                for theirs in group.to_dict("records"):
                    curve = table[(table["family"] == msae) & (table["seed"] == theirs["seed"])].sort_values(at)
                    if 0.99 * curve[at].min() <= theirs[at] <= 1.01 * curve[at].max():  # L0 of k = 8 may be 7.99
                        mine = curve[name].astype(float)
                        mine = np.log(mine) if name == "fvu" else mine
                        mine = np.interp(np.log(theirs[at]), np.log(curve[at]), mine)
                        values.append(np.exp(mine) / theirs[name] if name == "fvu" else mine - theirs[name])
                heading = METRICS[name][0] + (" at the same FVU" if at == "fvu" else "")
                heading += ", ratio" if name == "fvu" else ", difference"
                digits = METRICS[name][1] if name != "fvu" else 2
                row[heading] = spread(pd.Series(values), digits, len(group)) if values else "outside its curve"
            rows.append(row)
    return pd.DataFrame(rows)


def plot(table: pd.DataFrame):
    """FVU, CKNNA and disagreement of probes (or true names) against L0, a line per family with bars over seeds.

    Collapsed models, which have less than one active latent on average, are left out.
    """
    table = table.assign(disagreement=1 - table["probe agreement"]) if "probe agreement" in table else table
    panels = {"fvu": "FVU (log): lower is better", "cknna": "CKNNA of latents: higher is better"}
    if "distinct words" in table:
        panels["distinct words"] = "distinct true names: higher is better"
    elif "disagreement" in table:
        panels["disagreement"] = "disagreement of probes (log): lower is better"
    figure, axes = new_figure(1, len(panels), width=3.9, height=3.6)
    colors = (*PALETTE, "#8c8c8c")
    for panel, (name, label) in zip(axes[0], panels.items(), strict=True):
        for number, (family, of_family) in enumerate(table.groupby("family", sort=False)):
            style = {"color": colors[number % 8], "marker": "osD^vPX*"[number % 8], "ms": 5, "capsize": 2, "lw": 1.4}
            style |= {"ls": "-" if family.startswith("MSAE") else "--", "label": family}
            # A model that was measured at several levels is a curve of its own.
            each = of_family.groupby("variant", sort=False)
            for line in [group for _, group in each] if each["point"].nunique().max() > 1 else [of_family]:
                points = line.groupby("point").agg({"l0": "mean", name: ["mean", "min", "max"]})
                points = points[points["l0", "mean"] >= 1].sort_values(("l0", "mean"))
                mean = points[name, "mean"]
                bars = [mean - points[name, "min"], points[name, "max"] - mean]
                panel.errorbar(points["l0", "mean"], mean, bars, **style)
                style["label"] = None
        panel.set(xscale="log", xlabel="L0, active latents (log)", ylabel=label)
        panel.set_yscale("linear" if name in ("cknna", "distinct words") else "log")
    axes[0, 0].legend(fontsize=7)
    return figure


def write_markdown(frame: pd.DataFrame, path: Path) -> None:
    """A data frame as a Markdown table."""
    lines = [frame.columns, ["---"] * len(frame.columns), *frame.to_numpy()]
    path.write_text("".join(f"| {' | '.join(map(str, line))} |\n" for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "outputs/pareto")
    parser.add_argument(
        "--ks", type=int, nargs="+", default=[8, 16, 32, 64, 128], help="Numbers of activations to keep."
    )
    parser.add_argument(
        "--learning_rates", type=float, nargs="+", default=list(LEARNING_RATES),
        help="Learning rates to choose from for each family. A single one is used for all families.",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="Default to one seed, 300 steps, three settings and three learning rates."
    )
    settings = dict(SETTINGS)
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(seeds=[42], steps=300, ks=[8, 32, 128], learning_rates=[3e-3, 1e-2, 3e-2])
        settings = {family: coefficients[::2] for family, coefficients in SETTINGS.items()}
    arguments = parser.parse_args()
    output_dir = Path(arguments.output_dir)
    data = open_data(arguments)
    output_dir.mkdir(parents=True, exist_ok=True)
    all_families = families(arguments.num_latents, arguments.ks, settings)

    def variants(rates: Mapping[str, float]) -> dict[str, Variant]:
        return {
            f"{family}{setting}": Variant(family, config, rates[family], _ks(family, arguments.ks))
            for family, configs in all_families.items()
            for setting, config in configs.items()
            if family in rates  # missing if all models of the family diverged
        }

    rates = dict.fromkeys(all_families, arguments.learning_rates[0])
    check_variants(arguments, variants(rates), data)
    if len(arguments.learning_rates) > 1:
        rates = tune(arguments, data, output_dir)
    table = compare(arguments, variants(rates), data, output_dir)
    means, comparison = summary(table), dominance(table).rename(columns=COMPARISON_HEADINGS)
    write_markdown(means, output_dir / "pareto.md")
    write_markdown(comparison, output_dir / "dominance.md")
    save_figure(plot(table), output_dir / "pareto.png")
    print(f"Learning rates: {rates}\n\n{means.to_string(index=False)}\n")
    print(f"MSAEs compared with the other families at the same L0\n\n{comparison.to_string(index=False)}\n")
    if data.world is not None:
        names = untrained_names(data, arguments.num_latents, arguments.seeds)
        print(f"Without training\n\n{names.to_string(index=False)}\n")
    print(f"{output_dir} holds table.csv, pareto.md, dominance.md and pareto.png")


if __name__ == "__main__":
    run_reporting_errors(main)
