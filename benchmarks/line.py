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
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import concatenate_datasets

from hf_msae import VisionTextMSAE
from hf_msae.clipart import load_clipart
from hf_msae.concepts import Vocabulary
from hf_msae.neuron_labels import (
    CompositionImager,
    Control,
    Imager,
    MSAENeuron,
    ScenesImager,
    TagsImager,
    TransformersProposer,
    VocabularyProposer,
    ZeroShotStart,
    label_neurons,
    load_word_embeds,
)
from hf_msae.neuron_labels.evaluation.accuracy import best_concepts, label_accuracy, outside_vocabulary
from hf_msae.neuron_labels.evaluation.baselines import Agreement, ClipDissect, Invert, VocabularyCosine
from hf_msae.neuron_labels.evaluation.label_checks import check_labels
from hf_msae.neuron_labels.evaluation.truth import SceneTruth, WordTruth
from hf_msae.scenes import CONCEPTS, load_scenes
from hf_msae.scenes.world import sample_scene

IMAGES = 5
PAPER_OTHERS = 11  # concepts that the paper's search scores besides its proposals: ten to start from, and a merger
IMAGERS = {"other_authors": "", "all_authors": ", all authors", "composed": ", all authors, composed"}
WITHHELD = 0.25
NUM_CONTROL, NUM_TRUTH, NUM_KNOWN_DRAWINGS = 1000, 3000, 1500
MEASURES = ("auprc", "correlation", "f1", "iou")
COSTS = ("calls", "tokens", "images", "scored", "seconds")
"""A neuron's share of what a run spends, and the pictures that its search scored, which neurons share."""
OTHERS = (
    "dog cat river mountain phone chair politics music happy angry running sleeping metal glass cheese school king "
    "queen justice winter spring summer autumn rain thunder book newspaper letter equation wheel war peace poem sugar"
).split()
"""Words that vocabularies hold besides the true ones."""


@dataclass
class World:
    """Pictures for every purpose, and what is true of them."""

    name: str
    model: VisionTextMSAE
    control: list
    control_presence: np.ndarray
    imagers: dict[str, Imager]
    truth: SceneTruth | WordTruth
    truth_embeds: torch.Tensor
    templates: tuple[str, ...]

    def activations(self, latents: list[int] | slice, embeddings: torch.Tensor) -> np.ndarray:
        """Activations of latents (N, n)."""
        with torch.no_grad():
            return torch.cat([self.model.msae.encode(part)[:, latents] for part in embeddings.split(512)]).numpy()


def scenes_world(seed: int) -> World:
    """Scenes of other seeds for the control and for the truth; the imager renders scenes that are in neither."""
    model = VisionTextMSAE.from_pretrained("scenes-image")
    control, known = load_scenes("test", NUM_CONTROL, seed=seed + 100), load_scenes("test", NUM_TRUTH, seed=seed + 200)
    truth = SceneTruth([sample_scene("test", seed + 200, index) for index in range(NUM_TRUTH)])
    presence = control.select_columns(list(CONCEPTS)).to_pandas().to_numpy(dtype=bool)
    templates = Vocabulary.of_scenes().templates
    embeds = model.image_embeds(known["image"], progress=False)
    imagers = {"": ScenesImager(seed)}
    return World("scenes", model, control["image"][:], presence, imagers, truth, embeds, templates)


def clipart_world(seed: int) -> World:
    """Drawings of known authors for control and truth; imagers take other drawings, by their tags."""
    model = VisionTextMSAE.from_pretrained("clipart-image")
    train = load_clipart("train").shuffle(seed=seed)
    end = NUM_CONTROL + NUM_KNOWN_DRAWINGS
    control, known = train.select(range(NUM_CONTROL)), train.select(range(NUM_CONTROL, end))
    unseen = concatenate_datasets([load_clipart("validation"), load_clipart("test")])
    truth = WordTruth.from_tags(known["tags"][:], least=20)
    presence = np.array([[tag in tags for tag in truth.concepts] for tags in control["tags"]])
    others = concatenate_datasets([unseen, train.select(range(end, len(train)))])
    of_all = TagsImager(others["image"], others["tags"])
    made = (TagsImager(unseen["image"], unseen["tags"]), of_all, CompositionImager(of_all, seed=seed))
    imagers = dict(zip(IMAGERS.values(), made, strict=True))
    embeds = model.image_embeds(known["image"], progress=False)
    return World("clipart", model, control["image"][:], presence, imagers, truth, embeds, ("{}",))


