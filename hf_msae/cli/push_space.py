"""Publish the concept explorer as a Space on the Hub, showing your model.

The Space's files and the package itself are sent in one commit; Space variables say which model and pictures it shows.
Without --model it shows the one of rendered scenes.
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
    """Which Space, and what it shows."""

    _argument_group_name: ClassVar[str] = "Space"

    repo: str = field(metadata={"help": "The Space, user/name; the first word may be this."})
    model: str = field(default=DEFAULT_MODEL, metadata={"help": "MSAE of pooled image embeddings, by its Hub id."})
    dataset: str = field(default=DEFAULT_DATASET, metadata={"help": "Data set of the pictures, by its Hub id."})
    split: str | None = field(default=None, metadata={"help": "Split of it, where it has several."})
    image_column: str = field(default="image", metadata={"help": "Its column of pictures."})
    embeddings: str | None = field(
        default=None,
        metadata={"help": "Embeddings of the same rows on the Hub; unset, the Space computes them when it starts."},
    )
    patch_model: str | None = field(
        default=None, metadata={"help": "MSAE of a vision block of the same backbone, by its Hub id."}
    )
    backbone: str | None = field(
        default=None, metadata={"help": "Where the backbone is, if it is not where the MSAE says."}
    )
    max_images: int = field(default=2000, metadata={"help": "How many pictures, at most."})
    title: str | None = field(default=None, metadata={"help": "Title of the Space."})
    requirement: str | None = field(
        default=None,
        metadata={"help": "How the Space installs hf_msae, e.g. hf_msae==0.1.0. Unset: the package is sent along."},
    )
    private: bool = field(default=False, metadata={"help": "Whether a Space that is made is private."})
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace files that are in the way, which you or others have put or edited there."},
    )
    dry_run: str | None = field(
        default=None, metadata={"help": "New folder to write the Space to, without asking the Hub for anything."}
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with these words, or those of the process."""
    parser = MSAEArgumentParser([PushSpaceArguments], __doc__, EXAMPLE, prog="hf-msae push-space", first_word="repo")
    (args,) = parser.parse(argv)
    with parser.reporting_errors():
        from ..hub.publishing.remote import check_repo_id
        from ..hub.publishing.space import push_space, space_variables, write_space

        settings = ExplorerSettings(**{each.name: getattr(args, each.name) for each in fields(ExplorerSettings)})
        if args.dry_run is not None:
            check_repo_id(args.repo)
            variables = space_variables(settings)
            if Path(args.dry_run).exists():
                raise FileExistsError(f"{args.dry_run} is there already: name a new folder")
            folder = write_space(Path(args.dry_run), settings, args.title, args.requirement)
            print(f"The Space is in {folder}. Run it there with")
            print(
                "  "
                + " ".join([*(f"{key}={shlex.quote(value)}" for key, value in variables.items()), "python app.py"])
            )
            return
        url = push_space(args.repo, settings, args.title, args.requirement, args.private, overwrite=args.overwrite)
        print(f"{url}\nThe Space builds now, which takes minutes the first time.")


if __name__ == "__main__":
    main()
