"""Models that load without this package: the modules they need lie beside them.

`AutoModel.from_pretrained(repo, trust_remote_code=True)` then runs that code. It encodes, decodes and computes losses;
what trains fast, publishes or looks for released models stays in the package.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_MODULES = (
    "configuration_msae.py",
    "modeling_msae.py",
    "activation_functions.py",
    "auxiliary_loss.py",
    "nested_topk.py",
)
_HEADER = "# From hf_msae {version} (Apache-2.0), for models that are loaded without it.\n"
# What the modules import and remote code cannot have: the package's own registration, its fast training step, and
# loading and publishing with its help.
_STANDINS = {
    "_registration.py": '''"""Registration with the auto classes, which config.json's auto_map does here."""


def register_auto_classes():
    """Nothing is left to do."""
''',
    "fused_nested_loss.py": '''"""The fast training step of hf_msae, which is not here: the plain one does the same."""

NestedLoss = fused_nested_loss = None


def can_fuse(*tensors):
    """Whether the fast step can be used: never here."""
    return False
''',
    "pretrained.py": '''"""Loading and publishing as transformers does it."""

from transformers.modeling_utils import PreTrainedModel as PreTrainedMSAE

__all__ = ["PreTrainedMSAE"]
''',
}
FILES = frozenset({*_MODULES, *_STANDINS})
"""Names of the modules that `add_remote_code` writes."""

_AUTO_MAP = {"AutoConfig": "configuration_msae.MSAEConfig", "AutoModel": "modeling_msae.MSAEModel"}


def add_remote_code(folder: str | os.PathLike) -> list[str]:
    """Put the modules that an MSAE needs beside it, and name them in its config.json.

    Args:
        folder: a saved MSAE.

    Returns:
        Names of the files that were written, config.json among them.

    Raises:
        FileNotFoundError: there is no config.json.
    """
    from .. import __version__

    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = _AUTO_MAP
    texts = {name: (_PACKAGE / name).read_text(encoding="utf-8") for name in _MODULES} | _STANDINS
    header = _HEADER.format(version=__version__)
    written = {name: header + text for name, text in texts.items()}
    written["config.json"] = json.dumps(config, indent=2, sort_keys=True) + "\n"
    for name, text in written.items():
        temporary = folder / f".tmp-{name}"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, folder / name)
    return sorted(written)
