"""Pickled NumPy arrays, read without doing anything that the pickle asks to be done.

A pickle is a program, and it may be anybody's. This one may load constants and build tuples; what
it calls is only noted down, and its arrays are made from that.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamer_bird.errors import ConfigError

LARGEST = 2**28  # bytes of a file
# Opcodes of a file, and places in its memo; an array takes some twenty, and each may take memory.
MOST = 100_000
MOST_EXTENTS = 8  # of an array
DTYPES = ("f2", "f4", "f8", "i4", "i8")
# What arrays take, in the protocols 3 to 5. Without dictionaries and sets nothing gets an attribute
# or is hashed, which takes ages for a tuple of the same tuple twice, and so on.
OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2"),
    *("SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BYTEARRAY8"),
    *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
}
# Of the module `numpy.core` before NumPy 2, `numpy._core` since.
CALLS = (
    r"numpy (dtype|ndarray)|numpy\._?core\.(multiarray (_reconstruct|scalar)|numeric _frombuffer)"
)


def read_arrays(path: Path) -> tuple[np.ndarray, ...]:
    """Return the arrays of a pickled tuple of arrays and NumPy's scalars, which become `[]`.

    Takes memory for a few copies of the file, whatever that claims to hold. ConfigError says in a
    line what it holds other than numbers, or that it is damaged.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"has more than {LARGEST:,} bytes")
        content = path.read_bytes()
        _check_opcodes(content)
        found = _Unpickler(io.BytesIO(content)).load()
        if type(found) is not tuple:
            raise ConfigError("holds something else than a tuple of arrays")
        return tuple(map(_array, found))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except Exception as error:  # a damaged pickle may do anything with a stack and a memo
        raise ConfigError(f"{path}: damaged, or not a pickle ({type(error).__name__})") from None


@dataclass
class _Call:
    """A call that a pickle wants, and the state that its result shall get."""

    name: str
    arguments: tuple
    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., _Call]:
        if not re.fullmatch(CALLS, f"{module} {name}"):
            wanted = f"{module}.{name}"[:80]
            raise ConfigError(f"wants to call {wanted}, which is no part of an array; not read")
        return lambda *arguments: _Call(name, arguments)


def _array(found: object) -> np.ndarray:
    """Return the array that a pickle would have made, once its parts are seen to fit."""
    match found:
        case _Call("_reconstruct", _, (_, shape, dtype, by_columns, data)):
            order = "F" if by_columns else "C"
        case _Call("_frombuffer", (data, dtype, shape, "C" | "F" as order), None):
            pass
        case _Call("scalar", (dtype, data), None):
            shape, order = (), "C"
        case _:
            raise ConfigError("holds something else than a tuple of arrays")
    match dtype:
        case _Call("dtype", (name, _, _), (3, "<" | ">" as sign, None, None, None, -1, -1, 0)) if (
            name in DTYPES
        ):
            numbers = np.dtype(name).newbyteorder(sign)
        case _:
            raise ConfigError(f"holds an array of something else than {', '.join(DTYPES)}")
    extents = len(shape) <= MOST_EXTENTS and all(type(each) is int and each > 0 for each in shape)
    if not extents or math.prod(shape) * numbers.itemsize != len(data):
        raise ConfigError("damaged: an array has more or fewer bytes than its shape takes")
    return np.frombuffer(data, numbers).reshape(shape, order=order)


def _check_opcodes(content: bytes) -> None:
    """Refuse what arrays do not take, and bound what the rest may cost, before any of it is done.

    Constants that claim to be longer than the file are an error of the library here.
    """
    for number, (opcode, value, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in OPCODES:
            raise ConfigError(f"holds {opcode.name}, which is no part of an array; not read")
        # The memo of the C unpickler is a list that is as long as the largest place in it.
        if max(number, value if opcode.name == "LONG_BINPUT" else 0) > MOST:
            raise ConfigError("holds more parts than any tuple of arrays; not read")
