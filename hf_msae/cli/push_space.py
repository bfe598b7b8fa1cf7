"""Publish the concept explorer as a Space on the Hub, showing your model.

The Space's files and the package are sent in one commit; Space variables say which model and pictures it shows.
Without --model it shows the model of rendered scenes.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

from .._utils.argument_parser import MSAEArgumentParser
from ..hub.publishing.space_settings import DEFAULT_DATASET, DEFAULT_MODEL, ExplorerSettings

EXAMPLE = """\
  hf-msae push-space user/concepts --model user/msae --dataset user/pictures --split train \\
      --embeddings user/embeddings
  hf-msae push-space user/concepts --dry_run staged"""


@dataclass
class PushSpaceArguments:
    """Arguments of `hf-msae push-space`."""

    _argument_group_name: ClassVar[str] = "Space"

    repo: str = field(metadata={"help": "Space to publish to, user/name."})
    model: str = field(default=DEFAULT_MODEL, metadata={"help": "Hub id of an MSAE of pooled image embeddings."})
    dataset: str = field(default=DEFAULT_DATASET, metadata={"help": "Hub id of the dataset of pictures."})
    split: str | None = field(default=None, metadata={"help": "Split of the dataset."})
    image_column: str = field(default="image", metadata={"help": "Column of the dataset that holds the pictures."})
    embeddings: str | None = field(
        default=None,
        metadata={"help": "Hub id of the embeddings of the same rows. Unset, the Space computes them when it starts."},
    )
    patch_model: str | None = field(
        default=None, metadata={"help": "Hub id of an MSAE of a vision block of the same backbone."}
    )
    backbone: str | None = field(
        default=None, metadata={"help": "Location of the backbone, if it is not the one in the MSAE's config."}
    )
    max_images: int = field(default=2000, metadata={"help": "Maximum number of pictures."})
    title: str | None = field(default=None, metadata={"help": "Title of the Space."})
    requirement: str | None = field(
        default=None,
        metadata={
            "help": "How the Space installs hf_msae, for example hf_msae==0.1.0. Unset, the package is sent along."
        },
    )
    private: bool = field(default=False, metadata={"help": "Make a new Space private."})
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace files that you or others have added or edited there."},
    )
    dry_run: str | None = field(default=None, metadata={"help": "New folder to write the Space to; nothing is sent."})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, or with the arguments of the process."""
    parser = MSAEArgumentParser([PushSpaceArguments], __doc__, EXAMPLE, prog="hf-msae push-space", first_word="repo")
    (args,) = parser.parse(argv)
    with parser.reporting_errors():
        from ..hub.publishing.repository import Repository
        from ..hub.publishing.space import push_space, space_variables, write_space

        settings = ExplorerSettings(**{each.name: getattr(args, each.name) for each in fields(ExplorerSettings)})
        if args.dry_run is not None:
            Repository(args.repo, "space")  # is it a valid name?
            variables = space_variables(settings)
            if Path(args.dry_run).exists():
                raise FileExistsError(f"{args.dry_run} already exists: choose a new folder")
            folder = write_space(Path(args.dry_run), settings, args.title, args.requirement)
            print(f"The Space is in {folder}. Run it there with")
            print(
                "  "
                + " ".join([*(f"{key}={shlex.quote(value)}" for key, value in variables.items()), "python app.py"])
            )
            return
        url = push_space(args.repo, settings, args.title, args.requirement, args.private, overwrite=args.overwrite)
        print(f"{url}\nThe Space is being built; the first time this takes minutes.")


if __name__ == "__main__":
    main()
