"""The steps of `hf-msae quickstart`."""

from __future__ import annotations

import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import set_seed
from datasets import Dataset
from sklearn.metrics import roc_auc_score

from .. import MSAEConfig, MSAEModel, MSAETrainer, MSAETrainingArguments, VisionTextMSAE
from .._utils.atomic import make_folder
from ..backbones import Backbone
from ..backbones.extraction import extract_activations
from ..bias import BiasReport, bias_report
from ..concepts import ConceptTable, Vocabulary, name_latents
from ..concepts.codes import collect_codes
from ..concepts.collectors import ColumnCollector
from ..embeddings import EmbeddingDataset, load_embeddings
from ..hub import write_model_card
from ..metrics import LinearClassifier, progressive_ks
from ..plotting import plot_contact_sheet, plot_quality_against_k, plot_training, save_figure
from ..report import write_report
from ..scenes import load_scenes
from ..training import finish
from ..training.checkpointing import check_output_dir, list_checkpoints
from ..training.record import command_line

if TYPE_CHECKING:
    from .quickstart import QuickstartArguments

_SHEET_ROWS, _SHEET_COLUMNS = 14, 10
_EXAMPLES = 5
_WIDTH = 128  # of the embeddings of scenes
_SHOWN = ("fvu", "cosine_similarity", "cosine_similarity_centered", "l0", "sparsity", "dead_latents", "cknna")


