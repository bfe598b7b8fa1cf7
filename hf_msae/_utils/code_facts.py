"""What code computes, as lines of text: they change with what a class or function does, and with nothing else."""

from __future__ import annotations

import hashlib
import inspect
import sys
import types
import uuid
from functools import cached_property, partial, partialmethod
from pathlib import Path, PurePath
from typing import Any, TypeVar

import joblib
import numpy as np


def code_of_parts(estimator: Any) -> str:
    """Return a hash of the code of an estimator, of its parameters and of what it holds, in any order.

    A class of a file stands for the whole file. Functions, and classes without a file, such as those that are typed
    into a notebook, are followed to what they use of their own module.
    """
    parameters = estimator.get_params() if hasattr(estimator, "get_params") else {}
    parts = [estimator, *parameters.values(), *getattr(estimator, "__dict__", {}).values()]
    is_code = (type, types.FunctionType)
    kinds = {each if isinstance(each, is_code) else type(each) for each in parts}
    return hashlib.sha256("".join(sorted(map(_code_of, kinds))).encode()).hexdigest()


def _code_of(value: type | types.FunctionType) -> str:
    """Return a hash of a class with its bases, or of a function."""
    if isinstance(value, types.FunctionType):
        return hashlib.sha256("\n".join(code_facts(value, value.__module__)).encode()).hexdigest()
    digest = hashlib.sha256()
    for each in value.__mro__[:-1]:
        try:
            if each.__module__ == "__main__":  # whose file, if there is one, need not hold what was typed in
                raise OSError
            digest.update(Path(inspect.getfile(each)).read_bytes())
        except (TypeError, OSError):
            digest.update("\n".join(code_facts(each, each.__module__)).encode())
    return digest.hexdigest()


def code_facts(value: Any, module: str, seen: set[int] | None = None) -> list[str]:
    """Return lines that are equal for values that compute the same.

    Functions, classes and constants of `module` are followed to those that they use; of what they import, only the
    name counts. A value of which nothing can be said, such as a lock, gives a line that is never the same again.
    """
    seen = set() if seen is None else seen
    if id(value) in seen:
        return []
    if isinstance(value, types.MethodType):
        return [*code_facts(value.__func__, module, seen), *code_facts(value.__self__, module, seen)]
    value = getattr(value, "__func__", value)  # of static methods and class methods
    if isinstance(value, property):
        return [line for part in (value.fget, value.fset) if part for line in code_facts(part, module, seen)]
    if isinstance(value, type):
        if value.__module__ != module:
            return [f"class {value.__module__}.{value.__qualname__}"]
        seen.add(id(value))
        own = {name: each for name, each in sorted(vars(value).items()) if not name.startswith("__") or callable(each)}
        own.pop("_abc_impl", None)  # which abstract classes have to remember their subclasses
        return [line for name, each in own.items() for line in (name, *code_facts(each, module, seen))]
    if isinstance(value, types.FunctionType):
        if value.__module__ not in (module, None):
            return [f"function {value.__module__}.{value.__qualname__}"]
        seen.add(id(value))
        lines, names = _of_code(value.__code__)
        held = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        held += [value.__defaults__, value.__kwdefaults__]
        held += [value.__globals__[name] for name in sorted(names) if name in value.__globals__]
        return lines + [line for each in held for line in code_facts(each, module, seen)]
    if isinstance(value, (partial, partialmethod)):
        held = [value.func, value.args, value.keywords]
        return ["partial", *(line for each in held for line in code_facts(each, module, seen))]
    if isinstance(value, cached_property):
        return code_facts(value.func, module, seen)
    if hasattr(value, "__wrapped__"):  # such as what functools.cache makes of a function
        return [_name(type(value)), *code_facts(value.__wrapped__, module, seen)]
    if isinstance(value, (types.ModuleType, TypeVar)):
        return [f"{type(value).__name__} {value.__name__}"]
    if hasattr(value, "__qualname__"):  # of what is not written in Python
        return [_name(value)]
    torch = sys.modules.get("torch")  # without which there is no tensor
    if torch is not None and isinstance(value, torch.Tensor):
        held = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return [f"tensor {value.dtype} {tuple(value.shape)}", *code_facts(held, module, seen)]
    if torch is not None and isinstance(value, torch.nn.Module):  # pickled, it differs between processes
        seen.add(id(value))
        return [*code_facts(type(value), module, seen), *code_facts(vars(value), module, seen)]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [f"array {value.dtype} {value.shape} {hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()}"]
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None), PurePath)):
        return [repr(value)]
    if isinstance(value, (tuple, list)):
        return [line for each in value for line in code_facts(each, module, seen)]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))  # their order differs between processes
    if isinstance(value, dict):
        return [line for name, each in value.items() for line in (repr(name), *code_facts(each, module, seen))]
    return _of_object(value, module, seen)


def _of_object(value: Any, module: str, seen: set[int]) -> list[str]:
    """Return lines of the class of any other object, and of what it holds: its attributes, or how it is pickled."""
    seen.add(id(value))
    held, kind = getattr(value, "__dict__", {}), type(value)
    lines = code_facts(kind, module, seen)
    ways = ("__reduce_ex__", "__reduce__", "__getstate__")  # in which classes say what pickle takes of them
    is_plain = all(getattr(kind, way, None) is getattr(object, way, None) for way in ways)
    if held and (kind.__module__ == module or is_plain):
        return lines + code_facts(held, module, seen)
    try:
        return [*lines, joblib.hash(value)]
    except Exception:  # whatever the object raises when it is pickled
        return [*lines, uuid.uuid4().hex]


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', None)}.{value.__qualname__}"


def _of_code(code: types.CodeType) -> tuple[list[str], set[str]]:
    """Return what a code object does, with the functions inside it, and all names that it uses."""
    lines, names = [code.co_code.hex()], {*code.co_names}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner, more = _of_code(constant)
            lines, names = lines + inner, names | more
        else:
            lines += code_facts(constant, "")
    return [*lines, *code.co_names], names


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # an empty cell
        return False
