"""Loading an MSAE completely or not at all, with errors that name the file and the problem; publishing it."""

from __future__ import annotations

import json
import logging
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from safetensors import SafetensorError, safe_open
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from .._utils.file_integrity import is_pointer
from .._utils.paths import refuse_missing_path
from .config_file import MissingConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..hub import Release

_MISMATCH = "they belong to different models, or one of them was edited"
WRAPPERS = r"^(_orig_mod\.|module\.)+"
"""Prefixes of the tensors of a model that was saved inside the wrapper of torch.compile or DistributedDataParallel."""
_DEPTH = 3
"""Depth to which subfolders are searched for models."""


class PreTrainedMSAE(PreTrainedModel):
    """A [`~transformers.PreTrainedModel`] that refuses incomplete or damaged weights."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *model_args: Any, **kwargs: Any
    ) -> PreTrainedMSAE:
        """Load an MSAE from a folder or the Hub; see [`~transformers.PreTrainedModel.from_pretrained`].

        Where transformers would warn and initialize missing weights at random, this raises an error. With
        `output_loading_info=True`, a `state_dict` or `ignore_mismatched_sizes=True`, transformers' own behavior
        applies.

        Args:
            pretrained_model_name_or_path: A folder, or "user/name" on the Hub.
            model_args: Positional arguments of transformers.
            kwargs: Arguments of transformers, such as `revision`, `subfolder`, `dtype`, `device_map`, `token` and
                `local_files_only`, and fields of MSAEConfig, which override those of the file.

        Raises:
            OSError: There is no model, or its weights are damaged.
            ValueError: Weights and config.json do not match, weights are not finite, or they are from a newer hf_msae.
        """
        if pretrained_model_name_or_path is not None:  # as with a `config` and a `state_dict`
            pretrained_model_name_or_path = os.path.expanduser(pretrained_model_name_or_path)
        name = str(pretrained_model_name_or_path)
        refuse_missing_path(name)
        if Path(name).is_file():
            raise NotADirectoryError(
                f"{name} is a file: name its folder, {Path(name).parent}, which has config.json too"
            )
        info_requested = kwargs.pop("output_loading_info", False)
        if info_requested or kwargs.get("state_dict") is not None or kwargs.get("ignore_mismatched_sizes"):
            return super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=info_requested, **kwargs
            )
        folder = Path(name) / (kwargs.get("subfolder") or "")
        files = _weight_files(folder, kwargs.get("variant"))
        _refuse_pickles(folder, files)
        _check_kinds(files)
        kwargs["use_safetensors"] = True  # a pickle could run code
        kwargs["ignore_mismatched_sizes"] = True  # returns the shapes instead of printing a table
        try:
            with _without_report():
                model, info = super().from_pretrained(
                    pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
                )
        except SafetensorError as error:
            weights = folder / "model.safetensors"
            if weights.is_file() and is_pointer(weights):
                raise OSError(
                    f"model.safetensors of {name} is only a Git LFS pointer to the weights: run `git lfs pull` in the "
                    "clone, or download the file from the Hub"
                ) from error
            again = "copy it again" if Path(name).is_dir() else "load it again with force_download=True"
            raise OSError(f"the weights of {name} are damaged or incomplete ({error}): {again}") from error
        except MissingConfigError as error:
            raise _with_subfolders(error, name, kwargs) from error
        if not folder.is_dir():
            given = {key: kwargs[key] for key in ("revision", "subfolder", "cache_dir") if kwargs.get(key)}
            downloaded = Path(cached_file(name, "config.json", local_files_only=True, **given)).parent
            _check_kinds(_weight_files(downloaded, kwargs.get("variant")))
        unexpected = info["unexpected_keys"]
        if unexpected and "key_mapping" not in kwargs and all(re.match(WRAPPERS, key) for key in unexpected):
            kwargs.pop("ignore_mismatched_sizes", None)  # set above; with it, the weights would not be checked
            model = cls.from_pretrained(
                pretrained_model_name_or_path, *model_args, **kwargs, key_mapping={WRAPPERS: ""}
            )
            model._weight_conversions = None  # or saving would put the prefix back
            return model
        _check_loaded(name, model, info)
        return model

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Write config.json and model.safetensors to a folder; see `PreTrainedModel.save_pretrained`."""
        save_directory = os.path.expanduser(save_directory)
        super().save_pretrained(save_directory, *args, **kwargs)
        config = Path(save_directory) / "config.json"
        if config.is_file():  # safetensors writes for the owner alone
            for file in Path(save_directory).glob("model*.safetensors"):
                file.chmod(config.stat().st_mode)

    @classmethod
    def from_released(cls, name: str, **kwargs: Any) -> PreTrainedMSAE:
        """Load a model listed by `hf_msae.list_released()`, and convert it if it is from another library.

        Args:
            name: Name in that list, e.g. "scenes-image".
            kwargs: Arguments of `from_pretrained`, or of `hf_msae.hub.convert_checkpoint`.

        Raises:
            KeyError: The list has no such name; the error suggests similar ones.
            OSError: The model cannot be downloaded.
            ValueError: The files are damaged, or not those that were released.
        """
        from ..hub.reading.registry import get_released

        return get_released(name).load(**kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Release:
        """Publish the model with its metrics, names, figures and card in one commit: [`hf_msae.hub.push_to_hub`].

        Args:
            repo_id: "user/name"; created if it does not exist.
            kwargs: Arguments of `hf_msae.hub.push_to_hub`, such as `run_dir` (the folder with metrics.json),
                `private`, `revision`, `create_pr`, `subfolder`, `allow_unmeasured`, `commit_message` and `token`.

        Raises:
            ValueError: The model was not evaluated, the metrics are of another model, or the files do not load.
            PermissionError: The user is not logged in, or may not write to the repository.
        """
        from ..hub import push_to_hub

        return push_to_hub(self, repo_id, **kwargs)


def subfolders_of(name: str | os.PathLike, revision: str | None = None, token: str | None = None) -> list[str]:
    """List the subfolders of a folder or repository that hold a model; empty if the Hub cannot be asked."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        found = [
            path.parent.relative_to(folder).as_posix()
            for depth in range(1, _DEPTH + 1)
            for path in folder.glob("*/" * depth + "config.json")
            if any(path.parent.glob("*.safetensors"))
        ]
        return sorted(found)
    try:
        files = HfApi(token=token).list_repo_files(str(name), revision=revision)
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError):  # the caller has a better error
        return []
    folders = {file.removesuffix("/config.json") for file in files if file.endswith("/config.json")}
    return sorted(each for each in folders if any(file.startswith(f"{each}/model") for file in files))


@contextmanager
def _without_report() -> Iterator[None]:
    """Suppress transformers' table of missing and unexpected weights, which the errors here replace."""
    logger = logging.getLogger("transformers.modeling_utils")

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _check_loaded(name: str, model: PreTrainedModel, info: dict[str, Any]) -> None:
    """Refuse weights that are missing, unexpected or not finite, or have the wrong shape."""
    config = model.config
    says = f"config.json says d_in={config.d_in}, num_latents={config.num_latents}"
    if info["mismatched_keys"]:
        key, found, expected = sorted(info["mismatched_keys"])[0]
        raise ValueError(
            f"{name}: {key} has shape {tuple(found)}, but {says}, which needs {tuple(expected)}: {_MISMATCH}"
        )
    for keys, what in ((info["missing_keys"], "lack"), (info["unexpected_keys"], "also hold")):
        if keys:
            kind = f'activation="{config.activation}"' + (", tied=True" if config.tied else "")
            raise ValueError(f"{name}: the weights {what} {', '.join(sorted(keys))}, but {says}, {kind}: {_MISMATCH}")
    for key, tensor in model.state_dict().items():
        if not tensor.is_meta and not torch.isfinite(tensor).all():
            raise ValueError(
                f"{name}: {key} holds NaN or infinite values as {str(tensor.dtype).removeprefix('torch.')}: the model "
                "diverged in training, was damaged, or exceeds the range of this dtype"
            )
    for key in ("encoder", "decoder"):
        tensor = getattr(model, key)
        if tensor is not None and not tensor.is_meta and not tensor.any():
            raise ValueError(f"{name}: {key} holds nothing but zeros: the file was never trained, or was damaged")
    if not model.input_scale.is_meta and not model.input_scale > 0:
        raise ValueError(f"{name}: input_scale is {model.input_scale.item():g}, but it must be above 0")


def _refuse_pickles(folder: Path, files: list[Path]) -> None:
    """Refuse a folder whose weights are in pickles only, which could run code."""
    pickles = sorted(folder.glob("pytorch_model*.bin"))
    if pickles and not files:
        raise OSError(
            f"{folder} holds its weights in {pickles[0].name}, a pickle, which is never opened: if you trust it, make "
            f"{folder / 'model.safetensors'} of it with safetensors.torch.save_file(torch.load({str(pickles[0])!r}, "
            "weights_only=True), ..., metadata={'format': 'pt'}); `hf-msae convert` reads checkpoints of other "
            "libraries"
        )


def _weight_files(folder: Path, variant: str | None) -> list[Path]:
    """Return the files of a folder that transformers reads the weights from; none if there are none."""
    single, file = (
        folder / (Path(name).with_suffix(f".{variant}{Path(name).suffix}") if variant else name)
        for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
    )
    if single.is_file() or not file.is_file():
        return [single] if single.is_file() else []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not isinstance(content.get("metadata"), dict):
        raise ValueError(f"{file} must hold two maps, weight_map (the file of every tensor) and metadata")
    for tensor, name in names.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{file}: {tensor} is in {name!r}, but must be in a file of {folder}")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{file}: {tensor} is in {name}, which does not exist: copy the folder again")
    return [folder / name for name in sorted(set(names.values()))]


