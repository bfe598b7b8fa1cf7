"""training.json: how and on what a model was trained, from which its card is written."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._utils.json_files import from_json, read_json, write_json
from .._utils.redaction import public
from ..metrics.measured_data import describe_embeddings

if TYPE_CHECKING:
    from ..embeddings import EmbeddingDataset
    from ..model.configuration_msae import MSAEConfig
    from .log import TrainingResult

TRAINING_FILE = "training.json"
_LIBRARIES = ("hf_msae", "torch", "transformers", "accelerate", "datasets", "huggingface_hub")
# Secrets that a command may hold.
_SECRET_FLAG = re.compile(r"--?[\w-]*(?:token|password|secret|api_key)[\w-]*", re.IGNORECASE)
_SECRET = re.compile(r"\bhf_[A-Za-z0-9]{16,}|(?<=://)[^/@\s]+:[^/@\s]+(?=@)")
_HIDDEN = "***"


@dataclass(frozen=True)
class TrainingRecord:
    """How a model was trained, as far as is known. Local folders appear in it only by their names."""

    training_arguments: dict[str, Any] = field(default_factory=dict)  # fields of `MSAETrainingArguments`
    # Description of the training embeddings by `describe_data`; None if unknown.
    training_data: dict[str, Any] | None = None
    evaluation_data: dict[str, Any] | None = None  # description of the held-out embeddings; None if there were none
    command: str | None = None  # command that trained the model
    # Fields of `TrainingResult` without the log, and `advice`, if there was any.
    result: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)  # version of each library
    # `model_fingerprint` of the trained model, before any conversion to half precision.
    model_sha256: str | None = None
    # Whether the backbone was a local folder, whose name may look like a Hub id.
    base_model_is_local: bool | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, public(getattr(self, each.name)))

    @classmethod
    def of(
        cls,
        training_arguments: Any,
        training_data: EmbeddingDataset,
        evaluation_data: EmbeddingDataset | None = None,
        command: str | None = None,
        result: TrainingResult | None = None,
        splits: tuple[str | None, str | None] = (None, None),
        config: MSAEConfig | None = None,
        model_sha256: str | None = None,
        advice: Sequence[str] = (),
    ) -> TrainingRecord:
        """Make the record of a training that has just ended, with the versions of the installed libraries.

        `splits` are those of the training and evaluation data; `advice` are sentences on what to change.
        """
        backbone = None if config is None else config.base_model_name_or_path
        summary = {} if result is None else result.to_dict()
        return cls(
            training_arguments=training_arguments.to_dict(),
            training_data=describe_data(training_data, splits[0]),
            evaluation_data=None if evaluation_data is None else describe_data(evaluation_data, splits[1]),
            command=command,
            result={key: value for key, value in summary.items() if key != "log_history"}
            | ({"advice": list(advice)} if advice else {}),
            versions={library: version(library) for library in _LIBRARIES},
            model_sha256=model_sha256,
            base_model_is_local=None if backbone is None else Path(backbone).expanduser().is_dir(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of training.json."""
        return asdict(self)

    def save(self, folder: str | os.PathLike) -> Path:
        """Write training.json to a model's folder and return its path."""
        path = Path(folder) / TRAINING_FILE
        write_json(path, self.to_dict())
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike) -> TrainingRecord | None:
        """Read the record in a model's folder, or return None if there is none. Unknown keys are ignored."""
        path = Path(folder) / TRAINING_FILE
        content = read_json(path)
        if content is None:
            return None
        names = (each.name for each in fields(cls))
        return from_json(cls, {name: content[name] for name in names if content.get(name) is not None}, path)


def describe_data(data: EmbeddingDataset, split: str | None = None) -> dict[str, Any]:
    """Return the provenance of embeddings and their description by `describe_embeddings`."""
    return {**data.provenance, **describe_embeddings(data, split)}


def command_line(program: str, arguments: Sequence[str]) -> str:
    """Return a command as it was typed, without secrets and paths of local folders."""
    words, secret = [], False
    for word in map(str, arguments):
        flag, equals, value = word.partition("=")
        if secret:
            word, secret = _HIDDEN, False
        elif _SECRET_FLAG.fullmatch(flag):
            word, secret = (f"{flag}={_HIDDEN}", False) if equals else (word, True)
        elif flag.startswith("-") and equals:
            word = f"{flag}={public(value)}"
        words.append(_SECRET.sub(_HIDDEN, public(word)))
    return shlex.join([*program.split(), *words]).replace(f"'{_HIDDEN}'", _HIDDEN)


def shown_arguments(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the training arguments that differ from their defaults, and those that do not.

    Arguments that do not affect the model, such as folders and logging, are left out.
    """
    from .arguments import MSAETrainingArguments

    defaults = MSAETrainingArguments(output_dir="x").to_dict()
    known = {name: value for name, value in arguments.items() if name not in _BOOKKEEPING and value is not None}
    chosen = {name: value for name, value in known.items() if value != defaults.get(name)}
    return chosen, {name: value for name, value in known.items() if name not in chosen}


_BOOKKEEPING = {
    *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "disable_tqdm", "report_to"),
    *("eval_strategy", "eval_steps", "save_strategy", "save_steps", "save_total_limit", "logging_steps"),
    *("use_cpu", "keep_on_device", "dataloader_num_workers", "memory_budget", "per_device_eval_batch_size"),
    *("cknna_batch_size", "torch_compile"),
}
