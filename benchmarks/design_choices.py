"""Design choices that the MSAE authors leave open, changed one at a time and in combination, at equal budgets.

    python benchmarks/design_choices.py                                     # on the embeddings of the quickstart
    python benchmarks/design_choices.py --train_data my/train --eval_data my/test --base_learning_rate 1e-4

The base is the authors' recipe: levels 64, 128, ... with uniform weights, mean squared error, centered embeddings, no
bias at the median, no soft cap and no L1 penalty, at the given learning rate. All models of a seed see the same
batches. Writes table.csv (a row for each model, granularity and seed), design_choices.md (the models side by side) and
design_choices.png. After an interruption, the same command continues.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from comparison import ALL, Variant, compare, run_reporting_errors
from comparison_data import add_arguments, open_data
from pareto import spread, write_markdown

from hf_msae.metrics import progressive_ks
from hf_msae.plotting import new_figure, save_figure

BASE = "base: the authors' recipe"
SHOWN_KS = (16, 64, 256)
_EDGE = 1.5  # right edge of the figure's x axis, log2


def variants(num_latents: int, learning_rate: float) -> dict[str, Variant]:
    """The models, keyed by what they change in the base."""
    ks = progressive_ks(num_latents)

    def variant(learning_rate: float = learning_rate, centered: bool = True, median_bias: bool = False, **config: Any):
        return Variant("MSAE", config, learning_rate, ks, centered, median_bias)

    def levels(smallest: int) -> list[int]:
        return [k for k in (smallest * 2**power for power in range(20)) if k < num_latents] + [num_latents]

    reverse = {"nesting_weights": "reverse"}
    return {
        BASE: variant(),
        "learning rate a tenth": variant(learning_rate / 10),
        "learning rate a third": variant(learning_rate / 3),
        "learning rate threefold": variant(3 * learning_rate),
        "levels from 8": variant(nesting_ks=levels(8)),
        "levels from 16": variant(nesting_ks=levels(16)),
        "levels from 32": variant(nesting_ks=levels(32)),
        "reverse weights": variant(**reverse),
        "nmse": variant(reconstruction_loss="nmse"),
        "not centered": variant(centered=False),
        "not centered, nmse": variant(centered=False, reconstruction_loss="nmse"),
        "bias at the median": variant(median_bias=True),
        "not centered, bias at the median": variant(centered=False, median_bias=True),
        "soft cap 5": variant(soft_cap=5.0),
        "soft cap 20": variant(soft_cap=20.0),
        "tied": variant(tied=True),
        "L1 0.005": variant(sparsity_coefficient=5e-3),
        "reverse, from 8": variant(nesting_ks=levels(8), **reverse),
        "reverse, from 8, nmse": variant(nesting_ks=levels(8), reconstruction_loss="nmse", **reverse),
        "reverse, from 8, L1 0.002": variant(nesting_ks=levels(8), sparsity_coefficient=2e-3, **reverse),
        "reverse, from 8, L1 0.005": variant(nesting_ks=levels(8), sparsity_coefficient=5e-3, **reverse),
    }


def relative_fvu(table: pd.DataFrame) -> pd.Series:
    """FVU of each model and seed divided by that of the base with the same seed, geometric mean over all k."""
    fvu = table.pivot(index=["variant", "seed"], columns="k", values="fvu")
    ratios = np.log(fvu) - np.log(fvu.xs(BASE)).reindex(fvu.index.get_level_values("seed")).to_numpy()
    return np.exp(ratios.mean(axis=1))


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each model with the means and spreads over seeds."""
    ratios = relative_fvu(table)
    rows = []
    for name, group in table.groupby("variant", sort=False):
        row = {"model": name, "FVU / FVU of the base, all k": spread(ratios.xs(name), 3)}
        for k in (*SHOWN_KS, ALL):
            at_k = group[group["k"].astype(str) == str(k)]
            if len(at_k):
                row[f"FVU, k={k}"] = spread(at_k["fvu"], 4)
        full, middle = group[group["k"] == ALL], group[group["k"].astype(str) == "64"]
        row["L0 of the full code"] = f"{full['l0'].mean():.0f}"
        row["dead latents"] = f"{full['dead_latents'].mean():.0f}"
        for heading, column in (
            ("CKNNA", "cknna"), ("probe agreement", "probe agreement"), ("stability", "stability"),
        ):  # fmt: skip
            if column in middle and middle[column].notna().any():
                row[f"{heading}, k=64"] = spread(middle[column], 3)
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def plot(table: pd.DataFrame):
    """Each model's FVU relative to the base as a bar, with a dot for each seed and a number where a bar is cut off."""
    ratios = relative_fvu(table)
    names = [name for name in table["variant"].unique() if name != BASE][::-1]
    figure, axes = new_figure(1, 1, width=6.5, height=0.24 * len(names) + 0.9)
    panel = axes[0, 0]
    for place, name in enumerate(names):
        values = np.log2(ratios.xs(name).to_numpy())
        mean = values.mean()
        panel.barh(place, min(mean, _EDGE), color="#0072B2" if mean < 0 else "#D55E00", alpha=0.75)
        panel.plot(values[values < _EDGE], [place] * (values < _EDGE).sum(), "k.", ms=4)
        if mean > _EDGE:
            panel.text(_EDGE, place, f"{2**mean:.0f} ", ha="right", va="center", color="white", fontsize=8)
    panel.set_yticks(range(len(names)), names)
    panel.axvline(0, color="black", lw=0.8)
    panel.set_xlim(-1, _EDGE)
    panel.xaxis.set_major_formatter(lambda value, _: f"{2**value:.2g}")
    panel.set_xlabel("FVU / FVU of the authors' recipe, mean over k (log)")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "outputs/design-choices")
    parser.add_argument(
        "--base_learning_rate", type=float, default=1e-2, help="Learning rate of the models that do not vary it."
    )
    arguments = parser.parse_args()
    output_dir = Path(arguments.output_dir)
    models = variants(arguments.num_latents, arguments.base_learning_rate)
    table = compare(arguments, models, open_data(arguments), output_dir)
    means = side_by_side(table)
    write_markdown(means, output_dir / "design_choices.md")
    save_figure(plot(table), output_dir / "design_choices.png")
    print(means.to_string(index=False))
    print(f"\n{output_dir} holds table.csv, design_choices.md and design_choices.png")


if __name__ == "__main__":
    run_reporting_errors(main)
