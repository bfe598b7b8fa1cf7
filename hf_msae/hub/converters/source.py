"""Where a checkpoint lies: a file, a folder or a repository on the Hub, of which only what is asked for is fetched."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class CheckpointSource:
    """The files of one checkpoint, by their names relative to its folder.

    Attributes:
        name: for messages: the path, or "user/name" on the Hub.
        files: names, with "/" between folders, sorted. Of a single file: its name alone.
        folder: where they lie on this machine; None on the Hub.
        repo_id, subfolder, token: where they lie on the Hub.
        revision: the commit on the Hub that `files` are of.
        asked: what was asked for as revision: its name is what the cache remembers a commit by.
        neighbours: of a single file: names of the others in its folder, where its settings may be.
    """

    name: str
    files: tuple[str, ...]
    folder: Path | None = None
    repo_id: str | None = None
    subfolder: str = ""
    revision: str | None = None
    token: str | None = None
    neighbours: tuple[str, ...] = ()
    asked: str | None = None

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
            source: a file, a folder, or "user/name" on the Hub.
            subfolder: a folder or file inside `source`.
            revision: branch, tag or commit on the Hub.
            token: for the Hub; by default the one that is logged in.

        Raises:
            FileNotFoundError: there is nothing there.
            OSError: the Hub cannot be reached.
        """
        local = Path(source).expanduser()
        place = local / subfolder if subfolder else local
        if place.is_file():
            others = sorted(path.name for path in place.parent.iterdir() if path.is_file() and path != place)
            return cls(str(place), (place.name,), place.parent, neighbours=tuple(others))
        if place.is_dir():
            files = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
            return cls(str(place), tuple(files), place)
        if local.exists():
            raise FileNotFoundError(f"{local} holds no {subfolder}")
        repo_id = str(source)
        if repo_id.count("/") != 1 or repo_id.startswith((".", "/", "~")):
            raise FileNotFoundError(f"there is no file or folder {repo_id}, and no Hub id looks like that")
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
                f"there is no file or folder {repo_id} here, and no repository of that name on the Hub that you may "
                f"read ({str(error).splitlines()[0]})"
            ) from error
        except (HfHubHTTPError, HTTPError) as error:
            raise OSError(f"the Hub could not be asked about {repo_id}: {error}") from error
        found = sorted(each.rfilename for each in info.siblings)
        at = f"{repo_id}/{subfolder}".rstrip("/")
        if subfolder in found:
            folder, _, name = subfolder.rpartition("/")
            inside = [file.removeprefix(f"{folder}/") if folder else file for file in found]
            others = [file for file, whole in zip(inside, found, strict=True) if _folder_of(whole) == folder]
            others = tuple(file for file in others if file != name)
            return cls(at, (name,), None, repo_id, folder, info.sha, token, others, revision)
        prefix = f"{subfolder}/" if subfolder else ""
        files = tuple(name.removeprefix(prefix) for name in found if name.startswith(prefix))
        if not files:
            raise FileNotFoundError(f"{repo_id} on the Hub holds no {subfolder}; it has {', '.join(found[:20])}")
        return cls(at, files, None, repo_id, subfolder, info.sha, token, (), revision)

    @classmethod
    def _in_cache(cls, repo_id: str, subfolder: str, revision: str | None) -> CheckpointSource:
        """What was downloaded before, where HF_HUB_OFFLINE forbids asking."""
        try:
            folder = snapshot_download(repo_id, revision=revision, local_files_only=True)
        except LocalEntryNotFoundError as error:
            raise FileNotFoundError(
                f"there is no file or folder {repo_id} here, none of a repository of that name in the cache, and "
                "HF_HUB_OFFLINE forbids asking the Hub"
            ) from error
        found = cls.open(folder, subfolder)
        at = f"{repo_id}/{subfolder}".rstrip("/")
        # The folder of a commit in the cache is called by it.
        return replace(found, name=at, repo_id=repo_id, subfolder=subfolder, revision=Path(folder).name)

    def matching(self, *patterns: str) -> list[str]:
        """Names of files directly in the folder that match one of the shell patterns."""
        return [
            name for name in self.files if "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)
        ]

    def has(self, name: str) -> bool:
        """Whether there is such a file, here or beside the single file that this is."""
        return name in self.files or name in self.neighbours

    def folders_with(self, *names: str) -> list[str]:
        """Folders inside this one that directly hold a file of each of these names."""
        return sorted({
            str(PurePosixPath(file).parent)
            for file in self.files
            if "/" in file and all(f"{PurePosixPath(file).parent}/{name}" in self.files for name in names)
        })  # fmt: skip

    def path(self, name: str) -> Path:
        """A file's path on this machine; downloads it from the Hub where needed.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it cannot be downloaded, or another commit was made in between.
            ValueError: it is a pointer of Git LFS, or a damaged copy in the cache.
        """
        if not self.has(name):
            raise FileNotFoundError(f"{self.name} holds no {name}")
        if self.folder is not None:
            return self._checked(self.folder / name, name)
        place = {"subfolder": self.subfolder or None, "revision": self.asked, "token": self.token}
        path = Path(hf_hub_download(self.repo_id, name, **place))
        if self.revision not in path.parts:  # the folder of a commit in the cache is called by it
            raise OSError(f"{self.name} was changed on the Hub while it was being read: try again")
        return self._checked(path, name)

    def _checked(self, path: Path, name: str) -> Path:
        """The path of a file that is what it should be.

        Raises:
            ValueError: it is a pointer of Git LFS, or not what the Hub had when it was downloaded.
        """
        refuse_pointer(path, self.full_name(name))
        verify_cached(path, self.full_name(name), self.repo_id, f"{self.subfolder}/{name}".lstrip("/"))
        return path

    def read_json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file.

        Raises:
            ValueError: it holds something else.
        """
        try:
            content = json.loads(self.path(name).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.full_name(name)} holds no JSON: {error}") from error
        except RecursionError as error:
            raise ValueError(f"{self.full_name(name)} holds JSON that is nested too deeply to be read") from error
        if not isinstance(content, dict):
            raise ValueError(f"{self.full_name(name)} holds a {type(content).__name__}, not a mapping")
        return content

    def read_safetensors(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors of a .safetensors file.

        Raises:
            ValueError: it is damaged.
        """
        try:
            return load_file(self.path(name))
        except SafetensorError as error:
            raise ValueError(f"{self.full_name(name)} is damaged or incomplete: {error}") from error

    def read_torch(self, name: str) -> Any:
        """What `torch.load` reads with weights_only=True, to which numpy's plain numbers are added; on the CPU.

        Raises:
            ValueError: it is damaged, or would run code.
        """
        return read_torch(self.path(name), self.full_name(name))

    def full_name(self, name: str) -> str:
        """A file's name for messages."""
        if name in self.neighbours:
            return str(PurePosixPath(self.name).parent / name)
        return self.name if self.neighbours or PurePosixPath(self.name).name == name else f"{self.name}/{name}"