def run(world: World, seed: int, num_neurons: int, proposers: list[str]) -> pd.DataFrame:
    """Label the same neurons by every method, and judge the labels.

    After `vocabulary`, `paper` makes as many proposals as its search, which measures no leader again, could score with
    as many pictures if all could be drawn.
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
    words = [concept for concept in world.truth.concepts if concept not in withheld]
    vocabulary = Vocabulary([*words, *(word for word in OTHERS if word not in world.truth.concepts)], world.templates)
    embeds = vocabulary.embed(model.backbone)
    columns = [world.truth.concepts.index(word) for word in words]
    shown = everything[:, latents]
    image_embeds = control_embeds
    directions = model.msae.decoder.detach()[latents]
    found: dict[str, tuple[list[str | None], np.ndarray, dict[str, float]]] = {}
    for baseline in (
        VocabularyCosine(vocabulary, embeds, directions),
        ClipDissect(vocabulary, embeds, image_embeds),
        Agreement(vocabulary, embeds, image_embeds, seed),
        Invert(words, world.control_presence[:, columns]),
    ):
        start = time.perf_counter()
        labels = baseline.label(shown)["label"].tolist()
        costs = {name: 0.0 for name in COSTS} | {"seconds": (time.perf_counter() - start) / len(labels)}
        found[baseline.name] = (labels, np.ones(len(labels), bool), costs)
    neurons = [MSAENeuron(model, latent) for latent in latents]
    classes = {
        word: [world.control[row] for row in np.flatnonzero(world.control_presence[:, column])]
        for word, column in zip(words, columns, strict=True)
    }
    classes = {word: members for word, members in classes.items() if len(members) >= 5}
    for name in proposers:
        paper = name == "paper"
        proposer = make_proposer("vocabulary" if paper else name, vocabulary)
        chosen = neurons[: 10 if name == "gemma" else None]
        fitting = ZeroShotStart(control, model.backbone, general_words() if name == "open words" else vocabulary)
        begin = {neuron.key: [*fitting(neuron), *proposer.first(5, seed)] for neuron in chosen}
        for suffix, imager in world.imagers.items():
            iterations = 10
            if paper and (ours := found.get(f"LINE, vocabulary{suffix}")):  # at equal budget
                iterations = max(1, round(ours[2]["scored"] / IMAGES) - PAPER_OTHERS)
            result = label_neurons(
                chosen,
                proposer,
                imager,
                Control(classes, seed, progress=False) if paper else control,
                iterations=iterations,
                images_per_concept=IMAGES,
                paper=paper,
                seed=seed,
                start=lambda neuron, begin=begin: begin[neuron.key],
                num_pairs=0,
                progress=False,
            )
            by_latent = {label.latent: label for label in result.labels}
            labels = [by_latent[latent].label if latent in by_latent else None for latent in latents[: len(chosen)]]
            confirmed = [latent in by_latent and by_latent[latent].confirmed for latent in latents[: len(chosen)]]
            costs = {cost: result.spent[cost] / len(chosen) for cost in COSTS if cost != "scored"}
            costs["scored"] = sum(label.history["num_images"].sum() for label in result.labels) / len(chosen)
            found[f"LINE, {name}{suffix}"] = (labels, np.array(confirmed), costs)
    rows = []
    of_truth = world.activations(latents, world.truth_embeds)
    for method, (labels, confirmed, costs) in found.items():
        judged = label_accuracy(labels, of_truth[:, : len(labels)], world.truth, measures=MEASURES)
        judged["method"], judged["world"], judged["seed"] = method, world.name, seed
        judged["latent"], judged["confirmed"] = latents[: len(labels)], confirmed
        judged["withheld"] = [of[latent] in withheld for latent in latents[: len(labels)]]
        checks = check_labels(labels, of_truth[:, : len(labels)], world.truth, seed, num_resamples=2).to_pandas()
        judged["noticed_by"] = checks["noticed_by"].where(checks["reason"] == "").to_numpy()
        judged["outside"] = outside_vocabulary(labels, vocabulary.words)
        rows.append(judged.assign(**costs))
    return pd.concat(rows, ignore_index=True)


def make_proposer(name: str, vocabulary: Vocabulary):
    """The vocabulary's words, the words of a language model's tokenizer, or a small language model."""
    if name == "vocabulary":
        return VocabularyProposer(vocabulary, load_word_embeds())
    if name == "open words":
        return VocabularyProposer(general_words(), load_word_embeds())
    if name == "gemma":
        return TransformersProposer(str(GEMMA), gguf_file="gemma-3-270m-q4_k_m.gguf")
    raise SystemExit(f"there is no proposer {name!r}")


def general_words() -> list[str]:
    """Whole words of Llama 2's tokenizer, as WordLlama has them: English, but not chosen for these worlds."""
    import wordllama

    folder = Path(wordllama.__file__).parent / "tokenizers"
    (file,) = folder.glob("l2_supercat_tokenizer_config.json")
    tokens = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    words = [token[1:] for token in tokens if token.startswith("\u2581")]
    return [
        word
        for word in dict.fromkeys(words)
        if len(word) >= 3 and word.isascii() and word.isalpha() and word.islower()
    ]


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
    parser.add_argument("--worlds", nargs="+", default=["scenes", "clipart"], choices=["scenes", "clipart"])
    parser.add_argument("--num_neurons", type=int, default=50)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--proposers", nargs="+", default=["vocabulary", "paper", "open words"])
    parser.add_argument("--imagers", nargs="+", default=[*IMAGERS], choices=IMAGERS, help="of the clip art")
    parser.add_argument("--gemma", type=Path, default=Path("gemma"), help="folder of the GGUF file, for 'gemma'")
    parser.add_argument("--output", type=Path, required=True, help="folder of labels.parquet")
    args = parser.parse_args()
    global GEMMA
    GEMMA = args.gemma
    args.output.mkdir(parents=True, exist_ok=True)
    makers = {"scenes": scenes_world, "clipart": clipart_world}
    frames = []
    for name in args.worlds:
        for seed in args.seeds:
            world = makers[name](seed)
            if name == "clipart":
                world.imagers = {suffix: world.imagers[suffix] for suffix in map(IMAGERS.get, args.imagers)}
            frames.append(run(world, seed, args.num_neurons, args.proposers))
            pd.concat(frames).to_parquet(args.output / "labels.parquet")
            print(table(pd.concat(frames)).to_string(index=False), flush=True)
    print(
        f"\n{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
