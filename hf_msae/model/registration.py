"""Makes `AutoConfig` and `AutoModel` know MSAE checkpoints without importing either.

Importing transformers' auto classes or its model base class takes seconds and pulls in torch; `import hf_msae` should
not, and yet `AutoModel.from_pretrained` has to work in whichever order the two packages are imported. So each class is
registered at the first moment at which both sides exist: now, if the auto classes have been imported already, or else
when Python has finished importing them, which `_PostImportFinder` notices.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

# A module of transformers, and the name by which one can tell that it has been executed to the end, or far enough.
_AUTO_CONFIG = ("transformers.models.auto.configuration_auto", "AutoConfig")
_AUTO_MODEL = ("transformers.models.auto.modeling_auto", "AutoModel")
_BASE_CONFIG = ("transformers.configuration_utils", "PreTrainedConfig")
_BASE_MODEL = ("transformers.modeling_utils", "PreTrainedModel")
_OUR_CONFIG = ("hf_msae.model.configuration_msae", "MSAEConfig")
_OUR_MODEL = ("hf_msae.model.modeling_msae", "MSAEModel")

_WATCHED = {name for name, _ in (_AUTO_CONFIG, _AUTO_MODEL, _BASE_CONFIG, _BASE_MODEL, _OUR_CONFIG, _OUR_MODEL)}
_registered: set[str] = set()


def _is_there(module_and_name: tuple[str, str]) -> bool:
    module, name = module_and_name
    return hasattr(sys.modules.get(module), name)


def _is_half_imported(module_and_name: tuple[str, str]) -> bool:
    """Importing from such a module would fail; its import, further up the stack, ends in another call of ours."""
    return module_and_name[0] in sys.modules and not _is_there(module_and_name)


def register_auto_classes() -> None:
    """Registers MSAEConfig and MSAEModel with those of AutoConfig and AutoModel that have been imported.

    Called whenever one of the modules involved has been executed, ours included; calling it again does no harm.
    """
    if "config" not in _registered and _is_there(_AUTO_CONFIG):
        if not any(map(_is_half_imported, (_BASE_CONFIG, _OUR_CONFIG))):
            from transformers.models.auto.configuration_auto import AutoConfig

            from .configuration_msae import (
                MSAEConfig,  # its import ends in a call of this function; exist_ok lets both register
            )

            AutoConfig.register(MSAEConfig.model_type, MSAEConfig, exist_ok=True)
            _registered.add("config")

    if "model" not in _registered and _is_there(_AUTO_MODEL):
        if not any(map(_is_half_imported, (_BASE_CONFIG, _BASE_MODEL, _OUR_CONFIG, _OUR_MODEL))):
            from transformers.models.auto.modeling_auto import AutoModel

            from .modeling_msae import MSAEConfig, MSAEModel

            AutoModel.register(MSAEConfig, MSAEModel, exist_ok=True)
            _registered.add("model")

    if _registered == {"config", "model"}:
        _stop_watching()


class _PostImportFinder:  # a finder as sys.meta_path wants it
    """Finds nothing itself: adds a call of `register_auto_classes` to the end of the watched modules' execution."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _WATCHED:
            return None
        for finder in list(sys.meta_path):
            if isinstance(finder, _PostImportFinder) or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                break
        else:
            return None

        # The loader belongs to this one module, and patching it, unlike wrapping it, keeps its type and the rest of
        # its interface (sources for tracebacks, resources) as they were.
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            register_auto_classes()

        spec.loader.exec_module = execute_and_register
        return spec


def _stop_watching() -> None:
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _PostImportFinder)]


def install() -> None:
    """Registers what can be registered now, and watches for the rest."""
    _stop_watching()
    register_auto_classes()
    if _registered != {"config", "model"}:
        sys.meta_path.insert(0, _PostImportFinder())
