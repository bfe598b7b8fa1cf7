"""LINE against methods that choose from a vocabulary: which labels are true, and which find what no vocabulary has?

Latents of the released MSAEs of the scenes and of the clip art are labeled whose meaning is known: a true concept
that they detect with an AUROC of at least 0.9. A quarter of the true concepts is withheld from every vocabulary. All
methods know the same control pictures; INVERT also gets their truth, for the concepts that are not withheld. A label
is right if what it says is detected with an AUROC of at least 0.9 on pictures that no method saw, and all its words
are known.

On the clip art, three imagers are compared, to tell what is missing: drawings of other authors than those of the
control pictures and of the truth; drawings of all authors, but none of these pictures; and the same ones composed
with others on other backgrounds.

    python benchmarks/line.py --worlds scenes clipart --num_neurons 50 --seeds 0 1 2 --output outputs/line
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from line_worlds import IMAGERS, MAKERS, World, general_words

from hf_msae.concepts import Vocabulary
from hf_msae.neuron_labels import (
    Control,
    MSAENeuron,
    NeuronLabels,
    TransformersProposer,
    VocabularyProposer,
    ZeroShotStart,
    label_neurons,
    load_word_embeds,
)
from hf_msae.neuron_labels.evaluation.accuracy import best_concepts, label_accuracy, outside_vocabulary
from hf_msae.neuron_labels.evaluation.baselines import Agreement, ClipDissect, Invert, VocabularyCosine
from hf_msae.neuron_labels.evaluation.label_checks import check_labels

IMAGES = 5
PAPER_OTHERS = 11  # concepts that the paper's search scores besides its proposals: ten to start from, and a merger
WITHHELD = 0.25
MEASURES = ("auprc", "correlation", "f1", "iou")
SPENT = ("calls", "input_tokens", "output_tokens", "images", "seconds")
COSTS = (*SPENT, "cpu_seconds", "scored", "malformed")
"""A neuron's share of what a run spends, the pictures that its search scored, which neurons share, and answers that
could not be used."""
TRIES, CLOSE = 4, 0.05
"""Runs of the paper's search, with more or fewer proposals, until it scores as many pictures as ours within 5%."""
OTHERS = (
    "dog cat river mountain phone chair politics music happy angry running sleeping metal glass cheese school king "
    "queen justice winter spring summer autumn rain thunder book newspaper letter equation wheel war peace poem sugar"
).split()
"""Words that vocabularies hold besides the true ones."""


@dataclass
class Found:
    """Labels of a method: whether each is confirmed, what it came from, and a neuron's costs."""

    labels: list[str | None]
    confirmed: list[bool]
    origins: list[str]
    costs: dict[str, float]


