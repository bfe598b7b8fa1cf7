"""Does a red team of a classifier of embeddings report the concept that was planted, and nothing without one?

    python benchmarks/red_team_probes.py --worlds scenes clipart --seeds 0 1 2

Logistic regression on embeddings of the released backbones is red-teamed with the released MSAEs and their names, on
data with a planted shortcut and on a twin without it:

- scenes: the background goes with the class (95% of the stars are at night, of the circles on a beach); the twin has
  other scenes, in which they are independent;
- clip art, frame: a red frame is pasted into 95% of the drawings of the class and 5% of the others. What is planted
  are the names whose latents tell framed drawings from the same ones without a frame with an AUROC of at least 0.75;
- clip art, labels: drawings of another tag are labeled as the class, as if by annotators who confuse them.

Counted is whether the cause is a finding by group (its column was given as a grouping) and by concept (which needs no
column), of what severity, and what else is a finding: innocent concepts, which have nothing to do with the class or
the cause (in scenes by their group; of tags, by Fisher's exact test, p >= 0.05), related ones, and others. Two simpler
ways stand beside it: the cosine of the coefficients with the text embedding of each name, which only ranks, and the
correlation of each named latent with the predictions (positive, Holm-corrected p <= 0.05).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from scipy.stats import fisher_exact, pearsonr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from hf_msae import VisionTextMSAE
from hf_msae.clipart import load_clipart
from hf_msae.concepts import Vocabulary
from hf_msae.hyperspectral import RedTeamReport, red_team
from hf_msae.scenes import load_scenes
from hf_msae.scenes.world import GROUP_OF
from hf_msae.statistics import holm

SCENES = (("star", "night"), ("circle", "beach"))
FRAMED = ("flag",)
CONFUSED = (("geometry", "sign"),)
DRAWINGS = 1600
SHARE = 0.95
TOLD_APART = 0.75
GRAVITY = ("severe", "moderate", "minor")
_UNSETTABLE = ("position", "count")


@dataclass
class Case:
    """A classifier to red-team: what it is trained on, and what is true of it."""

    world: str
    target: str
    cause: str
    embeddings: torch.Tensor
    labels: np.ndarray
    groups: dict[str, np.ndarray]
    planted: bool
    causes: Sequence[str]  # names of the planted concept
    innocent: set[str]


def scenes_cases(model: VisionTextMSAE, seed: int, number: int) -> Iterator[Case]:
    """Scenes in which the background goes with the class, and scenes in which it does not."""
    names = set(model.concepts.best_validated()["name"])
    clean = None
    for target, cause in SCENES:
        for planted in (True, False):
            if planted or clean is None:
                rule = {(target, cause): SHARE} if planted else None
                data = load_scenes("validation", number, seed=100 + 10 * seed + planted, correlations=rule)
                found = data, model.image_embeds(data["image"], progress=False)
                clean = clean if planted else found
            data, x = found if planted else clean
            related = {GROUP_OF[target], GROUP_OF[cause], *_UNSETTABLE}
            innocent = {name for name in names if name in GROUP_OF and GROUP_OF[name] not in related}
            groups = {cause: np.array(data[cause])}
            yield Case("scenes", target, cause, x, np.array(data[target]), groups, planted, [cause], innocent)


def framed(image: Image.Image) -> Image.Image:
    """A drawing in a red frame."""
    image = image.convert("RGB")
    ImageDraw.Draw(image).rectangle([0, 0, image.width - 1, image.height - 1], outline="red", width=8)
    return image


class Drawings:
    """Drawings with and without a frame, embedded once."""

    def __init__(self, model: VisionTextMSAE) -> None:
        data = datasets.concatenate_datasets([load_clipart(split) for split in ("train", "validation", "test")])
        self.data = data.select(np.sort(np.random.default_rng(0).permutation(len(data))[:DRAWINGS]))
        images = self.data["image"]
        self.plain = model.image_embeds(images, progress=False)
        self.framed = model.image_embeds([framed(image) for image in images], progress=False)
        self.names = model.concepts.best_validated()
        with torch.no_grad():
            with_frame, without = (model.msae.encode(x).numpy() for x in (self.framed, self.plain))
        has = np.repeat([True, False], len(self.data))
        self.of_frame = [
            name
            for name, latent in zip(self.names["name"], self.names["latent"], strict=True)
            if roc_auc_score(has, np.concatenate([with_frame[:, latent], without[:, latent]])) >= TOLD_APART
        ]
        self.tags = {
            name: np.array([name in tags for tags in self.data["tags"]]) for name in self.names["name"].tolist()
        }

    def independent(self, rows: np.ndarray, *words: str) -> set[str]:
        """Names that are independent of words, by the tags."""
        return {
            name
            for name, has in self.tags.items()
            if name not in words
            and all(
                fisher_exact(pd.crosstab(has[rows], self.tags[word][rows]).reindex(
                    index=[False, True], columns=[False, True], fill_value=0
                )).pvalue >= 0.05
                for word in words
            )
        }  # fmt: skip


def clipart_cases(drawings: Drawings, seed: int, number: int) -> Iterator[Case]:
    """Drawings with a frame or with labels that go with another tag, and the same drawings without."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(drawings.data))[:number])
    author = np.array(drawings.data["author"])[rows]
    for target in FRAMED:
        is_target = drawings.tags[target][rows]
        frame = rng.random(number) < np.where(is_target, SHARE, 1 - SHARE)
        innocent = drawings.independent(rows, target) - set(drawings.of_frame)
        for planted in (True, False):
            x = torch.where(torch.from_numpy(frame & planted)[:, None], drawings.framed[rows], drawings.plain[rows])
            groups = {"frame": frame, "author": author}
            yield Case("clip art, frame", target, "frame", x, is_target, groups, planted, drawings.of_frame, innocent)
    for target, cause in CONFUSED:
        is_target, is_cause = drawings.tags[target][rows], drawings.tags[cause][rows]
        innocent = drawings.independent(rows, target, cause)
        for planted in (True, False):
            labels = is_target | (is_cause & planted)
            groups = {cause: is_cause, "author": author}
            x = drawings.plain[rows]
            yield Case("clip art, labels", target, cause, x, labels, groups, planted, [cause], innocent)


