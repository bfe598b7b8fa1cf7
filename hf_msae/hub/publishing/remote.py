"""A repository on the Hub: what it holds, what it may be asked, and its errors in plain words."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token, hf_hub_url
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff, validate_repo_id
from transformers.utils import logging

logger = logging.get_logger(__name__)


class NoAnswer(ConnectionError):
    """The Hub answered with what is no answer."""


HUB_ERRORS = (HfHubHTTPError, HTTPError, NoAnswer)

MAIN = "main"

WAITS = (1.0, 3.0)
"""Seconds before a request that failed is sent again; huggingface_hub does so for uploads, not for commits."""


@dataclass(frozen=True)
class RemoteState:
    """What a revision of a repository holds.

    Attributes:
        repo_id: "user/name".
        commit: its newest commit.
        files: path -> what the Hub says of the file.
        private: whether the repository is.
        repo_type: "model", "dataset" or "space".
    """

    api: HfApi = field(repr=False)
    repo_id: str
    commit: str
    files: Mapping[str, RepoFile]
    private: bool = False
    repo_type: str = "model"

    def read(self, path: str) -> str | None:
        """The text of a file; None where there is none.

        Raises:
            ValueError: it is no text.
        """
        content = self.read_bytes(path)
        try:
            return None if content is None else content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} of {self.repo_id} is no text in UTF-8 ({error}): mend it on the Hub") from error

    def read_bytes(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        if path not in self.files:
            return None
        where = {"repo_type": self.repo_type, "revision": self.commit, "endpoint": self.api.endpoint}
        url = hf_hub_url(self.repo_id, path, **where)
        # Not hf_hub_download: that would move the cache's idea of the branch to a commit whose weights it lacks.
        headers = build_hf_headers(token=self.api.token)
        response = http_backoff("GET", url, headers=headers, follow_redirects=True)
        hf_raise_for_status(response)
        return response.content

    def holds(self, path: str, content: Content) -> bool:
        """Whether a file is there with this very content."""
        file = self.files.get(path)
        if file is None:
            return False
        return content.sha256 == file.lfs.sha256 if file.lfs is not None else content.git_sha1 == file.blob_id

    def holds_sha256(self, path: str, sha256: str) -> bool:
        """Whether a file is there whose content has this SHA-256."""
        file = self.files.get(path)
        if file is None:
            return False
        if file.lfs is not None:
            return file.lfs.sha256 == sha256
        return hashlib.sha256(self.read_bytes(path) or b"").hexdigest() == sha256


@dataclass(frozen=True)
class Content:
    """What a file is to hold: bytes, or those of a local file."""

    source: Path | bytes

    @cached_property
    def size(self) -> int:
        """In bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """By which the Hub knows large files."""
        return self._digest(hashlib.sha256())

    @cached_property
    def git_sha1(self) -> str:
        """By which git knows others."""
        return self._digest(hashlib.sha1(f"blob {self.size}\0".encode()))

    def _digest(self, digest: Any) -> str:
        if isinstance(self.source, bytes):
            digest.update(self.source)
        else:
            with self.source.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class Changes:
    """What a revision is to hold: files with their content, and files that are to be gone."""

    files: Mapping[str, Content]
    gone: tuple[str, ...] = ()

    def pending(self, state: RemoteState) -> list[CommitOperationAdd | CommitOperationDelete]:
        """What is not so yet."""
        added = [
            CommitOperationAdd(path, content.source)
            for path, content in self.files.items()
            if not state.holds(path, content)
        ]
        return added + [CommitOperationDelete(path) for path in self.gone if path in state.files]


def check_before_work(repo_id: str, token: str | None = None, repo_type: str = "model") -> None:
    """Find out what can be known without the Hub: whether the name is one, and somebody is logged in.

    Raises:
        ValueError: the name is none.
        ConnectionError: offline.
        PermissionError: nobody is logged in.
    """
    check_repo_id(repo_id)
    called = called_in_messages(repo_id, repo_type)
    if constants.HF_HUB_OFFLINE:
        way = ", or write the folder alone with dry_run (--dry_run DIR)" if repo_type != "dataset" else ""
        raise ConnectionError(f"HF_HUB_OFFLINE is set, so nothing can be sent to {called}: unset it{way}")
    if token is None and get_token() is None:
        raise PermissionError(
            f"nobody is logged in, so nothing can be sent to {called}: `hf auth login`, or set HF_TOKEN"
        )


