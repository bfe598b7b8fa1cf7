"""Where a model was loaded from, so that the hash of its weights need not be computed each time."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from transformers import PreTrainedModel

from hf_msae._utils.file_integrity import file_state, recall, remember
from hf_msae._utils.fingerprint import weights_sha256

_SUFFIXES = (".safetensors", ".bin", ".json")
_NOTE = "float32 weights"


class Origin:
    """The files of a model, and the hash of the weights in them.

    Create it before the model is loaded, and call `loaded` with the model; `load` loads it in float32,
    and returns it first.
    """

    def __init__(self, location: str, revision: str | None, load: Callable[[], tuple[PreTrainedModel, Any]]) -> None:
        folder = Path(location)
        if not folder.is_dir():
            config = try_to_load_from_cache(location, "config.json", revision=revision)
            folder = Path(config).parent if isinstance(config, str) else None
        self._folder, self._load = folder, load
        files = [] if folder is None else [file for file in folder.iterdir() if file.suffix in _SUFFIXES]
        self._files = {file.name: file_state(file) for file in sorted(files) if file.is_file()}
        self._state: list[int] = []
        self._sha256: str | None = None

    def loaded(self, model: PreTrainedModel) -> None:
        """Note the state of the model that was loaded, to notice changes of its weights."""
        self._state = _state_of(model)

    def sha256_of(self, model: PreTrainedModel) -> str | None:
        """SHA-256 of the files' weights in float32, in whatever type the model is; None if it has changed since."""
        if _state_of(model) != self._state:
            return None
        if self._sha256 is None:
            known = {"class": type(model).__name__, "transformers": transformers.__version__, "files": self._files}
            notes = {} if self._folder is None else recall(self._folder)
            self._sha256 = _noted(notes.get(_NOTE), known)
            if self._sha256 is None:
                self._sha256 = weights_sha256(model if model.dtype == torch.float32 else self._load()[0])
                if self._folder is not None:
                    remember(self._folder, {**notes, _NOTE: {**known, "sha256": self._sha256}})
        return self._sha256


def _state_of(model: PreTrainedModel) -> list[int]:
    """Checksums of the weights. The version that torch counts for a parameter misses writes through `.data`."""
    parameters = (parameter.detach().cpu().contiguous() for parameter in model.parameters())
    return [zlib.crc32(memoryview(each.flatten().view(torch.uint8).numpy())) for each in parameters]


def _noted(note: Any, known: dict[str, Any]) -> str | None:
    """The hash in a note; None if the note is of other files, or damaged."""
    found = note.get("sha256") if isinstance(note, dict) else None
    is_hash = isinstance(found, str) and re.fullmatch("[0-9a-f]{64}", found)
    return found if is_hash and note == {**known, "sha256": found} else None
