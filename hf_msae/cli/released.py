"""List released models. Every command accepts their names in place of a folder or Hub id.

Those that come with the package load without a network. Other people's models are converted when they are loaded.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from .._utils.json_files import json_records
from ..hub.reading.registry import list_released

_SHOWN = {
    "base_model_name_or_path": "backbone",
    "hook_point": "hook_point",
    "d_in": "d_in",
    "num_latents": "num_latents",
    "format": "format",
    "checked": "checked",
    "license": "license",
    "repo_id": "repository",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, or with the arguments of the process."""
    parser = argparse.ArgumentParser(
        prog="hf-msae released",
        description=__doc__,
        epilog="example:\n  hf-msae released --backbone clip --hook_point image_embeds\n"
        "  hf-msae explain scenes-image --image picture.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--backbone", help="Only list models whose backbone's name contains this text, for example clip."
    )
    parser.add_argument("--hook_point", help="Only list models of this hook point, for example image_embeds.")
    parser.add_argument("--json", action="store_true", help="Print all details as JSON.")
    args = parser.parse_args(argv)
    found = list_released()
    if args.backbone is not None:
        found = found[found["base_model_name_or_path"].fillna("").str.contains(args.backbone, case=False, regex=False)]
    if args.hook_point is not None:
        found = found[found["hook_point"] == args.hook_point]
    if args.json:
        print(json.dumps(json_records(found.reset_index()), indent=2))
        return
    if found.empty:
        print("No released model matches; `hf-msae released` lists all.")
        return
    print(found[list(_SHOWN)].rename(columns=_SHOWN).fillna("").to_string())
    print("\nchecked: loaded and measured by us. The others are listed as their authors describe them.")
