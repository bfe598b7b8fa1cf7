"""A repository on the Hub: what it holds, and its errors in plain words."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitOperation,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    hf_hub_url,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff, validate_repo_id


class NoAnswer(ConnectionError):
    """The Hub's answer is not one."""


HUB_ERRORS = (HfHubHTTPError, HTTPError, NoAnswer)

WAITS = (1.0, 3.0)
"""Seconds before a request is sent again that huggingface_hub itself sends only once."""

MANIFEST = "msae_files.json"
"""Lists the files that earlier pushes have sent, so that no other file is ever deleted or replaced."""

_MANIFEST_VERSION = 1


@dataclass(frozen=True)
class RemoteState:
    """What a revision of a repository holds.

    Attributes:
        repo_id: "user/name".
        commit: Its latest commit.
        files: Path -> what the Hub knows of the file.
        repo_type: "model", "dataset" or "space".
    """

    api: HfApi = field(repr=False)
    repo_id: str
    commit: str
    files: Mapping[str, RepoFile]
    repo_type: str = "model"

    def read(self, path: str) -> str | None:
        """The text of a file; None if there is none.

        Raises:
            ValueError: The file is not UTF-8 text.
        """
        content = self._read_bytes(path)
        try:
            return None if content is None else content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} of {self.repo_id} is not UTF-8 text ({error}): repair it on the Hub") from error

    def _read_bytes(self, path: str) -> bytes | None:
        if path not in self.files:
            return None
        # Not hf_hub_download: that would move the cache's idea of the branch to a commit whose weights it lacks.
        location = {"repo_type": self.repo_type, "revision": self.commit, "endpoint": self.api.endpoint}
        headers = build_hf_headers(token=self.api.token)
        url = hf_hub_url(self.repo_id, path, **location)
        response = http_backoff("GET", url, headers=headers, follow_redirects=True)
        hf_raise_for_status(response)
        return response.content

    def holds(self, path: str, content: Content) -> bool:
        """Whether a file with exactly this content is there."""
        file = self.files.get(path)
        if file is None:
            return False
        return content.sha256 == file.lfs.sha256 if file.lfs is not None else content.git_sha1 == file.blob_id

    def holds_sha256(self, path: str, sha256: str) -> bool:
        """Whether a file whose content has this SHA-256 is there."""
        file = self.files.get(path)
        if file is None:
            return False
        if file.lfs is not None:
            return file.lfs.sha256 == sha256
        return hashlib.sha256(self._read_bytes(path) or b"").hexdigest() == sha256

    def sent_before(self, folder: str = "") -> dict[str, Any]:
        """What the manifest in a folder says: "files", path in the folder -> SHA-256, and "card".

        Raises:
            ValueError: The manifest is damaged, or of a newer version.
        """
        path = f"{folder}/{MANIFEST}" if folder else MANIFEST
        text, name = self.read(path), f"{path} of {name_in_messages(self.repo_id, self.repo_type)}"
        if text is None:
            return {"files": {}, "card": None}
        try:
            content = json.loads(text)
            version, files = content["format_version"], content["files"]
            if not all(isinstance(each, str) for item in files.items() for each in item):
                raise TypeError("files does not map paths to digests")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{name} is damaged ({error!r}): repair or delete it on the Hub") from error
        if version > _MANIFEST_VERSION:
            raise ValueError(f"{name} was written by a newer hf_msae (format {version}): install that")
        return {"files": files, "card": content.get("card")}


@dataclass(frozen=True)
class Content:
    """The content of a file: bytes, or a local file."""

    source: Path | bytes

    @cached_property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """The hash by which the Hub knows large files."""
        return self._digest(hashlib.sha256())

    @cached_property
    def git_sha1(self) -> str:
        """The hash by which git knows the other files."""
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
    """What a revision is to hold: files with their content, and paths that are to be gone."""

    files: Mapping[str, Content]
    gone: tuple[str, ...] = ()

    def pending(self, state: RemoteState) -> list[CommitOperation]:
        """The operations that are missing."""
        missing = {path: content for path, content in self.files.items() if not state.holds(path, content)}
        added = [CommitOperationAdd(path, content.source) for path, content in missing.items()]
        return added + [CommitOperationDelete(path) for path in self.gone if path in state.files]


def manifest(files: Mapping[str, Content], card: str | None = None) -> Content:
    """The content of msae_files.json.

    Args:
        files: Path in the folder of the manifest -> content.
        card: SHA-256 of the card, if it holds no edits that were made on the Hub.
    """
    listed = {path: content.sha256 for path, content in sorted(files.items())}
    content = {"format_version": _MANIFEST_VERSION, "files": listed} | ({} if card is None else {"card": card})
    return Content((json.dumps(content, indent=2) + "\n").encode())


