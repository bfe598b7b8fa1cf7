"""The model card of a finished run, filled from the files in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ..._utils.built_in import BUILT_IN
from ..._utils.json_files import read_json, write_text
from ..._utils.levels import read_levels
from ..._utils.redaction import public_model_name
from ...model.activations import FAMILIES
from ...model.configuration_msae import MSAEConfig
from ...model.modeling_msae import MSAEModel
from ...training.record import TrainingRecord, shown_arguments
from ..reading.opening import most_validated
from .card_edits import finish_card, update_card
from .card_tables import eval_results, named_concepts, quality_table
from .markdown import card_template, code, data_title, hub_link, is_on_hub
from .verification import check_measured

QUALITY_FIGURE = "quality_against_k.png"
FIGURES = {
    QUALITY_FIGURE: "Quality at every level",
    "training.png": "Training",
    "concepts.png": "The pictures that activate the best-named latents most",
}
# Metrics that the model-index lists for every level.
_RESULTS = ("fvu", "cosine_similarity", "cosine_similarity_centered", "l0", "sparsity", "dead_fraction", "cknna")
# Fields of the config that the card shows elsewhere, or that are no settings.
_SHOWN_ELSEWHERE = {
    *("d_in", "num_latents", "base_model_name_or_path", "base_model_revision", "hook_point", "schema_version"),
    *("base_model_weights_sha256", "base_model_processor_sha256"),
}
_FAMILIES = ("siglip2", "siglip", "dinov2", "clip")


def render_model_card(
    folder: str | os.PathLike,
    model_id: str | None = None,
    subfolder: str | None = None,
    model_name: str | None = None,
    license: str | None = None,
    tags: Sequence[str] = (),
    released: bool = False,
    revision: str | None = None,
) -> str:
    """Render the card from what lies in a folder: config, record of the training, metrics, names and figures.

    Where a file is missing, the card says that this is not known.

    Args:
        folder: A saved MSAE.
        model_id: Repository or folder that the usage example loads. Defaults to the absolute path of the folder, so
            that the example runs from anywhere on this machine; a release names its repository.
        subfolder: Subfolder of that repository.
        model_name: Title. Defaults to the last part of `subfolder` or `model_id`, or the folder's name.
        license: License of the weights, as the Hub writes it; "" for none. Defaults to apache-2.0, and to none for a
            converted model.
        tags: More tags for the metadata.
        released: Whether the model is listed by `hf_msae.list_released()` as `model_name`.
        revision: Branch of `model_id`, if it is not the default one.

    Raises:
        FileNotFoundError: The folder has no config.json.
        ValueError: metrics.json or the names of concepts belong to other weights, or a file cannot be read.
    """
    folder = Path(folder).expanduser()
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} holds no config.json: save the model there before writing its card")
    config = MSAEConfig.from_pretrained(folder)
    metrics, conversion = (read_json(folder / name) for name in ("metrics.json", "conversion.json"))
    if (metrics or {}).get("model_sha256"):
        # They may have been measured on other weights than those in the folder.
        check_measured(
            folder / "metrics.json", metrics["model_sha256"], MSAEModel.from_pretrained(folder, dtype="auto")
        )
    record = TrainingRecord.load(folder)
    table = most_validated(sorted((folder / "concepts").glob("*.parquet")))
    name = folder.resolve().name
    model_name = model_name or (subfolder or model_id or name).rstrip("/").split("/")[-1]
    if license is None and conversion is None:
        license = "apache-2.0"
    backbone, is_local = config.base_model_name_or_path, record and record.base_model_is_local
    base_model = backbone if is_on_hub(backbone, is_local) else None
    options = {"revision": revision if revision != "main" else None, "subfolder": subfolder}
    keywords = "".join(f", {key}={json.dumps(value)}" for key, value in options.items() if value)
    loaded = json.dumps(model_name) if released else json.dumps(model_id or str(folder.resolve()), ensure_ascii=False)
    loaded += "" if released else keywords
    notes = (conversion or {}).get("notes") or []
    chosen, defaults = _settings(config, record)
    text = card_template().render(
        model_name=model_name,
        config=config,
        activation=type(FAMILIES[config.activation]).__name__,
        k=min(32, config.k if config.activation == "topk" else config.num_latents),
        backbone=_backbone(config, base_model, is_local),
        world=BUILT_IN.get(backbone),
        with_backbone=loaded + _backbone_argument(config, base_model, here=model_id is None),
        conversion=conversion,
        source=public_model_name((conversion or {}).get("source")) or "an unrecorded file",
        notes=[notes] if isinstance(notes, str) else notes,
        released=released,
        arguments=loaded,
        metrics=metrics,
        quality=quality_table(metrics) if metrics else None,
        figures=[
            (file, caption)
            for file, caption in FIGURES.items()
            if (folder / file).exists() and (metrics or file != QUALITY_FIGURE)
        ],
        names=named_concepts(table, config.num_latents) if table else None,
        record=record,
        settings=chosen,
        defaults=defaults,
        license=license,
    )
    return finish_card(_metadata(config, record, metrics, model_name, license or None, base_model, tags), text)


def write_model_card(
    folder: str | os.PathLike, license: str | None = None, replace_card: bool = False, **kwargs: Any
) -> Path:
    """Write `render_model_card(folder, ...)` to README.md in the folder.

    The text of a README.md that a person has edited or written stays as it is; its metadata and model-index are
    updated, and a warning says so.

    Args:
        folder: A saved MSAE.
        license: License of the weights. Defaults to that of the README.md that is there, if any.
        replace_card: Generate the whole card anew, without the edits.
        kwargs: More arguments of `render_model_card`.
    """
    path = Path(folder).expanduser() / "README.md"
    existing = None
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            existing = file.read()
    text = update_card(
        existing,
        lambda license: render_model_card(folder, license=license, **kwargs),
        license,
        name=str(path),
        replace=replace_card,
    )
    write_text(path, text)
    return path


def _backbone(config: MSAEConfig, base_model: str | None, is_local: bool | None) -> str:
    """Name the backbone, with a link if it is on the Hub."""
    name, revision = config.base_model_name_or_path, config.base_model_revision
    if not name:
        return "an unrecorded backbone"
    if name in BUILT_IN:
        return f"the small SigLIP of {BUILT_IN[name]} that comes with `hf_msae`"
    shown = hub_link(base_model) if base_model else code(public_model_name(name, is_local))
    return f"{shown} (revision {code(revision)})" if revision else shown


def _backbone_argument(config: MSAEConfig, base_model: str | None, here: bool) -> str:
    """How the usage example says where the backbone is, if the config does not; `here` keeps this machine's path."""
    backbone = config.base_model_name_or_path
    if not backbone or base_model or backbone in BUILT_IN:
        return ""
    folder = Path(backbone).expanduser()
    where = str(folder.resolve()) if here and folder.is_dir() else f"path/to/{public_model_name(backbone, True)}"
    anywhere = "" if config.base_model_weights_sha256 else ", strict=False"  # else only its path says that it is right
    return f", backbone={json.dumps(where, ensure_ascii=False)}{anywhere}"


