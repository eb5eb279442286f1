"""The reader of pickled arrays: what NumPy writes, and what somebody might write instead."""

import os
import pickle
import pickletools
import random
import struct
import tracemalloc

import numpy as np
import pytest
from harming import damaged

from dreamer_bird.commands import pickles
from dreamer_bird.commands.pickles import read_arrays
from dreamer_bird.errors import ConfigError

ARRAYS = (
    np.int64(2**40),
    np.arange(6, dtype="f4").reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype="f4").reshape(2, 3)),
    np.arange(12, dtype="f8").reshape(4, 3)[::2],
    np.array(1.5, "f4"),
    np.arange(3, dtype=">i4"),
    np.float32(-0.5),
    np.arange(300, dtype="f2").reshape(5, 5, 3, 4),
)


@pytest.fixture
def read(tmp_path):
    """Read some bytes as a file; also asserts that nothing appears beside it."""

    def read(content):
        path = tmp_path / "variables.pkl"
        path.write_bytes(content)
        try:
            return read_arrays(path)
        except ConfigError as error:
            assert str(error).startswith(f"{path}: ") and len(str(error)) < 300 + len(str(path))
            raise
        finally:
            assert list(tmp_path.iterdir()) == [path]

    return read


@pytest.mark.parametrize("old", [False, True], ids=["NumPy 2", "NumPy 1"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_it_reads_what_numpy_writes(read, protocol, old):
    content = pickle.dumps(ARRAYS, protocol)
    if old:  # a module was named otherwise, which is one letter shorter
        content = pickletools.optimize(content)
        for module in (b"multiarray", b"numeric"):
            new_name, old_name = b"numpy._core." + module, b"numpy.core." + module
            content = content.replace(
                bytes([len(new_name)]) + new_name, bytes([len(old_name)]) + old_name
            ).replace(b"c" + new_name, b"c" + old_name)
        content = b"".join(unframed(content))
        assert b"numpy.core" in content and b"_core" not in content
    found = read(content)
    assert len(found) == len(ARRAYS)
    for array, expected in zip(found, ARRAYS, strict=True):
        assert array.dtype == expected.dtype and array.shape == expected.shape
        np.testing.assert_array_equal(array, expected)


def unframed(content):
    """Leave frames out, whose lengths a changed name makes wrong."""
    positions = [(op.name, at) for op, _, at in pickletools.genops(content)]
    ends = [at for _, at in positions[1:]] + [len(content)]
    for (name, start), end in zip(positions, ends, strict=True):
        if name != "FRAME":
            yield content[start:end]


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def named(module, name, *arguments):
    """The pickle of a call by name, with arguments, in a tuple."""
    body = b"".join(pickle.dumps(argument, 3)[2:-1] for argument in arguments)
    return b"\x80\x03(c" + f"{module}\n{name}\n(".encode() + body + b"tRt."


def test_a_pickle_that_runs_a_command_runs_none(read, tmp_path):
    trace = tmp_path / "trace"
    content = pickle.dumps((np.zeros(3), Call(os.system, f"touch {trace}")))
    pickle.loads(content)
    assert trace.exists()  # it would
    trace.unlink()
    with pytest.raises(ConfigError, match=r"wants to call posix.system, which is no part of"):
        read(content)


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("builtins", "eval", ["open('trace', 'w')"]),
        ("builtins", "exec", ["open('trace', 'w')"]),
        ("builtins", "getattr", [1, "real"]),
        ("builtins", "bytearray", [2**31 - 1]),
        ("os", "mkdir", ["trace"]),
        ("subprocess", "Popen", [("touch", "trace")]),
        ("pickle", "loads", [b"N."]),
        ("numpy", "load", ["/dev/zero"]),
        ("numpy", "fromfile", ["/dev/zero"]),
        ("numpy", "zeros", [2**31 - 1]),
        ("numpy", "ndarray.tofile", ["trace"]),
        ("numpy.core.multiarray", "fromfile", ["/dev/zero"]),
        ("numpy._core.multiarray", "empty", [2**31 - 1]),
        ("numpy._core.multiarray", "ndarray.tofile", ["trace"]),
        ("numpy.core.numeric", "__builtins__", []),
        ("numpy.testing._private.utils", "runstring", ["open('trace', 'w')", None]),
        ("numpy.core._internal", "eval", ["open('trace', 'w')"]),
        ("_codecs", "encode", ["trace", "latin1"]),
        ("copyreg", "_reconstructor", [1, 2, 3]),
        ("x" * 5000, "y", []),
        ("dreamer_bird.commands.pickles", "Path.unlink", ["trace"]),
    ],
)
def test_nothing_is_called_but_what_makes_arrays(
    read, tmp_path, monkeypatch, module, name, arguments
):
    monkeypatch.chdir(tmp_path)  # where `read` sees whatever appears
    with pytest.raises(ConfigError, match="wants to call "):
        read(named(module, name, *arguments))