def run(
    world: World, seed: int, num_neurons: int, proposers: list[str], folder: Path, withheld_alone: bool = False
) -> pd.DataFrame:
    """Label the same neurons by every method, and judge the labels.

    After `vocabulary`, `paper` makes as many proposals as score as many pictures.
    """
    rng, model = np.random.default_rng(seed), world.model
    control = Control(world.control, seed, progress=False)
    control_embeds = torch.from_numpy(control.features(MSAENeuron(model, 0)))
    everything = world.activations(slice(None), control_embeds)
    active = np.flatnonzero((everything > 0).mean(axis=0) >= 0.01)
    best, area = best_concepts(world.activations(active.tolist(), world.truth_embeds), world.truth)
    known = active[area >= 0.9]
    latents = np.sort(rng.choice(known, min(num_neurons, len(known)), replace=False)).tolist()
    of = dict(zip(active.tolist(), best, strict=True))
    names = sorted({of[latent] for latent in known.tolist()})
    withheld = set(rng.choice(names, round(WITHHELD * len(names)), replace=False).tolist())
    if withheld_alone:
        latents = [latent for latent in latents if of[latent] in withheld]
    words = [concept for concept in world.truth.concepts if concept not in withheld]
    vocabulary = Vocabulary([*words, *(word for word in OTHERS if word not in world.truth.concepts)], world.templates)
    embeds = vocabulary.embed(model.backbone)
    columns = [world.truth.concepts.index(word) for word in words]
    shown = everything[:, latents]
    image_embeds = control_embeds
    directions = model.msae.decoder.detach()[latents]
    found: dict[str, Found] = {}
    for baseline in (
        VocabularyCosine(vocabulary, embeds, directions),
        ClipDissect(vocabulary, embeds, image_embeds),
        Agreement(vocabulary, embeds, image_embeds, seed),
        Invert(words, world.control_truth.presence[:, columns]),
    ):
        start, start_cpu = time.perf_counter(), time.process_time()
        labels = baseline.label(shown)["label"].tolist()
        costs = dict.fromkeys(COSTS, 0.0) | {"seconds": (time.perf_counter() - start) / len(labels)}
        costs["cpu_seconds"] = (time.process_time() - start_cpu) / len(labels)
        found[baseline.name] = Found(labels, [True] * len(labels), [""] * len(labels), costs)
    neurons = [MSAENeuron(model, latent) for latent in latents]
    classes = {
        word: [world.control[row] for row in np.flatnonzero(world.control_truth.presence[:, column])]
        for word, column in zip(words, columns, strict=True)
    }
    by_class = Control({word: few for word, few in classes.items() if len(few) >= 5}, seed, progress=False)
    for name in proposers:
        proposer = make_proposer("vocabulary" if name == "paper" else name, vocabulary)
        fitting = ZeroShotStart(control, model.backbone, general_words() if name == "open words" else vocabulary)
        begin = {neuron.name: [*fitting(neuron), *proposer.first(5, seed)] for neuron in neurons}
        for suffix, imager in world.imagers.items():
            options = {
                "proposer": proposer,
                "imager": imager,
                "seed": seed,
                "start": lambda each, of=begin: of[each.name],
            }
            method, ours = f"LINE, {name}{suffix}", found.get(f"LINE, vocabulary{suffix}")
            if name != "paper":
                found[method], labeled = search(neurons, control=control, iterations=10, **options)
            else:
                target = ours.costs["scored"] if ours else None
                found[method], labeled = search_paper(neurons, target, control=by_class, paper=True, **options)
            labeled.save(folder / f"{world.name}-{seed}-{method}.json")
    rows = []
    of_truth = world.activations(latents, world.truth_embeds)
    for method, each in found.items():
        judged = label_accuracy(each.labels, of_truth, world.truth, measures=MEASURES)
        judged["method"], judged["world"], judged["seed"] = method, world.name, seed
        judged["latent"], judged["confirmed"], judged["origin"] = latents, each.confirmed, each.origins
        judged["withheld"] = [of[latent] in withheld for latent in latents]
        checks = check_labels(each.labels, of_truth, world.truth, seed, num_resamples=2).to_pandas()
        judged["noticed_by"] = checks["noticed_by"].where(checks["reason"] == "").to_numpy()
        judged["outside"] = outside_vocabulary(each.labels, vocabulary.words)
        rows.append(judged.assign(**each.costs))
    return pd.concat(rows, ignore_index=True)


def search(neurons: list[MSAENeuron], **options) -> tuple[Found, NeuronLabels]:
    """Label neurons by LINE, and count what that costs."""
    cpu = time.process_time()
    labeled = label_neurons(neurons, images_per_concept=IMAGES, num_pairs=0, progress=False, **options)
    by_latent = {each.latent: each for each in labeled}
    each = [by_latent.get(neuron.latent) for neuron in neurons]
    costs = {name: labeled.spent[name] for name in SPENT} | {"cpu_seconds": time.process_time() - cpu}
    costs["scored"] = sum(label.history["num_images"].sum() for label in labeled)
    costs["malformed"] = sum(label.history["malformed"].sum() for label in labeled)
    origins = [
        dict(zip(x.history["concept"], x.history["origin"], strict=True)).get(x.label, "") if x else "" for x in each
    ]
    found = Found(
        [label and label.label for label in each],
        [bool(label and label.confirmed) for label in each],
        origins,
        {name: cost / len(neurons) for name, cost in costs.items()},
    )
    return found, labeled