def model_config(arguments: QuickstartArguments, width: int) -> MSAEConfig:
    """Return the config of the quickstart's MSAE for embeddings of this width."""
    # Levels from an eighth of the width, with most weight on small ones: the best of benchmarks/design_choices.py for
    # few latents, and a sparser full code.
    levels = progressive_ks(arguments.num_latents, smallest=max(1, width // 8))
    return MSAEConfig(d_in=width, num_latents=arguments.num_latents, nesting_ks=levels, nesting_weights="reverse")


def training_arguments(arguments: QuickstartArguments) -> MSAETrainingArguments:
    """Return the training arguments of the quickstart."""
    batch_size = arguments.per_device_train_batch_size
    return MSAETrainingArguments(
        output_dir=arguments.output_dir,
        overwrite_output_dir=True,
        per_device_train_batch_size=batch_size,
        num_train_epochs=arguments.num_train_epochs,
        learning_rate=arguments.learning_rate,
        eval_strategy="steps",
        eval_steps=max(1, arguments.num_train_scenes // batch_size * 20),
        save_strategy="no",
        logging_steps=20,
        seed=arguments.seed,
        use_cpu=True,
        disable_tqdm=not sys.stderr.isatty(),
    )


def run_quickstart(arguments: QuickstartArguments) -> dict[str, Any]:
    """Run all steps and return the metrics in metrics.json."""
    output = Path(arguments.output_dir).expanduser()
    check_output_dir(output, overwrite=True)
    if checkpoints := list_checkpoints(output):
        raise FileExistsError(
            f"{output} holds a training run ({checkpoints[-1].name}), which the quickstart would replace: choose "
            f"another --output_dir"
        )
    make_folder(output)
    run = training_arguments(arguments)
    config = model_config(arguments, _WIDTH)
    backbone = Backbone.from_pretrained("scenes")
    begun = time.monotonic()

    def announce(number: int, what: str) -> None:
        print(f"\n[{number}/7] {what}  ({time.monotonic() - begun:.0f} s so far)", flush=True)

    def embedded(split: str, number: int) -> tuple[EmbeddingDataset, Dataset]:
        scenes = load_scenes(split, number, arguments.seed, num_proc=arguments.num_workers)
        folder = output / "embeddings" / split
        source = {"dataset": f"scenes:{split}:{len(scenes)}:{arguments.seed}"}
        options = {"batch_size": 256, "overwrite": True, "progress": not run.disable_tqdm}
        extract_activations(backbone, scenes, folder, metadata=source, **options)
        return load_embeddings(folder), scenes

    rendering = "scenes, which are kept for the next run, and embedding them with the small SigLIP of this package"
    announce(1, f"Rendering {arguments.num_eval_scenes:,} held-out {rendering}")
    test, eval_scenes = embedded("test", arguments.num_eval_scenes)
    look = first_look(output, test, eval_scenes)
    print(f"A first look at what a released MSAE finds in them: {look}")

    announce(2, f"Rendering and embedding {arguments.num_train_scenes:,} scenes to train on")
    train, _ = embedded("train", arguments.num_train_scenes)

    announce(3, f"Training an MSAE: {config.num_latents} latents, levels {config.nesting_ks}")
    set_seed(arguments.seed)
    trainer = MSAETrainer(MSAEModel(config), run, train, test)
    result = trainer.train()

    announce(4, f"Evaluating it on {len(test):,} held-out scenes at every granularity")
    flags = [word for each in fields(arguments) for word in (f"--{each.name}", getattr(arguments, each.name))]
    command = command_line("hf-msae quickstart", flags)
    metrics = finish(trainer, command=command).to_dict()
    msae = MSAEModel.from_pretrained(output)

    announce(5, "Naming its latents with the words of the captions")
    vocabulary = Vocabulary.of_scenes()
    words = vocabulary.embed(backbone)
    table = name_latents(msae, vocabulary, words, test)
    table.save(output / "concepts" / "scenes.parquet")
    best = check_names(msae, table, test, eval_scenes)

    announce(6, "Plotting figures and writing the model card")
    save_figure(plot_quality_against_k(metrics), output / "quality_against_k.png")
    save_figure(plot_training(result.log_history), output / "training.png")
    rows = contact_rows(best.head(_SHEET_ROWS), eval_scenes)
    save_figure(plot_contact_sheet(rows), output / "concepts.png")
    # Again, since there are names and figures now.
    write_model_card(output, model_id=str(output), model_name="msae-scenes-quickstart")

    announce(7, "Finding what drives a probe trained on mostly red stars, and writing the report")
    model = VisionTextMSAE(backbone, msae, table)
    findings = biased_probe(model, test, arguments)
    save_figure(findings.plot(), output / "bias.png")
    examples = output / "examples"
    examples.mkdir(exist_ok=True)
    for number in range(min(_EXAMPLES, len(eval_scenes))):
        eval_scenes[number]["image"].save(examples / f"{number}.png")
    write_report(
        output / "report.html",
        model,
        test,
        eval_scenes,
        bias=[findings],
        metrics=metrics,
        command=command,
        progress=False,
    )
    _print_summary(output, metrics, best, time.monotonic() - begun)
    print(f"\nA probe trained on mostly red stars: {findings.verdict()}.")
    return metrics


def first_look(output: Path, embeddings: EmbeddingDataset, scenes: Dataset) -> Path:
    """Draw the scenes that activate the best-named latents of a released MSAE most; return the figure's path."""
    released = VisionTextMSAE.from_pretrained("scenes-image")
    best = check_names(released.msae, released.concepts, embeddings, scenes, _SHEET_ROWS)
    return save_figure(plot_contact_sheet(contact_rows(best, scenes)), output / "first_look.png")


def biased_probe(model: VisionTextMSAE, embeddings: EmbeddingDataset, arguments: QuickstartArguments) -> BiasReport:
    """Test which concepts drive a probe of "star" that was trained on scenes in which 95% of the stars are red."""
    rule = {("star", "red"): 0.95}
    scenes = load_scenes(
        "train", arguments.num_biased_scenes, arguments.seed + 1, correlations=rule, num_proc=arguments.num_workers
    )
    size = model.backbone.image_batch_size
    embeds = torch.cat([
        model.image_embeds(scenes[first : first + size]["image"]) for first in range(0, len(scenes), size)
    ])  # fmt: skip
    probe = LinearClassifier.fit(embeds, np.asarray(scenes["star"]).astype(int), ["no star", "star"], "cv")
    # After a very short training, maybe no name is validated. The other half of the latents is compared with.
    latents = model.concepts.best_available()[0]["latent"].head(model.msae.config.num_latents // 2)
    return bias_report(
        model.msae, embeddings, probe, "star", model.concepts, latents, seed=arguments.seed, progress=False
    )


def check_names(
    msae: MSAEModel, table: ConceptTable, embeddings: EmbeddingDataset, scenes: Dataset, number: int = 40
) -> pd.DataFrame:
    """Measure how well the best-named latents detect the concepts in their names.

    Returns `table.best(number)` with the columns auroc (of the activation for the concept, over `scenes`), top (the
    scenes that activate the latent most, in descending order) and precision (share of them with the concept).
    """
    best = table.best(number).copy()
    active = collect_codes(msae, embeddings, [ColumnCollector(best["latent"])], progress=False)[0].values
    truth = scenes.select_columns(best["name"].tolist()).to_pandas().to_numpy(dtype=bool)
    order = np.argsort(-active, axis=0, kind="stable")[:_SHEET_COLUMNS]
    best["auroc"] = [roc_auc_score(truth[:, i], active[:, i]) for i in range(len(best))]
    best["top"] = [order[:, i].tolist() for i in range(len(best))]
    best["precision"] = [truth[order[:, i], i].mean() for i in range(len(best))]
    return best


def contact_rows(best: pd.DataFrame, scenes: Dataset) -> list[tuple]:
    """Return the rows of `plot_contact_sheet` for rows of `check_names`."""
    rows = []
    for row in best.itertuples():
        shown = scenes.select(row.top)
        caption = f"{row.name}\nlatent {row.latent}\nAUROC {row.auroc:.2f}"
        rows.append((caption, list(shown["image"]), list(shown[row.name])))
    return rows


def _print_summary(output: Path, metrics: dict[str, Any], best: pd.DataFrame, seconds: float) -> None:
    lines = {f"k = {k}": {key: row[key] for key in _SHOWN} for k, row in metrics["by_k"].items()}
    lines["predicting the mean"] = {key: metrics["baseline_mean"].get(key) for key in _SHOWN}
    frame = pd.DataFrame(lines).T.rename(
        columns={"cosine_similarity": "cosine", "cosine_similarity_centered": "centered"}
    )
    print(f"\nQuality on {metrics['num_samples']:,} held-out scenes (centered: cosine after subtracting the mean)\n")
    print(frame.to_string(float_format=lambda v: f"{v:.4g}", na_rep=""))
    well = best.head(_SHEET_ROWS)
    ks = "8 32 128" if "128" in metrics["by_k"] else "8 32"
    print(
        f"\nBest-named latents: {', '.join(well['name'])}.\n"
        f"They detect the concepts in their names with a median AUROC of {well['auroc'].median():.2f}."
    )
    print(f"""
Done in {seconds:.0f} s. Look at
  {output / "report.html"}             everything on one page: concepts, bias, searches
  {output / "concepts.png"}            scenes that activate the best-named latents
  {output / "quality_against_k.png"}   quality at each granularity
  {output / "README.md"}               the model card
and load the model:

  from hf_msae import MSAEModel
  msae = MSAEModel.from_pretrained("{output}")
  values, indices = msae.encode_topk(embeddings, k=32)

Try it:

  hf-msae explain {output} --image {output / "examples" / "4.png"} --ks {ks} --figure seen.png
  hf-msae search {output} --data {output / "embeddings" / "test"} --find red star night=-1 --figure found.png

For your own images and backbone, `hf-msae extract` writes the embeddings of any CLIP or SigLIP, and `hf-msae train`
trains on them.""")
