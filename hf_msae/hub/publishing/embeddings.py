"""Extracted embeddings on the Hub: pushed in one commit with a card, and loaded with all that is known of them."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData, HfApi
from jinja2 import Environment, StrictUndefined

from ...embeddings import verify_embeddings
from ...embeddings.metadata import METADATA_FILE, EmbeddingMetadata
from ...embeddings.stored_statistics import STATISTICS_FILE, moments_of_folder
from .card import template_path
from .card_edits import assemble_card, merge_card
from .committing import commit, page_of
from .remote import Changes, Content, RemoteState, check_before_work, require_repository

_CARD = "README.md"
_FILES = (STATISTICS_FILE, "dataset_info.json", "state.json")
_SHARD = re.compile(r"data-[\w-]+\.arrow")


@dataclass(frozen=True)
class PushedActivations:
    """What was pushed.

    Attributes:
        repo_id: the data set.
        repo_url: its page, or that of the pull request.
        commit: the commit that holds the files.
        num_rows: rows in it.
        sent: files that had to be sent; empty where all was there already.
        deleted: shards of an earlier push that are gone.
        answer_lost: the Hub's answer to the commit never came; the commit was found there.
    """

    repo_id: str
    repo_url: str
    commit: str
    num_rows: int
    sent: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    answer_lost: bool = False

    def __str__(self) -> str:
        told = f"{self.num_rows:,} rows in commit {self.commit}: {self.repo_url}"
        return f"{told} (the Hub's answer was lost on the way; the commit is there)" if self.answer_lost else told


def push_embeddings(
    folder: str | os.PathLike,
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> PushedActivations:
    """Push a finished folder of embeddings to a data set on the Hub, in one commit.

    `load_embeddings(repo_id)` then gives them with provenance and statistics, mapped from the same files;
    `datasets.load_dataset(repo_id)` works without this package. Shards of an earlier push that are gone here are
    deleted there; no other file is. The card is renewed, and what people have changed in it stays. Folders of this
    machine lose their paths. What fails on the way is tried again, and a commit whose answer was lost is found.

    Args:
        folder: written by `extract_activations` or `EmbeddingWriter`.
        repo_id: "user/name"; made if it is not there.
        private: whether a repository that is made is private.
        revision: branch to commit to; made if it is not there.
        create_pr: open a pull request instead.
        token: by default the one that is logged in.

    Raises:
        FileNotFoundError, ValueError: the folder holds no embeddings, is unfinished, or its files have changed; the
            data set there is of something else, or public although `private` was asked for.
        PermissionError: nobody is logged in, or may not write there.
        ConnectionError: the Hub cannot be reached, or fails again and again; says what has become of the push.
    """
    folder = Path(folder).expanduser()
    verify_embeddings(folder)
    check_before_work(repo_id, token, "dataset")
    api = HfApi(token=token)
    require_repository(api, repo_id, private or None, None if create_pr else revision, "dataset")
    metadata = EmbeddingMetadata.load(folder)
    content = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    content["provenance"] = {key: _public(value) for key, value in content["provenance"].items()}
    names = [*_FILES, *(shard.file for shard in metadata.shards)]
    files = {name: Content(folder / name) for name in names if (folder / name).is_file()}
    files[METADATA_FILE] = Content(json.dumps(content, indent=2).encode())
    fresh = render_embeddings_card(folder, repo_id)

    def plan(state: RemoteState) -> Changes:
        gone = sorted((_shards_there(state) - set(files)) & set(state.files))
        before = state.read(_CARD)
        text = fresh if before is None or not before.strip() else merge_card(fresh, before)
        return Changes({**files, _CARD: Content(text.encode())}, tuple(gone))

    message = f"Upload {metadata.num_rows} rows of embeddings"
    committed = commit(api, repo_id, plan, message, revision=revision, create_pr=create_pr, repo_type="dataset")
    url = page_of(api, repo_id, "dataset")
    return PushedActivations(
        repo_id=repo_id,
        repo_url=committed.pull_request or url + (f"/tree/{revision}" if revision not in (None, "main") else ""),
        commit=committed.commit,
        num_rows=metadata.num_rows,
        sent=committed.sent,
        deleted=committed.deleted,
        answer_lost=committed.answer_lost,
    )


def _shards_there(state: RemoteState) -> set[str]:
    """The shards of an earlier push.

    Raises:
        ValueError: the data set holds files that would be taken for shards, but no earlier push has put them there.
    """
    text, listed = state.read(METADATA_FILE), set()
    if text is not None:
        try:
            content = json.loads(text)
            listed = {str(shard["file"]) for shard in content["shards"]}
            if not isinstance(content["columns"], dict):
                raise TypeError("its columns are no mapping")
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"the data set {state.repo_id} holds an {METADATA_FILE} that is none of hf_msae's ({error!r}): push "
                "to another one, or delete it on the Hub"
            ) from error
    foreign = sorted(name for name in state.files if _SHARD.fullmatch(name) and name not in listed)
    if foreign:
        raise ValueError(
            f"the data set {state.repo_id} holds {foreign[0]}, which no push of embeddings has put there and which "
            "would be read as a part of them: push to another data set, or delete it on the Hub"
        )
    return {name for name in listed if _SHARD.fullmatch(name)}


def require_repo(repo_id: str, private: bool = False, api: HfApi | None = None) -> None:
    """Make the data set on the Hub if it is not there: the moment to find out that one may not.

    Raises:
        PermissionError: nobody is logged in, or may not write there.
        ValueError: it is to be private, but is there already and public.
        ConnectionError: the Hub cannot be reached, or fails.
    """
    require_repository(api or HfApi(), repo_id, private or None, repo_type="dataset")


def render_embeddings_card(folder: str | os.PathLike, name: str) -> str:
    """The data set card of a finished folder of embeddings, called `name` on the Hub."""
    folder = Path(folder).expanduser()
    metadata = EmbeddingMetadata.load(folder)
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
    template = environment.from_string(template_path("embeddings_template.md").read_text(encoding="utf-8"))
    shown = {key: value for key, value in known.items() if value is not None and not isinstance(value, dict)}
    context = template.new_context(
        {
            "name": name,
            "num_rows": metadata.num_rows,
            "backbone": known.get("base_model_name_or_path"),
            "revision": known.get("base_model_revision"),
            "dataset": known.get("dataset"),
            "split": known.get("dataset_split"),
            "columns": columns,
            "dtype": metadata.dtype,
            "others": ", ".join(f"`{each}`" for each in metadata.extra_features),
            "skipped": len(metadata.skipped),
            "provenance": shown,
        }
    )
    return assemble_card(
        card_data.to_dict(), {name: "".join(block(context)) for name, block in template.blocks.items()}
    )


def _public(value: Any) -> Any:
    """A folder of this machine by its name alone: where it lies is nobody's business."""
    return Path(value).name if isinstance(value, str) and (os.path.isabs(value) or value.startswith("~")) else value
