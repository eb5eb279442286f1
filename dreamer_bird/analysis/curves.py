"""Curves, and the metrics.jsonl files they come from: any number of lines in bounded memory."""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson

LIMIT = 100_000  # points of a curve, at most
_LARGEST = 1e100  # beyond what a network computes; larger ones overflow in means and figures
_CHUNK = 2**18  # bytes parsed at once; more than fits in a cache is slower

# Python writes tokens that JSON does not have. Inside a text they do no harm: texts are ignored.
_NON_FINITE = re.compile(rb"([:,\[]\s*)(?:-?Infinity|NaN)(?=\s*[,}\]])")


class Curve(NamedTuple):
    """Values [N] (finite) at environment steps [N] (ascending, unique)."""

    step: np.ndarray
    value: np.ndarray


class Lines(NamedTuple):
    """What a file held: its curves by key, its lines that are not blank, and those dropped."""

    curves: dict[str, Curve]
    total: int
    dropped: int


def make_curve(steps: np.ndarray, values: np.ndarray) -> Curve:
    """Sort points in the order written; the last of a step wins, what is not finite goes.

    Not finite is also what float32 could never hold, beyond 1e100.
    """
    series = _Series()
    series.merge(np.stack([steps, values, np.ones(len(steps)), np.arange(len(steps))]))
    return series.curve()


def read_lines(path: Path) -> Lines:
    """Read the numbers in a file of JSON objects, one a line, each with a `step`.

    `Infinity`, `NaN`, null and values that are no numbers are left out of the curves. A line that
    is no JSON object or has no `step` of at least 0 is dropped. Of a repeated step, as a restart
    leaves behind, the last value counts.

    Memory stays bounded: a key with more than `LIMIT` points is thinned, to means in bins of equal
    width that doubles as often as needed, each mean at the mean step of its points. From then on a
    repeated step adds to the mean of its bin instead of replacing the older value.
    """
    series: dict[str, _Series] = defaultdict(_Series)
    waiting = _Table()
    total = dropped = 0
    for objects, broken in _chunks(path):
        dropped += broken + waiting.add(objects, first=total)
        total += len(objects) + broken
        if len(waiting) > LIMIT:
            waiting.move_to(series)
    waiting.move_to(series)
    curves = {key: points.curve() for key, points in series.items()}
    return Lines({key: curve for key, curve in curves.items() if len(curve.step)}, total, dropped)


class _Table:
    """Lines that wait, as arrays [line number and K values, N], a list for each set of K keys."""

    def __init__(self):
        self._rows: dict[tuple[str, ...], list[np.ndarray]] = defaultdict(list)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, objects: list[dict], first: int) -> int:
        """Add lines, numbered from `first`; return how many lack a usable step."""
        groups = defaultdict(list)
        for index, keys in enumerate(map(tuple, objects)):
            groups[keys].append(index)
        dropped = 0
        for keys, lines in groups.items():
            if "step" not in keys:
                dropped += len(lines)
                continue
            table = np.empty((1 + len(keys), len(lines)))
            table[0] = np.add(lines, first)
            table[1:] = _numbers([objects[index] for index in lines]).T
            step = table[1 + keys.index("step")]
            usable = (step >= 0) & (step < 2**53)
            dropped += len(lines) - int(usable.sum())
            self._rows[keys].append(table if usable.all() else table[:, usable])
        self._length += len(objects)
        return dropped

    def move_to(self, series: dict[str, "_Series"]) -> None:
        """Hand over all points [step, value, 1, line number; N] and be empty."""
        points = defaultdict(list)
        for keys, tables in self._rows.items():
            table = np.concatenate(tables, axis=1)
            for index, key in enumerate(keys, 1):
                if key != "step":
                    step = np.floor(table[1 + keys.index("step")])
                    points[key].append([step, table[index], np.ones(len(step)), table[0]])
        for key, groups in points.items():
            series[key].merge(np.concatenate(groups, axis=1))
        self.__init__()


class _Series:
    """The points of one key by step, thinned when there are too many."""

    def __init__(self):
        self._shift = 0  # 2 ** shift environment steps share a mean
        self._kept = np.empty((4, 0))  # step, value, number of points in the mean, line number

    def curve(self) -> Curve:
        return Curve(self._kept[0].astype(np.int64), self._kept[1].copy())

    def merge(self, points: np.ndarray) -> None:
        """Add points [4, N], of later lines than all before."""
        finite = np.abs(points[1]) < _LARGEST
        points = points if finite.all() else points[:, finite]
        if not self._shift:
            points = _last_of_each_step(np.concatenate([self._kept, points], axis=1))
        else:
            points = np.concatenate([self._kept, _last_of_each_step(points)], axis=1)
            points = points.take(np.argsort(points[0], kind="stable"), axis=1)
        bins = points[0].astype(np.int64) >> self._shift
        while len(starts := _starts(bins)) > LIMIT:
            bins >>= 1
            self._shift += 1
        self._kept = _means(points, starts) if self._shift else points


def _last_of_each_step(points: np.ndarray) -> np.ndarray:
    step, _, _, line = points
    if (step[1:] > step[:-1]).all():  # as nearly always
        return points
    points = points.take(np.lexsort((line, step)), axis=1)
    return points.take(np.append(_starts(points[0])[1:], points.shape[1]) - 1, axis=1)


def _starts(values: np.ndarray) -> np.ndarray:
    """Return where runs of equal values begin."""
    return np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])


def _means(points: np.ndarray, starts: np.ndarray) -> np.ndarray:
    step, value, weight, line = points
    weights = np.add.reduceat(weight, starts)
    steps = np.add.reduceat(step * weight, starts) / weights
    values = np.add.reduceat(value * weight, starts) / weights
    return np.stack([np.floor(steps), values, weights, np.maximum.reduceat(line, starts)])


def _chunks(path: Path) -> Iterator[tuple[list[dict], int]]:
    """Yield objects, and the number of lines among them that are none."""
    with path.open("rb") as file:
        if file.read(3) != b"\xef\xbb\xbf":  # a byte order mark
            file.seek(0)
        while text := file.read(_CHUNK) + file.readline():
            if b"N" in text or b"I" in text:  # the fast way to see that there are none
                text = _NON_FINITE.sub(rb"\1null", text)
            text = text.strip()
            parsed = _parse(b"[%b]" % text.replace(b"\n", b","))
            if not isinstance(parsed, list) or len(parsed) != text.count(b"\n") + 1:
                # A line is broken or blank, or spoils its neighbours: one by one.
                parsed = [_parse(line) for line in text.split(b"\n") if not line.isspace() and line]
            objects = [value for value in parsed if type(value) is dict]
            yield objects, len(parsed) - len(objects)


def _parse(text: bytes) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _numbers(objects: list[dict]) -> np.ndarray:
    """Return the values of objects with the same keys as an array [N, K], NaN for no number."""
    values = list(chain.from_iterable(map(dict.values, objects)))
    if not set(map(type, values)) <= {int, float, type(None)}:
        values = [value if type(value) in (int, float) else None for value in values]
    return np.array(values, float).reshape(len(objects), len(objects[0]))
