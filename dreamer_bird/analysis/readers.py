"""The formats of logs, those of neighbours too: each a few lines that make curves of files.

Steps become environment steps where the format tells how many there are in one of its own.
"""

import csv
import io
import math
import re
import warnings
import zlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from dreamer_bird.analysis.curves import NON_FINITE, Curve, make_curve, open_log, parse, read_lines
from dreamer_bird.errors import ConfigError

RETURNS = ("test/return", "train/return")  # of evaluations, or where a log has none, of training
# How others call them, behind the name of a folder of scalars that some put before.
_CALLED = (
    ("eval_return", "eval/return", "eval_episode/score", "eval/episode_reward", "eval/mean_reward"),
    (
        *("train_return", "episode/score", "train/episode_reward", "rollout/ep_rew_mean"),
        *("charts/episodic_return", "train_episode/score", "episode_return"),
    ),
)
_PREFIXES = ("", "scalars/", "sim/")
# Columns of a CSV file, the first that it has: environment steps before those of an agent.
_STEPS = ("frame", "env_step", "step", "time/total_timesteps", "total_timesteps", "timesteps")
_REWARDS = ("episode_reward", "episode_return", "reward", "return")
_NAMED = {"task": ("task", "env", "env_id"), "method": ("method", "agent"), "seed": ("seed",)}
_KINDS = {1: ("float_val", "<f4"), 2: ("double_val", "<f8"), 3: ("int_val", "<i4")}  # of tensors


class LogError(ConfigError):
    """Logs that cannot be read, or that lack what is asked of them."""


class LoggedRun(NamedTuple):
    """One run in a file: its curves, and what the file says of it."""

    curves: dict[str, Curve]
    names: dict[str, str] = {}  # noqa: RUF012  # task, method and seed, as far as it tells them
    place: str = ""  # within a file of several
    repeat: int = 1  # environment steps to one of its own, on the tasks of the suite


Result = tuple[list[LoggedRun], int, int]  # and how many lines there are, and how many are broken


class Format(NamedTuple):
    """A format: what it is called, how a file begins, what reads it, what its lines must be."""

    told: str
    begins: Callable[[str, bytes], object]  # of the name of a file and its first bytes
    read: Callable[[list[Path]], Result]  # of the files that make one run
    rule: str
    units: str = "lines"


def read_files(files: list[Path], returns: Iterable[str] = ()) -> list[LoggedRun]:
    """Read a file, or several that make one run, in whichever of `FORMATS` it is.

    Returns called otherwise, and the keys in `returns`, get our names beside their own. Warns of
    lines dropped; LogError says what is wrong with a file of which nothing can be used.
    """
    with open_log(files[0]) as opened:
        head = opened.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    form = next(form for form in FORMATS if form.begins(files[0].name, head))
    runs, total, dropped = form.read(files)
    runs = [run for run in runs if run.curves]
    if not total:
        raise LogError("is empty: has the run just started?")
    if not runs:
        raise LogError(f"none of its {total} {form.units} is {form.rule}; formats known: {known()}")
    if dropped:
        what = f"dropped {dropped} of {total} {form.units}: each must be {form.rule}"
        warnings.warn(f"{files[0]}: {what}", stacklevel=2)
    for run in runs:
        _add_returns(run.curves, returns)
    return runs


def known() -> str:
    """Word the formats that are read, for who brought another."""
    return "; ".join(form.told for form in FORMATS)


def is_table(file: Path) -> bool:
    """Tell whether a CSV or JSON file, of any name, begins like a log with returns."""
    try:
        with open_log(file) as opened:
            head = opened.read(4096)
    except (OSError, EOFError, zlib.error):
        return False
    header, returns = _header(head), (*_REWARDS, *RETURNS, *_CALLED[0], *_CALLED[1])
    begins = re.match(rb'#\{|\s*\[\s*\{\s*"(task|method|seed|xs|ys)"', head)
    return bool(begins) or None not in (_find(header, _STEPS), _find(header, returns))


