"""One commit to a repository on the Hub, all of it or nothing.

The commit names its parent (`create_commit(parent_commit=...)`), so it lands on top of the state it was planned for or
not at all. Whether it was made is read from the Hub, not from the answer, which may be lost.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from huggingface_hub import CommitInfo, CommitOperation, CommitOperationAdd, HfApi
from huggingface_hub.errors import HTTPError
from transformers.utils import logging

from .remote import (
    HUB_ERRORS,
    WAITS,
    Changes,
    NoAnswer,
    RemoteState,
    explained,
    first_line,
    is_transient,
    name_in_messages,
    page_of,
    patiently,
    read_state,
    status_of,
)

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Committed:
    """A commit that was made, or found to be unnecessary.

    Attributes:
        commit: The commit that holds the files.
        changes: The planned content.
        pull_request: Address of the pull request, if one was opened.
        sent: Paths of the files that were sent; empty if nothing was missing.
        deleted: Paths of the files that were deleted.
        answer_lost: Whether the Hub's answer was lost and the commit was found there.
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
    """Make one commit with what `plan` asks for, and verify that it is there.

    If somebody else commits in between, `plan` is asked again. After a failure the Hub is read before anything is sent
    again, so no commit is made twice.

    Args:
        api: Client of the Hub.
        repo_id: Repository, "user/name".
        plan: Takes what the branch holds and returns what it is to hold.
        message: First line of the commit's message.
        description: The rest of the message.
        revision: Branch. Defaults to main.
        create_pr: Open a pull request instead.
        repo_type: "model", "dataset" or "space".

    Raises:
        PermissionError: No permission to write to the repository.
        ConnectionError: The Hub cannot be reached, or keeps failing.
        ValueError: There is no such branch, or `plan` raises it.
    """
    branch, name = revision or "main", name_in_messages(repo_id, repo_type)
    work: dict[str, tuple[str, ...]] = {}
    in_doubt = False  # a commit was sent, and it is not known yet whether it was made
    before: set[str] | None = None
    for wait in (*WAITS, None):
        try:
            if create_pr and before is None:
                before = set(_pull_requests(api, repo_id, repo_type))
            state = read_state(api, repo_id, revision, repo_type)
            changes = plan(state)
            if in_doubt and create_pr and (found := _own_pull_request(api, state, before or set(), changes)):
                return Committed(found[1], changes, found[0], **work, answer_lost=True)
            operations = changes.pending(state)
            if not operations:
                return Committed(state.commit, changes, **work, answer_lost=in_doubt)
            added = tuple(each.path_in_repo for each in operations if isinstance(each, CommitOperationAdd))
            work = {"sent": added, "deleted": tuple(each for each in changes.gone if each in state.files)}
            in_doubt = True
            made = _send(
                api, repo_id, operations, message, description, state.commit, branch, create_pr, repo_type=repo_type
            )
            left = changes.pending(read_state(api, repo_id, made.oid, repo_type))
            if left:
                raise ValueError(
                    f"commit {made.oid} of {name} lacks {left[0].path_in_repo}: does a .gitignore there exclude it?"
                )
            return Committed(made.oid, changes, made.pr_url, **work)
        except HUB_ERRORS as error:
            failure = error
            raced = status_of(error) == 412
            if not raced and not is_transient(error):
                raise explained(error, name, api.endpoint, branch, _fate(name, branch, False)) from error
            in_doubt = in_doubt and not raced
            what = "somebody else has committed" if raced else f"no good answer ({first_line(error)})"
            logger.warning(f"{branch} of {name}: {what}; reading it again")
        if wait is not None and not raced:
            time.sleep(wait)
    if in_doubt:
        try:
            state = read_state(api, repo_id, revision, repo_type)
            changes = plan(state)
            if create_pr and (found := _own_pull_request(api, state, before or set(), changes)):
                return Committed(found[1], changes, found[0], **work, answer_lost=True)
            if not create_pr and not changes.pending(state):
                return Committed(state.commit, changes, **work, answer_lost=True)
            in_doubt = False
        except HUB_ERRORS as error:
            failure = error
    if raced:
        raise ConnectionError(
            f"others keep committing to {branch} of {name}: nothing was released; push again when they have finished"
        ) from failure
    raise explained(failure, name, api.endpoint, branch, _fate(name, branch, in_doubt)) from failure


def _fate(name: str, branch: str, in_doubt: bool) -> str:
    if in_doubt:
        return f"it is not known whether {branch} of {name} has the release: push again to find out"
    return f"nothing was released, {branch} of {name} is as it was"


def _send(
    api: HfApi,
    repo_id: str,
    operations: list[CommitOperation],
    message: str,
    description: str | None,
    parent: str,
    branch: str,
    create_pr: bool,
    **kwargs: Any,
) -> CommitInfo:
    with warnings.catch_warnings():
        # huggingface_hub finds parquet files in a model's repository odd; concepts/*.parquet is meant to be there.
        warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
        try:
            return api.create_commit(
                repo_id,
                operations,
                commit_message=message,
                commit_description=description,
                parent_commit=parent,
                revision=branch,
                create_pr=create_pr,
                **kwargs,
            )
        except json.JSONDecodeError as error:  # failing servers answer without JSON
            raise NoAnswer(f"the Hub did not answer with JSON: {error}") from error
        except RuntimeError as error:  # from a thread that uploads
            if isinstance(error.__cause__, HTTPError):
                raise error.__cause__ from error
            raise


def _pull_requests(api: HfApi, repo_id: str, repo_type: str) -> list[str]:
    refs = patiently(api.list_repo_refs, repo_id, include_pull_requests=True, repo_type=repo_type)
    return [each.ref for each in refs.pull_requests or []]


def _own_pull_request(api: HfApi, base: RemoteState, before: set[str], changes: Changes) -> tuple[str, str] | None:
    """Address and commit of a new pull request that holds what was sent."""
    for ref in sorted(set(_pull_requests(api, base.repo_id, base.repo_type)) - before):
        state = read_state(api, base.repo_id, ref, base.repo_type)
        if not changes.pending(state):
            return f"{page_of(api, base.repo_id, base.repo_type)}/discussions/{ref.rsplit('/', 1)[-1]}", state.commit
    return None
