"""Does `bias_report` find a planted correlation without accusing innocent concepts?

    make quickstart
    python benchmarks/bias.py --msae outputs/quickstart

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
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

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
        by_name = report.frame.set_index("name")
        groups = by_name.index.map(GROUP_OF)
        related = groups.isin([GROUP_OF[target], GROUP_OF[cause], *_UNSETTABLE])
        found = by_name["drives"].to_numpy()
        true = true_changes(probe, again)
        ranking = report.frame.sort_values("log_odds", ascending=False)["name"].tolist()
        yield {
            "planted": "nothing" if probability is None else f"{probability:.2f}",
            "regularization": str(regularization),
            "seed": seed,
            "target": target,
            "cause": cause,
            "target found": bool(by_name["drives"].get(target, False)),
            "cause found": bool(by_name["drives"].get(cause, False)),
            "innocent concepts": int((~related).sum()),
            "innocent concepts found": int((found & ~related).sum()),
            "related concepts found": int((found & related).sum())
            - sum(bool(by_name["drives"].get(name, False)) for name in (target, cause)),
            "rank of cause by log-odds": ranking.index(cause) + 1 if cause in ranking else np.nan,
            "z of cause": by_name["z"].get(cause, np.nan),
            "effect of cause": by_name["effect"].get(cause, np.nan),
            "correlation with rendered scenes": by_name["log_odds"].corr(true),
            "innocent concepts found, by name": ", ".join(by_name.index[found & ~related]),
        }


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Sums of the counts and means of the other columns, for each setting."""
    counted = ["target found", "cause found", "innocent concepts", "innocent concepts found", "related concepts found"]
    averaged = ["rank of cause by log-odds", "z of cause", "effect of cause", "correlation with rendered scenes"]
    rules = {"target": "size", **dict.fromkeys(counted, "sum"), **dict.fromkeys(averaged, "mean")}
    return frame.groupby(["regularization", "planted"]).agg(rules).rename(columns={"target": "reports"})


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
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    msae = MSAEModel.from_pretrained(arguments.msae)
    backbone, vocabulary = Backbone.from_pretrained("scenes"), Vocabulary.of_scenes()
    table = name_latents(msae, vocabulary, vocabulary.embed(backbone))
    embeddings = load_embeddings(f"{arguments.msae}/embeddings/test")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.work_dir or scratch).expanduser()
        frame = pd.DataFrame(records(msae, table, backbone, embeddings, arguments, folder))
    with pd.option_context("display.width", 250):
        print(frame.drop(columns="innocent concepts").to_string(index=False, float_format="{:.3f}".format))
        print(f"\nSums and means\n{summary(frame).to_string(float_format='{:.3f}'.format)}")


if __name__ == "__main__":
    main()
