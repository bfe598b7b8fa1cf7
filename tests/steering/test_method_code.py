"""The hash of what a method computes: it changes with what the method does, and with nothing else."""

import subprocess
import sys

import pytest

from hf_msae.steering import METHODS
from hf_msae.steering.code import code_sha256

SOURCE = """
from functools import cache, cached_property, partial
from pathlib import Path
import numpy as np
import torch
SCALE = 1.0
TABLE = np.zeros(3)
WEIGHTS = torch.full((2,), 5.0)
FOLDER = Path("here")
RATE = np.float32(7)
SHIFT = np.vectorize(lambda x: x + 8)

@cache
def slow(n):
    return n - 4

def power(x, n):
    return x ** n

of_third = partial(power, n=3)

def helper(x):
    return x * 2

def outside(x):
    return [y + 1 for y in x]

class Mine(Base):
    method = "mine"
    limit = 3

    def _direction(self, X, concept, amount=1.0):
        used = slow(3), of_third(X), WEIGHTS, FOLDER, RATE, SHIFT
        return helper(X) * 0.5 * SCALE + TABLE + amount

    @cached_property
    def later(self):
        return 6
"""


def hash_of(source):
    known = {"Base": METHODS["mean_difference"]}
    exec(source, known)
    return code_sha256(known["Mine"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x * 2", "x * 3"),
        ("0.5", "1.0"),
        ("SCALE = 1.0", "SCALE = 2.0"),
        ("zeros", "ones"),
        ("amount=1.0", "amount=2.0"),
        ("limit = 3", "limit = 4"),
        ("helper(X) *", "helper(X) +"),
        ("n - 4", "n - 5"),
        ("x ** n", "x // n"),
        ("n=3", "n=2"),
        ("5.0", "5.5"),
        ("here", "there"),
        ("return 6", "return 7"),
        ("float32(7)", "float32(8)"),
        ("x + 8", "x + 9"),
    ],
)
def test_a_method_that_computes_something_else_has_another_hash(before, after):
    assert SOURCE.count(before) == 1
    assert hash_of(SOURCE.replace(before, after)) != hash_of(SOURCE)


@pytest.mark.parametrize(("before", "after"), [("y + 1", "y + 2"), ("\nclass", "\n\n# a comment\nclass")])
def test_what_it_does_not_use_does_not_matter(before, after):
    assert hash_of(SOURCE.replace(before, after)) == hash_of(SOURCE)


def test_a_method_with_what_cannot_be_known_is_always_measured_again():
    unknown = "import threading\n" + SOURCE.replace("SCALE = 1.0", "SCALE = threading.Lock()")
    assert hash_of(unknown) != hash_of(unknown)
    assert all(code_sha256(cls) == code_sha256(cls) for cls in METHODS.values())


@pytest.mark.slow
def test_another_process_finds_the_same():
    code = f"""
from hf_msae.steering import METHODS
from hf_msae.steering.code import code_sha256
known = {{"Base": METHODS["mean_difference"]}}
exec({SOURCE!r}, known)
print(code_sha256(known["Mine"]))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == hash_of(SOURCE)
    assert hash_of(SOURCE) != code_sha256(METHODS["mean_difference"]) != code_sha256(METHODS["lda"])
