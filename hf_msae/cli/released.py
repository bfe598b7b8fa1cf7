"""List released models. Every command takes their names where it takes a model's folder or Hub id.

Those that come with the package load without a network. The models of others are converted when they are loaded.
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
    """Run the command with these words, or those of the process."""
    parser = argparse.ArgumentParser(
        prog="hf-msae released",
        description=__doc__,
        epilog="example:\n  hf-msae released --backbone clip --hook_point image_embeds\n"
        "  hf-msae explain scenes-image --image picture.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--backbone", help="only those whose backbone's name has this in it, e.g. clip")
    parser.add_argument("--hook_point", help="only those of this hook point, e.g. image_embeds")
    parser.add_argument("--json", action="store_true", help="print everything that is known of them as JSON")
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
        print("no released model is known that fits; `hf-msae released` lists all")
        return
    print(found[list(_SHOWN)].rename(columns=_SHOWN).fillna("").to_string())
    print("\nchecked: loaded and measured by us. The others are listed as their authors describe them.")


if __name__ == "__main__":
    main()
