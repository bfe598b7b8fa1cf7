"""Extracted embeddings as datasets on the Hub, pushed in one commit with a card."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperation, CommitOperationAdd, CommitOperationDelete, DatasetCardData

from ..._utils.deprecation import warn_renamed
from ..._utils.redaction import public
from ...embeddings import verify_embeddings
from ...embeddings.metadata import METADATA_FILE, EmbeddingMetadata
from ...embeddings.stored_statistics import STATISTICS_FILE, moments_of_folder
from .card_edits import finish_card, update_card
from .markdown import card_template, code
from .release import Release
from .repository import Repository, Snapshot
from .sent_files import additions, refuse_foreign_links

_CARD = "README.md"
_FILES = (STATISTICS_FILE, "dataset_info.json", "state.json")
_SHARD = re.compile(r"data-[\w-]+\.arrow")


@dataclass(frozen=True)
class PushedEmbeddings(Release):
    """A dataset of embeddings that was pushed, with its number of rows."""

    num_rows: int = 0

    @property
    def repo_url(self) -> str:
        """Deprecated: the old name of `url`."""
        warn_renamed("PushedEmbeddings.repo_url", "PushedEmbeddings.url")
        return self.url


def push_embeddings(
    folder: str | os.PathLike,
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
    replace_card: bool = False,
) -> PushedEmbeddings:
    """Push a finished folder of embeddings to a dataset on the Hub, in one commit.

    `load_embeddings(repo_id)` then loads them with their provenance and statistics, and
    `datasets.load_dataset(repo_id)` works without this package. Shards of an earlier push that no longer exist are
    deleted; no other file is. Paths of this machine are left out. The card is updated unless a person has edited it.

    Args:
        folder: Folder written by `extract_activations` or `EmbeddingWriter`.
        repo_id: Dataset, "user/name"; created if it does not exist.
        private: Whether a new dataset is private.
        revision: Branch to commit to; created if it does not exist.
        create_pr: Open a pull request instead.
        token: Token of the Hub. Defaults to the one that is logged in.
        replace_card: Replace a card that a person has edited.

    Raises:
        FileNotFoundError: The folder holds no embeddings.
        ValueError: The folder is unfinished or its files have changed, or the dataset holds something else, or is
            public although `private` was requested.
        PermissionError: Not logged in, or no permission to write.
        ConnectionError: The Hub cannot be reached or keeps failing; says what became of the push.
    """
    folder = Path(folder).expanduser()
    verify_embeddings(folder)
    metadata = EmbeddingMetadata.load(folder)
    names = {*_FILES, *(shard.file for shard in metadata.shards)}
    refuse_foreign_links(folder, sorted({METADATA_FILE, *names}))
    repository = Repository(repo_id, "dataset", token)
    repository.create(private or None, None if create_pr else revision)
    content = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    content["provenance"] = public(content["provenance"])
    files = [each for name, each in additions(folder).items() if name in names]
    files.append(CommitOperationAdd(METADATA_FILE, json.dumps(content, indent=2).encode()))
    fresh = render_embeddings_card(folder, repo_id)

    def plan(there: Snapshot) -> list[CommitOperation]:
        text = update_card(there.read(_CARD), lambda license: fresh, None, f"{_CARD} of {repository}", replace_card)
        stale = sorted(_shards_in(there, repository) - names)
        return [*files, CommitOperationAdd(_CARD, text.encode()), *map(CommitOperationDelete, stale)]

    message = f"Upload {metadata.num_rows} rows of embeddings"
    committed = repository.commit(plan, message, revision=revision, create_pr=create_pr)
    return PushedEmbeddings.of(repository, committed, revision, num_rows=metadata.num_rows)


def _shards_in(there: Snapshot, repository: Repository) -> set[str]:
    """The shards of an earlier push; raise ValueError if the dataset holds others that would be read with ours."""
    text, listed = there.read(METADATA_FILE), set()
    if text is not None:
        try:
            content = json.loads(text)
            listed = {str(shard["file"]) for shard in content["shards"]}
            if not isinstance(content["columns"], dict):
                raise TypeError("its columns are not a mapping")
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{repository} holds an {METADATA_FILE} that hf_msae has not written ({error!r}): push to another "
                "dataset, or delete it on the Hub"
            ) from error
    shards = {name for name in there.files if _SHARD.fullmatch(name)}
    if foreign := sorted(shards - listed):
        raise ValueError(
            f"{repository} holds {foreign[0]}, which no push by hf_msae has sent and which would be read as part of "
            "the embeddings: push to another dataset, or delete it on the Hub"
        )
    return shards


def render_embeddings_card(folder: str | os.PathLike, name: str) -> str:
    """Render the dataset card of a finished folder of embeddings that is called `name` on the Hub."""
    folder = Path(folder).expanduser()
    metadata = EmbeddingMetadata.load(folder)
    moments = moments_of_folder(folder, metadata)
    known = public(metadata.provenance)
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
    metadata_of_card = DatasetCardData(
        tags=["embeddings", "hf_msae"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data-*.arrow"}]}],
    )
    text = card_template("embeddings_template.md").render(
        name=name,
        num_rows=metadata.num_rows,
        backbone=known.get("base_model_name_or_path"),
        revision=known.get("base_model_revision"),
        dataset=known.get("dataset"),
        split=known.get("dataset_split"),
        columns=columns,
        dtype=metadata.dtype,
        others=", ".join(map(code, metadata.extra_features)),
        skipped=len(metadata.skipped),
        provenance={key: value for key, value in known.items() if value is not None and not isinstance(value, dict)},
    )
    return finish_card(metadata_of_card.to_dict(), text)
