"""Does `bias_report` find a planted correlation without accusing innocent concepts?

    make quickstart
    python benchmarks/bias.py --msae outputs/quickstart
    python benchmarks/bias.py --worlds outputs/quickstart outputs/clipart-42

For each pair (target, cause), a probe for the target is trained on scenes in which the cause accompanies most targets
(with the given P(cause | target) instead of about 0.15), as in a dataset with a spurious correlation. The report is
made on scenes without any correlation. In the control, nothing is planted in the training scenes either, so the cause
is innocent too. The tables count which concepts the reports call drivers:

- the target's own concept, and the cause;
- innocent concepts, from groups that have nothing to do with the target or the cause. Each is a false finding;
- related concepts, from the target's and the cause's groups (a triangle may well count as evidence against a star),
  and counts and positions (one of three objects is more likely to be a star).

Rendering scenes again with and without a concept shows what the concept really does to a probe. The last column is the
correlation between these changes in log-odds and the report's, over all concepts that can be put into a scene.

Drawings cannot be rendered again, so with --worlds the cause is planted in the labels, in the same way on both worlds
(benchmarks/worlds.py): a share of the pictures that have the cause are labeled as the target, as if by annotators who
confuse the two. Probes are trained on the pictures that names are made from, and reports are made on the others, for
six pairs of words with a validated name that occur together no more and no less often than by chance. A concept is
related if it is not independent of the target or the cause (Fisher's exact test, p < 0.05), and innocent otherwise.
The tags of drawings are incomplete, so some of those called innocent are not. Two simpler ways are compared with the
report: the association of activations with predictions (positive, Holm-corrected p <= 0.05), and the rank of the cause
by the cosine between the probe and the text embeddings of the concepts. A report is refused if the probe predicts only
one class.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Collection, Iterator
from itertools import permutations
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import torch
from scipy.stats import fisher_exact
from torch.nn.functional import normalize
from tqdm import tqdm
from worlds import uses_of

from hf_msae import MSAEModel
from hf_msae.backbones import Backbone
from hf_msae.backbones.extraction import extract_activations
from hf_msae.bias import bias_report
from hf_msae.concepts import ConceptTable, Vocabulary, name_latents
from hf_msae.embeddings import EmbeddingDataset, load_embeddings
from hf_msae.metrics import LinearClassifier
from hf_msae.scenes import CONCEPTS, load_scenes
from hf_msae.scenes.renderer import render_scene
from hf_msae.scenes.world import GROUP_OF, sample_scene, with_concept

PAIRS = (
    ("star", "red"),
    ("circle", "night"),
    ("heart", "snow"),
    ("house", "yellow"),
    ("cross", "beach"),
    ("ring", "blue"),
)
_UNSETTABLE = ("position", "count")


def rendered_again(backbone: Backbone, number: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Embeddings of the same scenes without and with each concept."""
    found = {}
    for concept in tqdm([c for c in CONCEPTS if GROUP_OF[c] not in _UNSETTABLE], desc="rendering again"):
        found[concept] = tuple(
            backbone.image_embeds([
                render_scene(with_concept(sample_scene("validation", 5, index), concept, present))
                for index in range(number)
            ])
            for present in (False, True)
        )  # fmt: skip
    return found


