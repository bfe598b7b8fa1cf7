"""Does `bias_report` find a planted correlation, and clear what is innocent?

    make quickstart
    python benchmarks/bias.py --msae outputs/quickstart

For each pair (target, cause) a probe for the target learns from scenes in which the cause is there with most targets
(P(cause | target) as given, otherwise about 0.15), as a data set with a spurious correlation would have it. The report
is about scenes without any correlation. As a control the same with scenes in which nothing is planted: there the cause
is innocent too. Found are, in each report:

- the target's own concept, and the cause;
- innocent concepts: those of groups that have nothing to do with either. Each is a false finding;
- related ones: of the target's and the cause's groups (a probe for "star" may well hold a "triangle" against a
  picture), and counts and positions (of three things one is rather a star).

What a concept really does to a probe can be seen by rendering scenes again, with the concept and without: `truth` is
the correlation of the report's changes of the log-odds with these, over all concepts that can be put into a scene.
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
    """Embeddings of scenes without and with each concept, all else the same."""
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
    """Mean change of the log-odds of the second class by each concept."""

    def odds(x: torch.Tensor) -> float:
        return float(probe.logits(x).diff(dim=1).mean())

    return pd.Series({concept: odds(present) - odds(absent) for concept, (absent, present) in scenes.items()})


def embeddings(
    folder: Path, backbone: Backbone, number: int, seed: int, rule: dict[tuple[str, str], float] | None
) -> EmbeddingDataset:
    """Of scenes to train a probe on; kept in `folder` for the next time."""
    scenes = load_scenes("train", number, seed=seed, correlations=rule, num_proc=2)
    name = "nothing" if rule is None else "-".join(f"{a}-{b}-{p}" for (a, b), p in rule.items())
    folder = folder / f"{name}-seed-{seed}-{number}"
    return load_embeddings(extract_activations(backbone, scenes, folder, batch_size=250, progress=False))


def records(
    msae: MSAEModel,
    table: ConceptTable,
    backbone: Backbone,
    acts: EmbeddingDataset,
    arguments: argparse.Namespace,
    folder: Path,
) -> Iterator[dict]:
    """One a probe."""
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
        train = embeddings(folder, backbone, arguments.num_train, seed, rule)
        labels = np.asarray(train.dataset[target]).astype(int)
        probe = LinearClassifier.fit(train[:], labels, ["no", target], regularization)
        report = bias_report(msae, acts, probe, target, table, seed=seed, progress=False)
        by_name = report.frame.set_index("name")
        groups = by_name.index.map(GROUP_OF)
        related = groups.isin([GROUP_OF[target], GROUP_OF[cause], *_UNSETTABLE])
        found = by_name["drives"].to_numpy()
        true = true_changes(probe, again)
        in_favour = report.frame.sort_values("log_odds", ascending=False)["name"].tolist()
        yield {
            "planted": "nothing" if probability is None else f"{probability:.2f}",
            "regularization": str(regularization),
            "seed": seed,
            "target": target,
            "cause": cause,
            "target found": bool(by_name["drives"].get(target, False)),
            "cause found": bool(by_name["drives"].get(cause, False)),
            "innocent": int((~related).sum()),
            "innocent found": int((found & ~related).sum()),
            "related found": int((found & related).sum())
            - sum(bool(by_name["drives"].get(name, False)) for name in (target, cause)),
            "place of cause": in_favour.index(cause) + 1 if cause in in_favour else np.nan,
            "z of cause": by_name["z"].get(cause, np.nan),
            "effect of cause": by_name["effect"].get(cause, np.nan),
            "truth": by_name["log_odds"].corr(true),
            "which innocent": ", ".join(by_name.index[found & ~related]),
        }


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Sums of what was found and means of the rest, for each setting."""
    counted = ["target found", "cause found", "innocent", "innocent found", "related found"]
    averaged = ["place of cause", "z of cause", "effect of cause", "truth"]
    rules = {"target": "size", **dict.fromkeys(counted, "sum"), **dict.fromkeys(averaged, "mean")}
    return frame.groupby(["regularization", "planted"]).agg(rules).rename(columns={"target": "reports"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msae", default="outputs/quickstart", help="folder of a quickstart")
    parser.add_argument(
        "--probabilities", type=float, nargs="*", default=[0.95, 0.8], help="P(cause | target) planted"
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[11, 12, 13])
    parser.add_argument("--num_train", type=int, default=4000, help="scenes that a probe learns from")
    parser.add_argument("--num_rendered_again", type=int, default=200, help="scenes with and without each concept")
    parser.add_argument(
        "--regularizations",
        nargs="*",
        default=["cv", 1.0],
        type=lambda word: word if word == "cv" else float(word),
        help="of the probes: as LinearClassifier.fit takes them",
    )
    parser.add_argument("--work_dir", help="where embeddings are kept for the next time [a temporary folder]")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    msae = MSAEModel.from_pretrained(arguments.msae)
    backbone, vocabulary = Backbone.from_pretrained("scenes"), Vocabulary.of_scenes()
    table = name_latents(msae, vocabulary, vocabulary.embed(backbone))
    acts = load_embeddings(f"{arguments.msae}/embeddings/test")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.work_dir or scratch).expanduser()
        frame = pd.DataFrame(records(msae, table, backbone, acts, arguments, folder))
    with pd.option_context("display.width", 250):
        print(frame.drop(columns="innocent").to_string(index=False, float_format="{:.3f}".format))
        print(f"\nsums and means\n{summary(frame).to_string(float_format='{:.3f}'.format)}")


if __name__ == "__main__":
    main()
