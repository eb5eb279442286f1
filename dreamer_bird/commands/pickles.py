"""Pickled NumPy arrays, read without doing anything that the pickle asks to be done.

A pickle is a program. This one may load constants, build tuples and call what arrays are made of,
and what it calls are stand-ins that keep a shape, a type and bytes: NumPy sees them when checked.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path

import numpy as np

from dreamer_bird.errors import ConfigError

LARGEST = 2**28  # bytes of a file
MOST_OPCODES = 100_000  # of a file; an array takes some twenty, and each may take some memory
DTYPES = ("f2", "f4", "f8", "i4", "i8")
# What arrays take, in the protocols 3 to 5. Without dictionaries nothing can get an attribute or be
# hashed, which takes ages for a tuple of the same tuple twice, and so on.
OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2"),
    *("SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BYTEARRAY8"),
    *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
}


def read_arrays(path: Path) -> tuple[np.ndarray, ...]:
    """Return the arrays of a pickled tuple of arrays and NumPy's scalars, which become `[]`.

    Takes memory for a few copies of the file, whatever that claims to hold. ConfigError says in a
    line what it holds other than numbers, or that it is damaged.
    """
    content = _content(path)
    try:
        _check_opcodes(content)
        found = _Unpickler(io.BytesIO(content)).load()
        if type(found) is not tuple or not all(type(item) is _Array for item in found):
            raise _RefusedError("holds something else than a tuple of arrays")
        return tuple(item.values for item in found)
    except _RefusedError as error:
        raise ConfigError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle may do anything with a stack and a memo
        raise ConfigError(f"{path}: damaged, or not a pickle ({type(error).__name__})") from None


class _RefusedError(Exception):
    """A pickle that wants more than arrays of numbers."""


class _Dtype:
    """Stands for `numpy.dtype`."""

    __slots__ = ("value",)

    def __init__(self, name: str, align: bool, copy: bool):
        if name not in DTYPES:
            raise _RefusedError(f"holds an array of something else than {', '.join(DTYPES)}")
        self.value = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        if state not in [(3, order, None, None, None, -1, -1, 0) for order in "<>"]:
            raise _RefusedError("holds an array of a type that is not plain numbers")
        self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands for an array that NumPy would make empty and fill afterwards."""

    __slots__ = ("values",)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, by_columns, data = state
        self.values = _from_bytes(data, dtype, shape, "F" if by_columns else "C")


def _from_bytes(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    extents = all(type(extent) is int and extent > 0 for extent in shape)
    if not extents or math.prod(shape) * dtype.value.itemsize != len(data):
        raise _RefusedError("damaged: an array has more or fewer bytes than its shape takes")
    return np.frombuffer(data, dtype.value).reshape(shape, order=order)


def _reconstruct(kind: object, shape: object, typecode: object) -> _Array:
    return _Array()


def _from_buffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.values = _from_bytes(data, dtype, shape, order)
    return array


def _scalar(dtype: _Dtype, data: bytes) -> _Array:
    return _from_buffer(data, dtype, (), "C")


_STAND_INS = {("numpy", "dtype"): _Dtype, ("numpy", "ndarray"): None}
for _core in ("numpy.core", "numpy._core"):  # before NumPy 2, and since
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _STAND_INS:
            wanted = f"{module}.{name}"[:80]
            raise _RefusedError(f"wants to call {wanted}, which is no part of an array; not read")
        return _STAND_INS[module, name]


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise ConfigError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path}: has more than {LARGEST:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _check_opcodes(content: bytes) -> None:
    """Refuse what arrays do not take, and bound what the rest may cost, before any of it is done.

    Constants that claim to be longer than the file are an error of the library here.
    """
    for number, (opcode, value, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in OPCODES:
            raise _RefusedError(f"holds {opcode.name}, which is no part of an array; not read")
        # The memo of the C unpickler is a list that is as long as the largest place in it.
        place = value if opcode.name == "LONG_BINPUT" else 0
        if max(number, place) > MOST_OPCODES:
            raise _RefusedError("holds more parts than any tuple of arrays; not read")
