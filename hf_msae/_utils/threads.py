"""Threads that fit the cores, and that sleep soon while they wait for one another."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = "10000"
"""How often a thread looks whether the others are done before it sleeps: some 0.1 ms instead of some milliseconds."""


def fit_threads_to_cores(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set variables that OpenMP reads when torch is imported, as far as they are not set.

    Torch takes as many threads as the machine has cores, even where a container gives the process fewer. And a thread
    that has finished its part of an operation takes its core, while it waits, from those that it waits for: beside
    other work, a training was up to 40 times slower than alone instead of twice (`benchmarks/busy_machine.py`).
    """
    from joblib import cpu_count  # knows affinity masks and quotas of containers

    cores = cpu_count()
    if not environment.get("OMP_NUM_THREADS") and cores < (os.cpu_count() or 1):
        environment["OMP_NUM_THREADS"] = str(cores)
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
