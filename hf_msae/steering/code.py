"""What a method computes, as a hash: a cell that was measured with other code is measured again."""

from __future__ import annotations

import hashlib
import types
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

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
            digest.update("\n".join(_facts(each, each.__module__, set())).encode())
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


def _facts(value: Any, module: str, seen: set[int]) -> list[str]:
    """Return lines that are equal for values that compute the same."""
    if id(value) in seen:
        return []
    value = getattr(value, "__func__", value)  # of static methods and class methods
    if isinstance(value, property):
        return [line for part in (value.fget, value.fset) if part for line in _facts(part, module, seen)]
    if isinstance(value, type):
        if value.__module__ != module:
            return [f"class {value.__module__}.{value.__qualname__}"]
        seen.add(id(value))
        own = {name: each for name, each in sorted(vars(value).items()) if not name.startswith("__") or callable(each)}
        return [line for name, each in own.items() for line in (name, *_facts(each, module, seen))]
    if isinstance(value, types.FunctionType):
        if value.__module__ not in (module, None):
            return [f"function {value.__module__}.{value.__qualname__}"]
        seen.add(id(value))
        lines, names = _of_code(value.__code__)
        held = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        held += [value.__defaults__, value.__kwdefaults__]
        held += [value.__globals__[name] for name in sorted(names) if name in value.__globals__]
        return lines + [line for each in held for line in _facts(each, module, seen)]
    if isinstance(value, np.ndarray):
        return [f"array {value.dtype} {value.shape} {hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()}"]
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        return [repr(value)]
    if isinstance(value, (tuple, list)):
        return [line for each in value for line in _facts(each, module, seen)]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))  # their order differs between processes
    if isinstance(value, dict):
        return [line for name, each in value.items() for line in (repr(name), *_facts(each, module, seen))]
    return [f"{type(value).__module__}.{type(value).__qualname__}"]


def _of_code(code: types.CodeType) -> tuple[list[str], set[str]]:
    """Return what a code object does, with the functions inside it, and all names that it uses."""
    lines, names = [code.co_code.hex()], {*code.co_names}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner, more = _of_code(constant)
            lines, names = lines + inner, names | more
        else:
            lines += _facts(constant, "", set())
    return [*lines, *code.co_names], names


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # an empty cell
        return False
