"""Publish the concept explorer as a Space on the Hub, showing your model.

The Space's files and the package are sent in one commit; Space variables set which model and pictures it shows.
Without --model it shows the model of rendered scenes. A Space cannot read this machine: models and data have to be on
the Hub, or come with the package.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .._utils.argument_parser import MSAEArgumentParser, flag
from ..hub.publishing.space_settings import ExplorerSettings

EXAMPLE = """\
  hf-msae push-space user/concepts --model user/msae --dataset user/pictures --split train \\
      --embeddings user/embeddings
  hf-msae push-space user/concepts --dry_run staged"""


@dataclass
class PushSpaceArguments:
    """Where the Space is, and how it is published."""

    _argument_group_name: ClassVar[str] = "Space"

    repo: str = flag("Space to publish to, user/name.")
    title: str | None = flag("Title of the Space.", default=None)
    requirement: str | None = flag(
        "How the Space installs hf_msae, for example hf_msae==0.1.0. Defaults to sending the package along.",
        default=None,
    )
    private: bool = flag("Make a new Space private.", default=False)
    overwrite: bool = flag("Replace files that you or others have added or edited there.", default=False)
    dry_run: str | None = flag("New folder to write the Space to; nothing is sent.", default=None)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, or with the arguments of the process."""
    kinds = [PushSpaceArguments, ExplorerSettings]
    parser = MSAEArgumentParser(kinds, __doc__, EXAMPLE, prog="hf-msae push-space", first_words=["repo"])
    args, settings = parser.parse(argv)
    with parser.reporting_errors():
        from ..hub.publishing.repository import Repository
        from ..hub.publishing.space import push_space, space_variables, write_space

        if args.dry_run is None:
            url = push_space(args.repo, settings, args.title, args.requirement, args.private, overwrite=args.overwrite)
            print(f"{url}\nThe Space is being built; the first time this takes minutes.")
            return
        Repository(args.repo, "space")  # raises an error if this is no valid name
        variables = space_variables(settings)
        folder = Path(args.dry_run).expanduser()
        if folder.exists():
            raise FileExistsError(f"{args.dry_run} already exists: choose a new folder")
        folder = write_space(folder, settings, args.title, args.requirement)
        command = [*(f"{key}={shlex.quote(value)}" for key, value in variables.items()), "python app.py"]
        print(f"The Space is in {folder}. Run it there with\n  {' '.join(command)}")