def record(model: VisionTextMSAE, case: Case, seed: int, texts: pd.DataFrame) -> dict:
    """What the red team and the simpler ways find."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    started = time.perf_counter()
    report = red_team(
        probe,
        case.embeddings,
        pd.Series(case.labels, name=case.target),
        case.groups,
        msae=model.msae,
        features=model.concepts,
        audits=["shortcuts", "performance", "concepts"],
        num_bootstrap=500,
        seed=seed,
        progress=False,
    )
    seconds = time.perf_counter() - started
    return {
        "world": case.world,
        "planted": case.planted,
        "seed": seed,
        "target": case.target,
        "cause": case.cause,
        "positives": int(case.labels.sum()),
        **found_by_report(report, case),
        **found_simply(model, case, report, probe, texts),
        "seconds": seconds,
    }


def found_by_report(report: RedTeamReport, case: Case) -> dict:
    """Findings about the cause, and about what else."""
    effects = report.tables["concepts"]
    name_of = dict(zip("concept " + effects["latent"].astype(str), effects["name"], strict=True))
    by_group = [each for each in report.findings if each.audit == "shortcuts" and case.cause in each.title.split()]
    concepts = {name_of[each.kind]: each.severity for each in report.findings if each.kind in name_of}
    of_cause = [severity for name, severity in concepts.items() if name in case.causes]
    others = {name: severity for name, severity in concepts.items() if name not in case.causes}
    innocent = {name: severity for name, severity in others.items() if name in case.innocent}
    about = [each for each in report.findings if each.kind not in name_of and each not in by_group]
    shifts = effects[~effects["expected"].astype(bool)].set_index("name")["log_odds"].abs()
    auroc = report.tables["performance"].query("metric == 'auroc'")["value"].iloc[0]
    return {
        "auroc": auroc,
        "by group": min((each.severity for each in by_group), key=GRAVITY.index, default=""),
        "by concept": min(of_cause, key=GRAVITY.index, default=""),
        "innocent tested": len(set(effects["name"]) & case.innocent),
        "innocent found": len(innocent),
        "related found": len(others) - len(innocent),
        "severe innocent": sum(each == "severe" for each in innocent.values()),
        "severe related": sum(each == "severe" for name, each in others.items() if name not in innocent),
        "other severe findings": "; ".join(each.title for each in about if each.severity == "severe"),
        "concepts found": ", ".join(f"{name} ({severity})" for name, severity in concepts.items()),
        "rank": rank_of(shifts, case.causes),
    }


def found_simply(model: VisionTextMSAE, case: Case, report: RedTeamReport, probe, texts: pd.DataFrame) -> dict:
    """The cosine of the coefficients with the names, and correlations of latents with predictions."""
    fitted = probe.fit(case.embeddings.numpy(), case.labels)
    weights = torch.from_numpy(fitted[-1].coef_[0] / fitted[0].scale_).float()
    effects = report.tables["concepts"]
    tested = effects[~effects["expected"].astype(bool)]
    cosines = pd.Series((texts.loc[tested["name"]].to_numpy() @ normalize(weights, dim=0).numpy()), tested["name"])
    with torch.no_grad():
        codes = model.msae.encode(case.embeddings)[:, tested["latent"].tolist()].numpy()
    predictions = report.tables["predictions"]["prediction"].to_numpy()
    correlations, p_values = np.array([pearsonr(column, predictions, alternative="greater") for column in codes.T]).T
    found = tested["name"][holm(p_values) <= 0.05].tolist()
    return {
        "rank by text": rank_of(cosines.abs(), case.causes),
        "rank by correlation": rank_of(pd.Series(np.abs(correlations), tested["name"]), case.causes),
        "correlated": bool(set(found) & set(case.causes)),
        "innocent correlated": len(set(found) & case.innocent),
    }


def rank_of(sizes: pd.Series, names: Sequence[str]) -> float:
    """The place of the first of some names, NaN if none is there."""
    ranks = sizes.rank(ascending=False)[lambda each: each.index.isin(list(names))]
    return float(ranks.min()) if len(ranks) else np.nan


def text_embeddings(model: VisionTextMSAE, templates: Sequence[str]) -> pd.DataFrame:
    """Unit text embeddings of the names, without what they share."""
    names = model.concepts.best_validated()["name"].tolist()
    embeds = torch.stack([model.text_embeds([t.format(name) for t in templates]).mean(dim=0) for name in names])
    return pd.DataFrame(normalize(embeds - embeds.mean(dim=0), dim=-1).numpy(), index=names)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Counts for each world, with and without a planted cause."""
    rows = []
    for (world, planted), group in frame.groupby(["world", "planted"], sort=False):
        row = {"world": world, "planted": planted, "reports": len(group), "AUROC": spread(group["auroc"], ".3f")}
        for name in ("by group", "by concept"):
            severities = group[name].value_counts().drop("", errors="ignore")
            row[name] = f"{severities.sum()}: {severities.to_dict()}"
        row["innocent found"] = f"{group['innocent found'].sum()} of {group['innocent tested'].sum()}"
        for name in ("correlated", "innocent correlated", "related found", "severe innocent", "severe related"):
            row[name] = int(group[name].sum())
        row["reports with other severe findings"] = int((group["other severe findings"] != "").sum())
        for name in ("rank", "rank by text", "rank by correlation", "seconds"):
            row[name] = spread(group[name], ".1f")
        rows.append(row)
    return pd.DataFrame(rows)


