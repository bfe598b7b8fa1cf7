"""The model card of a finished run, filled from what lies in its folder and from what is measured."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

_FIGURES = {
    "quality_against_k.png": "Quality against k",
    "training.png": "Training",
    "concepts.png": "The pictures that activate the best-named latents most",
}
_LIBRARIES = ("hf_msae", "torch", "transformers", "accelerate", "datasets", "huggingface_hub")
# What tells one MSAE from another; the rest of the config is bookkeeping.
_CONFIG_ROWS = (
    *("activation", "nesting", "nesting_ks", "nesting_weights", "reconstruction_loss"),
    *("sparsity_coefficient", "tied", "soft_cap"),
)
# Where a run wrote to and how it was shown says nothing about the model.
_BOOKKEEPING = {"output_dir", "disable_tqdm", "overwrite_output_dir", "resume_from_checkpoint", "save_total_limit"}


def template_path(name: str = "template.md") -> Path:
    """A card's template: beside this file in an installed package, in model_cards/ in a checkout."""
    installed = Path(__file__).with_name(name)
    return installed if installed.exists() else Path(__file__).parents[2] / "model_cards" / name


def _figure(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_hub_id(name: str | None) -> bool:
    """Whether a name can be linked to on the Hub: `owner/name`, no folder of this machine, not the embedded model."""
    from ..scenes.backbone import BACKBONE_NAME

    return bool(name) and name.count("/") == 1 and not name.startswith((".", "/")) and name != BACKBONE_NAME


def _card_data(config: Any, metrics: Mapping | None, model_name: str, evaluation_source: str | None) -> ModelCardData:
    measured_on = evaluation_source or "training embeddings"
    results = [
        EvalResult(
            task_type="feature-extraction",
            task_name="Sparse reconstruction of embeddings",
            dataset_type="embeddings",
            dataset_name=measured_on,
            metric_type=key,
            metric_name=f"{key} at k={k}",
            metric_value=row[key],
        )
        for k, row in (metrics or {}).get("by_k", {}).items()
        for key in ("fvu", "cosine_similarity", "cosine_similarity_centered", "sparsity", "dead_fraction", "cknna")
        if row.get(key) is not None
    ]
    named = {"eval_results": results, "model_name": model_name} if results else {}
    return ModelCardData(
        library_name="hf_msae",
        license="apache-2.0",
        base_model=config.base_model_name_or_path if _is_hub_id(config.base_model_name_or_path) else None,
        tags=["sparse-autoencoder", "matryoshka", "interpretability", "msae"],
        **named,
    )


def render_model_card(
    folder: str | os.PathLike,
    training_arguments: Mapping[str, Any] | None = None,
    training_data: Mapping[str, Any] | None = None,
    evaluation_data: Mapping[str, Any] | None = None,
    model_name: str | None = None,
    model_id: str | None = None,
    command: str | None = None,
) -> str:
    """The card's text, from config.json, metrics.json, concepts/ and the figures that lie in `folder`.

    Args:
        folder: a saved MSAE.
        training_arguments: hyper-parameters to list.
        training_data: what is known of the data; `source` and `num_rows` are shown.
        evaluation_data: likewise, of the held-out data; None says that the metrics are those of the training data.
        model_name: title; None takes the folder's name.
        model_id: what the usage example loads; None takes the folder's name.
        command: how to make it again.

    Raises:
        FileNotFoundError: no config.json in the folder.
    """
    from ..configuration_msae import MSAEConfig

    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} holds no config.json: save the model there before writing its card")
    config = MSAEConfig.from_pretrained(folder)
    metrics_file = folder / "metrics.json"
    metrics = json.loads(metrics_file.read_text()) if metrics_file.exists() else None
    model_name = model_name or folder.resolve().name
    evaluation_source = str(evaluation_data.get("source", "not recorded")) if evaluation_data else None
    arguments = {k: v for k, v in (training_arguments or {}).items() if k not in _BOOKKEEPING and v is not None}
    usage = (
        "import hf_msae\nfrom transformers import AutoModel\n\n"
        f'msae = AutoModel.from_pretrained("{model_id or folder.resolve().name}")\n'
        "values, latents = msae.encode_topk(embeddings, k=32)  # (n, 32): strengths, and which latents"
    )
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["figure"] = _figure
    return environment.from_string(template_path().read_text()).render(
        card_data=_card_data(config, metrics, model_name, evaluation_source).to_yaml(),
        model_name=model_name,
        config=config,
        metrics=metrics,
        usage=usage,
        evaluation_source=evaluation_source,
        training_source=_source(training_data) or "not recorded",
        figures=[(file, caption) for file, caption in _FIGURES.items() if (folder / file).exists()],
        concepts=_best_concepts(folder),
        hyper_parameters={**{name: getattr(config, name) for name in _CONFIG_ROWS}, **arguments},
        command=command,
        versions={library: version(library) for library in _LIBRARIES},
    )


def _source(data: Mapping[str, Any] | None) -> str | None:
    if not data:
        return None
    count = data.get("num_rows")
    return str(data.get("source", "not recorded")) + (f", {count:,} embeddings" if count is not None else "")


def _best_concepts(folder: Path, number: int = 20) -> list[dict]:
    from ..concepts import ConceptTable

    tables = sorted((folder / "concepts").glob("*.parquet"))
    return ConceptTable.load(tables[0]).best(number).to_dict("records") if tables else []


def write_model_card(output_dir: str | os.PathLike, *args: Any, **kwargs: Any) -> Path:
    """Write `render_model_card(output_dir, ...)` to README.md in the folder; arguments as there."""
    path = Path(output_dir) / "README.md"
    text = render_model_card(output_dir, *args, **kwargs)
    unfinished = path.with_name(".README.md.tmp")
    unfinished.write_text(text)
    os.replace(unfinished, path)
    return path