def true_changes(probe: LinearClassifier, scenes: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> pd.Series:
    """Mean change in the log-odds of the second class when each concept is added."""

    def odds(x: torch.Tensor) -> float:
        return float(probe.logits(x).diff(dim=1).mean())

    return pd.Series({concept: odds(present) - odds(absent) for concept, (absent, present) in scenes.items()})


def training_embeddings(
    folder: Path, backbone: Backbone, number: int, seed: int, rule: dict[tuple[str, str], float] | None
) -> EmbeddingDataset:
    """Embeddings of scenes to train a probe on, kept in `folder` for later runs."""
    scenes = load_scenes("train", number, seed=seed, correlations=rule, num_proc=2)
    name = "nothing" if rule is None else "-".join(f"{a}-{b}-{p}" for (a, b), p in rule.items())
    folder = folder / f"{name}-seed-{seed}-{number}"
    return load_embeddings(extract_activations(backbone, scenes, folder, batch_size=250, progress=False))


def records(
    msae: MSAEModel,
    table: ConceptTable,
    backbone: Backbone,
    embeddings: EmbeddingDataset,
    arguments: argparse.Namespace,
    folder: Path,
) -> Iterator[dict]:
    """One record per probe."""
    again = rendered_again(backbone, arguments.num_rendered_again)
    settings = [
        (seed, probability, target, cause, regularization)
        for seed in arguments.seeds
        for probability in [*arguments.probabilities, None]
        for target, cause in PAIRS
        for regularization in arguments.regularizations
    ]
    for seed, probability, target, cause, regularization in tqdm(settings, desc="reports"):
        rule = None if probability is None else {(target, cause): probability}
        train = training_embeddings(folder, backbone, arguments.num_train, seed, rule)
        labels = np.asarray(train.dataset[target]).astype(int)
        probe = LinearClassifier.fit(train[:], labels, ["no", target], regularization)
        report = bias_report(msae, embeddings, probe, target, table, seed=seed, progress=False)
        related = [name for name, of in GROUP_OF.items() if of in (GROUP_OF[target], GROUP_OF[cause], *_UNSETTABLE)]
        log_odds = report.frame.set_index("name")["log_odds"]
        yield {
            "planted": "nothing" if probability is None else f"{probability:.2f}",
            "regularization": str(regularization),
            "seed": seed,
            "reports": 1,
            **counts(report.frame, target, cause, related),
            "correlation with rendered scenes": log_odds.corr(true_changes(probe, again)),
        }


def counts(frame: pd.DataFrame, target: str, cause: str, related: Collection[str]) -> dict:
    """What a report has found."""
    by_name = frame.set_index("name")
    own = by_name.index.isin([target, cause])
    innocent = ~own & ~by_name.index.isin(list(related))
    found = by_name["drives"].to_numpy()
    ranking = frame.sort_values("log_odds", ascending=False)["name"].tolist()
    return {
        "target": target,
        "cause": cause,
        "target found": bool(by_name["drives"].get(target, False)),
        "cause found": bool(by_name["drives"].get(cause, False)),
        "innocent concepts": int(innocent.sum()),
        "innocent concepts found": int((found & innocent).sum()),
        "related concepts found": int((found & ~own & ~innocent).sum()),
        "rank of cause by log-odds": ranking.index(cause) + 1 if cause in ranking else np.nan,
        "z of cause": by_name["z"].get(cause, np.nan),
        "effect of cause": by_name["effect"].get(cause, np.nan),
        "innocent concepts found, by name": ", ".join(by_name.index[found & innocent]),
    }


def planted_labels(folder: str, number: int = 6) -> Iterator[dict]:
    """One record per report about a probe of labels in which a cause was planted, on each world of a model."""
    msae = MSAEModel.from_pretrained(folder).eval()
    for world in uses_of(folder):
        table, rng = world.names(msae), np.random.default_rng(0)
        (first, truth), (last, _) = world.parts()
        column = {word: place for place, word in enumerate(world.words)}
        texts = normalize(world.embeds - world.embeds.mean(dim=0), dim=-1).double()
        words = world.usable(table)
        dependent = {
            (a, b) for a, b in permutations(words, 2)
            if fisher_exact(pd.crosstab(truth[:, column[a]], truth[:, column[b]])).pvalue < 0.05
        }  # fmt: skip
        pairs = [pair for pair in permutations(words, 2) if pair not in dependent]
        for target, cause in [pairs[place] for place in rng.permutation(len(pairs))[:number]]:
            has, also = truth[:, column[target]], truth[:, column[cause]]
            for share in (1.0, 0.5, 0.0):
                labels = has | (also & (rng.random(len(also)) < share))
                probe = LinearClassifier.fit(first, labels.astype(int), ["no", target], "cv")
                record = {"world": world.name, "planted": f"{share:.0%} of the cause", "reports": 1, "refused": 0}
                try:
                    frame = bias_report(msae, last, probe, target, table, progress=False).frame
                except ValueError as error:
                    if "nothing to explain" not in str(error):
                        raise
                    yield {**record, "refused": 1}
                    continue
                related = [word for word in words if {(word, target), (word, cause)} & dependent]
                associated = (frame["p_association"] <= 0.05) & (frame["association"] > 0)
                simple = counts(frame.assign(drives=associated), target, cause, related)
                cosines = texts @ normalize(probe.weight.diff(dim=0)[0], dim=0)
                places = [column[name] for name in frame["name"] if name in column]
                yield {
                    **record,
                    **counts(frame, target, cause, related),
                    "cause associated": simple["cause found"],
                    "innocent concepts associated": simple["innocent concepts found"],
                    "concepts": len(frame),
                    "rank of cause by text": 1 + int((cosines[places] > cosines[column[cause]]).sum()),
                }


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Sums of the counts and means of the other columns, for each setting."""
    keys = [key for key in ("world", "regularization", "planted") if key in frame]
    averaged = [name for name in frame if name.startswith(("rank", "z of", "effect", "correlation"))]
    counted = frame.columns.difference([*keys, *averaged, "seed", "msae"], sort=False)
    counted = [name for name in counted if frame[name].dropna().map(np.isreal).all()]
    rules = {**dict.fromkeys(counted, "sum"), **dict.fromkeys(averaged, "mean")}
    return frame.groupby(keys, sort=False).agg(rules)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msae", default="outputs/quickstart", help="Folder of a quickstart's model.")
    parser.add_argument(
        "--probabilities", type=float, nargs="*", default=[0.95, 0.8], help="Planted values of P(cause | target)."
    )
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[11, 12, 13], help="Random seeds of the scenes that probes learn from."
    )
    parser.add_argument("--num_train", type=int, default=4000, help="Number of scenes that each probe is trained on.")
    parser.add_argument(
        "--num_rendered_again", type=int, default=200, help="Number of scenes to render with and without each concept."
    )
    parser.add_argument(
        "--regularizations",
        nargs="*",
        default=["cv", 1.0],
        type=lambda word: word if word == "cv" else float(word),
        help="Regularization strengths of the probes: 'cv' (cross-validation) or numbers, as in LinearClassifier.fit.",
    )
    parser.add_argument(
        "--work_dir", help="Folder in which embeddings are kept for later runs. Defaults to a temporary folder."
    )
    parser.add_argument(
        "--worlds", nargs="*", help="Folders of models of either world. Plants causes in labels instead."
    )
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    if arguments.worlds:
        frame = pd.DataFrame(
            {"msae": folder, **each} for folder in arguments.worlds for each in planted_labels(folder)
        )
        show(frame)
        return
    msae = MSAEModel.from_pretrained(arguments.msae)
    backbone, vocabulary = Backbone.from_pretrained("scenes"), Vocabulary.of_scenes()
    table = name_latents(msae, vocabulary, vocabulary.embed(backbone))
    embeddings = load_embeddings(f"{arguments.msae}/embeddings/test")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.work_dir or scratch).expanduser()
        frame = pd.DataFrame(records(msae, table, backbone, embeddings, arguments, folder))
    show(frame)


def show(frame: pd.DataFrame) -> None:
    """Print all records, and their summary."""
    with pd.option_context("display.width", 250):
        print(frame.drop(columns="innocent concepts").to_string(index=False, float_format="{:.3f}".format))
        print(f"\nSums and means\n{summary(frame).to_string(float_format='{:.3f}'.format)}")


if __name__ == "__main__":
    main()
