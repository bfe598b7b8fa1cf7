"""The whole way on the embedded world: pictures, embeddings, a trained and measured MSAE, named latents, figures.

`hf-msae quickstart`. The steps are the ones that a person takes with a backbone and
pictures of their own, done with the same functions.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

    from ..bias import BiasReport
    from ..concepts import ConceptTable
    from ..embeddings import EmbeddingDataset
    from ..model.configuration_msae import MSAEConfig
    from ..model.modeling_msae import MSAEModel
    from ..training.arguments import MSAETrainingArguments
    from ..vision_text import VisionTextMSAE

_SHEET_ROWS, _SHEET_COLUMNS = 14, 10
_EXAMPLES = 5
_SHOWN = ("fvu", "cosine_similarity", "cosine_similarity_centered", "l0", "sparsity", "dead_latents", "cknna")


@dataclass
class QuickstartArguments:
    """Settings of the quickstart; the defaults take minutes on two cores."""

    output_dir: str = field(default="outputs/quickstart", metadata={"help": "where everything is written"})
    num_train_scenes: int = field(default=20_000, metadata={"help": "scenes to train on"})
    num_eval_scenes: int = field(default=5_000, metadata={"help": "held-out scenes to measure on"})
    num_latents: int = field(default=1024, metadata={"help": "latents; the embeddings are 128 wide"})
    num_train_epochs: float = field(default=40.0, metadata={"help": "passes over the training embeddings"})
    learning_rate: float = field(default=1e-2, metadata={"help": "Adam's learning rate"})
    batch_size: int = field(default=1024, metadata={"help": "embeddings a step"})
    seed: int = field(default=42, metadata={"help": "seed of scenes' order, initial weights and batches"})
    num_biased_scenes: int = field(
        default=3_000, metadata={"help": "scenes in which most stars are red, for a probe that the report finds out"}
    )
    num_proc: int = field(default=2, metadata={"help": "processes that render"})


class _Steps:
    """Announces the steps and keeps their times."""

    def __init__(self, total: int):
        self.total, self.number, self.begun = total, 0, time.monotonic()

    def __call__(self, what: str) -> None:
        self.number += 1
        elapsed = time.monotonic() - self.begun
        print(f"\n[{self.number}/{self.total}] {what}  ({elapsed:.0f} s so far)", flush=True)


def model_config(arguments: QuickstartArguments, width: int) -> MSAEConfig:
    """The MSAE of the quickstart."""
    from .. import MSAEConfig
    from ..metrics import progressive_ks

    # Levels from an eighth of the width on, of which the small ones weigh most: the best that
    # benchmarks/design_choices.py has found for few latents, and a sparser full code.
    levels = progressive_ks(arguments.num_latents, smallest=max(1, width // 8))
    return MSAEConfig(d_in=width, num_latents=arguments.num_latents, nesting_ks=levels, nesting_weights="reverse")


def training_arguments(arguments: QuickstartArguments) -> MSAETrainingArguments:
    """How the quickstart trains it."""
    from .. import MSAETrainingArguments

    return MSAETrainingArguments(
        output_dir=arguments.output_dir,
        overwrite_output_dir=True,
        per_device_train_batch_size=arguments.batch_size,
        num_train_epochs=arguments.num_train_epochs,
        learning_rate=arguments.learning_rate,
        eval_strategy="steps",
        eval_steps=max(1, arguments.num_train_scenes // arguments.batch_size * 10),
        save_strategy="no",
        logging_steps=20,
        seed=arguments.seed,
        use_cpu=True,
    )


def run_quickstart(arguments: QuickstartArguments) -> dict:
    """Do all of it; returns the metrics that metrics.json holds.

    Raises:
        ValueError: settings that cannot work, before anything is rendered.
        FileExistsError: output_dir holds files that are not a quickstart's.
    """
    from accelerate.utils import set_seed

    from .. import MSAEModel, MSAETrainer, VisionTextMSAE
    from ..backbones import Backbone
    from ..backbones.extraction import extract_activations
    from ..concepts import Vocabulary, name_latents
    from ..embeddings import load_embeddings
    from ..hub import write_model_card
    from ..plotting import plot_contact_sheet, plot_quality_against_k, plot_training, save_figure
    from ..report import write_report
    from ..scenes import load_scenes
    from ..training import finish
    from ..training.checkpointing import check_output_dir, list_checkpoints
    from ..training.record import command_line

    output = Path(arguments.output_dir)
    check_output_dir(output, overwrite=True)
    if checkpoints := list_checkpoints(output):
        raise FileExistsError(
            f"{output} holds a training run of its own ({checkpoints[-1].name}), which the quickstart would replace: "
            f"choose another --output_dir"
        )
    backbone = Backbone.from_pretrained("scenes")
    config = model_config(arguments, backbone.width("image_embeds"))
    run = training_arguments(arguments)
    step = _Steps(7)

    step(f"Rendering {arguments.num_train_scenes + arguments.num_eval_scenes:,} scenes (kept for the next time)")
    train_scenes = load_scenes("train", arguments.num_train_scenes, arguments.seed, num_proc=arguments.num_proc)
    eval_scenes = load_scenes("test", arguments.num_eval_scenes, arguments.seed, num_proc=arguments.num_proc)

    step("Embedding them with the SigLIP that ships with the package")
    embeddings = {}
    for name, scenes in (("train", train_scenes), ("test", eval_scenes)):
        folder = output / "embeddings" / name
        source = f"scenes:{name}:{len(scenes)}:{arguments.seed}"
        extract_activations(backbone, scenes, folder, batch_size=256, overwrite=True, metadata={"dataset": source})
        embeddings[name] = load_embeddings(folder)

    step(f"Training an MSAE: {config.num_latents} latents, levels {config.nesting_ks}")
    set_seed(arguments.seed)
    trainer = MSAETrainer(MSAEModel(config), run, embeddings["train"], embeddings["test"])
    result = trainer.train()

    step(f"Measuring it on {len(embeddings['test']):,} held-out scenes, at every granularity")
    flags = [word for each in fields(arguments) for word in (f"--{each.name}", getattr(arguments, each.name))]
    command = command_line("hf-msae quickstart", flags)
    metrics = finish(trainer, command=command).to_dict()
    msae = MSAEModel.from_pretrained(output)

    step("Naming its latents by the words of the scenes' captions")
    vocabulary = Vocabulary.of_scenes()
    words = vocabulary.embed(backbone)
    table = name_latents(msae, vocabulary, words, embeddings["test"])
    table.save(output / "concepts" / "scenes.parquet")
    best = check_names(msae, table, embeddings["test"], eval_scenes)

    step("Drawing figures and writing the card")
    save_figure(plot_quality_against_k(metrics), output / "quality_against_k.png")
    save_figure(plot_training(result.log_history), output / "training.png")
    rows = contact_rows(best.head(_SHEET_ROWS), eval_scenes)
    save_figure(plot_contact_sheet(rows), output / "concepts.png")
    # Again, now that there are names and figures to show.
    write_model_card(output, model_id=str(output), model_name="msae-scenes-quickstart")
    step("Looking for what drives a probe that learned from red stars, and writing the report")
    model = VisionTextMSAE(backbone, msae, table)
    findings = biased_probe(model, embeddings["test"], arguments)
    save_figure(findings.plot(), output / "bias.png")
    examples = output / "examples"
    examples.mkdir(exist_ok=True)
    for number in range(min(_EXAMPLES, len(eval_scenes))):
        eval_scenes[number]["image"].save(examples / f"{number}.png")
    write_report(
        output / "report.html",
        model,
        embeddings["test"],
        eval_scenes,
        bias=[findings],
        metrics=metrics,
        command=command,
        progress=False,
    )
    _report(output, metrics, best, time.monotonic() - step.begun)
    print(f"\nOf a probe that learned from red stars {findings.verdict()}.")
    return metrics


def biased_probe(model: VisionTextMSAE, acts: EmbeddingDataset, arguments: QuickstartArguments) -> BiasReport:
    """What drives a probe for "star" that learned from scenes in which 95% of the stars are red?"""
    import torch

    from ..bias import bias_report
    from ..metrics import LinearClassifier
    from ..scenes import load_scenes

    rule = {("star", "red"): 0.95}
    scenes = load_scenes(
        "train", arguments.num_biased_scenes, arguments.seed + 1, correlations=rule, num_proc=arguments.num_proc
    )
    size = model.backbone.image_batch_size
    embeds = torch.cat([
        model.image_embeds(scenes[first : first + size]["image"]) for first in range(0, len(scenes), size)
    ])  # fmt: skip
    probe = LinearClassifier.fit(embeds, np.asarray(scenes["star"]).astype(int), ["no star", "star"], "cv")
    # After a very short training no name may be validated: then of each name the best latent.
    latents = model.concepts.best_available()[0]["latent"]
    return bias_report(model.msae, acts, probe, "star", model.concepts, latents, seed=arguments.seed, progress=False)


def check_names(
    msae: MSAEModel, table: ConceptTable, embeddings: EmbeddingDataset, scenes: Dataset, number: int = 40
) -> pd.DataFrame:
    """How well the best-named latents detect what they are named after.

    Returns:
        `table.best(number)` with the columns auroc (of the latent's activation for the concept, over `scenes`), top
        (the scenes that activate it most, best first) and precision (share of them of which the concept is true).
    """
    from sklearn.metrics import roc_auc_score

    from ..concepts.codes import collect_codes
    from ..concepts.collectors import ColumnCollector

    best = table.best(number).copy()
    active = collect_codes(msae, embeddings, [ColumnCollector(best["latent"])], progress=False)[0].values
    truth = scenes.select_columns(best["name"].tolist()).to_pandas().to_numpy(dtype=bool)
    order = np.argsort(-active, axis=0, kind="stable")[:_SHEET_COLUMNS]
    best["auroc"] = [roc_auc_score(truth[:, i], active[:, i]) for i in range(len(best))]
    best["top"] = [order[:, i].tolist() for i in range(len(best))]
    best["precision"] = [truth[order[:, i], i].mean() for i in range(len(best))]
    return best


def contact_rows(best: pd.DataFrame, scenes: Dataset) -> list[tuple]:
    """Rows of `plot_contact_sheet` for rows of `check_names`."""
    rows = []
    for row in best.itertuples():
        shown = scenes.select(row.top)
        caption = f"{row.name}\nlatent {row.latent}\nAUROC {row.auroc:.2f}"
        rows.append((caption, list(shown["image"]), list(shown[row.name])))
    return rows


def _report(output: Path, metrics: dict, best: pd.DataFrame, seconds: float) -> None:
    import pandas as pd

    lines = {f"k = {k}": {key: row[key] for key in _SHOWN} for k, row in metrics["by_k"].items()}
    lines["predicting the mean"] = {key: metrics["baseline_mean"].get(key) for key in _SHOWN}
    frame = pd.DataFrame(lines).T.rename(
        columns={"cosine_similarity": "cosine", "cosine_similarity_centered": "centred"}
    )
    print(f"\nQuality on {metrics['num_samples']:,} held-out scenes (centred: cosine with the mean taken off)\n")
    print(frame.to_string(float_format=lambda v: f"{v:.4g}", na_rep=""))
    well = best.head(_SHEET_ROWS)
    print(
        f"\nBest-named latents: {', '.join(well['name'])}.\n"
        f"They detect what they are named after with a median AUROC of {well['auroc'].median():.2f}."
    )
    print(f"""
Done in {seconds:.0f} s. Look at
  {output / "report.html"}             all of it on one page: concepts, bias, searches
  {output / "concepts.png"}            what the best-named latents respond to
  {output / "quality_against_k.png"}   what each granularity keeps
  {output / "README.md"}               the model's card
and load the model:

  from hf_msae import MSAEModel
  msae = MSAEModel.from_pretrained("{output}")
  values, latents = msae.encode_topk(embeddings, k=32)

Ask it:

  hf-msae explain {output} --image {output / "examples" / "4.png"} --ks 8 32 128 --figure seen.png
  hf-msae search {output} --data {output / "embeddings" / "test"} --find red star night=-1 --figure found.png

Next, your own images and backbone: `hf-msae extract` writes the embeddings of any CLIP or SigLIP, and `hf-msae train`
trains on them.""")


def main(argv: list[str] | None = None) -> None:
    """Parse the flags and run."""
    parser = argparse.ArgumentParser(prog="hf-msae quickstart", description=__doc__)
    for setting in fields(QuickstartArguments):
        parser.add_argument(
            f"--{setting.name}",
            type=type(setting.default),
            default=setting.default,
            help=f"{setting.metadata['help']} (default: {setting.default})",
        )
    try:
        run_quickstart(QuickstartArguments(**vars(parser.parse_args(argv))))
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
