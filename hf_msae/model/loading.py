"""How an MSAE is loaded and published: whole or not at all, with errors that say what is wrong with which file."""

from __future__ import annotations

import json
import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers.modeling_utils import PreTrainedModel

from .configuration_msae import MissingConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..hub import Release

_SHAPES = "the two belong to different models, or one of them was edited"


class PreTrainedMSAE(PreTrainedModel):
    """What MSAEModel adds to [`~transformers.PreTrainedModel`]'s loading and publishing."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *model_args: Any, **kwargs: Any
    ) -> PreTrainedMSAE:
        """Loads an MSAE from a folder or the Hub; see [`~transformers.PreTrainedModel.from_pretrained`].

        Where transformers would fill in random weights with a warning, this refuses: an autoencoder of which a part
        is random encodes nonsense. With `output_loading_info=True`, a `state_dict` or `ignore_mismatched_sizes=True`
        it is as in transformers.

        Args:
            pretrained_model_name_or_path: a folder, or "user/name" on the Hub.
            kwargs: `revision`, `subfolder`, `dtype`, `device_map`, `token`, `local_files_only` and the others of
                transformers; and fields of MSAEConfig, which override the file's.

        Raises:
            OSError: there is no model there, or its weights are damaged.
            ValueError: weights and config.json do not fit each other, hold NaN or infinite values, or were written by
                a newer hf_msae.
        """
        name = str(pretrained_model_name_or_path)
        asked = kwargs.pop("output_loading_info", False)
        if asked or kwargs.get("state_dict") is not None or kwargs.get("ignore_mismatched_sizes"):
            return super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=asked, **kwargs
            )
        kwargs["ignore_mismatched_sizes"] = True  # so that the shapes come back instead of a table on the terminal
        try:
            with _without_report():
                model, info = super().from_pretrained(
                    pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
                )
        except SafetensorError as error:
            if _is_pointer(name, kwargs.get("subfolder")):
                raise OSError(
                    f"model.safetensors of {name} is only a pointer of Git LFS, not the weights: run `git lfs pull` "
                    "where it was cloned, or download it from the Hub"
                ) from error
            again = "copy it again" if Path(name).is_dir() else "load it again with force_download=True"
            raise OSError(f"the weights of {name} are damaged or incomplete ({error}): {again}") from error
        except (MissingConfigError, AttributeError, TypeError) as error:
            _check_config(Path(name) / (kwargs.get("subfolder") or "") / "config.json", error)
            if isinstance(error, MissingConfigError):
                raise _with_subfolders(error, name, kwargs) from error
            raise
        _check_loaded(name, model, info)
        return model

    @classmethod
    def from_released(cls, name: str, **kwargs: Any) -> PreTrainedMSAE:
        """Loads a model that `hf_msae.list_released()` lists, converting it where it is in another library's format.

        Args:
            name: as listed, e.g. "scenes-image".
            kwargs: for `from_pretrained`, or for `hf_msae.hub.convert_checkpoint`.

        Raises:
            KeyError: no such name is listed; says which are like it.
            OSError: it cannot be downloaded.
            ValueError: what is there is not what the list says, or is damaged.
        """
        from ..hub.reading.registry import get_released

        return get_released(name).load(**kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Release:
        """Publishes the model with its metrics, names, figures and card, in one commit: [`hf_msae.hub.push_to_hub`].

        Args:
            repo_id: "user/name"; made if it is not there.
            kwargs: `run_dir`, the folder of the run that holds metrics.json and the rest; `private`, `revision`,
                `create_pr`, `subfolder`, `allow_unmeasured`, `commit_message`, `token` and the others of
                `hf_msae.hub.push_to_hub`.

        Raises:
            ValueError: it was never measured, the metrics are another model's, or what would be sent does not load.
            PermissionError: nobody is logged in, or may not write there.
        """
        from ..hub import push_to_hub

        return push_to_hub(self, repo_id, **kwargs)


@contextmanager
def _without_report() -> Iterator[None]:
    """Without transformers' table of missing and unexpected weights, which an error tells in a sentence."""
    logger = logging.getLogger("transformers.modeling_utils")

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _check_loaded(name: str, model: PreTrainedModel, info: dict[str, Any]) -> None:
    """Raises:
    ValueError: weights are missing, left over, of other shapes than the config says, or not finite.
    """
    config = model.config
    says = f"config.json says d_in={config.d_in}, num_latents={config.num_latents}"
    if info["mismatched_keys"]:
        key, found, expected = sorted(info["mismatched_keys"])[0]
        raise ValueError(
            f"{name}: {key} has shape {tuple(found)}, but {says}, which needs {tuple(expected)}: {_SHAPES}"
        )
    for keys, what in (
        (info["missing_keys"], "lack"),
        (info["unexpected_keys"], "also hold"),
    ):
        if keys:
            kind = f'activation="{config.activation}"' + (", tied=True" if config.tied else "")
            raise ValueError(f"{name}: the weights {what} {', '.join(sorted(keys))}, but {says}, {kind}: {_SHAPES}")
    for key, tensor in model.state_dict().items():
        if not tensor.is_meta and not torch.isfinite(tensor).all():
            raise ValueError(
                f"{name}: {key} holds NaN or infinite values as {str(tensor.dtype).removeprefix('torch.')}: the model "
                "diverged in training, was damaged, or does not fit into that dtype"
            )
    if not model.input_scale.is_meta and not model.input_scale > 0:
        raise ValueError(
            f"{name}: input_scale is {model.input_scale.item():g}, but embeddings are multiplied with it and "
            "reconstructions divided by it: it has to be above 0"
        )


def _check_config(config: Path, error: Exception) -> None:
    """Raises:
    ValueError: there is a config.json, but it holds no settings, which is what the error comes from.
    """
    if not config.is_file():
        return
    content = json.loads(config.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not content:
        kind = type(content).__name__ if content else repr(content)
        raise ValueError(
            f"{config} holds {kind}, but names and values are expected that tell what the weights are"
        ) from error


def _is_pointer(name: str, subfolder: str | None) -> bool:
    """Whether a folder holds what Git leaves in the place of a large file."""
    from .._utils.file_integrity import is_pointer

    weights = Path(name) / (subfolder or "") / "model.safetensors"
    return weights.is_file() and is_pointer(weights)


def _with_subfolders(error: OSError, name: str, kwargs: dict[str, Any]) -> OSError:
    """The same error, and where models lie in subfolders, which they are."""
    if kwargs.get("subfolder"):
        return error
    from .repository import subfolders_of

    found = subfolders_of(name, kwargs.get("revision"), kwargs.get("token"))
    if not found:
        return error
    some = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
    return OSError(f"{name} has no model at its root, but {len(found)} in subfolders: give subfolder= one of {some}")
