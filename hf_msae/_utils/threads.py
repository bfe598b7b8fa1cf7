"""Threads that do not wait for one another where they are more than cores."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = "10000"
"""How often a thread looks whether the others are done before it sleeps, where threads are more than cores."""


def fit_threads_to_cores(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set variables that OpenMP reads when torch is imported, as far as they are not set.

    Torch takes as many threads as the machine has cores, even where a container or an affinity mask gives the process
    fewer. Threads that have finished their part of an operation then take the cores from those that they wait for:
    beside other work, training was 30 times slower than its share of the machine (`benchmarks/busy_machine.py`).
    """
    from joblib import cpu_count  # knows affinity masks and quotas of containers

    cores = cpu_count()
    threads = environment.get("OMP_NUM_THREADS", "")
    if not threads and cores < (os.cpu_count() or 1):
        environment["OMP_NUM_THREADS"] = str(cores)
    elif threads.isdecimal() and int(threads) > cores:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
