"""Extracted embeddings on the Hub: pushed in one commit with a card, and loaded with all that is known of them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, DatasetCardData, HfApi
from huggingface_hub.errors import HfHubHTTPError
from jinja2 import Environment, StrictUndefined

from ..activations import verify_activations
from ..activations.metadata import METADATA_FILE, ActivationMetadata
from ..activations.stored_statistics import STATISTICS_FILE, moments_of_folder
from .card import template_path

_CARD = "README.md"
_FILES = (STATISTICS_FILE, "dataset_info.json", "state.json")


def push_activations(
    folder: str | os.PathLike,
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> CommitInfo:
    """Push a finished folder of embeddings to a data set on the Hub, in one commit.

    `load_activations(repo_id)` then gives them with provenance and statistics, mapped from the same files;
    `datasets.load_dataset(repo_id)` works without this package. Shards of an earlier push that are gone here are
    deleted there. A card that is there already stays as it is. Folders of this machine lose their paths.

    Args:
        folder: written by `extract_activations` or `ActivationWriter`.
        repo_id: "user/name"; made if it is not there.
        private: whether a repository that is made is private.
        revision: branch to commit to; made if it is not there.
        create_pr: open a pull request instead.
        token: by default the one that is logged in.

    Raises:
        FileNotFoundError, ValueError: the folder holds no embeddings, is unfinished, or its files have changed.
        PermissionError: nobody is logged in, or may not write there.
    """
    folder = Path(folder).expanduser()
    verify_activations(folder)
    api = HfApi(token=token)
    require_repo(repo_id, private, api)
    metadata = ActivationMetadata.load(folder)
    names = [*_FILES, *(shard.file for shard in metadata.shards)]
    content = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    content["provenance"] = {key: _public(value) for key, value in content["provenance"].items()}
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(METADATA_FILE, json.dumps(content, indent=2).encode()),
        *(CommitOperationAdd(name, folder / name) for name in names if (folder / name).is_file()),
    ]
    if revision is not None and not create_pr:
        api.create_branch(repo_id, branch=revision, repo_type="dataset", exist_ok=True)
    there = set(api.list_repo_files(repo_id, repo_type="dataset", revision=None if create_pr else revision))
    gone = sorted(name for name in there if name.endswith(".arrow") and name.startswith("data-") and name not in names)
    operations += [CommitOperationDelete(name) for name in gone]
    if _CARD not in there:
        operations.append(CommitOperationAdd(_CARD, render_activations_card(folder, repo_id).encode()))
    return api.create_commit(
        repo_id,
        operations,
        commit_message=f"Upload {metadata.num_rows} rows of embeddings",
        repo_type="dataset",
        revision=revision,
        create_pr=create_pr,
    )


def require_repo(repo_id: str, private: bool = False, api: HfApi | None = None) -> None:
    """Make the data set on the Hub if it is not there: the moment to find out that one may not.

    Raises:
        PermissionError: nobody is logged in, or may not write there.
    """
    try:
        (api or HfApi()).create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise PermissionError(
                f"no permission to write to the data set {repo_id} on the Hub: log in with `hf auth login` as someone "
                f"who has ({error})"
            ) from error
        raise


def render_activations_card(folder: str | os.PathLike, name: str) -> str:
    """The data set card of a finished folder of embeddings, called `name` on the Hub."""
    folder = Path(folder).expanduser()
    metadata = ActivationMetadata.load(folder)
    moments = moments_of_folder(folder, metadata)
    known = {key: _public(value) for key, value in metadata.provenance.items()}
    columns = []
    for column, width in metadata.columns.items():
        found = moments[column]
        variance = float(found.sum_squared_deviations.mean()) / found.num_samples
        columns.append(
            {
                "name": column,
                "width": width,
                "num_samples": found.num_samples,
                "tokens": column in metadata.token_columns,
                "mean_length": float(found.mean.norm()),
                "spread": math.sqrt(variance),
            }
        )
    card_data = DatasetCardData(
        tags=["embeddings", "hf_msae"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data-*.arrow"}]}],
    )
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    template = environment.from_string(template_path("activations_template.md").read_text(encoding="utf-8"))
    shown = {key: value for key, value in known.items() if value is not None and not isinstance(value, dict)}
    return template.render(
        card_data=card_data.to_yaml(),
        name=name,
        num_rows=metadata.num_rows,
        backbone=known.get("base_model_name_or_path"),
        revision=known.get("base_model_revision"),
        dataset=known.get("dataset"),
        split=known.get("dataset_split"),
        columns=columns,
        dtype=metadata.dtype,
        others=", ".join(f"`{each}`" for each in metadata.extra_features),
        skipped=len(metadata.skipped),
        provenance=shown,
    )


def _public(value: Any) -> Any:
    """A folder of this machine by its name alone: where it lies is nobody's business."""
    return Path(value).name if isinstance(value, str) and (os.path.isabs(value) or value.startswith("~")) else value
