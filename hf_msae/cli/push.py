"""Publish a trained model on the Hub, in one commit: weights, metrics, names, figures and the card.

Everything is put together and loaded back before anything is sent; paths of this machine are left out. A folder of
several runs, as a sweep leaves it, is published as a whole, each model in a subfolder, with an index of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Literal

from transformers.utils.logging import disable_progress_bar

from .._utils.argument_parser import MSAEArgumentParser

EXAMPLE = """\
  hf-msae push outputs/my-msae user/my-msae --dry_run              # writes outputs/my-msae-release, sends nothing
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
        default=None,
        metadata={
            "nargs": "?",
            "const": "",
            "help": "Write the release to this new folder, without asking the Hub for anything. Without a name: to "
            "FOLDER-release, beside the run's.",
        },
    )
    allow_unmeasured: bool = field(
        default=False, metadata={"help": "Publish without metrics.json; the card then says that nothing was measured."}
    )
    remote_code: bool = field(
        default=False, metadata={"help": "Add modules that load it with trust_remote_code=True, without hf_msae."}
    )
    license: str | None = field(
        default=None,
        metadata={
            "help": "Of the weights, as the Hub writes it. Unset: what the card on the Hub says, or apache-2.0 (of a "
            "converted model: none)."
        },
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


_SWITCHES = {f"--{each.name}" for each in fields(PushArguments) if each.type == "bool"}
_SEVERAL = {f"--{each.name}" for each in fields(PushArguments) if each.type == "list[str]"}
_TRUTH_VALUES = ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0")


def _with_flags(argv: Sequence[str]) -> list[str]:
    """The words of a command line with FOLDER and user/name as flags, wherever among the others they stand.

    A switch takes no word but one for true or false, and --dry_run takes the next word only if FOLDER and user/name
    are there besides.
    """
    words = [_underscored(word) for word in argv]
    free = [flag for flag in ("--folder", "--repo") if not any(word.partition("=")[0] == flag for word in words)]
    flags, positions, dry_run = [], [], None  # positions: of free words in flags
    while words:
        word = words.pop(0)
        following = words[0] if words and not words[0].startswith("-") else None
        flags.append(word)
        if not word.startswith("-"):
            positions.append(len(flags) - 1)
        elif word in _SEVERAL:
            while words and not words[0].startswith("-"):
                flags.append(words.pop(0))
        elif word in _SWITCHES:
            if following is not None and following.lower() in _TRUTH_VALUES:
                flags[-1] = f"{word}={words.pop(0)}"
            else:
                flags[-1] = f"{word}=true"
        elif word == "--dry_run":
            dry_run = len(flags) - 1
        elif following is not None and "=" not in word:
            flags.append(words.pop(0))
    if dry_run is not None:
        flags[dry_run] = "--dry_run="
        if len(positions) > len(free) and dry_run + 1 in positions:
            positions.remove(dry_run + 1)
            flags[dry_run] += flags[dry_run + 1]
            flags[dry_run + 1] = ""
    for flag, position in zip(free, positions, strict=False):
        flags[position] = f"{flag}={flags[position]}"
    return [word for word in flags if word]


def _underscored(word: str) -> str:
    flag, equals, value = word.partition("=")
    return f"--{flag[2:].replace('-', '_')}{equals}{value}" if flag.startswith("--") else word


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with these words, or those of the process."""
    disable_progress_bar()
    parser = MSAEArgumentParser([PushArguments], __doc__, EXAMPLE, prog="hf-msae push", first_word="folder")
    (args,) = parser.parse(_with_flags(sys.argv[1:] if argv is None else argv))
    with parser.reporting_errors():
        from ..hub.publishing.release import push_to_hub

        folder = Path(args.folder)
        beside = folder.expanduser().resolve()
        dry_run = beside.with_name(f"{beside.name}-release") if args.dry_run == "" else args.dry_run
        print(f"Putting together what is in {args.folder}, and loading it back", flush=True)
        release = push_to_hub(
            folder,
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
            dry_run=dry_run,
        )
    print(release)
    print(LOADING.format(arguments=release.loading_arguments))


if __name__ == "__main__":
    main()
