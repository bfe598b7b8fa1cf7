"""
Publish a trained model on the Hub, in one commit: weights, metrics, names, figures and the card.

Everything is put together and loaded back before anything is sent; paths of this machine are left out. A folder of
several runs, as a sweep leaves it, is published as a whole, each model in a subfolder, with an index of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from transformers.utils.logging import disable_progress_bar

from ..arguments import MSAEArgumentParser

EXAMPLE = """\
  hf-msae push outputs/my-msae user/my-msae --dry_run outputs/release
  hf-msae push outputs/my-msae user/my-msae --private
  hf-msae push outputs/layer-11 user/my-msaes --subfolder vision.layers.11
  hf-msae push outputs/my-sweep user/my-msaes"""


@dataclass
class PushArguments:
    """What is published, where to, and how."""

    _argument_group_name: ClassVar[str] = "release"

    folder: str = field(metadata={"help": "Folder of a run, or of several; the first word may be this."})
    repo: str = field(metadata={"help": "Repository on the Hub, user/name; the second word may be this."})
    subfolder: str | None = field(
        default=None, metadata={"help": "Where in the repository it goes, e.g. vision.layers.11. Unset: its root."}
    )
    private: bool = field(default=False, metadata={"help": "Whether a repository that is made is private."})
    revision: str | None = field(default=None, metadata={"help": "Branch to commit to; made if it is not there."})
    create_pr: bool = field(default=False, metadata={"help": "Open a pull request instead of committing."})
    dry_run: str | None = field(
        default=None, metadata={"help": "New folder to write the release to, without asking the Hub for anything."}
    )
    allow_unmeasured: bool = field(
        default=False, metadata={"help": "Publish without metrics.json; the card then says that nothing was measured."}
    )
    remote_code: bool = field(
        default=False, metadata={"help": "Add modules that load it with trust_remote_code=True, without hf_msae."}
    )
    license: str | None = field(
        default=None, metadata={"help": "Of the weights, as the Hub writes it. Unset: apache-2.0."}
    )
    tags: list[str] = field(default_factory=list, metadata={"help": "Further tags for the card."})
    card: Literal["local", "hub", "fresh"] | None = field(
        default=None,
        metadata={
            "help": "Whose edits of the card to keep where it was edited in the run's folder and differently on the "
            "Hub; fresh drops all edits."
        },
    )
    max_shard_size: str | None = field(
        default=None, metadata={"help": "Cut the weights into files of this size, e.g. 5GB."}
    )
    commit_message: str | None = field(default=None, metadata={"help": "First line of the commit's message."})
    commit_description: str | None = field(default=None, metadata={"help": "The rest of it."})


LOADING = """
import hf_msae
from transformers import AutoModel

msae = AutoModel.from_pretrained({arguments})"""


def _with_second_word(argv: Sequence[str]) -> list[str]:
    """`FOLDER user/name ...` with the second word as a flag; flags with dashes as they are spelled here."""
    argv = [_underscored(word) for word in argv]
    if len(argv) > 1 and not argv[0].startswith("-") and not argv[1].startswith("-"):
        argv[1] = f"--repo={argv[1]}"
    return argv


def _underscored(word: str) -> str:
    flag, equals, value = word.partition("=")
    return f"--{flag[2:].replace('-', '_')}{equals}{value}" if flag.startswith("--") else word


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with these words, or those of the process."""
    disable_progress_bar()
    parser = MSAEArgumentParser([PushArguments], __doc__, EXAMPLE, prog="hf-msae push", first_word="folder")
    (args,) = parser.parse(_with_second_word(sys.argv[1:] if argv is None else argv))
    with parser.reporting_errors():
        from ..hub.release import push_to_hub

        print(f"Putting together what is in {args.folder}, and loading it back", flush=True)
        release = push_to_hub(
            Path(args.folder),
            args.repo,
            subfolder=args.subfolder,
            private=args.private or None,
            revision=args.revision,
            create_pr=args.create_pr,
            allow_unmeasured=args.allow_unmeasured,
            remote_code=args.remote_code,
            license=args.license,
            tags=args.tags,
            card=args.card,
            max_shard_size=args.max_shard_size,
            commit_message=args.commit_message,
            commit_description=args.commit_description,
            dry_run=args.dry_run,
        )
    print(release)
    print(LOADING.format(arguments=release.loading_arguments))


if __name__ == "__main__":
    main()
