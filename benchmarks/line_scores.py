"""Do hard negatives tell right labels from wrong ones, and what do SemanticLens' scores say of latents that are known?

Takes the labels that `line.py` found, of all methods, and adds wrong ones: for 15 latents, the concept whose name is
nearest to that of the best one, and on the scenes one that is too narrow ("red star" for "red"). Each label is scored
by the AUC of 20 new pictures of it against control pictures: all of them (CoSy), the 100 without the label that show
the concepts nearest to it in words, and the 100 without the label that the image-text model takes for it.

SemanticLens' scores are of the 20 pictures of the truth that activate a latent most, in the backbone's embeddings: of
the labeled latents, of others that detect no concept, of pairs of labeled latents (the larger of the two activations,
each divided by its maximum), and of random pictures.

    python benchmarks/line_scores.py --labels outputs/line/labels.parquet --seeds 0 1 2 --output outputs/line_scores
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from line_worlds import IMAGERS, MAKERS, World
from sklearn.metrics import roc_auc_score

from hf_msae.concepts import Vocabulary
from hf_msae.neuron_labels import CannotDrawError, Imager, load_word_embeds
from hf_msae.neuron_labels.evaluation.accuracy import best_concepts, label_accuracy
from hf_msae.neuron_labels.evaluation.hard_negatives import (
    HardNegatives,
    hard_negatives_by_concepts,
    hard_negatives_by_nearness,
    nearness_of_concepts,
)
from hf_msae.neuron_labels.evaluation.semanticlens import clarity, polysemanticity, redundancy
from hf_msae.neuron_labels.words import unit_rows

SHOWN, HARD, TOP, GOOD, NUM_TRUTH = 20, 100, 20, 0.9, 1500
WRONG = 15
"""Latents that are given wrong labels."""
FIRST_SEED = 10**6  # far from those of searches
SCORES = ("all controls", "near in words", "near in the model")
LENSES = ("clarity", "polysemanticity", "redundancy")


def wrong_labels(world: World, of: dict[int, str], imager: Imager, rng: np.random.Generator) -> pd.DataFrame:
    """Return near labels of some latents, whose best concepts are given, and on the scenes too narrow ones."""
    words, rows = load_word_embeds(), []
    for latent in sorted(rng.permutation(list(of))[:WRONG].tolist()):
        concept = of[latent]
        near = nearness_of_concepts(concept, world.truth.concepts, words)
        rows.append((latent, world.truth.concepts[int(near.argmax())], "near"))
        for other in rng.permutation(world.truth.concepts) if world.name == "scenes" else ():
            label = f"{other} {concept}"
            reading = world.truth.read(label)
            if reading.presence is None or set(reading.concepts) != {other, concept} or reading.presence.sum() < 10:
                continue
            if pictures(imager, label):
                rows.append((latent, label, "narrow"))
                break
    return pd.DataFrame(rows, columns=["latent", "label", "method"])


def pictures(imager: Imager, label: str) -> list:
    """Return pictures of a label, none if there are fewer than 5."""
    try:
        there_are = imager.most_pictures(label)
        return imager.draw(label, range(FIRST_SEED, FIRST_SEED + min(SHOWN, there_are or SHOWN)))
    except CannotDrawError:
        return []


def scored(world: World, imager: Imager, labels: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Score labels (columns latent, label) with each kind of control pictures; without those that cannot be."""
    words, backbone = load_word_embeds(), world.model.backbone
    control = world.model.image_embeds(world.control, progress=False)
    rows, left_out = [], []
    for label, of_label in labels.groupby("label", sort=False):
        presence, drawn = world.control_truth.read(label).presence, pictures(imager, label)
        if presence is None or len(drawn) < 5:
            left_out.append(f"{label} (unknown to the truth, or of fewer than 5 pictures)")
            continue
        embeds = world.model.image_embeds(drawn, progress=False)
        near = nearness_of_concepts(label, world.truth.concepts, words)
        text = Vocabulary([label], world.templates).embed(backbone)
        cosines = (unit_rows(control) @ unit_rows(text).T)[:, 0]
        try:
            by_words = hard_negatives_by_concepts(
                presence, world.control_truth.presence, world.truth.concepts, near, HARD
            )
        except ValueError as error:  # nothing near it is on the control pictures
            left_out.append(f"{label} ({error})")
            continue
        everything = np.arange(len(world.control))
        kinds = (
            HardNegatives(everything, np.zeros(len(everything)), ()),
            by_words,
            hard_negatives_by_nearness(presence, cosines, HARD),
        )
        for latent in of_label["latent"].tolist():
            of_control = world.activations([latent], control)[:, 0]
            shown = world.activations([latent], embeds)[:, 0]
            areas = [kind.score(of_control, shown, seed=seed).auc for kind in kinds]
            rows.append({"latent": latent, "label": label, **dict(zip(SCORES, areas, strict=True))})
    if left_out:
        print(f"left out {len(left_out)} labels: {', '.join(left_out)}", file=sys.stderr)
    return labels.merge(pd.DataFrame(rows), on=["latent", "label"])