def _add_returns(curves: dict[str, Curve], returns: Iterable[str]) -> None:
    for ours, theirs in zip(RETURNS, _CALLED, strict=True):
        names = [prefix + key for key in (ours, *theirs) for prefix in _PREFIXES]
        told = returns if ours == RETURNS[0] else ()
        if found := next((key for key in (*told, *names) if key in curves), None):
            curves[ours] = curves[found]


def _read_json_lines(files: list[Path]) -> Result:
    curves, total, dropped = read_lines(files[0])
    return [LoggedRun(curves)], total, dropped


def _read_scores(files: list[Path]) -> Result:
    try:
        with open_log(files[0]) as file:
            entries = orjson.loads(NON_FINITE.sub(rb"\1null", file.read()))
    except orjson.JSONDecodeError as error:
        raise LogError(f"no JSON list of scores: {error}") from None
    runs = []
    for index, entry in enumerate(entries):
        try:
            points = np.array([entry["xs"], entry["ys"]], float)
            steps, values = points[:, (points[0] >= 0) & (points[0] < 2**53)]
            names = {name: str(entry[name]) for name in ("task", "method", "seed")}
        except (TypeError, ValueError, KeyError, IndexError):  # as the entry is not of this form
            continue
        curve = make_curve(steps, values)
        if len(curve.step):
            runs.append(LoggedRun({RETURNS[0]: curve}, names, f"#{index}"))
    return runs, len(entries), len(entries) - len(runs)


def _read_csv(files: list[Path]) -> Result:
    """Read a table of episodes or evaluations, which may hold several tasks, methods and seeds."""
    rows = _rows(files[0])
    header = next(rows)
    step, reward = _find(header, _STEPS), _find(header, _REWARDS)
    found = {kind: _find(header, columns) for kind, columns in _NAMED.items()}
    named = {kind: index for kind, index in found.items() if index is not None}
    taken = (step, *named.values())
    others = {key: index for index, key in enumerate(header) if key and index not in taken}
    points: dict[tuple, dict[str, array]] = defaultdict(lambda: defaultdict(lambda: array("d")))
    total = used = 0
    for row in rows:
        total += 1
        at = _number(row[step]) if len(row) == len(header) else -1.0
        if 0 <= at < 2**53:
            used += 1
            of_run = points[tuple(row[index] for index in named.values())]
            for key, index in others.items():
                of_run[key].extend((at, _number(row[index])))
    # A run of TD-MPC2 counts agent steps.
    of_tdmpc2 = files[0].name.startswith("eval.csv") and header == ["step", "episode_reward"]
    runs = []
    for names, of_run in points.items():
        curves = _curves(of_run)
        if reward is not None and header[reward] in curves:
            ours = RETURNS[files[0].name.startswith("train")]
            curves.setdefault(ours, curves[header[reward]])
        told = dict(zip(named, (name.removesuffix(".0") for name in names), strict=True))
        place = f"#{','.join(told.values())}" if named else ""
        runs.append(LoggedRun(curves, told, place, 1 + of_tdmpc2))
    return runs, total, total - used


def _read_monitors(files: list[Path]) -> Result:
    """Read the episodes of one or more environments of a run, by the time at which they ended."""
    episodes, total, names = [], 0, {}
    for path in files:
        with open_log(path) as file:
            told = parse(file.readline()[1:])
        told = told if isinstance(told, dict) else {}
        start = told.get("t_start")
        start = start if isinstance(start, int | float) else 0
        if isinstance(told.get("env_id"), str) and told["env_id"] != "None":
            names["task"] = told["env_id"]
        rows = _rows(path, skip=1)
        header, last = next(rows, []), -math.inf
        for row in rows:
            total += 1
            values = dict(zip(header, map(_number, row), strict=False))
            episode = [values.get(key, np.nan) for key in ("t", "l", "r")]
            if len(row) == len(header) and np.isfinite(episode).all():
                if episode[0] < last:  # a resumed run, whose time begins again
                    start += last
                last = episode[0]
                episodes.append([episode[0] + start, *episode[1:]])
    _, lengths, values = np.array(sorted(episodes)).reshape(-1, 3).T
    columns = {"train/return": values, "train/length": lengths}
    points = {key: np.column_stack([np.cumsum(lengths), each]) for key, each in columns.items()}
    return [LoggedRun(_curves(points), names)], total, total - len(episodes)


