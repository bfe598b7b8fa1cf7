"""The model card of a finished run, filled from what lies in its folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined, Template

from ...training.record import TrainingRecord, shown_arguments
from . import card_tables, card_text
from .card_edits import RESULTS_TASK, agree_on_licence, assemble_card, merge_card

if TYPE_CHECKING:
    from ...model.configuration_msae import MSAEConfig

QUALITY_FIGURE = "quality_against_k.png"
_FIGURES = {
    QUALITY_FIGURE: "Quality against k",
    "training.png": "Training",
    "concepts.png": "The pictures that activate the best-named latents most",
}
_CARD, _METRICS, _CONVERSION = "README.md", "metrics.json", "conversion.json"
# What the model-index lists of every level.
RESULTS = ("fvu", "cosine_similarity", "cosine_similarity_centered", "l0", "sparsity", "dead_fraction", "cknna")
# Of the config, what is told elsewhere on the card or is no setting.
_TOLD = {"d_in", "num_latents", "base_model_name_or_path", "base_model_revision", "hook_point", "schema_version"}
_FAMILIES = ("siglip2", "siglip", "dinov2", "clip")


def template_path(name: str = "template.md") -> Path:
    """A card's template: beside this file in an installed package, in model_cards/ in a checkout."""
    installed = Path(__file__).with_name(name)
    return installed if installed.exists() else Path(__file__).parents[3] / "model_cards" / name


@cache
def _template(path: Path) -> Template:
    """Compiled once: that takes longer than to fill it in."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters["cell"] = card_text.cell
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
    told_license: str | None = None,
) -> str:
    """The card's text, from config.json, training.json, metrics.json, conversion.json, concepts/ and the figures that
    lie in `folder`; what is not there, the card says is not known.

    Args:
        folder: a saved MSAE.
        model_id: what the usage example loads; None takes the folder's name.
        subfolder: of that repository.
        model_name: title; None takes the last part of `model_id`, or the folder's name.
        license: of the weights, as the Hub names licences; None means apache-2.0, and of a converted model that
            nothing is known.
        tags: further tags for the metadata.
        released: the model is one of `hf_msae.list_released()`, by the name `model_name`.
        revision: of `model_id`, where it is not the default branch.
        told_license: what the text says, where the metadata of the card that it is for say another than `license`; ""
            is none.

    Raises:
        FileNotFoundError: no config.json in the folder.
        ValueError: metrics.json or the names of concepts are those of other weights, or a file cannot be read.
    """
    from ...model.configuration_msae import MSAEConfig

    folder = Path(folder).expanduser()
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} holds no config.json: save the model there before writing its card")
    config = MSAEConfig.from_pretrained(folder)
    metrics, conversion = (read_json(folder / name) for name in (_METRICS, _CONVERSION))
    tables = sorted((folder / "concepts").glob("*.parquet"))
    if (metrics or {}).get("model_sha256"):
        _check_weights(folder, metrics["model_sha256"])
    record = TrainingRecord.load(folder)
    is_local = record.base_model_is_local if record else None
    model_name = model_name or (subfolder or model_id or folder.resolve().name).rstrip("/").split("/")[-1]
    if license is None and conversion is None:
        license = "apache-2.0"
    told = {"revision": revision if revision != "main" else None, "subfolder": subfolder}
    words = "".join(f', {name}="{value}"' for name, value in told.items() if value)
    where = f'"{model_id or folder.resolve().name}"{words}'
    concepts = card_tables.concepts(tables, config)
    quality = card_tables.quality_table(metrics) if metrics else None
    chosen, defaults = _settings(config, record)
    context = {
        "model_name": model_name,
        "config": config,
        "kind": card_text.kind(config),
        "nesting": card_text.nesting(config),
        "embeddings": card_text.embeddings(config),
        "backbone": card_text.backbone(config, is_local),
        "conversion": conversion and card_text.conversion(conversion),
        "usage": card_text.usage(config, where, model_name if released else None, concepts, is_local),
        "metrics": metrics,
        "quality": quality,
        "measured_on": card_text.measured_on(metrics) if metrics else None,
        "figures": [
            (file, caption)
            for file, caption in _FIGURES.items()
            if (folder / file).exists() and (metrics or file != QUALITY_FIGURE)
        ],
        "concepts": concepts,
        "record": record,
        "trained_on": card_text.data_name(record.training_data) if record else None,
        "statistics": card_text.statistics(record.training_data) if record else None,
        "settings": chosen,
        "defaults": defaults,
        "limits": card_text.limits(config),
        "of_scenes": card_text.is_of_scenes(config),
        "license": license if told_license is None else told_license,
        "citation": card_text.citation(config, record),
    }
    template = _template(template_path())
    blocks = {name: "".join(block(template.new_context(context))) for name, block in template.blocks.items()}
    sections = {name: _tidy(text) for name, text in blocks.items() if text.strip()}
    metadata = _metadata(config, record, metrics, model_name, license)
    metadata["tags"] = list(dict.fromkeys([*metadata["tags"], *tags]))
    return assemble_card(metadata, sections)


def write_model_card(folder: str | os.PathLike, **kwargs: Any) -> Path:
    """Write `render_model_card(folder, ...)` to README.md in the folder; arguments as there.

    What people have changed in a README.md that is there stays: `card_edits.merge_card`. A licence that
    is given here beats theirs.
    """
    path = Path(folder).expanduser() / _CARD
    render = partial(render_model_card, folder, **kwargs)
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            existing = file.read()
        ours = ("license",) if kwargs.get("license") else ()
        text = agree_on_licence(lambda fresh: merge_card(fresh, existing, ours), render)
    else:
        text = render()
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
    os.replace(unfinished, path)
    return path


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file.

    Raises:
        ValueError: it holds something else; names the file.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}; mend it, or delete it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, not an object; mend it, or delete it")
    return content


def _check_weights(folder: Path, measured: str) -> None:
    """Raises:
    ValueError: the weights in the folder are not those that were measured.
    """
    import torch

    from ..._utils.fingerprint import model_fingerprint
    from ...model.modeling_msae import MSAEModel

    model = MSAEModel.from_pretrained(folder, dtype="auto")
    found = model_fingerprint(model)
    # Evaluations load models in float32, whatever they are stored in.
    if measured not in (found, model_fingerprint(model.to(torch.float32))):
        raise ValueError(
            f"{folder / _METRICS} was measured on the weights {measured[:12]}, but those in {folder} are "
            f"{found[:12]}: evaluate the model again (hf-msae evaluate {folder} --data DATA "
            f"--output {folder / _METRICS}), or delete {_METRICS}"
        )


def _settings(config: MSAEConfig, record: TrainingRecord | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was chosen of the config and of the training, and what was left at its default."""
    usual = type(config)(d_in=config.d_in, num_latents=config.num_latents)
    always = {"activation", "nesting", "nesting_ks", "nesting_weights", "reconstruction_loss"}
    idle = {"sparsity_penalty"} if not config.sparsity_coefficient else set()
    idle |= {"jump_relu_threshold", "jump_relu_bandwidth"} if config.activation != "jump_relu" else set()
    idle |= {"random_prefixes"} if config.nesting != "prefix" else set()
    own = [name for name in config.own_fields() if name not in _TOLD | idle]
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
    """The card's YAML. There is no base_model_relation: an autoencoder of a model's embeddings is none of those that
    the Hub knows (adapter, finetune, merge, quantized).
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
        for key in RESULTS
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


def _tidy(text: str) -> str:
    """Without the runs of empty lines that a template leaves."""
    return re.sub(r"\n{3,}", "\n\n", text).strip()
