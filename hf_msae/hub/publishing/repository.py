"""A repository on the Hub, and one commit to it: all of it or nothing.

A commit names its parent, so it lands on top of the state it was planned for or not at all. Whether it landed is read
from the Hub rather than from the answer, which may be lost.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import (
    CommitInfo,
    CommitOperation,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    hf_hub_url,
)
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff, validate_repo_id
from huggingface_hub.utils.sha import git_hash
from transformers.utils import logging

logger = logging.get_logger(__name__)

HUB_ERRORS = (HTTPError, json.JSONDecodeError)
"""Errors of huggingface_hub: refusals, failing servers, lost connections, and answers that are not JSON."""

WAITS = (1.0, 2.0, 4.0)
"""Seconds before another attempt."""


@dataclass(frozen=True)
class Snapshot:
    """What a repository holds at a commit; by default nothing.

    `files` maps paths to what the Hub knows of the files, and `download` returns the content of a path.
    """

    commit: str | None = None
    files: Mapping[str, RepoFile] = field(default_factory=dict)
    download: Callable[[str], bytes] | None = field(default=None, repr=False)

    def read(self, path: str) -> str | None:
        """Return the text of a file, None if there is no such file; raise ValueError if it is not UTF-8."""
        try:
            return self.download(path).decode("utf-8") if path in self.files else None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error}): repair it on the Hub") from error

    def holds(self, path: str, sha256: str) -> bool:
        """Whether a file with this SHA-256 is there."""
        file = self.files.get(path)
        if file is None:
            return False
        found = hashlib.sha256(self.download(path)).hexdigest() if file.lfs is None else file.lfs.sha256
        return found == sha256

    def pending(self, operations: Sequence[CommitOperation]) -> list[CommitOperation]:
        """The operations that would change something."""
        return [each for each in operations if self._is_pending(each)]

    def _is_pending(self, operation: CommitOperation) -> bool:
        file = self.files.get(operation.path_in_repo)
        if isinstance(operation, CommitOperationDelete):
            return file is not None
        if file is None or file.size != operation.upload_info.size:
            return True
        if file.lfs is not None:
            return file.lfs.sha256 != operation.upload_info.sha256.hex()
        with operation.as_file() as content:
            return file.blob_id != git_hash(content.read())


@dataclass(frozen=True)
class Committed:
    """A commit that was made, or that turned out to be unnecessary."""

    commit: str | None  # the commit that holds the files; None for a dry run
    operations: Sequence[CommitOperation]  # the planned operations
    sent: Sequence[CommitOperation] = ()  # those that changed something; empty if everything was there
    pull_request: str | None = None  # address of the pull request, if one was opened
    answer_lost: bool = False  # whether the Hub's answer was lost and the commit was found there

    def paths(self, kind: type[CommitOperation]) -> tuple[str, ...]:
        """Paths that were changed: CommitOperationAdd for added, CommitOperationDelete for deleted files."""
        return tuple(each.path_in_repo for each in self.sent if isinstance(each, kind))


class Repository:
    """A repository on the Hub: "user/name" of the type "model", "dataset" or "space", and the user's token."""

    def __init__(self, repo_id: str, repo_type: str = "model", token: str | None = None):
        if repo_id.count("/") != 1:
            raise ValueError(f"{repo_id!r} does not say whose repository it is: write it as user/name")
        validate_repo_id(repo_id)
        self.repo_id, self.repo_type, self.api = repo_id, repo_type, HfApi(token=token)
        self._id = {"repo_id": repo_id, "repo_type": repo_type}

    def __str__(self) -> str:
        return {"model": "", "dataset": "the dataset ", "space": "the Space "}[self.repo_type] + self.repo_id

    def url(self, revision: str | None = None) -> str:
        """The address of the repository, or of a branch."""
        prefix = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        suffix = "" if revision in (None, "main") else f"/tree/{revision}"
        return f"{self.api.endpoint}/{prefix}{self.repo_id}{suffix}"

    def check_access(self) -> None:
        """Raise ConnectionError if `HF_HUB_OFFLINE` is set, and PermissionError if nobody is logged in."""
        # Datasets of embeddings are not staged, so they have no dry run.
        otherwise = "" if self.repo_type == "dataset" else "; --dry_run FOLDER only writes the files to a folder"
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError(f"HF_HUB_OFFLINE is set, so nothing can be sent to {self}: unset it{otherwise}")
        if self.api.token is None and get_token() is None:
            raise PermissionError(
                f"not logged in, so nothing can be sent to {self}: run `hf auth login`, or set HF_TOKEN{otherwise}"
            )

    def create(self, private: bool | None = None, branch: str | None = None) -> None:
        """Create the repository and the branch unless they exist; refuse a public one if it should be private."""
        self.check_access()
        sdk = "gradio" if self.repo_type == "space" else None
        try:
            patiently(self.api.create_repo, **self._id, private=private, exist_ok=True, space_sdk=sdk)
            if private and not patiently(self.api.repo_info, **self._id).private:
                raise ValueError(
                    f"{self} already exists and is public, and private is for new repositories: change it in its "
                    "settings on the Hub, or leave private out"
                )
            if branch is not None:
                patiently(self.api.create_branch, **self._id, branch=branch, exist_ok=True)
        except HUB_ERRORS as error:
            raise self.explain(error, "nothing was released") from error

    def snapshot(self, revision: str | None = None) -> Snapshot:
        """What a branch or commit holds now."""
        commit = self.api.repo_info(**self._id, revision=revision).sha
        tree = self.api.list_repo_tree(**self._id, recursive=True, revision=commit)

        def download(path: str) -> bytes:
            # Not hf_hub_download, which would add to the cache a commit whose weights it lacks.
            url = hf_hub_url(self.repo_id, path, repo_type=self.repo_type, revision=commit, endpoint=self.api.endpoint)
            headers = build_hf_headers(token=self.api.token)
            response = http_backoff("GET", url, headers=headers, follow_redirects=True)
            hf_raise_for_status(response)
            return response.content

        return Snapshot(commit, {each.path: each for each in tree if isinstance(each, RepoFile)}, download)

    def commit(
        self,
        plan: Callable[[Snapshot], Sequence[CommitOperation]],
        message: str,
        description: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> Committed:
        """Make one commit with the operations that `plan` asks for, and verify that it is there.

        `plan` takes what the branch holds and returns operations; those that change nothing are left out. If somebody
        else commits in between, it is asked again. Before anything is sent again, the Hub is read to see whether it is
        there already, so no commit is made twice. A pull request, which cannot be found that way, is never sent twice.
        """
        branch, sent, made = revision or "main", [], None
        options = {"commit_message": message, "commit_description": description, "revision": branch}
        for wait in (*WAITS, None):  # None: only see what became of the last attempt
            in_doubt = bool(sent)  # from here until the Hub has been read
            try:
                snapshot = self.snapshot(revision)
                operations = plan(snapshot)
                pending = snapshot.pending(operations)
                if not pending:
                    return Committed(snapshot.commit, operations, sent, answer_lost=bool(sent))
                in_doubt = False
                if wait is None:
                    break
                sent, in_doubt = pending, True
                made = self._send(pending, parent_commit=snapshot.commit, create_pr=create_pr, **options)
                if left := patiently(self.snapshot, made.oid).pending(operations):
                    raise ValueError(f"commit {made.oid} of {self} lacks {left[0].path_in_repo} (.gitignore?)")
                return Committed(made.oid, operations, sent, made.pr_url)
            except HUB_ERRORS as error:
                failure = error
                in_doubt = in_doubt and is_transient(error)
                if wait is None or not is_transient(error) or (create_pr and (made or in_doubt)):
                    break
                logger.warning(f"{branch} of {self}: {first_line(error)}; reading it again")
                time.sleep(wait)
        fate = f"nothing was released, {branch} of {self} is as it was"
        if in_doubt:
            fate = f"it is not known whether {branch} of {self} has the release: push again to find out"
        if made is not None and create_pr:
            fate = f"the pull request {made.pr_url} was opened, but could not be read again to check it"
        elif in_doubt and create_pr:
            fate = f"it is not known whether a pull request was opened: look at {self.url()}/discussions"
        raise self.explain(failure, fate, branch) from failure

    def _send(self, operations: list[CommitOperation], **options: Any) -> CommitInfo:
        with warnings.catch_warnings():
            # concepts/*.parquet is meant to be in a model's repository.
            warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
            try:
                return self.api.create_commit(**self._id, operations=operations, **options)
            except RuntimeError as error:  # from a thread that uploads
                raise error.__cause__ if isinstance(error.__cause__, HTTPError) else error from error

    def explain(self, error: Exception, fate: str, branch: str = "main") -> Exception:
        """Turn an error of the Hub into one that says what became of the release (`fate`) and what to do."""
        status, reason = status_of(error), first_line(error)
        if isinstance(error, RevisionNotFoundError):
            return ValueError(f"{self} has no branch {branch!r} to open a pull request on: name an existing one")
        if status in (401, 403) or isinstance(error, RepositoryNotFoundError):
            way = "" if self.repo_type == "space" else ", or open a pull request with create_pr=True (--create_pr)"
            return PermissionError(
                f"no permission to write to {self} on the Hub ({reason}); {fate}. Log in with `hf auth login` and a "
                f"token that may write{way}"
            )
        if status == 412:
            return ConnectionError(f"others keep committing; {fate}. Push again when they have finished")
        if not is_transient(error):
            return error
        what = "could not be reached" if status is None else f"answered {status}"
        return ConnectionError(f"the Hub at {self.api.endpoint} {what} ({reason}); {fate}")


def patiently(call: Callable, *args: Any, **kwargs: Any) -> Any:
    """Make a request that changes nothing if repeated, again if the server or the network fails."""
    for wait in WAITS:
        try:
            return call(*args, **kwargs)
        except HUB_ERRORS as error:
            if not is_transient(error):
                raise
            time.sleep(wait)
    return call(*args, **kwargs)


def status_of(error: BaseException) -> int | None:
    """HTTP status of the Hub's answer; None if there was none."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed: no answer, a server that failed or is busy, or a commit in between."""
    status = status_of(error)
    return status is None or status in (408, 412, 429) or status >= 500


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that servers and libraries add; its type if it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