def _read_events(files: list[Path]) -> Result:
    # The protocol alone, which loads no TensorFlow.
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    points: dict[str, array] = defaultdict(lambda: array("d"))  # step and value of each in turn
    total = dropped = 0
    for record in chain.from_iterable(map(_records, files)):
        total += 1
        try:
            event = Event.FromString(record)
        except DecodeError:
            dropped += 1
            continue
        for value in event.summary.value:
            if event.step >= 0 and (scalar := _scalar(value)) is not None:
                points[value.tag].extend((event.step, scalar))
    return [LoggedRun(_curves(points))], total, dropped


def _records(path: Path) -> Iterator[bytes]:
    """Yield the records of an event file: length, its checksum, data, its checksum.

    Where the file is cut off the last is a byte that is none.
    """
    with open_log(path) as file:
        while header := file.read(12):
            length = int.from_bytes(header[:8], "little")
            data = file.read(length + 4) if length < 2**31 else b""
            if len(data) < length + 4:
                yield b"\xff"
                return
            yield data[:-4]


def _scalar(value: Any) -> float | None:
    """Return the number that an entry of a summary is, None for anything else."""
    if value.HasField("simple_value"):
        return value.simple_value
    if not value.HasField("tensor") or value.tensor.dtype not in _KINDS:
        return None
    tensor, (field, dtype) = value.tensor, _KINDS[value.tensor.dtype]
    content = getattr(tensor, field) or np.frombuffer(tensor.tensor_content, dtype)
    return float(content[0]) if len(content) == 1 and not tensor.tensor_shape.dim else None


def _curves(points: Mapping[str, array | np.ndarray]) -> dict[str, Curve]:
    curves = {key: make_curve(*np.reshape(each, (-1, 2)).T) for key, each in points.items()}
    return {key: curve for key, curve in curves.items() if len(curve.step)}


def _rows(path: Path, skip: int = 0) -> Iterator[list[str]]:
    """Yield the rows of a CSV file that are not blank."""
    with open_log(path) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", errors="replace")
        yield from (_cells(line) for line in islice(text, skip, None) if line.strip())


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line.replace("\0", "").strip("\r\n")]), [])
    except csv.Error:  # the line is broken, and longer than any value, say
        return []


def _header(head: bytes) -> list[str]:
    return _cells(next(iter(head.decode("utf-8-sig", errors="replace").splitlines()), ""))


def _find(header: list[str], names: Iterable[str]) -> int | None:
    """Return where the first of some names, small or large, is in a header, None without any."""
    small = [column.strip().lower() for column in header]
    return next((small.index(name) for name in names if name in small), None)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return np.nan


FORMATS = (
    Format(
        "score files (a JSON list of task, method, seed, xs and ys)",
        lambda _, head: head.startswith(b"["),
        _read_scores,
        "one with task, method, seed, xs and ys",
        "entries",
    ),
    Format(
        "monitor.csv of Stable-Baselines3",
        lambda _, head: head.startswith(b"#{"),
        _read_monitors,
        "one with the numbers r, l and t",
    ),
    Format(
        "CSV with steps and returns (TD-MPC2, DrQ-v2)",
        lambda _, head: not head.startswith(b"{") and _find(_header(head), _STEPS) is not None,
        _read_csv,
        "a row of as many values as the header has, with a step",
    ),
    Format(
        "TensorBoard event files",
        lambda name, head: ".tfevents." in name or b"brain.Event:" in head[:64],
        _read_events,
        "a whole one with scalars",
        "records",
    ),
    Format(
        "JSON lines with a step (Dreamer to DreamerV3)",
        lambda *_: True,
        _read_json_lines,
        "a JSON object with a step and a number",
    ),
)
