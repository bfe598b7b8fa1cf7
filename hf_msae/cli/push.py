"""Publish a trained model on the Hub, in one commit: weights, metrics, names, figures and the card.

The files are copied to a new folder and loaded from it before anything is sent; paths of this machine are left out. A
folder of several runs, such as a sweep, is published as a whole, each model in a subfolder, with an index of them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

from transformers.utils.logging import disable_progress_bar

from .._utils.argument_parser import MSAEArgumentParser, flag

EXAMPLE = """\
  hf-msae push outputs/my-msae user/my-msae --dry_run              # writes outputs/my-msae-release, sends nothing
  hf-msae push outputs/my-msae user/my-msae --private
  hf-msae push outputs/layer-11 user/my-msaes --subfolder vision.layers.11
  hf-msae push outputs/my-sweep user/my-msaes"""


@dataclass
class PushArguments:
    """Arguments of `hf-msae push`."""

    _argument_group_name: ClassVar[str] = "release"

    folder: str = flag("Folder of one or several runs.")
    repo: str = flag("Repository on the Hub, user/name.")
    subfolder: str | None = flag(
        "Folder in the repository, for example vision.layers.11. Defaults to its root.", default=None
    )
    private: bool = flag("Make a new repository private.", default=False)
    revision: str | None = flag("Branch to commit to; created if it does not exist. Defaults to main.", default=None)
    create_pr: bool = flag("Open a pull request instead of committing.", default=False)
    dry_run: str | None = field(
        default=None,
        metadata={
            "nargs": "?",
            "const": "",
            "help": "Write the release to this new folder and send nothing. Without a value, the folder is "
            "FOLDER-release.",
        },
    )
    allow_unmeasured: bool = flag(
        "Publish without metrics.json; the card says that nothing was measured.", default=False
    )
    remote_code: bool = flag(
        "Add modules so that the model loads with trust_remote_code=True, without hf_msae.", default=False
    )
    license: str | None = flag(
        "License of the weights, as an identifier of the Hub such as mit. Defaults to that of the existing card, or "
        "to apache-2.0 (for a converted model: none).",
        default=None,
    )
    tags: list[str] = flag("Additional tags for the card.", default=[])
    replace_card: bool = flag("Replace a card that a person has edited; otherwise its text is kept.", default=False)
    max_shard_size: str | None = flag("Maximum size of a file of weights, for example 5GB.", default=None)
    commit_message: str | None = flag("First line of the commit message.", default=None)
    commit_description: str | None = flag("Rest of the commit message.", default=None)


LOADING = """
import hf_msae
from transformers import AutoModel

msae = AutoModel.from_pretrained({arguments})"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv`, or with the arguments of the process."""
    disable_progress_bar()
    parser = MSAEArgumentParser([PushArguments], __doc__, EXAMPLE, prog="hf-msae push", first_words=["folder", "repo"])
    (args,) = parser.parse(argv)
    with parser.reporting_errors():
        from ..hub.publishing.release import push_to_hub

        folder = Path(args.folder)
        if args.dry_run == "":
            resolved = folder.expanduser().resolve()
            args.dry_run = resolved.with_name(f"{resolved.name}-release")
        options = {each.name: getattr(args, each.name) for each in fields(args) if each.name not in ("folder", "repo")}
        options["private"] = args.private or None  # None: as the organization prefers; False would make it public
        print(f"Putting together {args.folder} and loading it back", flush=True)
        release = push_to_hub(folder, args.repo, **options)
    print(release)
    print(LOADING.format(arguments=release.loading_arguments))
