"""The `hf-msae` command."""

from __future__ import annotations

import difflib
import os
import sys
from importlib import import_module

# The modules are imported only when their command runs: --help should not wait for torch.
_GROUPS = {
    "train and measure": {
        "quickstart": "train, evaluate and name an MSAE on synthetic scenes in a few minutes",
        "extract": "embed images or captions with CLIP, SigLIP or DINOv2",
        "train": "train an MSAE on embeddings and write its metrics and model card",
        "evaluate": "evaluate an MSAE at several numbers of active latents",
        "name": "name the latents from a vocabulary, with evidence for each name",
    },
    "use": {
        "label": "label latents with LINE, from a vocabulary or with a language model",
        "explain": "list the concepts in an image or text, or explain why two of them match",
        "search": "search a dataset by example, by concepts or by an edited example",
        "bias": "test which concepts drive a classifier",
        "swordbench": "compare steering methods: do they remove a concept, and nothing else?",
        "red-team": "find faults of a model of hyperspectral patches or a classifier of embeddings",
        "doctor": "check a model for problems, and list what to run next",
        "report": "write an HTML page about a model: quality, concepts, bias and searches",
        "demo": "open the concept explorer in a browser",
    },
    "share": {
        "released": "list the released models, which every command accepts by name",
        "push": "publish a model on the Hub with its card, metrics and names",
        "push-space": "publish the concept explorer as a Space that shows your model",
        "convert": "convert a checkpoint of another library, or an MSAE to SAELens' format",
    },
}
_COMMANDS = {name: what for group in _GROUPS.values() for name, what in group.items()}


def usage() -> str:
    """Return what `hf-msae --help` prints."""
    lines = ["usage: hf-msae COMMAND [--help]"]
    for title, commands in _GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<12}{what}" for name, what in commands.items())]
    return "\n".join([*lines, "", "`hf-msae COMMAND --help` explains a command and its flags."])


def main(argv: list[str] | None = None) -> None:
    """Run the command named by the first argument with the other arguments."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    name, *rest = arguments
    if name == "--version":
        from .. import __version__

        print(__version__)
        return
    if name not in _COMMANDS:
        near = difflib.get_close_matches(name, _COMMANDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        sys.exit(f"hf-msae: there is no command {name!r}{hint}\n\n{usage()}")
    try:
        import_module(f".{name.replace('-', '_')}", __package__).main(rest)
        sys.stdout.flush()
    except KeyboardInterrupt:  # while the command's modules are imported: it tells of any other itself
        sys.exit(128 + 2)
    except BrokenPipeError:  # what reads the output, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be written at exit
        sys.exit(128 + 13)  # as if SIGPIPE had ended the process
