"""What a method computes, as a hash: a cell that was measured with other code is measured again."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from .._utils.code_facts import code_facts

_PACKAGE = __package__


def code_sha256(cls: type) -> str:
    """Return the SHA-256 of all that a method's class computes.

    For a class of this package it is the code of the whole package, on which its figures depend too. For any other,
    the functions of the class and of its bases are followed to the functions, classes and constants of their own
    module that they use, whether there is a file of it or it was typed in. What they import is not followed.
    """
    digest = hashlib.sha256(_package_sha256().encode())
    for each in cls.__mro__:
        if each is not object and not each.__module__.startswith(f"{_PACKAGE}."):
            digest.update("\n".join(code_facts(each, each.__module__)).encode())
        elif each is not object:
            digest.update(each.__qualname__.encode())
    return digest.hexdigest()


@cache
def _package_sha256() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        if "tasks" not in path.relative_to(folder).parts:  # the data of a task have a hash of their own
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
