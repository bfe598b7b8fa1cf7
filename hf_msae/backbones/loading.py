"""Finding and loading a backbone and its processor."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import resolve_revision
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionResolutionError
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, PreTrainedModel
from transformers.utils import ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME, is_peft_available
from transformers.utils.peft_utils import find_adapter_config_file

from hf_msae._utils.built_in import built_in_folder, find_built_in, suggest_built_in
from hf_msae._utils.paths import did_you_mean
from hf_msae.backbones.families import FAMILIES, family_of
from hf_msae.backbones.origin import Origin

_ADAPTER_WEIGHTS = (ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME)


@dataclass(frozen=True)
class Loaded:
    """A model with its processor, and where both come from."""

    model: PreTrainedModel
    processor: Any
    name: str | None  # in metadata
    revision: str | None  # its commit on the Hub
    no_texts: str  # why the processor cannot read texts; "" if it can
    adapter: str | None  # the kind of the adapter that was merged into the model
    origin: Origin | None  # its files


def load(
    source: str | os.PathLike | PreTrainedModel, revision: str | None, processor: Any, dtype: str | torch.dtype | None
) -> Loaded:
    """Load a model and its processor; arguments and errors are those of `Backbone.from_pretrained`."""
    dtype, adapter, origin = getattr(torch, dtype) if isinstance(dtype, str) else dtype, None, None
    if isinstance(source, PreTrainedModel):
        model, location, name = source, source.name_or_path, source.name_or_path or None
        if processor is None and name is None:
            raise ValueError(f"this {type(model).__name__} was not loaded from anywhere: pass processor= with it")
        model = model if dtype is None else model.to(dtype)
    else:
        location, name, revision = locate(source, revision)
        place = (location, name, revision, _has_adapter(location, name, revision))
        origin = Origin(location, revision, partial(_read, *place, torch.float32))  # which can be pickled
        model, adapter = _read(*place, dtype or torch.float32)
        origin.loaded(model)
    no_texts = ""
    if processor is None:
        with_text = family_of(model, name).text_width is not None
        processor, no_texts = _load_processor(location, name, revision, with_text)
    return Loaded(model, processor, name, revision, no_texts, adapter, origin)


def _read(
    location: str, name: str, revision: str | None, has_adapter: bool, dtype: torch.dtype
) -> tuple[PreTrainedModel, str | None]:
    """Load a model, and return it with the kind of the adapter that was merged into it, if any."""
    model = _load_model(location, name, revision, dtype)
    return _merge_adapter(model, location, name, revision) if has_adapter else (model, None)


def locate(source: str | os.PathLike, revision: str | None) -> tuple[str, str, str | None]:
    """Where transformers finds a backbone, its name in metadata, and its commit on the Hub."""
    location = name = os.fspath(source)
    if built_in := find_built_in(name):
        if (Path(name) / "config.json").is_file():
            raise ValueError(f"{name!r} is both a folder and a backbone of this package: write ./{name} or {built_in}")
        location, name = str(built_in_folder(built_in)), built_in
    path = Path(location).expanduser()
    if path.is_dir():
        if revision is not None:
            raise ValueError(f"revision={revision!r} was given, but {name} is a folder, not a repository on the Hub")
        return str(path), name, None
    missing = f"backbone {name!r} is neither a folder nor a model that can be reached on the Hub"
    if path.exists() or path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise FileNotFoundError(f"{missing}{did_you_mean(path)}")
    try:
        return name, name, resolve_revision(name, revision=revision).resolved
    except (RevisionResolutionError, HfHubHTTPError, HFValidationError) as error:
        hint = suggest_built_in(name) or did_you_mean(path)
        raise FileNotFoundError(f"{missing}{hint}: {error}") from error


def _load_model(location: str, name: str, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    try:
        with _without_false_alarm():
            config = AutoConfig.from_pretrained(location, revision=revision)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} is not a model that transformers can load: {error}") from error
    saved_as = (config.architectures or [""])[0]
    # AutoModel would drop the projection of a CLIPVisionModelWithProjection, so the saved class comes first.
    by_type = {family.model_type: model_class for model_class, family in reversed(FAMILIES.items())}
    model_class = saved_as if saved_as in FAMILIES else by_type.get(config.model_type)
    if model_class is None:
        base = getattr(config, "base_model_name_or_path", None)
        raise ValueError(
            f"{name} is a {saved_as or config.model_type}, which cannot serve as a backbone; "
            + (f"the backbone it was made for is {base}" if base else f"supported: {', '.join(FAMILIES)}")
        )
    try:
        model, loading = getattr(transformers, model_class).from_pretrained(
            location,
            revision=revision,
            dtype=dtype,
            output_loading_info=True,
            adapter_kwargs={"subfolder": "none"},  # `load` merges an adapter; transformers would attach it
        )
    except OSError as error:
        raise ValueError(f"the weights of {name} cannot be loaded: {error}") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ValueError(
            f"{name} was saved as {saved_as or config.model_type} and lacks {len(missing)} weights of {model_class}, "
            f"such as {missing[0]}, so its embeddings would be random"
        )
    return model


def _has_adapter(location: str, name: str, revision: str | None) -> bool:
    """Whether an adapter comes with a model, without which its embeddings would be those of the base model."""
    folder = Path(location)
    if find_adapter_config_file(location, revision=revision) is None:
        weights = next((each for each in _ADAPTER_WEIGHTS if (folder / each).is_file()), None)
        if weights is not None:
            raise ValueError(
                f"{name} holds {weights}, the weights of an adapter, without its adapter_config.json: add that file, "
                "or move the weights away to use the model without them"
            )
        return False
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(
            f"{name} is an adapter (adapter_config.json) without the model it belongs to: merge them with peft's "
            "merge_and_unload() and save the result with save_pretrained()"
        )
    if not is_peft_available():
        raise ValueError(
            f"{name} holds an adapter (adapter_config.json), which peft merges into the model: pip install peft, or "
            "move the file away to use the model without it"
        )
    return True


def _merge_adapter(
    model: PreTrainedModel, location: str, name: str, revision: str | None
) -> tuple[PreTrainedModel, str]:
    """Merge the adapter that comes with a model into its weights; returns the model and the kind of the adapter."""
    from peft import PeftModel

    try:
        with warnings.catch_warnings():  # peft loads an adapter of another model with a mere warning
            warnings.filterwarnings("error", message=".*missing adapter keys")
            with_adapter = PeftModel.from_pretrained(model, location, revision=revision)
        kind = with_adapter.peft_config["default"].peft_type
        return with_adapter.merge_and_unload(), str(getattr(kind, "value", kind))
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RuntimeError, UserWarning) as error:
        raise ValueError(f"the adapter of {name} cannot be merged into the model: {error}") from error


@contextmanager
def _without_false_alarm() -> Iterator[None]:
    """Suppress a warning about token ids that do not belong to the model.

    transformers (5.23) compares each config it loads with a default SiglipTextConfig, which warns about its own ids
    49406 and 49407.
    """
    logger = logging.getLogger("transformers.configuration_utils")

    def is_wanted(record: logging.LogRecord) -> bool:
        return "within the vocabulary (between 0 and 31999), got 4940" not in record.getMessage()

    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


def _load_processor(location: str, name: str, revision: str | None, with_text: bool) -> tuple[Any, str]:
    """Return the processor, and why it cannot read texts although it should ("" if it can)."""
    problem = ""
    try:
        if with_text:
            try:
                return AutoProcessor.from_pretrained(location, revision=revision, backend="pil"), ""
            except ImportError as error:  # the tokenizer of SigLIP 1 needs a package, the image processor does not
                problem = " ".join(str(error).split())
                if "SentencePiece" in problem:
                    problem = "its tokenizer needs sentencepiece (pip install sentencepiece)"
        return AutoImageProcessor.from_pretrained(location, revision=revision, backend="pil"), problem
    except (OSError, ValueError) as error:
        raise ValueError(f"the processor of {name} cannot be loaded, so pass processor=: {error}") from error
