"""How many names of latents are true, and how long does it take to name 65,536 latents from 20,000 words?

    make quickstart; hf-msae quickstart --seed 43 --output_dir outputs/quickstart-43
    python benchmarks/naming.py --msae outputs/quickstart outputs/quickstart-43 outputs/clipart-42
    python benchmarks/naming.py --msae outputs/quickstart outputs/quickstart-43 --words english.txt
    python benchmarks/naming.py --msae outputs/quickstart outputs/clipart-42 --num_pictures 400
    python benchmarks/naming.py --scale
    python benchmarks/naming.py --scale --scale_latents 16384 --scale_data outputs/clipart-42/embeddings/train

The content of every scene is known, and so are the tags of every drawing of the clip art. A latent detects what a word
means if its activation separates pictures of it from all others at an AUROC above 0.9, and a name is true if the
latent detects what it means. The vocabulary of the scenes is their 61 concepts and 76 words that no scene is about;
that of the clip art is the tags on at least 10 of the drawings that judge, and those of the 76 words that are in no
tag. Words that are in the vocabulary and true of no picture are always wrong; --words adds the words of a file, most
frequent first. Names are made from one half of the pictures and judged by the other. The simplest rule that uses
pictures is the baseline: the word whose zero-shot scores correlate best with the activations on some pictures, if they
correlate by more than a threshold on others.

The table shows for each rule how many latents get a name, the share of these names that are true (precision), the
share of the latents that detect something and get a true name (recall), the number of distinct words among the true
names, and the number of names that are true of no picture.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch.nn.functional import normalize
from worlds import GOOD, World, worlds_of

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.concepts import Vocabulary, name_by_activations, name_latents
from hf_msae.concepts.naming import NULLS
from hf_msae.embeddings import load_embeddings


def aurocs(codes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """AUROC of every latent's activation for every concept, `(latents, concepts)`; ties count half."""
    ranks = np.apply_along_axis(rankdata, 0, codes)
    found = []
    for concept in truth.T:
        positive = concept.sum()
        area = ranks[concept].sum(axis=0) - positive * (positive + 1) / 2
        found.append(area / (positive * (len(codes) - positive)))
    return np.stack(found, axis=1)