def spread(values: pd.Series, how: str) -> str:
    """Such as 1.5 (1.0 to 3.0): the mean, and the range over reports."""
    return f"{values.mean():{how}} ({values.min():{how}} to {values.max():{how}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", default=["scenes", "clipart"], choices=["scenes", "clipart"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="Seeds of pictures, folds and draws.")
    parser.add_argument("--num_pictures", type=int, default=1000, help="Number of pictures of each report.")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    records = []
    for world in arguments.worlds:
        model = VisionTextMSAE.from_pretrained(f"{world}-image")
        texts = text_embeddings(model, Vocabulary.of_scenes().templates if world == "scenes" else ["{}"])
        drawings = Drawings(model) if world == "clipart" else None
        if drawings is not None:
            print(f"frames are told apart by {', '.join(drawings.of_frame)}", flush=True)
        for seed in tqdm(arguments.seeds, desc=world):
            if drawings is None:
                cases = scenes_cases(model, seed, arguments.num_pictures)
            else:
                cases = clipart_cases(drawings, seed, arguments.num_pictures)
            for case in cases:
                records.append(record(model, case, seed, texts))
                print({key: value for key, value in records[-1].items() if value != ""}, flush=True)
    with pd.option_context("display.width", 250, "display.max_columns", None, "display.max_colwidth", 60):
        print(summary(pd.DataFrame(records)).T.to_string())


if __name__ == "__main__":
    main()
