"""Curves, and the metrics.jsonl files they come from: any number of lines in bounded memory."""

import gzip
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import orjson

LIMIT = 100_000  # points of a curve, at most
_LARGEST = 1e100  # beyond what a network computes; larger ones overflow in means and figures
_CHUNK = 2**18  # bytes parsed at once; more than fits in a cache is slower

# Python writes tokens that JSON does not have. Inside a text they do no harm: texts are ignored.
NON_FINITE = re.compile(rb"([:,\[]\s*)(?:-?Infinity|NaN)(?=\s*[,}\]])")


class Curve(NamedTuple):
    """Values [N] (finite) at environment steps [N] (ascending, unique)."""

    step: np.ndarray
    value: np.ndarray


def make_curve(steps: np.ndarray, values: np.ndarray) -> Curve:
    """Sort points in the order written; the last of a whole step wins, what is not finite goes.

    Not finite is also what float32 could never hold, beyond 1e100.
    """
    series = Series()
    series.add(np.floor(steps), values, np.arange(len(steps)))
    return series.curve()


def open_log(path: Path) -> BinaryIO:
    """Open a file to be read, as it is or unpacked where it is of gzip."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def read_lines(path: Path) -> tuple[dict[str, Curve], int, int]:
    """Read the numbers in a file of JSON objects, one a line, each with a `step`.

    Returns the curves by key, the number of lines that are not blank, and of those dropped.

    `Infinity`, `NaN`, null and values that are no numbers are left out of the curves. A line that
    is no JSON object or has no `step` of at least 0 is dropped. Of a repeated step, as a restart
    leaves behind, the last value counts.

    Memory stays bounded: a key with more than `LIMIT` points is thinned, to means in bins of equal
    width that doubles as often as needed, each mean at the mean step of its points. From then on a
    repeated step adds to the mean of its bin instead of replacing the older value.
    """
    series: dict[str, Series] = defaultdict(Series)
    total = used = 0
    for objects, broken in _chunks(path):
        groups = defaultdict(list)  # of lines with the same keys, which become arrays at once
        for number, keys in enumerate(map(tuple, objects)):
            groups[keys].append(number)
        for keys, numbers in groups.items():
            if "step" in keys:
                table = _numbers([objects[number] for number in numbers])
                steps, lines = table[keys.index("step")], np.add(numbers, total)
                usable = (steps >= 0) & (steps < 2**53)
                if not usable.all():
                    table, steps, lines = table[:, usable], steps[usable], lines[usable]
                steps, used = np.floor(steps), used + len(steps)
                for key, values in zip(keys, table, strict=True):
                    if key != "step":
                        series[key].add(steps, values, lines)
        total += len(objects) + broken
    curves = {key: points.curve() for key, points in series.items()}
    curves = {key: curve for key, curve in curves.items() if len(curve.step)}
    return curves, total, total - used


class Series:
    """The points of one key by step, thinned when there are too many."""

    def __init__(self):
        self._shift = 0  # 2 ** shift environment steps share a mean
        self._kept = np.empty((4, 0))  # step, value, line number, number of points in the mean
        self._waiting: list[tuple[np.ndarray, ...]] = []
        self._count = 0  # of points that wait

    def add(self, steps: np.ndarray, values: np.ndarray, lines: np.ndarray) -> None:
        """Add points [N] in any order."""
        self._waiting.append((steps, values, lines))
        self._count += len(steps)
        if self._count > LIMIT:
            self._merge()

    def curve(self) -> Curve:
        if self._waiting:
            self._merge()
        return Curve(self._kept[0].astype(np.int64), self._kept[1].copy())

    def _merge(self) -> None:
        step, value, line = map(np.concatenate, zip(*self._waiting, strict=True))
        points = np.stack([step, value, line, np.ones(len(step))])[:, np.abs(value) < _LARGEST]
        self._waiting, self._count = [], 0
        if not self._shift:
            points = _last_of_each_step(np.concatenate([self._kept, points], axis=1))
        else:
            points = np.concatenate([self._kept, _last_of_each_step(points)], axis=1)
            points = points[:, np.argsort(points[0], kind="stable")]
        bins = points[0].astype(np.int64) >> self._shift
        while len(starts := np.flatnonzero(np.diff(bins, prepend=-1))) > LIMIT:
            bins >>= 1
            self._shift += 1
        self._kept = _means(points, starts) if self._shift else points


def _last_of_each_step(points: np.ndarray) -> np.ndarray:
    if (np.diff(points[0]) > 0).all():  # as nearly always
        return points
    points = points[:, np.lexsort((points[2], points[0]))]
    return points[:, np.diff(points[0], append=np.inf) > 0]


def _means(points: np.ndarray, starts: np.ndarray) -> np.ndarray:
    step, value, line, weight = points
    weights = np.add.reduceat(weight, starts)
    steps = np.add.reduceat(step * weight, starts) / weights
    values = np.add.reduceat(value * weight, starts) / weights
    return np.stack([np.floor(steps), values, np.maximum.reduceat(line, starts), weights])


def _chunks(path: Path) -> Iterator[tuple[list[dict], int]]:
    """Yield objects, and the number of lines among them that are none."""
    with open_log(path) as file:
        if file.read(3) != b"\xef\xbb\xbf":  # a byte order mark
            file.seek(0)
        while text := file.read(_CHUNK) + file.readline():
            if b"N" in text or b"I" in text:  # the fast way to see that there are none
                text = NON_FINITE.sub(rb"\1null", text)
            text = text.strip()
            parsed = parse(b"[%b]" % text.replace(b"\n", b","))
            if not isinstance(parsed, list) or len(parsed) != text.count(b"\n") + 1:
                # A line is broken or blank, or spoils its neighbours: one by one.
                parsed = [parse(line) for line in text.split(b"\n") if not line.isspace() and line]
            objects = [value for value in parsed if type(value) is dict]
            yield objects, len(parsed) - len(objects)


def parse(text: bytes) -> object:
    """Return what JSON text holds, None where it is broken."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _numbers(objects: list[dict]) -> np.ndarray:
    """Return the values of objects with the same keys as an array [K, N], NaN for no number."""
    values = list(chain.from_iterable(map(dict.values, objects)))
    if not set(map(type, values)) <= {int, float, type(None)}:
        values = [value if type(value) in (int, float) else None for value in values]
    return np.array(values, float).reshape(len(objects), len(objects[0])).T.copy()
