"""Compare methods of steering on tasks of scenes, of drawings and of Gaussian features.

    python benchmarks/swordbench.py --output outputs/swordbench
    python benchmarks/swordbench.py --only_bias --tasks gaussian --methods lda ridge --output outputs/swordbench
    python benchmarks/swordbench.py --correlations 0.6 0.8 0.9 0.95 --tasks gaussian --output outputs/swordbench
    python benchmarks/swordbench.py --held_out --output outputs/swordbench-held-out
    python benchmarks/swordbench.py --timing --num_workers 2 --output outputs/swordbench-timing

Each task is drawn anew for every seed. Latents are those of the released MSAE of the task's backbone, with several
numbers of latents and values that removal leaves. Finished cells are kept in the output folder. --only_bias leaves out
what compares concepts, --tasks and --methods all others.

--correlations measures biases of several strengths in the training rows.

--held_out compares `msae` and `reactive_pattern`, whose rules were chosen on the tasks of the first run, with the
strongest of the other methods there, on tasks with other labels, biases, correlations and seeds. For networks that no
MSAE is released for, one is trained by the recipe of those that are, on other scenes and on the training drawings.

--timing measures a run of all methods on Gaussian features.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from accelerate.utils import set_seed
from sklearn.linear_model import LogisticRegression

from hf_msae import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments
from hf_msae._utils.atomic import make_folder
from hf_msae._utils.images import to_rgb
from hf_msae.cli.swordbench import default_methods
from hf_msae.clipart import load_clipart
from hf_msae.metrics import progressive_ks
from hf_msae.plotting import save_figure
from hf_msae.plotting.steering import plot_success_against_damage
from hf_msae.scenes import load_scenes
from hf_msae.steering import METHODS, SwordBenchResult, gaussian_task, run_swordbench
from hf_msae.steering.tasks import TASKS
from hf_msae.steering.tasks.networks import BackboneNetwork, EfficientNetwork, Network

BACKBONES = {
    "scenes": ("scenes_background", "scenes_pattern", "scenes_artifact"),
    "clipart": ("clipart_artifact",),
    None: ("efficientnet_artifact", "gaussian", "random_features"),
}

BLOCK = "vision.layers.1"
HELD_OUT_SEEDS = (10, 11, 12)
HELD_OUT: dict[str, tuple[str, Callable]] = {
    # Task: the MSAE, and what makes it. Written down before any of them was run.
    "house, desert": (
        "scenes-image",
        partial(TASKS["scenes_background"], target="house", background="desert", correlation=0.8),
    ),
    "star, checkered": (
        "scenes-image",
        partial(TASKS["scenes_pattern"], target="star", pattern="checkered", correlation=0.95),
    ),
    "heart, pasted frame": (
        "scenes-image",
        partial(TASKS["scenes_artifact"], target="heart", artifact="frame", correlation=0.8),
    ),
    "cloud, pasted caption": (
        "scenes-image",
        partial(TASKS["scenes_artifact"], target="cloud", artifact="caption", word="SALE", correlation=0.95),
    ),
    "tokens: ring, snow": (
        "tokens",
        partial(TASKS["scenes_background"], target="ring", background="snow", correlation=0.85, hook_point=BLOCK),
    ),
    "tokens: arrow, pasted square": (
        "tokens",
        partial(TASKS["scenes_artifact"], target="arrow", artifact="square", correlation=0.95, hook_point=BLOCK),
    ),
    "computer, pasted caption": (
        "clipart-image",
        partial(TASKS["clipart_artifact"], target="computer", artifact="caption", correlation=0.8),
    ),
    "symbol, pasted frame": (
        "clipart-image",
        partial(TASKS["clipart_artifact"], target="symbol", artifact="frame", correlation=0.95),
    ),
    "tags: symbol, signs and symbols": (
        "clipart-image",
        partial(TASKS["clipart_tags"], target="symbol", bias="signs_and_symbols", correlation=0.7),
    ),
    "EfficientNet: computer, pasted square": (
        "efficientnet",
        partial(TASKS["efficientnet_artifact"], target="computer", artifact="square", correlation=0.8),
    ),
}
BASELINES = ("joint_pattern", "orthogonal", "lda", "logistic", "svm", "ridge", "lasso", "leace", "inlp")
COLUMNS = [
    "rank",
    "rank, equal dose",
    "net_gain",
    "success",
    "recovery",
    "damage",
    "over_correction",
    "flip_rate",
    "exactness",
    "net_gain_equal_dose",
    "stretch",
    "injection_gain",
    "injection_gain_equal_dose",
    "bias_cost",
]
COLUMNS += ["detection_auroc", "removal_auroc", "leakage_linear", "leakage_nonlinear", "robustness", "orthogonality"]


def methods_with(backbone: str | None) -> dict:
    """Return all methods that need only labels and, for a backbone with texts and a released MSAE, all others."""
    found = {name: METHODS[name]() for name in default_methods()}
    if backbone is not None:
        msae = f"{backbone}-image"
        found |= {"text": METHODS["text"](), "sem": METHODS["sem"](msae=msae), "msae": METHODS["msae"](msae=msae)}
        for number, mode in ((1, "zero"), (1, "set"), (4, "set"), (16, "set")):
            found[f"msae, {number} {mode}"] = METHODS["msae"](msae=msae, num_latents=number, mode=mode)
    return found


def trained_msae(name: str, folder: Path) -> str:
    """Train an MSAE as training/train_scenes_msaes.py and train_clipart_msae.py do, and return its folder."""
    place = folder / "msaes" / name
    if not (place / "config.json").is_file():
        network: Network
        if name == "tokens":
            network, pictures = BackboneNetwork("scenes", BLOCK), load_scenes("train", 10_000, 42)["image"]
        else:
            network, pictures = EfficientNetwork(), load_clipart("train")["image"]
        starts = range(0, len(pictures), 256)
        parts = [network.features([to_rgb(each) for each in pictures[i : i + 256]]) for i in starts]
        features = np.concatenate(parts)
        make_folder(folder / "msaes")
        np.save(folder / "msaes" / f"{name}.npy", features)
        latents = 1024
        config = MSAEConfig(
            d_in=features.shape[1],
            num_latents=latents,
            nesting_ks=progressive_ks(latents),
            nesting_weights="reverse",
            hook_point=BLOCK if name == "tokens" else "image_embeds",
        )
        run = MSAETrainingArguments(
            output_dir=str(place.with_suffix(".run")),
            overwrite_output_dir=True,
            per_device_train_batch_size=1024,
            max_steps=800,  # as the released one of the scenes
            learning_rate=1e-2,
            save_strategy="no",
            seed=42,
            use_cpu=True,
        )
        set_seed(42)
        trainer = MSAETrainer(MSAEModel(config), run, str(folder / "msaes" / f"{name}.npy"))
        trainer.train()
        trainer.model.save_pretrained(place)
    return str(place)


def show(name: str, result: SwordBenchResult, folder: Path) -> None:
    """Print the figures and the doses that work, and draw the latter."""
    table = result.summary(COLUMNS[2:]).pivot_table(
        index="method", columns="metric", values=["mean", "low", "high"], sort=False
    )
    ends = table[[("low", "net_gain"), ("high", "net_gain")]].set_axis(["low", "high"], axis=1)
    table = table["mean"].assign(rank=result.ranking().set_index("method")["rank"])
    table["rank, equal dose"] = result.ranking(equal_dose=True).set_index("method")["rank"]
    table = table[[column for column in COLUMNS if column in table]].join(ends)
    print(f"\n{name}: {result.verdict()}")
    print(table.sort_values("net_gain", ascending=False).round(3).to_string())
    print(result.working_doses().round(3).to_string(index=False), flush=True)
    save_figure(result.plot_doses(), folder / "doses.png")


def compare(
    folder: Path, seeds: list[int], num_workers: int, only_bias: bool, tasks: list[str], chosen: list[str]
) -> None:
    """Compare all methods, or those that are chosen, on the tasks they were made with."""
    doses = []
    for backbone, names in BACKBONES.items():
        methods = methods_with(backbone)
        methods = {name: edit for name, edit in methods.items() if not chosen or name in chosen}
        for name in names:
            if tasks and name not in tasks:
                continue
            place = folder / name
            result = run_swordbench(
                [TASKS[name]], methods, place, seeds, num_workers, backbone=backbone, only_bias=only_bias
            )
            doses.append(result.dose_curves())
            show(name, result, place)
    save_figure(plot_success_against_damage(pd.concat(doses)), folder / "success_against_damage.png")


def compare_correlations(
    folder: Path, seeds: list[int], num_workers: int, correlations: list[float], tasks: list[str], chosen: list[str]
) -> None:
    """Compare net gains where label and bias are correlated more and less."""
    for backbone, names in BACKBONES.items():
        methods = {name: edit for name, edit in methods_with(backbone).items() if not chosen or name in chosen}
        for name in names:
            if tasks and name not in tasks:
                continue
            gains = {}
            for correlation in correlations:
                task = partial(TASKS[name], correlation=correlation)
                place = folder / f"{name}-{correlation}"
                result = run_swordbench([task], methods, place, seeds, num_workers, backbone=backbone, only_bias=True)
                found = result.summary(["bias_cost", "net_gain"]).set_index(["metric", "method"])
                cells = [f"{row.mean:.2f} ({row.low:.2f} to {row.high:.2f})" for row in found.itertuples(index=False)]
                found = pd.Series(cells, found.index)
                gains[correlation] = pd.concat(
                    [found["bias_cost"][:1].set_axis(["(what the bias costs)"]), found["net_gain"]]
                )
            print(
                f"\n{name}: net gain by correlation of label and bias\n{pd.DataFrame(gains).to_string()}", flush=True
            )


def compare_held_out(folder: Path, seeds: list[int], num_workers: int, only_bias: bool, tasks: list[str]) -> None:
    """Compare the methods whose rules were chosen with the strongest others, on other tasks."""
    gains, ranks = {}, {}
    for name, (msae, task) in HELD_OUT.items():
        if tasks and name not in tasks:
            continue
        msae = msae if "-" in msae else trained_msae(msae, folder)
        methods = {label: METHODS[label]() for label in ("reactive_pattern", *BASELINES)}
        methods |= {
            "msae": METHODS["msae"](msae=msae),
            "msae, 1 set": METHODS["msae"](msae=msae, num_latents=1, mode="set"),
        }
        place = folder / name.replace(": ", "-").replace(", ", "-").replace(" ", "_")
        result = run_swordbench([task], methods, place, seeds, num_workers, only_bias=only_bias)
        show(name, result, place)
        ranking = result.ranking().set_index("method")
        gains[name], ranks[name] = ranking["net_gain"], ranking["rank"]
    for title, found in (("net gain", gains), ("rank", ranks)):
        table = pd.DataFrame(found)
        print(f"\n{title}\n{table.assign(mean=table.mean(axis=1)).sort_values('mean').round(2).T.to_string()}")


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Measure wall time, CPU time and the largest sum of resident memory, of this process and its children."""
    own, found, done = psutil.Process(), {"gigabytes": 0.0, "cpu": 0.0}, threading.Event()
    by_process: dict[int, float] = {}

    def cpu_of(process: psutil.Process) -> float:
        return process.cpu_times().user + process.cpu_times().system

    def watch() -> None:
        while not done.wait(0.2):
            memory = 0
            for process in (own, *own.children(recursive=True)):
                try:
                    memory += process.memory_info().rss
                    by_process[process.pid] = cpu_of(process)
                except psutil.NoSuchProcess:
                    continue
            found["gigabytes"] = max(found["gigabytes"], memory / 1e9)

    before, start = cpu_of(own), time.perf_counter()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
        by_process[own.pid] = cpu_of(own)
        found |= {"wall": time.perf_counter() - start, "cpu": sum(by_process.values()) - before}


