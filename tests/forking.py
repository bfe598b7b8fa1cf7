"""Processes that begin with everything imported: a server that has not computed anything yet forks them."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["hf_msae.training.finish", "hf_msae.training.sweep", "hf_msae.neuron_labels.label"])


def start(function: Callable, *arguments, output: str | Path = os.devnull) -> BaseProcess:
    """Run a function of a module in a process of its own, which computes on one thread and prints to a file."""
    process = CONTEXT.Process(target=_run, args=(function, arguments, str(output)))
    process.start()
    return process


def end(process: BaseProcess, seconds: float = 240) -> int | None:
    """Wait for a process to end, and return its exit code."""
    process.join(seconds)
    return process.exitcode


def _run(function: Callable, arguments: tuple, output: str) -> None:
    import torch

    with open(output, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    function(*arguments)
