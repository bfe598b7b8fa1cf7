"""The folders of what can be computed again, which may not be writable."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import constants
from transformers.utils import logging

logger = logging.get_logger(__name__)

_TEMPORARY: dict[Path, Path] = {}  # cache that cannot be written to -> what takes its place in this process


def cache_root() -> Path:
    """Return the folder of all caches: the environment variable HF_MSAE_CACHE, or else `hf_msae` in HF_HOME."""
    return Path(os.environ.get("HF_MSAE_CACHE") or Path(constants.HF_HOME) / "hf_msae").expanduser().absolute()


def cache_folder(kind: str, mode: int = 0o777) -> Path:
    """Return the folder of one kind of cache, such as "indexes"; it exists and can be written to.

    Where the cache cannot be written to (read-only, or in a home folder that does not exist), this is a temporary
    folder that is removed when the process ends, after one warning. `mode` are its permissions if it has to be
    created.
    """
    folder = cache_root() / kind
    try:
        make_writable(folder, mode)
        return folder
    except OSError as error:  # such as a home folder that is read-only: a temporary folder, with a warning
        root = cache_root()
        if root not in _TEMPORARY:
            _TEMPORARY[root] = _temporary(root, error)
        folder = _TEMPORARY[root] / kind
        folder.mkdir(mode, exist_ok=True)
        return folder


def make_writable(folder: Path, mode: int = 0o777) -> None:
    """Create a folder if it does not exist, and raise OSError if files cannot be created in it."""
    folder.mkdir(mode, parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()  # os.access is wrong for the superuser and some file systems


def _temporary(root: Path, reason: OSError) -> Path:
    folder = tempfile.mkdtemp(prefix="hf_msae-")
    logger.warning(
        f"the cache {root} cannot be written to ({reason}), so nothing is kept for later runs: set HF_MSAE_CACHE to "
        "a folder that can"
    )
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
