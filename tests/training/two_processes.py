"""Run several commands in the same processes: `two_processes.py '[["train", [FLAG, ...]], ...]'`."""

import json
import sys
from importlib import import_module

from accelerate.state import PartialState


def run(commands):
    PartialState.destroy_process_group = lambda *_: None  # the next command uses it too
    for name, argv in commands:
        import_module(f"hf_msae.cli.{name}").main(argv)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
