"""Many models in one repository: which are there, and the card of them all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from jinja2 import Environment, StrictUndefined

from ...metrics.measured_data import is_hub_id
from .card import template_path
from .card_edits import RESULTS_TASK, assemble_card
from .card_text import figure, rounded

INDEX_FILE = "msae_index.json"
FORMAT_VERSION = 1
_CONFIG_KEYS = (
    *("hook_point", "d_in", "num_latents", "base_model_name_or_path", "base_model_revision"),
    *("activation", "k", "nesting", "nesting_ks"),
)
_METRIC_KEYS = (
    *("fvu", "cosine_similarity", "cosine_similarity_centered", "l0", "dead_fraction", "cknna", "num_samples"),
    "model_sha256",
)
_TAGS = ["sparse-autoencoder", "matryoshka", "interpretability", "msae"]
_NAME = re.compile(r"[\w.,=+-]+(/[\w.,=+-]+)*")


def check_subfolder(name: str) -> str:
    """The subfolder as the repository has it.

    Raises:
        ValueError: it is no relative path of plain words.
    """
    name = name.strip("/")
    if not _NAME.fullmatch(name) or any(part.startswith(".") for part in name.split("/")):
        raise ValueError(
            f"subfolder is {name!r}: take words of letters, digits and . , = + - _ that do not begin with a dot, like "
            "vision.layers.11 or vision.layers.11/seed-0"
        )
    return name


def describe_model(folder: Path, card: str | None = None) -> dict[str, Any]:
    """A model's line of the index: the values that tell it from others, and how good it is.

    Args:
        folder: config.json, and metrics.json if it was measured.
        card: its card, for the licence.
    """
    from ...model.configuration_msae import MSAEConfig

    config = MSAEConfig.from_pretrained(folder)
    file = folder / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {
        **{key: getattr(config, key) for key in _CONFIG_KEYS},
        **{key: metrics.get(key) for key in _METRIC_KEYS},
        "license": None if card is None else ModelCard(card).data.license,
        "concepts": any((folder / "concepts").glob("*.parquet")),
    }


def read_index(text: str | None, repo_id: str) -> dict[str, dict[str, Any]]:
    """Subfolder -> line, from the content of msae_index.json; empty where there is none.

    Raises:
        ValueError: it is something else, or was written by a newer version.
    """
    if text is None:
        return {}
    try:
        content = json.loads(text)
        models, version = content["models"], content.get("format_version", 1)
        if not isinstance(models, dict) or not all(isinstance(each, dict) for each in models.values()):
            raise TypeError("models is no mapping")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{INDEX_FILE} of {repo_id} is damaged ({error!r}): mend or delete it on the Hub") from error
    if version > FORMAT_VERSION:
        raise ValueError(f"{INDEX_FILE} of {repo_id} was written by a newer hf_msae (format {version}): install that")
    return models


def write_index(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The content of msae_index.json, models by name."""
    content = {"format_version": FORMAT_VERSION, "models": {name: models[name] for name in sorted(models)}}
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def render_index_card(
    models: Mapping[str, Mapping[str, Any]], repo_id: str, license: str | None = None, revision: str | None = None
) -> str:
    """The README.md of a repository of several models.

    Args:
        models: subfolder -> line of the index.
        repo_id: "user/name".
        license: of the weights; None takes that of the models, if all have the same.
        revision: where it is not the default branch.
    """
    from ...scenes.backbone import BACKBONE_NAME

    models = {name: models[name] for name in sorted(models)}
    backbones = list(dict.fromkeys(model.get("base_model_name_or_path") for model in models.values()))
    licenses = {license} if license else {model.get("license") for model in models.values()} - {None}
    linked = [name for name in backbones if is_hub_id(name) and name != BACKBONE_NAME]
    metadata = {
        "library_name": "hf_msae",
        **({"license": licenses.pop()} if len(licenses) == 1 else {}),
        **({"base_model": linked[0] if len(linked) == 1 else linked} if linked else {}),
        "tags": [tag for tag in _TAGS if tag != "matryoshka" or any(m["nesting"] != "none" for m in models.values())],
        **({"model-index": found} if (found := _results(models)) else {}),
    }
    named = [f"`{name}`" for name in backbones if name]
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"figure": figure, "share": lambda value: "" if value is None else f"{value:.1%}"}
    example = next(iter(models))
    k = min(32, models[example]["num_latents"])
    of_branch = f'revision="{revision}", ' if revision not in (None, "main") else ""
    usage = (
        "import hf_msae\nfrom transformers import AutoModel\n\n"
        f'msae = AutoModel.from_pretrained("{repo_id}", {of_branch}subfolder="{example}")\n'
        f"values, latents = msae.encode_topk(embeddings, k={k})  # (n, {k}): strengths, and which latents"
    )
    template = environment.from_string(template_path("index_template.md").read_text(encoding="utf-8"))
    context = template.new_context(
        {
            "title": repo_id.split("/")[-1],
            "models": models,
            "backbones": ", ".join(named) or "a backbone that was not recorded",
            "unmeasured": [name for name, model in models.items() if model.get("fvu") is None],
            "usage": usage,
        }
    )
    return assemble_card(metadata, {name: "".join(block(context)) for name, block in template.blocks.items()})


def _results(models: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The model-index: an entry for each model that was measured."""
    return [
        {
            "name": name,
            "results": [
                {
                    "task": {"type": "feature-extraction", "name": RESULTS_TASK},
                    "dataset": {"type": "embeddings", "name": f"{model['num_samples']} {model['hook_point']}"},
                    "metrics": [
                        {"type": key, "value": rounded(model[key]), "name": key}
                        for key in ("fvu", "cosine_similarity", "cosine_similarity_centered", "dead_fraction", "cknna")
                        if model.get(key) is not None
                    ],
                }
            ],
        }
        for name, model in models.items()
        if model.get("fvu") is not None
    ]
