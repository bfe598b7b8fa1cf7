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
    "config_fields.py",
    "configuration_msae.py",
    "modeling_msae.py",
    "activations.py",
    "family.py",
    *(f"{name}.py" for name in FAMILIES),
    "auxiliary_loss.py",
    "checks.py",
    "config_file.py",
    "nested_prefix.py",
    "nested_topk.py",
    "parameters.py",
    "products.py",
)
_HEADER = "# From hf_msae {version} (Apache-2.0), for loading models without it.\n"
# They replace modules that remote code cannot use: the fast training step, and loading with the registry.
_STANDINS = Path(__file__).with_name("standalone")
_AUTO_MAP = {"AutoConfig": "configuration_msae.MSAEConfig", "AutoModel": "modeling_msae.MSAEModel"}


def add_remote_code(folder: str | os.PathLike) -> list[str]:
    """Add the modules that a saved MSAE needs to its folder, and name them in its config.json.

    Returns the sorted names of the written files, including config.json; raises FileNotFoundError without that.
    """
    from ... import __version__

    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = _AUTO_MAP
    header = _HEADER.format(version=__version__)
    modules = [*(_MODEL / name for name in _MODULES), *_STANDINS.glob("*.py")]
    written = {path.name: header + path.read_text(encoding="utf-8") for path in modules}
    written["config.json"] = json.dumps(config, indent=2, sort_keys=True) + "\n"
    for name, text in written.items():
        write_text(folder / name, text)
    return sorted(written)