def search_paper(neurons: list[MSAENeuron], target: float | None, **options) -> tuple[Found, NeuronLabels]:
    """Label neurons by the paper's search, with as many proposals as score `target` pictures a neuron.

    The search asks for no other word where there are no drawings of one, so how many it needs is found by trying.
    """
    iterations = 10 if target is None else max(1, round(target / IMAGES) - PAPER_OTHERS)
    for _ in range(TRIES):
        found, labeled = search(neurons, iterations=iterations, **options)
        scored = found.costs["scored"]
        if target is None or abs(scored - target) <= CLOSE * target:
            break
        print(f"the paper's search scored {scored:.0f} pictures with {iterations} proposals, not {target:.0f}")
        iterations = max(1, round((iterations + PAPER_OTHERS) * target / scored) - PAPER_OTHERS)
    return found, labeled


def make_proposer(name: str, vocabulary: Vocabulary):
    """The vocabulary's words, the words of a language model's tokenizer, or a small language model."""
    if name == "vocabulary":
        return VocabularyProposer(vocabulary, load_word_embeds())
    if name == "open words":
        return VocabularyProposer(general_words(), load_word_embeds())
    if name == "gemma":
        (file,) = GEMMA.glob("*.gguf")
        return TransformersProposer(str(GEMMA), gguf_file=file.name)
    raise SystemExit(f"there is no proposer {name!r}")


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over neurons, with the lowest and highest seed; measures are of labels whose words are known."""
    measures = {
        "right": lambda each: each["right"].mean(),
        "names the best concept": lambda each: each["names_best"].mean(),
        "auroc": lambda each: each["auroc"].mean(),
        **{name: lambda each, name=name: each[name].mean() for name in MEASURES},
        **{f"noticed by {name}": lambda each, name=name: noticed(each, name) for name in (*MEASURES, "auc")},
        "right, withheld": lambda each: each.loc[each["withheld"], "right"].mean(),
        "right, confirmed": lambda each: each.loc[each["confirmed"], "right"].mean(),
        "confirmed": lambda each: each["confirmed"].mean(),
        "outside the vocabulary": lambda each: each["outside"].mean(),
        **{name: lambda each, name=name: each[name].mean() for name in COSTS},
    }
    rows = []
    for (world, method), of_method in frame.groupby(["world", "method"], sort=False):
        row = {"world": world, "method": method, "neurons": len(of_method)}
        for name, measure in measures.items():
            values = np.array([measure(each) for _, each in of_method.groupby("seed")], dtype=float)
            values = values[np.isfinite(values)]
            row[name] = "" if not len(values) else f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"
        rows.append(row)
    return pd.DataFrame(rows)


def noticed(labels: pd.DataFrame, measure: str) -> float:
    """Return the share of labels for which a measure passes both sanity tests, of those that were checked."""
    return labels["noticed_by"].dropna().str.split(", ").map(lambda names: measure in names).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", default=[*MAKERS], choices=MAKERS)
    parser.add_argument("--num_neurons", type=int, default=50)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--proposers", nargs="+", default=["vocabulary", "paper", "open words"])
    parser.add_argument("--imagers", nargs="+", default=[*IMAGERS], choices=IMAGERS, help="of the clip art")
    parser.add_argument("--withheld_alone", action="store_true", help="of these neurons, those of withheld meaning")
    parser.add_argument("--gemma", type=Path, default=Path("gemma"), help="folder of the GGUF file, for 'gemma'")
    parser.add_argument("--output", type=Path, required=True, help="folder of labels.parquet")
    args = parser.parse_args()
    global GEMMA
    GEMMA = args.gemma
    args.output.mkdir(parents=True, exist_ok=True)
    frames = []
    for name in args.worlds:
        for seed in args.seeds:
            world = MAKERS[name](seed)
            if name == "clipart":
                world.imagers = {suffix: world.imagers[suffix] for suffix in map(IMAGERS.get, args.imagers)}
            frames.append(run(world, seed, args.num_neurons, args.proposers, args.output, args.withheld_alone))
            pd.concat(frames).to_parquet(args.output / "labels.parquet")
            print(table(pd.concat(frames)).to_string(index=False), flush=True)
    print(
        f"\n{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
