"""Registration of MSAE checkpoints with `AutoConfig` and `AutoModel`, without importing them.

Importing transformers' auto classes takes seconds and imports torch, which `import hf_msae` should not do. Yet
`AutoModel.from_pretrained` must work in whichever order the two packages are imported. Each class is therefore
registered at once if the auto classes have been imported, and otherwise when `_PostImportFinder` sees their import.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_AUTO_CONFIG = "transformers.models.auto.configuration_auto"
_AUTO_MODEL = "transformers.models.auto.modeling_auto"
_BASE_CONFIG = "transformers.configuration_utils"
_BASE_MODEL = "transformers.modeling_utils"
_OUR_CONFIG = "hf_msae.model.configuration_msae"
_OUR_MODEL = "hf_msae.model.modeling_msae"
_WATCHED = {
    _AUTO_CONFIG: "AutoConfig",
    _AUTO_MODEL: "AutoModel",
    _BASE_CONFIG: "PreTrainedConfig",
    _BASE_MODEL: "PreTrainedModel",
    _OUR_CONFIG: "MSAEConfig",
    _OUR_MODEL: "MSAEModel",
}
"""Modules, and the name in each that exists once it has been imported."""

_registered: set[str] = set()


def _is_imported(module: str) -> bool:
    return hasattr(sys.modules.get(module), _WATCHED[module])


def _is_half_imported(module: str) -> bool:
    """Return whether an import of the module is in progress, whose end calls `register_auto_classes` again."""
    return module in sys.modules and not _is_imported(module)


def register_auto_classes() -> None:
    """Register MSAEConfig and MSAEModel with the auto classes that have been imported; may be called again."""
    needed = (_BASE_CONFIG, _OUR_CONFIG)
    if "config" not in _registered and _is_imported(_AUTO_CONFIG) and not any(map(_is_half_imported, needed)):
        from transformers.models.auto.configuration_auto import AutoConfig

        from .configuration_msae import MSAEConfig  # ends in another call of this function, hence exist_ok

        AutoConfig.register(MSAEConfig.model_type, MSAEConfig, exist_ok=True)
        _registered.add("config")

    needed = (_BASE_CONFIG, _BASE_MODEL, _OUR_CONFIG, _OUR_MODEL)
    if "model" not in _registered and _is_imported(_AUTO_MODEL) and not any(map(_is_half_imported, needed)):
        from transformers.models.auto.modeling_auto import AutoModel

        from .modeling_msae import MSAEModel

        AutoModel.register(MSAEModel.config_class, MSAEModel, exist_ok=True)
        _registered.add("model")

    if _registered == {"config", "model"}:
        _stop_watching()


class _PostImportFinder:
    """Finder for `sys.meta_path` that calls `register_auto_classes` after the import of a watched module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _WATCHED:
            return None
        finders = [each for each in sys.meta_path if each is not self and hasattr(each, "find_spec")]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in finders)), None)
        if spec is None:
            return None

        # Patching the loader, which only this module uses, keeps its type and interface (sources, resources).
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            register_auto_classes()

        spec.loader.exec_module = execute_and_register
        return spec


def _stop_watching() -> None:
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _PostImportFinder)]


def install() -> None:
    """Register what can be registered now, and watch for later imports."""
    _stop_watching()
    register_auto_classes()
    if _registered != {"config", "model"}:
        sys.meta_path.insert(0, _PostImportFinder())
