"""Several models in one repository: their index, and a card of them all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import RepoCard
from huggingface_hub.repocard_data import eval_results_to_model_index

from ..._utils.json_files import read_json
from ...model.configuration_msae import MSAEConfig
from .card_edits import finish_card
from .card_tables import eval_results
from .markdown import card_template, code, is_on_hub
from .sent_files import FORMAT_VERSION, read_listing

INDEX_FILE = "msae_index.json"
_CONFIG_KEYS = (
    *("hook_point", "d_in", "num_latents", "base_model_name_or_path", "base_model_revision"),
    *("activation", "k", "nesting", "nesting_ks"),
)
_METRIC_KEYS = (
    *("fvu", "cosine_similarity", "cosine_similarity_centered", "l0", "dead_fraction", "cknna", "num_samples"),
    "model_sha256",
)
_RESULTS = ("fvu", "cosine_similarity", "cosine_similarity_centered", "dead_fraction", "cknna")
_NAME = re.compile(r"[\w.,=+-]+(/[\w.,=+-]+)*")


def check_subfolder(name: str) -> str:
    """Normalize the name of a subfolder; raise ValueError if it is not a relative path of plain words."""
    name = name.strip("/")
    if not _NAME.fullmatch(name) or any(part.startswith(".") for part in name.split("/")):
        raise ValueError(
            f"subfolder is {name!r}: use words of letters, digits and . , = + - _ that do not begin with a dot, like "
            "vision.layers.11 or vision.layers.11/seed-0"
        )
    return name


def describe_model(folder: Path, card: str | None = None) -> dict[str, Any]:
    """A model's line of the index: what distinguishes it from others, how good it is, and the license in its card."""
    config = MSAEConfig.from_pretrained(folder)
    metrics = read_json(folder / "metrics.json") or {}
    return {
        **{key: getattr(config, key) for key in _CONFIG_KEYS},
        **{key: metrics.get(key) for key in _METRIC_KEYS},
        "license": None if card is None else RepoCard(card).data.get("license"),
        "concepts": any((folder / "concepts").glob("*.parquet")),
    }


def read_index(text: str | None, repo_id: str) -> dict[str, dict[str, Any]]:
    """Read the content of msae_index.json: subfolder -> line; empty if there is none."""
    return read_listing(text, "models", dict, f"{INDEX_FILE} of {repo_id}")["models"]


def write_index(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The content of msae_index.json, sorted by name."""
    content = {"format_version": FORMAT_VERSION, "models": {name: models[name] for name in sorted(models)}}
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def render_index_card(
    models: Mapping[str, Mapping[str, Any]], repo_id: str, license: str | None = None, revision: str | None = None
) -> str:
    """Render the README.md of a repository of several models, from the lines of its index by subfolder.

    The license ("" for none) is by default that of the models, if all have the same.
    """
    models = {name: models[name] for name in sorted(models)}
    backbones = [name for name in dict.fromkeys(each["base_model_name_or_path"] for each in models.values()) if name]
    licenses = {license} if license is not None else {model.get("license") for model in models.values()}
    linked = [name for name in backbones if is_on_hub(name)]
    nested = "matryoshka" if any(model["nesting"] != "none" for model in models.values()) else None
    results = []
    for name, model in models.items():
        dataset = {"dataset_type": "embeddings", "dataset_name": f"{model['num_samples']} {model['hook_point']}"}
        if model.get("fvu") is not None:
            results += eval_results_to_model_index(name, eval_results(model, _RESULTS, **dataset))
    metadata = {
        "library_name": "hf_msae",
        "license": licenses.pop() if len(licenses) == 1 else None,
        "base_model": linked[0] if len(linked) == 1 else linked,
        "tags": [tag for tag in ("sparse-autoencoder", nested, "interpretability", "msae") if tag],
        "model-index": results,
    }
    example = next(iter(models))
    text = card_template("index_template.md").render(
        title=repo_id.split("/")[-1],
        models=models,
        backbones=", ".join(map(code, backbones)) or "an unrecorded backbone",
        repo_id=repo_id,
        revision=revision,
        example=example,
        k=min(32, models[example]["num_latents"]),
        unmeasured=[name for name, model in models.items() if model.get("fvu") is None],
    )
    return finish_card({key: value for key, value in metadata.items() if value}, text)