def called_in_messages(repo_id: str, repo_type: str = "model") -> str:
    """A repository's name, with what it is where that is no model."""
    return {"model": "", "dataset": "the data set ", "space": "the Space "}[repo_type] + repo_id


def check_repo_id(repo_id: str) -> None:
    """Raises:
    ValueError: it is no "user/name".
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name of a repository, like user/name: {error}") from error
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} does not say whose repository: write it as user/name")


def require_repository(
    api: HfApi, repo_id: str, private: bool | None = None, branch: str | None = None, repo_type: str = "model"
) -> None:
    """Make the repository, and the branch, if they are not there: the moment to find out that one may not.

    Raises:
        PermissionError: nobody is logged in, or may not write there.
        ValueError: it is to be private, but is there already and public.
        ConnectionError: the Hub cannot be reached, or fails.
    """
    called = called_in_messages(repo_id, repo_type)
    kind = {"repo_type": repo_type} | ({"space_sdk": "gradio"} if repo_type == "space" else {})
    with hub_errors(called, api.endpoint):
        patiently(api.create_repo, repo_id, private=private, exist_ok=True, **kind)
        if private and not patiently(api.repo_info, repo_id, repo_type=repo_type).private:
            raise ValueError(
                f"{called} is there already and public, and private is for new repositories: change it in its "
                "settings on the Hub, or leave private out"
            )
        if branch is not None:
            patiently(api.create_branch, repo_id, branch=branch, exist_ok=True, repo_type=repo_type)


def read_state(api: HfApi, repo_id: str, revision: str | None = None, repo_type: str = "model") -> RemoteState:
    """What a revision holds now."""
    where = {"repo_type": repo_type}
    info = patiently(api.repo_info, repo_id, revision=revision, **where)
    tree = patiently(lambda: list(api.list_repo_tree(repo_id, recursive=True, revision=info.sha, **where)))
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    return RemoteState(api, repo_id, info.sha, files, bool(info.private), repo_type)


def patiently(call: Callable, *args: Any, **kwargs: Any) -> Any:
    """A request that may be repeated, repeated where the server or the network failed."""
    for wait in (*WAITS, None):
        try:
            return call(*args, **kwargs)
        except (HfHubHTTPError, HTTPError) as error:
            if wait is None or not is_transient(error):
                raise
            logger.warning(f"{first_line(error)}: again in {wait:g} s")
            time.sleep(wait)
    raise AssertionError("unreachable: the last attempt returns or raises")


def status_of(error: BaseException) -> int | None:
    """HTTP status of the Hub's answer; None where there was none."""
    response = getattr(error, "response", None) if isinstance(error, HfHubHTTPError) else None
    return None if response is None else response.status_code


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: no answer, or one that says the server failed or is busy."""
    if isinstance(error, HUB_ERRORS):
        status = status_of(error)
        return status is None or status in (408, 429) or status >= 500
    return False


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that servers and libraries add; its kind where it says nothing."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__


@contextmanager
def hub_errors(called: str, endpoint: str) -> Iterator[None]:
    """Errors of the Hub as errors that say what to do; what is asked within this context changes no files."""
    try:
        yield
    except HUB_ERRORS as error:
        raise explained(error, called, endpoint, MAIN, "nothing was released") from error


def explained(error: Exception, called: str, endpoint: str, branch: str, fate: str) -> Exception:
    """An error of the Hub as one that says what to do; itself, where there is nothing to say.

    Args:
        called: what the repository is called.
        fate: what has become of the release.
    """
    status = status_of(error)
    if isinstance(error, RevisionNotFoundError):
        return ValueError(f"{called} has no branch {branch!r} for a pull request: name one that is there")
    if status in (401, 403) or isinstance(error, RepositoryNotFoundError):
        way = "" if called.startswith("the Space") else ", or open a pull request with create_pr=True (--create_pr)"
        return PermissionError(
            f"no permission to write to {called} on the Hub ({first_line(error)}); {fate}. Log in with `hf auth "
            f"login` as someone who has, with a token that may write{way}"
        )
    if not is_transient(error):
        return error
    what = "could not be reached" if status is None else f"answered {status}"
    return ConnectionError(
        f"the Hub at {endpoint} {what} ({first_line(error)}); {fate}. What was uploaded is not sent twice"
    )
