"""Compare all methods of steering on tasks of scenes, of drawings and of Gaussian features.

    python benchmarks/swordbench.py --output outputs/swordbench

Each task is drawn anew for every seed. Latents are those of the released MSAE of the task's backbone, with several
numbers of latents and values that removal leaves. Finished cells are kept in the output folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from hf_msae._utils.atomic import make_folder
from hf_msae.cli.swordbench import default_methods
from hf_msae.plotting import save_figure
from hf_msae.plotting.steering import plot_success_against_damage
from hf_msae.steering import METHODS, run_swordbench
from hf_msae.steering.tasks import TASKS

BACKBONES = {
    "scenes": ("scenes_background", "scenes_pattern", "scenes_artifact"),
    "clipart": ("clipart_artifact",),
    None: ("efficientnet_artifact", "gaussian", "random_features"),
}


def methods_with(backbone: str | None) -> dict:
    """Return all methods that need only labels and, for a backbone with texts and a released MSAE, all others."""
    found = {name: METHODS[name]() for name in default_methods()}
    if backbone is not None:
        msae = f"{backbone}-image"
        found |= {"text": METHODS["text"](), "sem": METHODS["sem"](msae=msae), "msae": METHODS["msae"](msae=msae)}
        for number, mode in ((1, "zero"), (1, "set"), (4, "set"), (16, "set")):
            found[f"msae, {number} {mode}"] = METHODS["msae"](msae=msae, num_latents=number, mode=mode)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/swordbench"), help="Folder of the results.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num_workers", type=int, default=1, help="Number of processes.")
    arguments = parser.parse_args()
    make_folder(arguments.output)
    doses, columns = [], ["rank", "net_gain", "success", "recovery", "damage", "over_correction", "flip_rate"]
    columns += [
        "exactness",
        "detection_auroc",
        "removal_auroc",
        "leakage_linear",
        "leakage_nonlinear",
        "robustness",
        "orthogonality",
    ]
    for backbone, names in BACKBONES.items():
        for name in names:
            result = run_swordbench(
                [TASKS[name]],
                methods_with(backbone),
                arguments.output / name,
                arguments.seeds,
                arguments.num_workers,
                backbone=backbone,
            )
            doses.append(result.doses)
            table = result.summary(columns[1:]).pivot_table(
                index="method", columns="metric", values="mean", sort=False
            )
            ranks = result.ranking().set_index("method")["rank"]
            table = table.assign(rank=ranks).sort_values("net_gain", ascending=False)
            print(f"\n{name}: {result.verdict()}")
            print(table[[column for column in columns if column in table]].round(3).to_string())
            print(result.working_doses().round(3).to_string(index=False))
            save_figure(result.plot_doses(), arguments.output / name / "doses.png")
    save_figure(plot_success_against_damage(pd.concat(doses)), arguments.output / "success_against_damage.png")


if __name__ == "__main__":
    main()