DTYPE = (
    b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4K\x00K\x01tR(K\x03X\x01\x00\x00\x00<NNN"
    b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"


def state(shape, data=b"C\x04\x00\x00\x80?", dtype=DTYPE):
    """The opcodes that fill an array."""
    return b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


def test_the_parts_of_the_cases_below_make_an_array(read):
    (array,) = read(b"\x80\x03(" + EMPTY + state(b"(K\x01t") + b"t.")
    np.testing.assert_array_equal(array, np.array([1], "f4"))


LARGE = struct.pack("<i", 2**31 - 1)


@pytest.mark.parametrize(
    "body",
    {
        "an array that is not filled": EMPTY,
        "an array of any shape": EMPTY + state(b"(J\xff\xff\xff\xfft"),
        "an array of gigabytes": EMPTY + state(b"(J" + LARGE + b"t"),
        "of more than there are": EMPTY + state(b"(" + (b"J" + LARGE) * 40 + b"t"),
        "of no rows and many columns": EMPTY + state(b"(K\x00J" + LARGE + b"t", b"C\x00"),
        "a shape of truths": EMPTY + state(b"(\x88t"),
        "a shape of shapes": EMPTY + state(b"((K\x01tt"),
        "text for its bytes": EMPTY + state(b"(K\x01t", b"X\x04\x00\x00\x00abcd"),
        "a number for its bytes": EMPTY + state(b"(K\x01t", b"K\x04"),
        "another array for its type": EMPTY + state(b"(K\x01t", dtype=EMPTY),
        "a class for its type": EMPTY + state(b"(K\x01t", dtype=b"cnumpy\ndtype\n"),
        "its type without an order": EMPTY + state(b"(K\x01t", dtype=DTYPE.replace(b"<", b"|")),
        "a type of fields": EMPTY + state(b"(K\x01t", dtype=DTYPE.replace(b"NNN", b"N(K\x01tN")),
        "objects": EMPTY + state(b"(K\x01t", dtype=DTYPE.replace(b"f4", b"O8")),
        "text": EMPTY + state(b"(K\x01t", dtype=DTYPE.replace(b"f4", b"U1")),
        "times": EMPTY + state(b"(K\x01t", dtype=DTYPE.replace(b"f4", b"M8")),
        "bytes of any number": EMPTY + state(b"(K\x01t", dtype=DTYPE.replace(b"f4", b"V4")),
        "a scalar of two": b"cnumpy.core.multiarray\nscalar\n("
        + DTYPE
        + b"C\x08"
        + bytes(8)
        + b"tR",
        "a scalar of a list": b"cnumpy.core.multiarray\nscalar\n(" + DTYPE + b"(ttR",
        "odd arguments": b"cnumpy.core.multiarray\n_reconstruct\n(tR",
        "a class is filled": b"cnumpy\ndtype\n" + b"(K\x03tb",
        "a function gets attributes": b"cnumpy.core.multiarray\nscalar\n(NNtb",
        "a function": b"cnumpy.core.multiarray\nscalar\n",
        "no array": b"K\x01",
        "nothing": b"N",
        "a tuple in it": b"(" + EMPTY + state(b"(K\x01t") + b"t",
        "what was never put there": b"h\x07",
        "an array too few": b"b",
        "a call of an array": EMPTY + state(b"(K\x01t") + b"(tR",
        "a long number": b"L" + b"9" * 5000 + b"L\n",
        "a number of that length": b"\x8b" + LARGE + b"1",
        "a string of that length": b"B" + LARGE + b"1",
        "and of more": b"\x8e" + struct.pack("<q", 2**62) + b"1",
        "and of less than nothing": b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff1",
        "a buffer of that length": b"\x96" + struct.pack("<q", 2**40) + b"1",
        "text of that length": b"X" + LARGE + b"1",
        "a frame of that length": b"\x95" + struct.pack("<q", 2**40) + b"N",
        "a far place in the memo": b"Nr" + struct.pack("<i", 2 * 10**7),
        "the farthest": b"Nr" + LARGE,
        "a far place, from there": b"Nj" + LARGE,
        "a million of nothing": b"N" * 10**6,
        "a million marks": b"(" * 10**6,
        "depth": b"(" + b"t(" * 40_000 + b"t",
        "depth of one": b")" + b"\x85" * 90_000,
        "a tower of pairs": b")" + b"q\x01h\x01\x86" * 20_000,
        "as a shape": EMPTY + state(b")" + b"q\x01h\x01\x86" * 5_000),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_what_is_no_array_is_refused_for_little_memory(read, body):
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError):
            read(b"\x80\x04(" + body[1] + b"t.")
        assert tracemalloc.get_traced_memory()[1] < 40e6  # a million opcodes are 1 MB, twice
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    {
        "a persistent name": b"Pposix\n",
        "another persistent name": b"K\x01Q",
        "a registered class": b"\x82\x01",
        "more of them": b"\x83\x01\x00",
        "even more of them": b"\x84\x01\x00\x00\x00",
        "an instance": b"(inumpy\ndtype\n",
        "an instance of the newer kind": b"cnumpy\ndtype\n)\x81",
        "a dictionary": b"}",
        "a set": b"\x8f",
        "a list": b"]",
        "as a key, whose hash takes ages": b"})" + b"q\x01h\x01\x86" * 60 + b"Ns",
    }.items(),
    ids=lambda pair: pair[0],
)
def test_what_no_array_takes_is_refused_before_anything_is_done(read, body):
    with pytest.raises(ConfigError, match=r"holds [A-Z0-9_]+, which is no part of an array"):
        read(b"\x80\x04(" + EMPTY + state(b"(K\x01t") + body[1] + b"t.")


def test_objects_are_refused_as_numpy_writes_them(read):
    for array in (np.array([{}, None]), np.array(["a"]), np.zeros(2, "i4,f4"), np.zeros(2, bool)):
        with pytest.raises(ConfigError):
            read(pickle.dumps((array,), 4))
    with pytest.raises(ConfigError, match="no part of an array"):
        read(pickle.dumps((np.ma.zeros(2),)))
    with pytest.raises(ConfigError, match="something else than a tuple of arrays"):
        read(pickle.dumps(np.zeros(2)))


def test_damaged_files(read, fuzz):
    """Cut anywhere, or harmed anywhere: read, or refused in a line."""
    content = pickle.dumps(ARRAYS, 4)
    for length in range(len(content)):
        with pytest.raises(ConfigError):
            read(content[:length])
    rng = random.Random(0)
    outcomes = set()
    for protocol in (3, 4, 5):
        content = pickle.dumps(ARRAYS, protocol)
        for _ in range(2 * fuzz):
            try:
                read(damaged(content, rng))
                outcomes.add("read")
            except ConfigError:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(100))
    monkeypatch.setattr(pickles, "LARGEST", 99)
    for name, reason in (
        ("no", "no such file"),
        ("pipe", "is not a file"),
        ("large", "more than 99"),
    ):
        with pytest.raises(ConfigError, match=f"{tmp_path / name}: .*{reason}"):
            read_arrays(tmp_path / name)
    with pytest.raises(ConfigError, match="is not a file"):
        read_arrays(tmp_path)
