"""Models that load without this package, with the modules they need in the same folder.

`AutoModel.from_pretrained(repo, trust_remote_code=True)` runs these modules. They encode, decode and compute losses;
fast training, publishing and released models stay in the package.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..._utils.json_files import write_text
from ...model.activations import FAMILIES

_MODEL = Path(__file__).parents[2] / "model"
_MODULES = (
    "configuration_msae.py",
    "modeling_msae.py",
    "activations.py",
    *(f"{name}.py" for name in FAMILIES),
    "auxiliary_loss.py",
    "checks.py",
    "nested_prefix.py",
    "nested_topk.py",
    "parameters.py",
)
_HEADER = "# From hf_msae {version} (Apache-2.0), for loading models without it.\n"
# Replacements for modules that remote code cannot use: the fast training step, and loading with the registry.
_STANDINS = {
    "fused_nested_loss.py": '''"""The fast training step of hf_msae, which is not here: the plain one does the same."""

NestedLoss = fused_nested_loss = None


def can_fuse(*tensors):
    """Whether the fast step can be used: never here."""
    return False
''',
    "loading.py": '''"""Loading as transformers does it, but whole or not at all."""

import torch
from transformers.modeling_utils import PreTrainedModel


class PreTrainedMSAE(PreTrainedModel):
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """As in transformers, which would fill in random weights for missing ones: here that is an error."""
        asked = kwargs.pop("output_loading_info", False)
        if asked or kwargs.get("state_dict") is not None or kwargs.get("ignore_mismatched_sizes"):
            return super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=asked, **kwargs
            )
        kwargs["ignore_mismatched_sizes"] = True  # so that the shapes come back
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        wrong = {kind: sorted(map(str, info[f"{kind}_keys"])) for kind in ("missing", "unexpected", "mismatched")}
        loaded = {name: tensor for name, tensor in model.state_dict().items() if not tensor.is_meta}
        wrong["not finite"] = [name for name, tensor in loaded.items() if not torch.isfinite(tensor).all()]
        if "input_scale" in loaded and not loaded["input_scale"] > 0:
            wrong["not above 0"] = ["input_scale"]
        if any(wrong.values()):
            found = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in wrong.items() if names)
            raise ValueError(f"{pretrained_model_name_or_path}: weights and config.json do not fit ({found})")
        return model
''',
}
FILES = frozenset({*_MODULES, *_STANDINS})
"""Names of the modules that `add_remote_code` writes."""

_AUTO_MAP = {"AutoConfig": "configuration_msae.MSAEConfig", "AutoModel": "modeling_msae.MSAEModel"}


def add_remote_code(folder: str | os.PathLike) -> list[str]:
    """Add the modules that an MSAE needs to its folder, and name them in its config.json.

    Args:
        folder: A saved MSAE.

    Returns:
        Names of the written files, including config.json.

    Raises:
        FileNotFoundError: There is no config.json.
    """
    from ... import __version__

    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = _AUTO_MAP
    texts = {name: (_MODEL / name).read_text(encoding="utf-8") for name in _MODULES} | _STANDINS
    header = _HEADER.format(version=__version__)
    written = {name: header + text for name, text in texts.items()}
    written["config.json"] = json.dumps(config, indent=2, sort_keys=True) + "\n"
    for name, text in written.items():
        write_text(folder / name, text)
    return sorted(written)
