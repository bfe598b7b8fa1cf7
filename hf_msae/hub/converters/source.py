"""Where a checkpoint is: a file, a folder or a repository on the Hub, which is downloaded only as far as needed."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import yaml
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..._utils.file_integrity import refuse_pointer, verify_cached
from ..._utils.paths import refuse_missing_path
from ..._utils.walking import files_below
from ...model.loading import WRAPPERS
from .reading import CodeInFileError, Settings, the_one


@dataclass(frozen=True)
class CheckpointSource:
    """The files of one checkpoint, named relative to its folder, and what is known about it."""

    name: str  # name in messages: the path, or "user/name" on the Hub
    files: tuple[str, ...]  # sorted names with "/" between folders; of a single file, only its name
    folder: Path | None = None  # folder on this machine; None on the Hub
    neighbors: tuple[str, ...] = ()  # for a single file, all files in its folder, which may hold its settings
    repo_id: str | None = None  # repository on the Hub
    subfolder: str = ""  # folder in the repository
    revision: str | None = None  # commit on the Hub that `files` belong to
    asked: str | None = None  # revision as the user named it, under which the cache remembers the commit
    token: str | None = None  # token for the Hub
    given: Mapping[str, Any] = field(default_factory=dict)  # overrides that the user gave
    notes: list[str] = field(default_factory=list)  # sentences about the conversion for the user, which readers add
    _loaded: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(
        cls,
        source: str | os.PathLike,
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> CheckpointSource:
        """Find a checkpoint; the arguments are those of `convert_checkpoint`.

        Raises FileNotFoundError if there is nothing there, OSError if the Hub cannot be reached, and ValueError if the
        folder holds too many files to be one of checkpoints.
        """
        local, repo_id, inside = Path(source).expanduser(), str(source), (subfolder or "").strip("/")
        if local.exists():
            found = cls._on_disk(local / inside)
        else:
            refuse_missing_path(repo_id)
            if "/" not in repo_id:
                raise FileNotFoundError(f"there is no file or folder {repo_id}, and it is not a Hub id either")
            found = cls._on_hub(repo_id, inside, revision, token)
        return replace(found, given=given or {})

    @classmethod
    def _on_disk(cls, place: Path) -> CheckpointSource:
        if place.is_file():
            neighbors = sorted(path.name for path in place.parent.iterdir() if path.is_file())
            return cls(str(place), (place.name,), place.parent, tuple(neighbors))
        if not place.is_dir():
            raise FileNotFoundError(f"there is no file or folder {place}")
        files = sorted(path.relative_to(place).as_posix() for path in files_below(place, "the checkpoint"))
        return cls(str(place), tuple(files), place)

    @classmethod
    def _on_hub(cls, repo_id: str, inside: str, revision: str | None, token: str | None) -> CheckpointSource:
        name = f"{repo_id}/{inside}".rstrip("/")
        try:
            info = HfApi(token=token).model_info(repo_id, revision=revision)
        except OfflineModeIsEnabled:  # what was downloaded before may do
            return cls._in_cache(repo_id, inside, revision)
        except RevisionNotFoundError as error:
            raise FileNotFoundError(f"{repo_id} on the Hub has no revision {revision!r}") from error
        except RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"there is no file or folder {repo_id} here, and no repository of that name on the Hub that you can "
                f"read ({str(error).splitlines()[0]})"
            ) from error
        except HTTPError as error:
            raise OSError(f"the Hub cannot be asked about {repo_id}: {error}") from error
        found = sorted(each.rfilename for each in info.siblings)
        folder, _, file = inside.rpartition("/") if inside in found else (inside, "", "")
        prefix = f"{folder}/" if folder else ""
        files = tuple(each.removeprefix(prefix) for each in found if each.startswith(prefix))
        if not files:
            raise FileNotFoundError(f"{repo_id} on the Hub has no {inside}; it has {', '.join(found[:20])}")
        neighbors = tuple(each for each in files if "/" not in each) if file else ()
        files = (file,) if file else files
        return cls(name, files, None, neighbors, repo_id, folder, info.sha, revision, token)

    @classmethod
    def _in_cache(cls, repo_id: str, inside: str, revision: str | None) -> CheckpointSource:
        """Find what was downloaded before, when HF_HUB_OFFLINE forbids asking the Hub."""
        try:
            folder = Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError as error:
            raise FileNotFoundError(
                f"there is no file or folder {repo_id} here, the cache has no repository of that name, and "
                "HF_HUB_OFFLINE forbids asking the Hub"
            ) from error
        found, name = cls._on_disk(folder / inside), f"{repo_id}/{inside}".rstrip("/")
        subfolder = inside.rpartition("/")[0] if found.neighbors else inside
        # The cache names the folder of a commit after it.
        return replace(found, name=name, repo_id=repo_id, subfolder=subfolder, revision=folder.name)

    def matching(self, *patterns: str) -> list[str]:
        """Return the names of files directly in the folder that match one of the shell patterns."""
        return [
            name for name in self.files if "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)
        ]

    def has(self, name: str) -> bool:
        """Whether there is such a file, here or next to the single file that this is."""
        return name in self.files or name in self.neighbors

    def folders_with(self, *names: str) -> list[str]:
        """Return the folders that directly hold all of these files: "" for this one, or "below/"."""
        if all(self.has(name) for name in names):
            return [""]
        below = {f"{PurePosixPath(file).parent}/" for file in self.files if "/" in file}
        return sorted(folder for folder in below if all(f"{folder}{name}" in self.files for name in names))

    def folder_of(self, *names: str) -> str:
        """Return the only one of `folders_with`; raise FileNotFoundError if there is none, ValueError for several."""
        folders = self.folders_with(*names)
        if not folders:
            raise FileNotFoundError(f"{self.name} does not hold {' and '.join(names)}")
        return f"{the_one([folder.rstrip('/') for folder in folders], self.name, names[0])}/".lstrip("/")

    def path(self, name: str) -> Path:
        """Return a file's path on this machine, downloading it from the Hub if needed.

        Raises FileNotFoundError if there is no such file, OSError if it cannot be downloaded or a commit was made
        while reading, and ValueError for a Git LFS pointer, or a damaged copy in the cache.
        """
        if not self.has(name):
            raise FileNotFoundError(f"{self.name} holds no {name}")
        if self.folder is not None:
            path = self.folder / name
        else:
            place = {"subfolder": self.subfolder or None, "revision": self.asked, "token": self.token}
            path = Path(hf_hub_download(self.repo_id, name, **place))
            if self.revision not in path.parts:
                raise OSError(f"{self.name} was changed on the Hub while it was being read: try again")
        refuse_pointer(path, self.full_name(name))
        verify_cached(path, self.full_name(name), self.repo_id, f"{self.subfolder}/{name}".lstrip("/"))
        return path

    def settings(self, name: str) -> Settings:
        """Read a JSON or YAML file of names and values; raise ValueError if it holds something else."""
        path, full_name = self.path(name), self.full_name(name)
        parse = json.loads if name.endswith(".json") else yaml.safe_load
        try:
            content = parse(path.read_text(encoding="utf-8"))
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"{full_name} is not a readable {path.suffix} file: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{full_name} holds a {type(content).__name__}, not names and values")
        return Settings(content, full_name, self.given)

    def read(self, name: str) -> Any:
        """Read a .safetensors file or one of torch.save on the CPU, once; raise ValueError as `read_torch` does."""
        if name not in self._loaded:
            path, full_name = self.path(name), self.full_name(name)
            try:
                is_safe = path.suffix == ".safetensors"
                self._loaded[name] = _unwrapped(load_file(path)) if is_safe else read_torch(path, full_name)
            except SafetensorError as error:
                raise ValueError(f"{full_name} is damaged or incomplete: {error}") from error
        return self._loaded[name]

    def names_in(self, name: str) -> set[str]:
        """Return the names of what a file holds, including those of a state dict in it; raise as `read`."""
        content = self.read(name)
        parts = (content, content.get("state_dict")) if isinstance(content, Mapping) else ()
        return {key for part in parts if isinstance(part, Mapping) for key in part}

    def asks_for(self, name: str, package: str) -> bool:
        """Whether a file holds an object of a package, so that it cannot be read without running code."""
        try:
            self.read(name)
        except CodeInFileError as error:
            return error.asked_for.split(".")[0] == package
        except ValueError:  # it is damaged, which `read` reports
            pass
        return False

    def read_data(self, name: str, package: str, recipe: str) -> Any:
        """Read a file as `read` does; if it holds an object of a package, say how to save it as plain data."""
        if self.asks_for(name, package):
            raise ValueError(
                f"{self.full_name(name)} holds an object of {package}: reading it runs code, which hf_msae never "
                f"does. Where {package} is installed, make a file of plain data from it and convert that:\n{recipe}"
            )
        return self.read(name)

    def full_name(self, name: str) -> str:
        """Return a file's name for messages."""
        return str(PurePosixPath(self.name).parent / name) if self.neighbors else f"{self.name}/{name}"


