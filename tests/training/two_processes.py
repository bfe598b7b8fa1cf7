"""Run several commands in the same processes: `two_processes.py '[["train", [FLAG, ...]], ...]'`."""

import atexit
import json
import sys
from importlib import import_module

import torch
from accelerate.state import PartialState

LEFT = "the process group was left"


def _tell():
    if not torch.distributed.is_initialized():
        print(LEFT, flush=True)


def run(commands):
    atexit.register(_tell)  # runs after what the commands register
    PartialState.destroy_process_group = lambda *_: None  # the next command uses it too
    for name, argv in commands:
        import_module(f"hf_msae.cli.{name}").main(argv)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
