"""The model card of a finished run, filled from the files in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined, Template

from ..._utils.json_files import write_text
from ...training.record import TrainingRecord, shown_arguments
from . import card_tables, card_text
from .card_edits import RESULTS_TASK, finish_card, update_card

if TYPE_CHECKING:
    from ...model.configuration_msae import MSAEConfig

QUALITY_FIGURE = "quality_against_k.png"
FIGURES = {
    QUALITY_FIGURE: "Quality against k",
    "training.png": "Training",
    "concepts.png": "The pictures that activate the best-named latents most",
}
# Metrics that the model-index lists for every level.
_RESULTS = ("fvu", "cosine_similarity", "cosine_similarity_centered", "l0", "sparsity", "dead_fraction", "cknna")
# Fields of the config that the card shows elsewhere, or that are no settings.
_SHOWN_ELSEWHERE = {
    *("d_in", "num_latents", "base_model_name_or_path", "base_model_revision", "hook_point", "schema_version"),
}
_FAMILIES = ("siglip2", "siglip", "dinov2", "clip")


@cache
def card_template(name: str = "template.md") -> Template:
    """A card's template: next to this file in an installed package, in model_cards/ in a checkout."""
    installed = Path(__file__).with_name(name)
    path = installed if installed.exists() else Path(__file__).parents[3] / "model_cards" / name
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters |= {
        "escaped": card_text.escaped,
        "code": card_text.code,
        "fenced": card_text.fenced,
        "figure": card_text.figure,
        "share": lambda value: "" if value is None else f"{value:.1%}",
    }
    return environment.from_string(path.read_text(encoding="utf-8"))


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
        model_id: Repository or folder that the usage example loads. Defaults to the folder's name.
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
    from ...model.configuration_msae import MSAEConfig

    folder = Path(folder).expanduser()
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} holds no config.json: save the model there before writing its card")
    config = MSAEConfig.from_pretrained(folder)
    metrics, conversion = (read_json(folder / name) for name in ("metrics.json", "conversion.json"))
    tables = sorted((folder / "concepts").glob("*.parquet"))
    if (metrics or {}).get("model_sha256"):
        _check_weights(folder, metrics["model_sha256"])
    record = TrainingRecord.load(folder)
    is_local = record.base_model_is_local if record else None
    folder_name = folder.resolve().name
    model_name = model_name or (subfolder or model_id or folder_name).rstrip("/").split("/")[-1]
    if license is None and conversion is None:
        license = "apache-2.0"
    options = {"revision": revision if revision != "main" else None, "subfolder": subfolder}
    keywords = "".join(f", {name}={json.dumps(value)}" for name, value in options.items() if value)
    location = json.dumps(model_id or folder_name, ensure_ascii=False) + keywords
    concepts = card_tables.concepts(tables, config)
    chosen, defaults = _settings(config, record)
    text = card_template().render(
        model_name=model_name,
        config=config,
        kind=card_text.kind(config),
        nesting=card_text.nesting(config),
        embeddings=card_text.embeddings(config),
        backbone=card_text.backbone(config, is_local),
        conversion=conversion and card_text.conversion(conversion),
        usage=card_text.usage(config, location, model_name if released else None, concepts, is_local),
        metrics=metrics,
        quality=card_tables.quality_table(metrics) if metrics else None,
        measured_on=card_text.measured_on(metrics) if metrics else None,
        figures=[
            (file, caption)
            for file, caption in FIGURES.items()
            if (folder / file).exists() and (metrics or file != QUALITY_FIGURE)
        ],
        concepts=concepts,
        record=record,
        trained_on=card_text.data_name(record.training_data) if record else None,
        statistics=card_text.statistics(record.training_data) if record else None,
        settings=chosen,
        defaults=defaults,
        limits=card_text.limits(config),
        of_scenes=card_text.is_of_scenes(config),
        license=license,
        citation=card_text.citation(config, record),
    )
    metadata = _metadata(config, record, metrics, model_name, license or None)
    metadata["tags"] = list(dict.fromkeys([*metadata["tags"], *tags]))
    return finish_card(metadata, text)


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


def read_json(path: Path) -> dict[str, Any] | None:
    """Read the object in a JSON file; None if there is no file.

    Raises:
        ValueError: The file holds something else.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}; repair or delete it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, not an object; repair or delete it")
    return content


def _check_weights(folder: Path, measured: str) -> None:
    """Raise ValueError if the weights in the folder are not those that were measured."""
    import torch

    from ..._utils.fingerprint import model_fingerprint
    from ...model.modeling_msae import MSAEModel

    model = MSAEModel.from_pretrained(folder, dtype="auto")
    found = model_fingerprint(model)
    # Evaluations load models in float32, whatever they are stored in.
    if measured not in (found, model_fingerprint(model.to(torch.float32))):
        raise ValueError(
            f"{folder / 'metrics.json'} was measured on the weights {measured[:12]}, but those in {folder} are "
            f"{found[:12]}: evaluate the model again (hf-msae evaluate {folder} --data DATA "
            f"--output {folder / 'metrics.json'}), or delete metrics.json"
        )


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
) -> dict[str, Any]:
    """The card's metadata.

    They have no base_model_relation: an autoencoder of a model's embeddings is none of those that the Hub knows
    (adapter, finetune, merge, quantized).
    """
    data = (record.training_data if record else None) or {}
    measured, by_k = (metrics or {}).get("data") or {}, (metrics or {}).get("by_k", {})
    results = [
        EvalResult(
            task_type="feature-extraction",
            task_name=RESULTS_TASK,
            dataset_type=measured.get("hub_dataset") or "embeddings",
            dataset_name=card_text.data_title(measured),
            dataset_split=measured.get("split") or measured.get("dataset_split"),
            metric_type=key,
            metric_name=f"{key} at k={k}",
            metric_value=card_text.rounded(by_k[k][key]),
        )
        for k in sorted(by_k, key=int)
        for key in _RESULTS
        if by_k[k].get(key) is not None
    ]
    named = {"eval_results": results, "model_name": model_name} if results else {}
    backbone = config.base_model_name_or_path
    known = f"{data.get('base_model_class') or ''} {backbone or ''}".lower()
    family = next((family for family in _FAMILIES if family in known), None)
    tags = ["sparse-autoencoder", "matryoshka", "interpretability", "msae", family]
    if config.nesting == "none":
        tags.remove("matryoshka")
    dataset = data.get("hub_dataset")
    return ModelCardData(
        library_name="hf_msae",
        license=license,
        base_model=backbone if card_text.is_on_hub(backbone, record and record.base_model_is_local) else None,
        datasets=[dataset] if dataset else None,
        pipeline_tag="feature-extraction",
        tags=[tag for tag in tags if tag],
        **named,
    ).to_dict()