def check_before_work(repo_id: str, token: str | None = None, repo_type: str = "model") -> None:
    """Check what can be known without asking the Hub.

    Raises:
        ValueError: `repo_id` is not a valid name.
        ConnectionError: Offline.
        PermissionError: Nobody is logged in.
    """
    check_repo_id(repo_id)
    name = name_in_messages(repo_id, repo_type)
    if constants.HF_HUB_OFFLINE:
        way = "" if repo_type == "dataset" else ", or only write the folder with dry_run (--dry_run DIR)"
        raise ConnectionError(f"HF_HUB_OFFLINE is set, so nothing can be sent to {name}: unset it{way}")
    if token is None and get_token() is None:
        raise PermissionError(f"not logged in, so nothing can be sent to {name}: run `hf auth login`, or set HF_TOKEN")


def name_in_messages(repo_id: str, repo_type: str = "model") -> str:
    """A repository's name, with its type unless it is a model."""
    return {"model": "", "dataset": "the dataset ", "space": "the Space "}[repo_type] + repo_id


def page_of(api: HfApi, repo_id: str, repo_type: str = "model") -> str:
    """A repository's address."""
    return f"{api.endpoint}/{'' if repo_type == 'model' else f'{repo_type}s/'}{repo_id}"


def check_repo_id(repo_id: str) -> None:
    """Raise ValueError if `repo_id` is not a valid "user/name"."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is not the name of a repository, like user/name: {error}") from error
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} does not say whose repository it is: write it as user/name")


def require_repository(
    api: HfApi, repo_id: str, private: bool | None = None, branch: str | None = None, repo_type: str = "model"
) -> None:
    """Create the repository and the branch unless they exist, so that missing permissions show early.

    Raises:
        PermissionError: Not logged in, or no permission to write.
        ValueError: The repository is to be private, but exists and is public.
        ConnectionError: The Hub cannot be reached, or fails.
    """
    name = name_in_messages(repo_id, repo_type)
    sdk = {"space_sdk": "gradio"} if repo_type == "space" else {}
    try:
        patiently(api.create_repo, repo_id, private=private, exist_ok=True, repo_type=repo_type, **sdk)
        if private and not patiently(api.repo_info, repo_id, repo_type=repo_type).private:
            raise ValueError(
                f"{name} already exists and is public, and private is for new repositories: change it in its settings "
                "on the Hub, or leave private out"
            )
        if branch is not None:
            patiently(api.create_branch, repo_id, branch=branch, exist_ok=True, repo_type=repo_type)
    except HUB_ERRORS as error:
        raise explained(error, name, api.endpoint, "main", "nothing was released") from error


def read_state(api: HfApi, repo_id: str, revision: str | None = None, repo_type: str = "model") -> RemoteState:
    """What a revision holds now."""
    commit = patiently(api.repo_info, repo_id, revision=revision, repo_type=repo_type).sha
    tree = api.list_repo_tree(repo_id, recursive=True, revision=commit, repo_type=repo_type)
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    return RemoteState(api, repo_id, commit, files, repo_type)


def patiently(call: Callable, *args: Any, **kwargs: Any) -> Any:
    """Make a request that changes nothing when repeated, again if the server or the network fails."""
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
    response = getattr(error, "response", None) if isinstance(error, HfHubHTTPError) else None
    return None if response is None else response.status_code


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: there was no answer, or the server failed or is busy."""
    status = status_of(error)
    return isinstance(error, HUB_ERRORS) and (status is None or status in (408, 429) or status >= 500)


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that servers and libraries add; its type if it says nothing."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__


def explained(error: Exception, name: str, endpoint: str, branch: str, fate: str) -> Exception:
    """An error of the Hub as one that says what to do; itself if there is nothing to add.

    Args:
        error: The error.
        name: Name of the repository in messages.
        endpoint: Address of the Hub.
        branch: The branch that was to be written.
        fate: What became of the release.
    """
    status = status_of(error)
    if isinstance(error, RevisionNotFoundError):
        return ValueError(f"{name} has no branch {branch!r} to open a pull request on: name an existing one")
    if status in (401, 403) or isinstance(error, RepositoryNotFoundError):
        way = "" if name.startswith("the Space") else ", or open a pull request with create_pr=True (--create_pr)"
        return PermissionError(
            f"no permission to write to {name} on the Hub ({first_line(error)}); {fate}. Log in with `hf auth login` "
            f"and a token that may write{way}"
        )
    if not is_transient(error):
        return error
    what = "could not be reached" if status is None else f"answered {status}"
    return ConnectionError(f"the Hub at {endpoint} {what} ({first_line(error)}); {fate}. Uploads are not sent twice")