def judged(world: World, imager: Imager, found: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Score the labels of all methods, each label of a latent once, and the wrong ones; say which are right."""
    rng = np.random.default_rng(seed)
    of = dict(zip(found["latent"], found["best"], strict=True))
    labels = found.loc[found["label"].notna(), ["latent", "label"]].drop_duplicates().assign(method="found")
    labels = pd.concat([labels, wrong_labels(world, of, imager, rng)], ignore_index=True)
    labels = scored(world, imager, labels.drop_duplicates(["latent", "label"]), seed)
    activations = world.activations(labels["latent"].tolist(), world.truth_embeds)
    right = label_accuracy(labels["label"].tolist(), activations, world.truth)
    return labels.assign(right=right["right"], is_best=right["is_best"], world=world.name, seed=seed)


def lenses(world: World, latents: list[int], seed: int) -> pd.DataFrame:
    """Compute SemanticLens' scores of the labeled latents, of others, of pairs, and of random pictures."""
    rng, embeds = np.random.default_rng(seed), world.truth_embeds
    everything = world.activations(slice(None), embeds)
    active = np.flatnonzero((everything > 0).sum(axis=0) >= TOP)
    best, area = best_concepts(everything[:, active], world.truth)
    of = dict(zip(active.tolist(), best, strict=True))
    known = [latent for latent in latents if latent in of]
    others = rng.choice(active[area < GOOD], min(len(known), int((area < GOOD).sum())), replace=False).tolist()
    pairs = [(a, b) for a, b in zip(known, rng.permutation(known).tolist(), strict=True) if of[a] != of[b]]
    scaled = everything / np.maximum(everything.max(axis=0), 1e-12)
    groups = {
        "labeled": everything[:, known],
        "no concept": everything[:, others],
        "pairs of labeled": np.stack([np.maximum(scaled[:, a], scaled[:, b]) for a, b in pairs], axis=1),
        "random pictures": rng.random((len(embeds), len(known))),
    }
    rows = []
    for name, activations in groups.items():
        top = embeds[torch.from_numpy(np.argsort(-activations, axis=0, kind="stable")[:TOP].T.copy())]
        values = (clarity(top), polysemanticity(top, seed), redundancy(top))
        frame = pd.DataFrame(dict(zip(LENSES, values, strict=True))).assign(group=name)
        if name == "labeled":
            concepts = pd.Series([of[latent] for latent in known])
            frame["has_twin"] = concepts.duplicated(keep=False)
        rows.append(frame)
    return pd.concat(rows, ignore_index=True).assign(world=world.name, seed=seed)


def area(scores: pd.Series, truth: pd.Series) -> float:
    """Return the AUROC of scores, NaN where all are right or none."""
    return roc_auc_score(truth.astype(bool), scores) if truth.nunique() == 2 else np.nan


def spread(values: list[float]) -> str:
    """Write the mean over seeds with the lowest and highest."""
    values = np.array(values)[np.isfinite(values)]
    return f"{values.mean():.2f} ({values.min():.2f}-{values.max():.2f})" if len(values) else ""


def table_of_labels(frame: pd.DataFrame) -> pd.DataFrame:
    """Return how well each score tells right labels from wrong ones, and the mean scores."""
    rows = []
    for world, own in frame.groupby("world", sort=False):
        found = own[own["method"] == "found"]
        best = own[own["is_best"]].drop_duplicates(["seed", "latent"])
        cases = {"found: right": (found, "right"), "found: the best concept alone": (found, "is_best")}
        for method in ("near", "narrow"):
            wrong = own[(own["method"] == method) & ~own["is_best"]]
            if len(wrong):
                cases[f"best concept or {method}"] = (pd.concat([best, wrong]), "is_best")
        for name, (part, column) in cases.items():
            row = {"world": world, "labels": name, "yes": int(part[column].sum()), "no": int((~part[column]).sum())}
            for score in SCORES:
                row[score] = spread([area(each[score], each[column]) for _, each in part.groupby("seed")])
                row[f"{score}, mean of no"] = f"{part.loc[~part[column], score].mean():.2f}"
            rows.append(row)
    return pd.DataFrame(rows)


def table_of_lenses(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the mean scores of each group, and how well each tells it from the labeled latents."""
    rows = []
    for (world, group), own in frame.groupby(["world", "group"], sort=False):
        row = {"world": world, "group": group, "neurons": len(own)}
        for lens in LENSES:
            row[lens] = spread([each[lens].mean() for _, each in own.groupby("seed")])
            both = frame[(frame["world"] == world) & frame["group"].isin([group, "labeled"])]
            row[f"AUROC of {lens}"] = spread(
                [area(each[lens], each["group"] == "labeled") for _, each in both.groupby("seed")]
            )
        if group == "labeled":
            row["AUROC of redundancy for twins"] = spread(
                [area(each["redundancy"], each["has_twin"]) for _, each in own.groupby("seed")]
            )
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="labels.parquet of line.py")
    parser.add_argument("--worlds", nargs="+", default=[*MAKERS], choices=MAKERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, required=True, help="folder of scores.parquet and lenses.parquet")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    found = pd.read_parquet(args.labels)
    scores, seen = [], []
    for name in args.worlds:
        for seed in args.seeds:
            world, own = MAKERS[name](seed, NUM_TRUTH), found[(found["world"] == name) & (found["seed"] == seed)]
            imager = world.imagers["" if name == "scenes" else IMAGERS["all_authors"]]
            scores.append(judged(world, imager, own, seed))
            seen.append(lenses(world, sorted(set(own["latent"].tolist())), seed))
            pd.concat(scores).to_parquet(args.output / "scores.parquet")
            pd.concat(seen).to_parquet(args.output / "lenses.parquet")
    print(table_of_labels(pd.concat(scores)).to_string(index=False))
    print(table_of_lenses(pd.concat(seen)).to_string(index=False))


if __name__ == "__main__":
    main()
