"""How many names of latents are true, and how long does it take to name 65,536 latents from 20,000 words?

    make quickstart; hf-msae quickstart --seed 43 --output_dir outputs/quickstart-43
    python benchmarks/naming.py --msae outputs/quickstart outputs/quickstart-43 outputs/clipart-42
    python benchmarks/naming.py --msae outputs/quickstart outputs/quickstart-43 --words english.txt
    python benchmarks/naming.py --msae outputs/quickstart outputs/clipart-42 --num_pictures 400
    python benchmarks/naming.py --msae outputs/quickstart outputs/clipart-42 --common 0.4
    python benchmarks/naming.py --msae outputs/quickstart --captions
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
names and their share of the words that some latent detects (words), and the number of names that are true of no
picture; means over the models, and the lowest and highest. Names of one word stand or fall together, so the 95%
intervals of precision draw words, not latents, of all models. "baseline at equal precision" takes the lowest threshold
at which the baseline is as precise as the validated names, judged by the truth, which favors it.

--common adds one random direction to all words, so that some pictures are nearer to every word, until this makes up a
share of the variance of cosines. --captions names the released MSAE of captions (scenes-text) by 20,000 captions of
the first folder, judged by 5,000 others: a word is true of a caption that mentions it.
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
from worlds import GOOD, World, captions, worlds_of

from hf_msae import MSAEConfig, MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.concepts import Vocabulary, name_latents
from hf_msae.concepts.naming import NULLS
from hf_msae.embeddings import load_embeddings
from hf_msae.statistics import resampled_means


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


def interval(names: pd.Series) -> pd.Series:
    """Precision of the names of some models, and its 95% interval from draws of words."""
    found = pd.concat(names.dropna().tolist() or [pd.DataFrame({"name": [], "true": []})])
    counts = found.groupby("name")["true"].agg(["sum", "size"]).to_numpy()
    if not len(counts):
        return pd.Series({"names": 0, "precision": np.nan, "low": np.nan, "high": np.nan})
    draws = resampled_means(counts)
    low, high = np.quantile(draws[:, 0] / draws[:, 1], [0.025, 0.975])
    return pd.Series({"names": len(found), "precision": found["true"].mean(), "low": low, "high": high})


def with_common_part(words: torch.Tensor, pictures: torch.Tensor, share: float) -> torch.Tensor:
    """Add one random direction to all words, until what their cosines have in common has a share of the variance.

    Args:
        words: Embeddings of the words (W, d).
        pictures: Embeddings of the pictures (N, d).
        share: Share of the variance.

    Raises:
        ValueError: What the words have in common already has a larger share.
    """
    words = normalize(words, dim=-1)
    scores = normalize(pictures, dim=-1) @ words.T
    mean = scores.mean(dim=1)
    direction = normalize(torch.randn(words.shape[1], generator=torch.Generator().manual_seed(0)), dim=-1)
    along = normalize(pictures, dim=-1) @ direction
    (own, between), (_, of_direction) = torch.cov(torch.stack([mean, along])).tolist()
    wanted = share / (1 - share) * (scores.var(dim=0).mean().item() - own)
    if wanted < own:
        raise ValueError(
            f"what the words have in common already makes up more than {share} of the variance of cosines"
        )
    amount = (-between + (between**2 + of_direction * (wanted - own)) ** 0.5) / of_direction
    return words + amount * direction


def rules(
    msae: MSAEModel,
    world: World,
    vocabulary: Vocabulary,
    embeds: torch.Tensor,
    num_pictures: int | None = None,
    nulls: int = len(NULLS),
    seed: int = 0,
) -> Iterator[dict]:
    """One record per rule; names are made from the first `num_pictures` of their half, by the first `nulls` nulls."""
    pictures, judged = world.pictures[: world.half][:num_pictures], world.pictures[world.half :]
    with torch.no_grad():
        seen, codes = (torch.cat([msae.encode(b) for b in x.split(4096)]).numpy() for x in (pictures, judged))
    areas = aurocs(codes, world.truth[world.half :])
    detects = areas.max(axis=1) > GOOD
    detected = int((areas.max(axis=0) > GOOD).sum())
    number = {word: place for place, word in enumerate(world.words)}

    def truth_of(named: pd.Series) -> np.ndarray:
        return np.array([name in number and areas[row, number[name]] > GOOD for row, name in enumerate(named)])

    def record(rule: str, named: pd.Series, chosen: np.ndarray) -> dict:
        true = truth_of(named)
        right = chosen & true
        return {
            "rule": rule,
            "latents named": int(chosen.sum()),
            "precision": float(true[chosen].mean()) if chosen.any() else np.nan,
            "recall": float((right & detects).sum() / detects.sum()),
            "distinct words": int(named[right].nunique()),
            "words": float(named[right].nunique() / detected),
            "names of no picture": int((chosen & ~named.isin(world.words).to_numpy()).sum()),
            "names": pd.DataFrame({"name": named[chosen], "true": true[chosen]}),
        }

    everything = np.ones(len(areas), dtype=bool)
    table = name_latents(msae, vocabulary, embeds, pictures, seed=seed)
    frame = table.to_pandas()
    validated = frame["validated"].to_numpy()
    yield record("pictures: validated (the default)", frame["name"], validated)
    yield record("pictures: q <= 0.05", frame["name"], (frame["q_value"] <= 0.05).to_numpy())
    best, correlation = baseline(seen, pictures, embeds, seed)
    named = pd.Series([vocabulary.words[i] for i in best])
    for threshold in (0.4, 0.5, 0.6, 0.7):
        yield record(f"baseline: correlation >= {threshold}", named, correlation >= threshold)
    order = np.argsort(-correlation, kind="stable")
    precise = np.cumsum(truth_of(named)[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precise >= truth_of(frame["name"])[validated].mean()) if validated.any() else []
    chosen = np.isin(np.arange(len(order)), order[: max(enough, default=-1) + 1])
    yield record("baseline at equal precision", named, chosen)
    by_activation = frame["activation_name"]
    for null in NULLS[:nulls]:
        table = name_latents(msae, vocabulary, embeds, null=null)
        frame = table.to_pandas()
        yield record(f"q <= 0.05, null: {null}", frame["name"], (frame["q_value"] <= 0.05).to_numpy())
        if null == NULLS[0]:
            agree = (frame["name"] == by_activation).to_numpy()
            valid = (frame["q_value"] <= 0.05).to_numpy()
            yield record(f"the same, and the name by activations agrees ({null})", frame["name"], valid & agree)
            yield record("the name by activations agrees", frame["name"], agree)
            fixed = frame["latent"].isin(table.by_rule()["latent"]).to_numpy()
            yield record("similarity >= 0.42, ratio >= 2", frame["name"], fixed)
            yield record("every latent, nearest word", frame["name"], everything)
    yield record("every latent, name by activations", by_activation, everything)
    yield {
        "rule": "(latents that detect something)",
        "latents named": int(detects.sum()),
        "distinct words": detected,
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
    parser.add_argument("--common", type=float, help="Share of the variance of cosines that all words have in common.")
    parser.add_argument("--captions", action="store_true", help="Name the released MSAE of captions instead.")
    arguments = parser.parse_args()
    if arguments.scale:
        scale(arguments.scale_latents, arguments.scale_data)
        return
    more = list(Vocabulary.from_file(arguments.words).words) if arguments.words else []
    cases = [(folder, each) for folder in arguments.msae for each in worlds_of(folder)]
    if arguments.captions:
        cases = [("scenes-text", captions(arguments.msae[0]))]
    records = []
    for folder, world in cases:
        msae = MSAEModel.from_released(folder) if arguments.captions else MSAEModel.from_pretrained(folder)
        vocabulary = world.vocabulary(more)
        embeds = vocabulary.embed(Backbone.from_pretrained(world.backbone))
        if arguments.common:
            embeds = with_common_part(embeds, world.pictures[: world.half], arguments.common)
        found = rules(msae.eval(), world, vocabulary, embeds, arguments.num_pictures, 1 if more else len(NULLS))
        records += [{"world": world.name, "msae": folder, **each} for each in found]
    table = pd.DataFrame(records)
    numbers = ["latents named", "precision", "recall", "distinct words", "words", "names of no picture"]
    groups = table.groupby(["world", "rule"], sort=False)
    with pd.option_context("display.width", 250, "display.max_columns", None, "display.float_format", "{:.3g}".format):
        print(groups[numbers].agg(["mean", "min", "max"]).to_string())
        print(groups["names"].apply(interval).unstack().to_string())


if __name__ == "__main__":
    main()