def time_run(folder: Path, num_workers: int, num_rows: int, num_concepts: int) -> None:
    """Measure a run of all methods that need labels, and of `msae` with 6,144 latents that nobody trained."""
    width = 768
    task = gaussian_task(num_rows=num_rows, width=width, num_concepts=num_concepts)
    config = MSAEConfig(d_in=width, num_latents=8 * width)
    set_seed(0)
    MSAEModel(config).save_pretrained(make_folder(folder) / "msae")
    methods = {name: METHODS[name]() for name in default_methods()}
    methods["msae"] = METHODS["msae"](msae=str(folder / "msae"))
    X, concepts = task.features[task.train], list(task.concepts.values())
    with measured() as bare:
        for concept in concepts:
            LogisticRegression(max_iter=1000).fit(X, concept[task.train])
    rows = {"LogisticRegression of all concepts": bare}
    with measured() as whole:
        if num_workers > 1:
            result = run_swordbench([task], methods, folder / "runs", (0,), num_workers, progress=False)
        else:
            for name, edit in methods.items():
                with measured() as rows[name]:
                    result = run_swordbench([task], {name: edit}, folder / "runs", (0,), progress=False)
                print(f"{name}: {rows[name]['cpu']:.1f} s of CPU time", flush=True)
    rows["all methods"] = whole
    table = pd.DataFrame(rows).T[["wall", "cpu", "gigabytes"]]
    table["cpu / bare"] = table["cpu"] / bare["cpu"]
    print(f"{len(task.features)} x {width} features, {num_concepts} concepts, {num_workers} processes")
    print(table.round(2).to_string())
    if not (undefined := result.undefined()).empty:
        print(undefined.to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/swordbench"), help="Folder of the results.")
    parser.add_argument("--seeds", type=int, nargs="+", help="By default 0 to 2, and 10 to 12 with --held_out.")
    parser.add_argument("--num_workers", type=int, default=1, help="Number of processes.")
    parser.add_argument("--only_bias", action="store_true", help="Measure the biases alone, no other concepts.")
    parser.add_argument("--tasks", nargs="+", default=[], help="Tasks, by default all.")
    parser.add_argument("--methods", nargs="+", default=[], help="Labels of methods, by default all.")
    parser.add_argument("--correlations", type=float, nargs="+", help="Correlations of label and bias to compare.")
    parser.add_argument("--held_out", action="store_true", help="Tasks that no rule was chosen on.")
    parser.add_argument("--timing", action="store_true", help="Measure how long a run takes.")
    parser.add_argument("--timing_rows", type=int, default=20_000, help="Rows of --timing.")
    parser.add_argument("--timing_concepts", type=int, default=40, help="Concepts of --timing.")
    arguments = parser.parse_args()
    folder = make_folder(arguments.output)
    if arguments.timing:
        time_run(folder, arguments.num_workers, arguments.timing_rows, arguments.timing_concepts)
    elif arguments.held_out:
        seeds = arguments.seeds or list(HELD_OUT_SEEDS)
        compare_held_out(folder, seeds, arguments.num_workers, arguments.only_bias, arguments.tasks)
    elif arguments.correlations:
        chosen = arguments.correlations, arguments.tasks, arguments.methods
        compare_correlations(folder, arguments.seeds or [0, 1, 2], arguments.num_workers, *chosen)
    else:
        chosen = arguments.only_bias, arguments.tasks, arguments.methods
        compare(folder, arguments.seeds or [0, 1, 2], arguments.num_workers, *chosen)


if __name__ == "__main__":
    main()
