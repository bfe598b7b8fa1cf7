"""The `hf-msae` command."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module

# Imported when they are asked for: --help should not wait for torch.
_COMMANDS = {
    "extract": ("extract", "embed images or captions with a CLIP, SigLIP or DINOv2"),
    "train": ("train", "train an MSAE on embeddings, and write it with its metrics and card"),
    "evaluate": ("evaluate", "measure an MSAE at every granularity"),
    "quickstart": ("quickstart", "train, measure and name an MSAE on the embedded world, in a few minutes"),
    "name": ("name", "give latents names from a vocabulary, with the evidence for each"),
    "explain": ("explain", "say what a model sees in an image or text, or why two of them match"),
    "search": ("search", "find rows of a data set by example, by concepts, or by an edited example"),
    "bias": ("bias", "find out which concepts drive a classifier"),
    "report": ("report", "write one HTML page about a model: quality, concepts, bias, searches"),
    "push": ("push", "publish a trained model on the Hub, with its card, metrics and names"),
    "convert": (
        "convert",
        "turn a checkpoint of another library into an MSAE, or an MSAE into SAELens' format",
    ),
    "demo": ("demo", "open the concept explorer in a browser"),
    "push-space": ("push_space", "publish the concept explorer as a Space, showing your model"),
    "released": ("released", "list released models, which every command takes by name"),
}


def usage() -> str:
    """What `hf-msae --help` prints."""
    lines = [f"  {name:<11}{what}" for name, (_, what) in _COMMANDS.items()]
    return "\n".join([
        "usage: hf-msae COMMAND [--help]",
        "",
        "commands:",
        *lines,
    ])  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Entry point of `hf-msae`: hands the rest of the line to the command."""
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
    import_module(f".{_COMMANDS[name][0]}", __package__).main(rest)
