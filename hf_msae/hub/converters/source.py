"""Where a checkpoint is: a file, a folder or a repository on the Hub, which is downloaded as far as needed."""

from __future__ import annotations

import errno
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
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..._utils.file_integrity import refuse_pointer, verify_cached
from .reading import CodeInFileError, Settings, the_one


@dataclass(frozen=True)
class CheckpointSource:
    """The files of one checkpoint, by their names relative to its folder.

    Attributes:
        name: Name in messages: the path, or "user/name" on the Hub.
        files: Sorted names with "/" between folders; for a single file, only its name.
        folder: Folder on this machine; None on the Hub.
        repo_id: Repository on the Hub.
        subfolder: Folder in the repository.
        revision: Commit on the Hub that `files` belong to.
        token: Token for the Hub.
        neighbors: For a single file, the names of the others in its folder, where its settings may be.
        asked: Revision as the user named it, which is what the cache remembers a commit by.
    """

    name: str
    files: tuple[str, ...]
    folder: Path | None = None
    repo_id: str | None = None
    subfolder: str = ""
    revision: str | None = None
    token: str | None = None
    neighbors: tuple[str, ...] = ()
    asked: str | None = None
    _loaded: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(
        cls,
        source: str | os.PathLike,
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | None = None,
    ) -> CheckpointSource:
        """Find a checkpoint.

        Args:
            source: A file, a folder or "user/name" on the Hub.
            subfolder: A folder or file inside `source`.
            revision: Branch, tag or commit on the Hub.
            token: Token for the Hub; by default, the one that is logged in.

        Raises:
            FileNotFoundError: There is nothing there.
            OSError: The Hub cannot be reached.
        """
        local = Path(source).expanduser()
        place = local / subfolder if subfolder else local
        if place.is_file():
            others = sorted(path.name for path in place.parent.iterdir() if path.is_file() and path != place)
            return cls(str(place), (place.name,), place.parent, neighbors=tuple(others))
        if place.is_dir():
            files = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
            return cls(str(place), tuple(files), place)
        if local.exists():
            raise FileNotFoundError(f"{local} holds no {subfolder}")
        repo_id = str(source)
        if repo_id.count("/") != 1 or repo_id.startswith((".", "/", "~")):
            raise FileNotFoundError(f"there is no file or folder {repo_id}, and it is not a Hub id either")
        return cls._on_hub(repo_id, (subfolder or "").strip("/"), revision, token)

    @classmethod
    def _on_hub(cls, repo_id: str, subfolder: str, revision: str | None, token: str | None) -> CheckpointSource:
        try:
            info = HfApi(token=token).model_info(repo_id, revision=revision)
        except OfflineModeIsEnabled:
            return cls._in_cache(repo_id, subfolder, revision)
        except RevisionNotFoundError as error:
            raise FileNotFoundError(f"{repo_id} on the Hub has no revision {revision!r}") from error
        except RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"there is no file or folder {repo_id} here, and no repository of that name on the Hub that you can "
                f"read ({str(error).splitlines()[0]})"
            ) from error
        except (HfHubHTTPError, HTTPError) as error:
            raise OSError(f"the Hub cannot be asked about {repo_id}: {error}") from error
        found = sorted(each.rfilename for each in info.siblings)
        at = f"{repo_id}/{subfolder}".rstrip("/")
        if subfolder in found:
            folder, _, name = subfolder.rpartition("/")
            inside = [file.removeprefix(f"{folder}/") if folder else file for file in found]
            others = [file for file, whole in zip(inside, found, strict=True) if whole.rpartition("/")[0] == folder]
            others = tuple(file for file in others if file != name)
            return cls(at, (name,), None, repo_id, folder, info.sha, token, others, revision)
        prefix = f"{subfolder}/" if subfolder else ""
        files = tuple(name.removeprefix(prefix) for name in found if name.startswith(prefix))
        if not files:
            raise FileNotFoundError(f"{repo_id} on the Hub holds no {subfolder}; it has {', '.join(found[:20])}")
        return cls(at, files, None, repo_id, subfolder, info.sha, token, (), revision)

    @classmethod
    def _in_cache(cls, repo_id: str, subfolder: str, revision: str | None) -> CheckpointSource:
        """Find what was downloaded before, if HF_HUB_OFFLINE forbids asking the Hub."""
        try:
            folder = snapshot_download(repo_id, revision=revision, local_files_only=True)
        except LocalEntryNotFoundError as error:
            raise FileNotFoundError(
                f"there is no file or folder {repo_id} here, the cache has no repository of that name, and "
                "HF_HUB_OFFLINE forbids asking the Hub"
            ) from error
        found = cls.open(folder, subfolder)
        at = f"{repo_id}/{subfolder}".rstrip("/")
        # The folder of a commit in the cache has its name.
        return replace(found, name=at, repo_id=repo_id, subfolder=subfolder, revision=Path(folder).name)

    def matching(self, *patterns: str) -> list[str]:
        """Return the names of files directly in the folder that match one of the shell patterns."""
        return [
            name for name in self.files if "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)
        ]

    def has(self, name: str) -> bool:
        """Whether there is such a file, here or beside the single file that this is."""
        return name in self.files or name in self.neighbors

    def has_together(self, *names: str) -> bool:
        """Whether these files are in this folder, or all in one below."""
        return all(self.has(name) for name in names) or bool(self.folders_with(*names))

    def folder_of(self, *names: str) -> str:
        """Return the folder that holds these files: "", or a folder below with "/" at its end.

        Raises:
            FileNotFoundError: No folder holds all of them.
            ValueError: Several folders do.
        """
        missing = [name for name in names if not self.has(name)]
        if not missing:
            return ""
        folders = self.folders_with(*names)
        if not folders:
            raise FileNotFoundError(f"{self.name} holds no {' and no '.join(missing)}")
        return f"{the_one(folders, self.name, names[0])}/"

    def folders_with(self, *names: str) -> list[str]:
        """Return the folders inside this one that directly hold a file of each of these names."""
        return sorted({
            str(PurePosixPath(file).parent)
            for file in self.files
            if "/" in file and all(f"{PurePosixPath(file).parent}/{name}" in self.files for name in names)
        })  # fmt: skip

    def path(self, name: str) -> Path:
        """Return a file's path on this machine, downloading it from the Hub if needed.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: It cannot be downloaded, or another commit was made in between.
            ValueError: It is a Git LFS pointer, or a damaged copy in the cache.
        """
        if not self.has(name):
            raise FileNotFoundError(f"{self.name} holds no {name}")
        if self.folder is not None:
            return self._checked(self.folder / name, name)
        place = {"subfolder": self.subfolder or None, "revision": self.asked, "token": self.token}
        path = Path(hf_hub_download(self.repo_id, name, **place))
        if self.revision not in path.parts:  # the folder of a commit in the cache has its name
            raise OSError(f"{self.name} was changed on the Hub while it was being read: try again")
        return self._checked(path, name)

    def _checked(self, path: Path, name: str) -> Path:
        refuse_pointer(path, self.full_name(name))
        verify_cached(path, self.full_name(name), self.repo_id, f"{self.subfolder}/{name}".lstrip("/"))
        return path

    def settings(self, name: str) -> Settings:
        """Read a JSON file with names and values; raise ValueError if it holds something else."""
        try:
            content = json.loads(self.path(name).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.full_name(name)} holds no JSON: {error}") from error
        except RecursionError as error:
            raise ValueError(f"{self.full_name(name)} holds JSON that is nested too deeply to be read") from error
        if not isinstance(content, dict):
            raise ValueError(f"{self.full_name(name)} holds a {type(content).__name__}, not a mapping")
        return Settings(content, self.full_name(name))

    def read(self, name: str) -> Any:
        """Read a .safetensors file or one of torch.save, on the CPU; a second time, return the same content.

        Raises:
            ValueError: It is damaged, or would run code (`CodeInFileError`).
        """
        if name not in self._loaded:
            if name.endswith(".safetensors"):
                try:
                    self._loaded[name] = load_file(self.path(name))
                except SafetensorError as error:
                    raise ValueError(f"{self.full_name(name)} is damaged or incomplete: {error}") from error
            else:
                self._loaded[name] = read_torch(self.path(name), self.full_name(name))
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
        except ValueError:  # damaged: reading says so
            pass
        return False

    def full_name(self, name: str) -> str:
        """Return a file's name for messages."""
        if name in self.neighbors:
            return str(PurePosixPath(self.name).parent / name)
        return self.name if self.neighbors or PurePosixPath(self.name).name == name else f"{self.name}/{name}"