def _settings(config: MSAEConfig, record: TrainingRecord | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of config and training that were chosen, and those left at their defaults."""
    usual = type(config)(d_in=config.d_in, num_latents=config.num_latents)
    always = {"activation", "nesting", "nesting_ks", "nesting_weights", "reconstruction_loss"}
    idle = {"sparsity_penalty"} if not config.sparsity_coefficient else set()
    idle |= {"jump_relu_threshold", "jump_relu_bandwidth"} if config.activation != "jump_relu" else set()
    idle |= {"random_prefixes"} if config.nesting != "prefix" else set()
    own = [name for name in config.own_fields() if name not in _SHOWN_ELSEWHERE | idle]
    values = {name: getattr(config, name) for name in own if getattr(config, name) is not None}
    chosen = {name: value for name, value in values.items() if name in always or value != getattr(usual, name)}
    defaults = {name: value for name, value in values.items() if name not in chosen}
    if record is None:
        return chosen, defaults
    of_training, others = shown_arguments(record.training_arguments)
    result = {"optimizer steps": record.result.get("global_step"), "processes": record.result.get("num_processes")}
    ran = {name: value for name, value in result.items() if value is not None}
    return {**chosen, **of_training, **ran}, {**defaults, **others}


def _metadata(
    config: MSAEConfig,
    record: TrainingRecord | None,
    metrics: Mapping[str, Any] | None,
    model_name: str,
    license: str | None,
    base_model: str | None,
    tags: Sequence[str],
) -> dict[str, Any]:
    """The card's metadata, without a `base_model_relation`.

    An autoencoder of a model's embeddings fits none of the Hub's relations (adapter, finetune, merge, quantized).
    """
    data = (record.training_data if record else None) or {}
    measured = (metrics or {}).get("data") or {}
    dataset = {
        "dataset_type": measured.get("hub_dataset") or "embeddings",
        "dataset_name": data_title(measured),
        "dataset_split": measured.get("split") or measured.get("dataset_split"),
    }
    results = [
        result
        for level in (read_levels(metrics).each if metrics else ())
        for result in eval_results(level.metrics, _RESULTS, suffix=f" {level.phrase}", **dataset)
    ]
    known = f"{data.get('base_model_class') or ''} {config.base_model_name_or_path or ''}".lower()
    family = next((family for family in _FAMILIES if family in known), None)
    nested = "matryoshka" if config.nesting != "none" else None
    all_tags = ("sparse-autoencoder", nested, "interpretability", "msae", family, *tags)
    trained_on = data.get("hub_dataset")
    return ModelCardData(
        library_name="hf_msae",
        license=license,
        base_model=base_model,
        datasets=[trained_on] if trained_on else None,
        pipeline_tag="feature-extraction",
        tags=list(dict.fromkeys(filter(None, all_tags))),
        eval_results=results or None,
        model_name=model_name if results else None,
    ).to_dict()