def _check_kinds(files: list[Path]) -> None:
    """Refuse weights that are not floating-point numbers, which transformers would cast without a word."""
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                kinds = {key: opened.get_slice(key).get_dtype() for key in opened.keys()}
        except (OSError, SafetensorError):  # which loading describes
            continue
        for key, kind in kinds.items():
            if "F" not in kind:
                raise ValueError(f"{file}: {key} holds {kind}, but weights must be floating-point numbers")


def _with_subfolders(error: OSError, name: str, kwargs: dict[str, Any]) -> OSError:
    """Return the error, or one that lists the subfolders with models."""
    found = [] if kwargs.get("subfolder") else subfolders_of(name, kwargs.get("revision"), kwargs.get("token"))
    if not found:
        return error
    if all(re.fullmatch(r"(.*/)?checkpoint-\d+", each) for each in found):
        return OSError(
            f"{name} holds the checkpoints of a run or sweep that has not ended: train with --resume_from_checkpoint "
            f"last to end it, or give subfolder= (--subfolder) one of {', '.join(found)}"
        )
    # Checkpoints of a finished model, as in a sweep, are not what is looked for.
    found = [each for each in found if not re.fullmatch(r"(.*/)?checkpoint-\d+", each)]
    some = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
    way_out = f"give subfolder= (--subfolder) one of {some}"
    if Path(name).expanduser().is_dir():
        way_out += f", or name the folder itself: {Path(name) / found[0]}"
    return OSError(f"{name} has no model at its root, but {len(found)} in subfolders: {way_out}")