def baseline(
    codes: np.ndarray, pictures: torch.Tensor, words: torch.Tensor, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Word of each latent by correlation on one half of the pictures, and the correlation on the other half."""
    scores = (normalize(pictures, dim=-1) @ normalize(words, dim=-1).T).numpy()

    def correlations(rows: np.ndarray) -> np.ndarray:
        a, s = codes[rows] - codes[rows].mean(0), scores[rows] - scores[rows].mean(0)
        scale = np.sqrt(np.outer((a**2).sum(0), (s**2).sum(0)))
        return np.divide(a.T @ s, scale, out=np.full(scale.shape, -1.0, dtype=np.float32), where=scale > 0)

    order = np.random.default_rng(seed).permutation(len(codes))
    best = correlations(order[: len(order) // 2]).argmax(axis=1)
    return best, correlations(order[len(order) // 2 :])[np.arange(len(best)), best]


def rules(
    msae: MSAEModel, world: World, backbone: Backbone, more_words: list[str], num_pictures: int | None
) -> Iterator[dict]:
    """One record per rule; names are made from the first `num_pictures` of their half."""
    vocabulary = world.vocabulary(more_words)
    embeds = vocabulary.embed(backbone)
    pictures, judged = world.pictures[: world.half][:num_pictures], world.pictures[world.half :]
    with torch.no_grad():
        seen, codes = (torch.cat([msae.encode(b) for b in x.split(4096)]).numpy() for x in (pictures, judged))
    areas = aurocs(codes, world.truth[world.half :])
    detects = areas.max(axis=1) > GOOD
    number = {word: place for place, word in enumerate(world.words)}

    def record(rule: str, named: pd.Series, chosen: np.ndarray) -> dict:
        true = np.array([name in number and areas[row, number[name]] > GOOD for row, name in enumerate(named)])
        right = chosen & true
        return {
            "rule": rule,
            "latents named": int(chosen.sum()),
            "precision": float(true[chosen].mean()) if chosen.any() else np.nan,
            "recall": float((right & detects).sum() / detects.sum()),
            "distinct words": int(named[right].nunique()),
            "names of no picture": int((chosen & ~named.isin(world.words).to_numpy()).sum()),
        }

    everything = np.ones(len(areas), dtype=bool)
    frame = name_latents(msae, vocabulary, embeds, pictures).to_pandas()
    yield record("pictures: validated (the default)", frame["name"], frame["validated"].to_numpy())
    yield record("pictures: q <= 0.05", frame["name"], (frame["q_value"] <= 0.05).to_numpy())
    best, correlation = baseline(seen, pictures, embeds)
    for threshold in (0.4, 0.5, 0.6, 0.7):
        named = pd.Series([vocabulary.words[i] for i in best])
        yield record(f"baseline: correlation >= {threshold}", named, correlation >= threshold)
    by_activation = name_by_activations(msae, pictures, vocabulary, embeds, progress=False)
    for null in NULLS:
        table = name_latents(msae, vocabulary, embeds, null=null)
        frame = table.to_pandas()
        yield record(f"q <= 0.05, null: {null}", frame["name"], (frame["q_value"] <= 0.05).to_numpy())
        if null == NULLS[0]:
            agree = (frame["name"] == by_activation["activation_name"]).to_numpy()
            valid = (frame["q_value"] <= 0.05).to_numpy()
            yield record(f"the same, and the name by activations agrees ({null})", frame["name"], valid & agree)
            yield record("the name by activations agrees", frame["name"], agree)
            fixed = frame["latent"].isin(table.by_rule()["latent"]).to_numpy()
            yield record("similarity >= 0.42, ratio >= 2", frame["name"], fixed)
            yield record("every latent, nearest word", frame["name"], everything)
    yield record("every latent, name by activations", by_activation["activation_name"], everything)
    yield {
        "rule": "(latents that detect something)",
        "latents named": int(detects.sum()),
        "distinct words": int((areas.max(axis=0) > GOOD).sum()),
    }


def scale(num_latents: int, folder: str | None, num_words: int = 20_000) -> None:
    """Time and memory of naming, compared with the bare matrix products of its inputs."""
    torch.manual_seed(0)
    embeddings = load_embeddings(folder) if folder else None
    width = embeddings.width if folder else 768
    pictures = embeddings[:] if folder else None
    msae = MSAEModel(MSAEConfig(d_in=width, num_latents=num_latents, nesting="none")).eval()
    if folder:
        statistics = embeddings.statistics()
        msae.set_input_statistics(statistics.mean, statistics.input_scale)
    vocabulary = Vocabulary([f"word {i}" for i in range(num_words)])
    # Words that lie where pictures are, or no name would be chosen.
    near = pictures[torch.randint(len(pictures), (num_words,))] if folder else 0
    embeds = near + 0.3 * torch.randn(num_words, width)
    directions = normalize(msae.dictionary.detach(), dim=-1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    name_latents(msae, vocabulary, embeds, pictures)
    naming = time.process_time() - begun
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    begun = time.process_time()
    for rows in directions.split(1024):  # latents x words and, with pictures, latents x pictures and back
        rows @ embeds.T
        if pictures is not None:
            (rows @ pictures.T) @ pictures
    bare = time.process_time() - begun
    print(
        f"{num_latents} latents: naming {naming:.1f} s, matrix products {bare:.1f} s of CPU, {naming / bare:.1f} times"
    )
    print(f"{more:.2f} GiB more memory than before")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--msae", nargs="*", default=["outputs/quickstart"], help="Folders of models, with their embeddings."
    )
    parser.add_argument("--scale", action="store_true", help="Measure time and memory instead of the names.")
    parser.add_argument("--scale_latents", type=int, default=65_536, help="Number of latents for --scale.")
    parser.add_argument("--scale_data", help="Embeddings of pictures to name from, for --scale. Defaults to none.")
    parser.add_argument("--words", help="Text file of further words, one per line, most frequent first.")
    parser.add_argument("--num_pictures", type=int, help="Make names from so many pictures instead of half of them.")
    arguments = parser.parse_args()
    if arguments.scale:
        scale(arguments.scale_latents, arguments.scale_data)
        return
    more = list(Vocabulary.from_file(arguments.words).words) if arguments.words else []
    records = [
        {"world": world.name, "msae": folder, **record}
        for folder in arguments.msae
        for world in worlds_of(folder)
        for record in rules(
            MSAEModel.from_pretrained(folder).eval(),
            world,
            Backbone.from_pretrained(world.backbone),
            more,
            arguments.num_pictures,
        )
    ]
    table = pd.DataFrame(records)
    numbers = ["latents named", "precision", "recall", "distinct words", "names of no picture"]
    means = table.groupby(["world", "rule"], sort=False)[numbers].agg(["mean", "min", "max"])
    with pd.option_context("display.width", 220, "display.float_format", "{:.3g}".format):
        print(means.to_string())


if __name__ == "__main__":
    main()
