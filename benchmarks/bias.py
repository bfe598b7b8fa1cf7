"""Does `bias_report` find a planted correlation, and clear what is innocent?

    make quickstart
    python benchmarks/bias.py --msae outputs/quickstart

For each pair (target, cause) a probe for the target learns from scenes in which the cause is there with most targets
(P(cause | target) as given, otherwise about 0.15), as a data set with a spurious correlation would have it. The report
is about scenes without any correlation. True findings: the target's own concept, and the cause. False ones: any other
concept. As a control the same with scenes in which nothing is planted: there the cause is innocent too.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from hf_msae import MSAEModel
from hf_msae.activations import ActivationDataset, load_activations
from hf_msae.backbones import Backbone
from hf_msae.concepts import ConceptTable, Vocabulary, bias_report, name_latents
from hf_msae.extraction import extract_activations
from hf_msae.metrics import LinearClassifier
from hf_msae.scenes import load_scenes

PAIRS = (
    ("star", "red"),
    ("circle", "night"),
    ("heart", "snow"),
    ("house", "yellow"),
    ("cross", "beach"),
    ("ring", "blue"),
)


def records(
    msae: MSAEModel,
    table: ConceptTable,
    backbone: Backbone,
    acts: ActivationDataset,
    probabilities: list[float | None],
    seeds: list[int],
    num_train: int,
) -> Iterator[dict]:
    """One a probe."""
    for seed in seeds:
        for probability in probabilities:
            for target, cause in PAIRS:
                rule = None if probability is None else {(target, cause): probability}
                scenes = load_scenes("train", num_train, seed=seed, correlations=rule)
                with tempfile.TemporaryDirectory() as scratch:
                    folder = extract_activations(backbone, scenes, Path(scratch), batch_size=250, progress=False)
                    labels = np.asarray(scenes[target]).astype(int)
                    probe = LinearClassifier.fit(load_activations(folder)[:], labels, ["no", target])
                report = bias_report(msae, acts, probe, target, table, seed=seed, progress=False)
                found = set(report.drivers["name"])
                positive = report.frame.sort_values("log_odds", ascending=False)["name"].tolist()
                yield {
                    "planted": "nothing" if probability is None else f"{probability:.2f}",
                    "seed": seed,
                    "target": target,
                    "cause": cause,
                    "asked about": len(report.frame),
                    "target found": target in found,
                    "cause found": cause in found,
                    "others found": len(found - {target, cause}),
                    "rank of cause": positive.index(cause) + 1 if cause in positive else np.nan,
                    "effect of cause": report.frame.set_index("name")["effect"].get(cause, np.nan),
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msae", default="outputs/quickstart", help="folder of a quickstart")
    parser.add_argument(
        "--probabilities", type=float, nargs="*", default=[0.95, 0.8], help="P(cause | target) planted"
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[11, 12, 13])
    parser.add_argument("--num_train", type=int, default=4000)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    msae = MSAEModel.from_pretrained(arguments.msae)
    backbone, vocabulary = Backbone.from_pretrained("scenes"), Vocabulary.of_scenes()
    table = name_latents(msae, vocabulary, vocabulary.embed(backbone))
    acts = load_activations(f"{arguments.msae}/embeddings/test")
    wanted = [None, *arguments.probabilities]
    found = records(msae, table, backbone, acts, wanted, arguments.seeds, arguments.num_train)
    frame = pd.DataFrame(found)
    print(frame.to_string(index=False, float_format="{:.3f}".format))
    numbers = ["target found", "cause found", "others found", "rank of cause", "effect of cause"]
    print(f"\nmeans\n{frame.groupby('planted')[numbers].mean().to_string(float_format='{:.3f}'.format)}")


if __name__ == "__main__":
    main()