def read_torch(file: Any, name: str) -> Any:
    """Read a file of torch.save, or an open one, called `name` in messages, without ever running code in it.

    `torch.load(weights_only=True)` refuses whatever could run code; numpy's plain numbers are allowed in addition.

    Raises:
        CodeInFileError: It asks for a class or function.
        ValueError: It is damaged, or no file of torch.save.
    """
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise _damaged(name, str(error).partition("WeightsUnpickler error:")[2] or str(error)) from error
        raise CodeInFileError(name, found[1]) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # torch's error for an archive whose parts are not where it says
            raise
        raise _damaged(name, "its parts are not where it says") from error
    # Reading garbage can raise any of these: the unpickler follows whatever the bytes say.
    except (RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise _damaged(name, str(error)) from error
    except (MemoryError, OverflowError) as error:
        raise _damaged(name, "it claims to hold more than fits into memory") from error


def _damaged(name: str, reason: str) -> ValueError:
    lines = reason.strip().splitlines()
    return ValueError(
        f"{name} is damaged or incomplete, or no file of torch.save: {lines[0] if lines else 'it is empty'}"
    )


def _numpy_numbers() -> list[Any]:
    """What a pickled number of numpy 1 or 2 consists of, which is only data.

    numpy 2 writes "numpy._core.multiarray.scalar" where numpy 1 wrote "numpy.core.multiarray.scalar", and either reads
    both, so both names have to be allowed.
    """
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "bool")]
    return [*((scalar, name) for name in names), np.dtype, *dtypes]
