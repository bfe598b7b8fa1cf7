"""Modules of benchmarks/, imported as when a script is run."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch):
    """A function that imports a module of benchmarks/ anew."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = {path.stem for path in BENCHMARKS.glob("*.py")}

    def forget():
        for name in names & set(sys.modules):
            if str(BENCHMARKS) in (getattr(sys.modules[name], "__file__", None) or ""):
                del sys.modules[name]

    def fresh(name):
        forget()
        return importlib.import_module(name)

    yield fresh
    forget()