def read_torch(file: Any, name: str) -> Any:
    """`CheckpointSource.read_torch` of a path or an open file, called `name` in messages."""
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise _damaged(name, str(error).partition("WeightsUnpickler error:")[2] or str(error)) from error
        raise ValueError(
            f"{name} holds more than tensors and numbers: it asks for {found[1]}, and loading that could run code "
            "that is hidden in the file. Save the tensors alone (torch.save(module.state_dict(), ...)) where you "
            "trust it"
        ) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # which torch says of an archive whose parts lie elsewhere than it says
            raise
        raise _damaged(name, "its parts are not where it says") from error
    # What reading garbage raises besides: the unpickler follows whatever the bytes say.
    except (RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise _damaged(name, str(error)) from error
    except (MemoryError, OverflowError) as error:
        raise _damaged(name, "it says that it holds more than there is memory for") from error


def _damaged(name: str, reason: str) -> ValueError:
    lines = reason.strip().splitlines()
    return ValueError(
        f"{name} is damaged or incomplete, or no file of torch.save: {lines[0] if lines else 'it is empty'}"
    )


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _numpy_numbers() -> list[Any]:
    """What a pickled numpy number of numpy 1 or 2 consists of: data alone.

    numpy 2 writes "numpy._core.multiarray.scalar" where numpy 1 wrote "numpy.core.multiarray.scalar", and either
    reads both, so that both names have to be allowed whichever numpy this is.
    """
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "bool")]
    return [*((scalar, name) for name in names), np.dtype, *dtypes]


def require_keys(content: dict[str, Any], keys: Iterable[str], name: str) -> None:
    """Raises:
    ValueError: one of the keys is missing; names it and what is there.
    """
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"{name} has no {', '.join(missing)}; it has {', '.join(map(str, content)) or 'nothing'}")


def refuse_other_keys(content: Mapping[str, Any], known: Iterable[str], name: str) -> None:
    """A tensor that nobody asks for belongs to a computation that nobody does.

    Raises:
        ValueError: there is a key besides the known ones.
    """
    other = [key for key in content if key not in set(known)]
    if other:
        raise ValueError(
            f"{name} also has {', '.join(map(str, other))}, which hf_msae does not know: leaving it out could change "
            "what the model computes"
        )
