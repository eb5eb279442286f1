"""Harm done to files, for the tests of what becomes of them."""

import random
import warnings

from dreamer_bird.errors import RunError

WORDS = [
    "",
    "0",
    "-1",
    "1e9",
    "nan",
    "inf",
    "null",
    "true",
    "[]",
    "{}",
    "é",
    "\x00",
    "--",
    "=",
    "1_0",
]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, drop or replace a few bytes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        span = rng.choice([1, 1, 4, 64, 1024])
        harm = rng.choice(["flip", "cut", "repeat", "drop", "zeros", "text"])
        if harm == "flip" and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif harm == "cut":
            del data[at:]
        elif harm == "repeat":
            data[at:at] = data[at : at + span]
        elif harm == "drop":
            del data[at : at + span]
        elif harm == "zeros":
            data[at : at + span] = bytes(min(span, len(data) - at))
        elif harm == "text":
            data[at : at + span] = rng.choice(WORDS).encode()
    return bytes(data)


def quietly(function, *arguments):
    """Call a function that may warn, and may raise nothing but the user's errors, of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*arguments)
        except RunError as error:
            assert str(error) and len(str(error).splitlines()) == 1, error
            return None
