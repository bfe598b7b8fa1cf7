"""Matryoshka sparse autoencoders for CLIP and SigLIP embeddings, the Hugging Face way.

>>> from hf_msae import MSAEModel
>>> model = MSAEModel.from_pretrained(folder_or_hub_id)
>>> latents = model.encode(embeddings)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from . import _registration

__version__ = "0.1.0"

# Public name -> the module that defines it, imported when the name is first used: torch and transformers take seconds.
_PUBLIC = {
    "MSAEConfig": "configuration_msae",
    "MSAEModel": "modeling_msae",
    "MSAEOutput": "modeling_msae",
    "MSAETrainer": "trainer",
    "MSAETrainerCallback": "callbacks",
    "MSAETrainingArguments": "training_args",
    "VisionTextMSAE": "vision_text",
    "list_released": "hub.registry",
}

__all__ = [
    "MSAEConfig",
    "MSAEModel",
    "MSAEOutput",
    "MSAETrainer",
    "MSAETrainerCallback",
    "MSAETrainingArguments",
    "VisionTextMSAE",
    "__version__",
    "list_released",
]

if TYPE_CHECKING:
    from .callbacks import MSAETrainerCallback
    from .configuration_msae import MSAEConfig
    from .hub.registry import list_released
    from .modeling_msae import MSAEModel, MSAEOutput
    from .trainer import MSAETrainer
    from .training_args import MSAETrainingArguments
    from .vision_text import VisionTextMSAE


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_registration.install()
