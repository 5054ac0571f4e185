"""What a registered method computes, as a digest: its code, and all values that the code gets from elsewhere.

Two methods with one digest do the same. Another digest may be a comment's: then something is measured twice, which is
better than one number for two methods. What libraries hold counts by its name and file, and is not walked through.
"""

import functools
import inspect
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from lesa_jax.base.digests import digest, digest_bytes
from lesa_jax.planning.methods import Method

PROSE = ("summary", "source")  # of a method
LIBRARIES = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "purelib", "platlib"))
PLAIN = (type(None), bool, int, float, complex, str, bytes)
FLAT = (tuple, frozenset, CodeType)  # cannot hold themselves, and whether equal ones are one differs between processes


def method_digest(method: Method) -> str:
    """Of all that decides what a method makes of weights."""
    parts = [field.name for field in fields(method) if field.name not in PROSE]
    return digest({name: list(Walk().lines(getattr(method, name))) for name in parts})


class Walk:
    """A walk through a value and what it refers to; what has been met before is not walked through again."""

    def __init__(self) -> None:
        self.met: dict[int, Any] = {}  # kept, so that no number is given twice

    def lines(self, value: Any) -> Iterator[str]:
        """The value as text, as far as it decides what code does with it."""
        if isinstance(value, PLAIN):
            yield repr(value)
            return
        if id(value) in self.met and not isinstance(value, FLAT):
            yield f"met {type(value).__qualname__}"
            return
        self.met[id(value)] = value
        yield type(value).__qualname__
        yield from self.inside(value)

    def inside(self, value: Any) -> Iterator[str]:
        if isinstance(value, ModuleType):
            yield value.__name__
            yield from self.file(value)
        elif is_library(getattr(value, "__module__", None)) and hasattr(value, "__qualname__"):
            yield f"{value.__module__}.{value.__qualname__}"
            yield from self.file(value)
        elif isinstance(value, CodeType):
            yield digest_bytes(value.co_code)
            yield from self.all(value.co_consts)
            yield from (*value.co_names, *value.co_varnames, *value.co_freevars)
        elif inspect.isfunction(value):
            yield from self.function(value)
        elif inspect.ismethod(value):
            yield from self.all((value.__func__, value.__self__))
        elif isinstance(value, functools.partial):
            yield from self.all((value.func, value.args, value.keywords))
        elif isinstance(value, type):
            yield from self.file(value)
            yield from self.all(value.__dict__[name] for name in sorted(value.__dict__) if name != "__module__")
        elif hasattr(value, "__wrapped__"):  # jax.jit, functools.cache
            yield from self.lines(value.__wrapped__)
        else:
            yield from self.data(value)

    def function(self, value: Any) -> Iterator[str]:
        yield from self.file(value)
        yield from self.all((value.__code__, value.__defaults__, value.__kwdefaults__))
        for cell in value.__closure__ or ():
            yield from self.lines(contents(cell))
        for name in sorted(global_names(value.__code__)):
            if name in value.__globals__:
                yield name
                yield from self.lines(value.__globals__[name])

    def data(self, value: Any) -> Iterator[str]:
        """A container, an array, or an object with attributes."""
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from self.all((key, item))
        elif isinstance(value, list | tuple):
            yield from self.all(value)
        elif isinstance(value, set | frozenset):
            yield from sorted(map(repr, value))
        elif is_dataclass(value):
            yield from self.all((type(value), *(getattr(value, field.name) for field in fields(value))))
        elif hasattr(value, "__array__"):
            array = np.asarray(value)
            yield f"{array.dtype} {array.shape} {digest_bytes(array.tobytes())}"
        else:
            yield from self.all((type(value), getattr(value, "__name__", None), getattr(value, "__dict__", None)))

    def all(self, values: Any) -> Iterator[str]:
        for value in values:
            yield from self.lines(value)

    def file(self, value: Any) -> Iterator[str]:
        """The digest of the file that a value is defined in; nothing where there is none, as in a notebook."""
        try:
            file = inspect.getsourcefile(value)
        except TypeError:
            return
        if file is not None and Path(file).is_file():
            yield digest_bytes(Path(file).read_bytes())


def contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return None


def global_names(code: CodeType) -> set[str]:
    """Names that a function and those inside it may look up among globals."""
    inner = (global_names(const) for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*inner)


@functools.cache
def is_library(module: str | None) -> bool:
    """Whether a module is Python's, installed, or lesa_jax's own: what its version says enough of."""
    if module is None:
        return False
    top = module.split(".")[0]
    if top in (*sys.stdlib_module_names, "lesa_jax"):
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and str(Path(file).resolve()).startswith(LIBRARIES)
