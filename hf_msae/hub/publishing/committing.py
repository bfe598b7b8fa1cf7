"""One commit to a repository that others may write to at the same time, over a network that may fail at any moment."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from transformers.utils import logging

from .remote import (
    HUB_ERRORS,
    MAIN,
    WAITS,
    Changes,
    NoAnswer,
    RemoteState,
    called_in_messages,
    explained,
    first_line,
    is_transient,
    patiently,
    read_state,
    status_of,
)

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Committed:
    """What has come of it.

    Attributes:
        commit: the commit that holds the files.
        changes: what was asked for in the end.
        pull_request: its address, where one was opened.
        sent: paths of files that were sent; empty where all was there already.
        deleted: paths of files that were deleted.
        answer_lost: the commit was made, but its answer never came, and it was found on the Hub.
    """

    commit: str
    changes: Changes
    pull_request: str | None = None
    sent: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    answer_lost: bool = False


def commit(
    api: HfApi,
    repo_id: str,
    plan: Callable[[RemoteState], Changes],
    message: str,
    description: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    repo_type: str = "model",
) -> Committed:
    """Make one commit of what `plan` wants.

    The commit names its parent, so it happens on top of what `plan` was shown or not at all: where somebody else was
    faster, `plan` is asked again. A commit that failed is looked for on the Hub before it is sent again, so none is
    made twice.

    Args:
        plan: what is to be there, given what is.
        message, description: of the commit.
        revision: branch; None is main.
        create_pr: open a pull request instead.
        repo_type: "model", "dataset" or "space".

    Raises:
        PermissionError: no permission to write there.
        ConnectionError: the Hub cannot be reached, or fails again and again; nothing has changed there.
        ValueError: what `plan` raises; no such revision.
    """
    branch, called = revision or MAIN, called_in_messages(repo_id, repo_type)
    before = {}
    work: dict[str, tuple[str, ...]] = {}
    in_doubt = False  # a commit was sent, and whether it was made is not known yet
    try:
        if create_pr:
            before = _pull_requests(api, repo_id, repo_type)
        for wait in (*WAITS, None):
            state = read_state(api, repo_id, revision, repo_type)
            changes = plan(state)
            operations = changes.pending(state)
            if not operations:
                return Committed(state.commit, changes, **work, answer_lost=in_doubt)
            in_doubt = in_doubt and create_pr  # what was sent to a branch would be there
            additions = [each for each in operations if isinstance(each, CommitOperationAdd)]
            work = {"sent": tuple(each.path_in_repo for each in additions)}
            work["deleted"] = tuple(each.path_in_repo for each in operations if each not in additions)
            _upload(api, repo_id, additions, branch, create_pr, repo_type)
            try:
                in_doubt = True
                where = {"revision": branch, "create_pr": create_pr, "repo_type": repo_type}
                made = _send(api, repo_id, operations, message, description, state.commit, where)
                return Committed(made.oid, changes, made.pr_url, **work)
            except (HfHubHTTPError, HTTPError, NoAnswer) as error:
                in_doubt = is_transient(error)
                if not in_doubt and status_of(error) != 412:
                    raise
                failure = error
            if status_of(failure) == 412:  # somebody has committed since the state was read
                logger.warning(f"somebody has committed to {branch} of {called} meanwhile: reading it again")
                continue
            logger.warning(
                f"the commit to {branch} of {called} got no good answer ({first_line(failure)}): looking for it"
            )
            time.sleep(WAITS[-1] if wait is None else wait)
            if create_pr and (found := _own_pull_request(api, state, before, changes)) is not None:
                number, holding = found
                address = f"{page_of(api, repo_id, repo_type)}/discussions/{number}"
                return Committed(holding, changes, address, **work, answer_lost=True)
        state = read_state(api, repo_id, revision, repo_type)
        if not create_pr and not (changes := plan(state)).pending(state):
            return Committed(state.commit, changes, **work, answer_lost=True)
        in_doubt = False
    except HUB_ERRORS as error:
        fate = (
            f"whether {branch} of {called} has the release could not be found out: push again, which finds out"
            if in_doubt
            else f"nothing was released, {branch} of {called} is as it was"
        )
        raise explained(error, called, api.endpoint, branch, fate) from error
    if status_of(failure) == 412:
        raise ConnectionError(
            f"others keep committing to {branch} of {called}: nothing was released in {len(WAITS) + 1} attempts; "
            "push again when they have finished"
        ) from failure
    fate = f"nothing was released, {branch} of {called} is as it was"
    raise explained(failure, called, api.endpoint, branch, fate) from failure


def page_of(api: HfApi, repo_id: str, repo_type: str = "model") -> str:
    """A repository's address."""
    return f"{api.endpoint}/{'' if repo_type == 'model' else f'{repo_type}s/'}{repo_id}"


def _upload(
    api: HfApi, repo_id: str, additions: list[CommitOperationAdd], branch: str, create_pr: bool, repo_type: str
) -> None:
    """Upload what is large, which no revision has until the commit names it; huggingface_hub repeats what fails."""
    with _without_parquet_warning():
        try:
            api.preupload_lfs_files(
                repo_id,
                additions,
                repo_type=repo_type,
                revision=branch,
                create_pr=create_pr,
                free_memory=False,
                gitignore_content="",
            )
        except RuntimeError as error:  # of a thread that uploads: what happened is its cause
            if isinstance(error.__cause__, HTTPError):
                raise error.__cause__ from error
            raise


def _send(
    api: HfApi,
    repo_id: str,
    operations: list[CommitOperationAdd | CommitOperationDelete],
    message: str,
    description: str | None,
    parent: str,
    where: Mapping[str, Any],
) -> CommitInfo:
    with _without_parquet_warning():
        try:
            return api.create_commit(
                repo_id,
                operations,
                commit_message=message,
                commit_description=description,
                parent_commit=parent,
                **where,
            )
        except json.JSONDecodeError as error:  # the check of metadata answered as failing servers do, without JSON
            raise NoAnswer(f"the Hub did not answer with JSON: {error}") from error


@contextmanager
def _without_parquet_warning() -> Iterator[None]:
    """huggingface_hub finds parquet in a repository of models odd; concepts/*.parquet is meant to be there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
        yield


def _pull_requests(api: HfApi, repo_id: str, repo_type: str) -> dict[str, str]:
    """Reference -> commit of the pull requests that there are."""
    refs = patiently(api.list_repo_refs, repo_id, include_pull_requests=True, repo_type=repo_type)
    return {each.ref: each.target_commit for each in refs.pull_requests or []}


def _own_pull_request(
    api: HfApi, base: RemoteState, before: Mapping[str, str], changes: Changes
) -> tuple[str, str] | None:
    """Number and commit of a pull request that was not there before and holds what was sent."""
    for ref in sorted(set(_pull_requests(api, base.repo_id, base.repo_type)) - set(before)):
        state = read_state(api, base.repo_id, ref, base.repo_type)
        if not changes.pending(state):
            return ref.rsplit("/", 1)[-1], state.commit
    return None
