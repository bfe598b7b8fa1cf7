"""The `hf-msae` command."""

from __future__ import annotations

import sys

_USAGE = """\
usage: hf-msae COMMAND [--help]

commands:
  quickstart   train, measure and name an MSAE on the embedded world, in a few minutes
"""


def main(argv: list[str] | None = None) -> None:
    """Entry point of `hf-msae`: hands the rest of the line to the command."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return
    if arguments[0] != "quickstart":
        sys.exit(f"hf-msae: there is no command {arguments[0]!r}\n\n{_USAGE}")
    from .quickstart import main as quickstart

    quickstart(arguments[1:])