def read_torch(file: Any, name: str) -> Any:
    """Read a path or open file that torch.save wrote, without ever running code in it.

    `torch.load(weights_only=True)` refuses whatever could run code; numpy's plain numbers are allowed in addition.
    Raises ValueError if the file is damaged, and CodeInFileError if it asks for a class or function.
    """
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # reading garbage can raise anything: the unpickler follows whatever the bytes say
        reason = str(error)
        if isinstance(error, pickle.UnpicklingError):
            if found := re.search(r"GLOBAL (\S+)", reason):
                raise CodeInFileError(name, found[1]) from error
            reason = reason.rpartition("WeightsUnpickler error:")[2]
        first = next(iter(reason.strip().splitlines()), type(error).__name__)
        raise ValueError(f"{name} is damaged or incomplete, or no file of torch.save: {first}") from error
    return _unwrapped(content)


def _unwrapped(content: Any, depth: int = 1) -> Any:
    """Strip what torch.compile or DistributedDataParallel put before the names of all tensors of a state dict."""
    if not isinstance(content, Mapping):
        return content
    if depth:
        content = {key: _unwrapped(part, depth - 1) for key, part in content.items()}
    tensors = {key for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not all(isinstance(key, str) and re.match(WRAPPERS, key) for key in tensors):
        return content
    stripped = {re.sub(WRAPPERS, "", key) if key in tensors else key: value for key, value in content.items()}
    return stripped if len(stripped) == len(content) else content


def _numpy_numbers() -> list[Any]:
    """What a pickled number of numpy 1 or 2 consists of, which is only data; both names of `scalar` are in use."""
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "bool")]
    return [*((scalar, name) for name in names), np.dtype, *dtypes]
