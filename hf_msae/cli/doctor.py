"""Check a model for problems: list what there is, what is broken or missing, and what to run next.

Changes nothing. A folder with several models, such as a sweep, gets one line per model. The backbone is looked for,
but loaded only with --check_backbone. The exit code is 1 if something is damaged or does not match the model, and 0
otherwise, even if something is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from .._utils.argument_parser import flag
from .opening import command_parser

EXAMPLE = """\
  hf-msae doctor outputs/quickstart
  hf-msae doctor outputs/my-sweep
  hf-msae doctor outputs/my-msae --backbone ../siglip --check_backbone --json"""


@dataclass
class DoctorArguments:
    """Which model, or models in subfolders, to look at."""

    _argument_group_name: ClassVar[str] = "model"

    model: str = flag("Folder or Hub id of an MSAE, or the name of a released one.")
    revision: str | None = flag("Branch, tag or commit of a model on the Hub.", None)
    subfolder: str | None = flag("Subfolder of the folder or repository that holds the model.", None)
    backbone: str | None = flag(
        "Folder or Hub id of the backbone. Defaults to the one that the MSAE was trained on.", None
    )
    data: str | None = flag(
        "Embeddings to check, besides those near the model and those in the command that trained it.",
        None,
    )
    check_backbone: bool = flag("Load the backbone, and compare it with the one that the MSAE was trained on.", False)
    json: bool = flag("Print the findings as JSON.", False)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, by default the arguments of the process."""
    parser = command_parser("doctor", [DoctorArguments], __doc__, EXAMPLE)
    (args,) = parser.parse(argv)
    from .doctor_findings import BROKEN, examine

    with parser.reporting_errors():
        findings, then = examine(args)
    is_usable = all(each.state != BROKEN for each in findings)
    if args.json:
        content = {"model": args.model, "usable": is_usable, "findings": [asdict(each) for each in findings]}
        print(json.dumps({**content, "next": then}, indent=2))
    else:
        print(args.model)
        width = max(11, *(len(each.part) + 1 for each in findings))
        for each in findings:
            print(f"  {each.part:<{width}}{each.state:<11}{each.text}")
        if then:
            print("\nNext:\n" + "\n".join(f"  {command}" for command in then))
    if not is_usable:
        parser.exit(1)
