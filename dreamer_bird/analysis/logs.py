"""Logs of runs: ours, the public Dreamer's and the released BIRD code's, in folders of any form."""

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from dreamer_bird.analysis.curves import Curve, make_curve, read_lines
from dreamer_bird.config import Config
from dreamer_bird.envs import TASKS
from dreamer_bird.errors import ConfigError, nearest

FILE = "metrics.jsonl"
RETURNS = ("test/return", "train/return")  # of evaluations, or where a log has none, of training
UNKNOWN = "unknown"  # task of a log that neither a configuration nor the path tells

_TITLES = ("Dreamer", "BIRD", "Soft-BIRD", "PlaNet", "SLAC", "D4PG", "A3C")
_TITLE_OF = {title.lower().replace("-", "_"): title for title in _TITLES}
_NAMES = "|".join(sorted((task.removeprefix("dmc_") for task in TASKS), key=len, reverse=True))
_TASK = re.compile(rf"(?<![a-z])(?:dmc_)?({_NAMES})(?![a-z])")
_OTHER_TASK = re.compile(r"^(?:dmc|gym|atari)_[a-z0-9_]+$")  # named like one
_SEED = re.compile(r"(?:^|[_\-. ])(?:seed|s)?[_\-]?(\d+)$")


class LogError(ConfigError):
    """Logs that cannot be read, or that lack what is asked of them."""


@dataclass(frozen=True)
class Log:
    """What one run of one method with one seed on one task wrote."""

    task: str
    method: str
    seed: str
    path: Path  # of metrics.jsonl, or scores.json#3 for the fourth entry of a score file
    curves: dict[str, Curve]
    config: dict[str, object] = field(default_factory=dict)  # under dotted names; {} without one

    def curve(self, key: str | None = None) -> Curve:
        """Return the curve of a key, without one of the returns.

        LogError names the nearest keys where the log lacks it.
        """
        key = key or self.return_key
        if key not in self.curves:
            raise LogError(f"{self.path} has no {key}: {nearest(key, self.curves)}")
        return self.curves[key]

    @property
    def return_key(self) -> str:
        """The key of the returns: of evaluations, or where there are none, of training."""
        return next((key for key in RETURNS if key in self.curves), RETURNS[0])


def title(method: str) -> str:
    """Return a method's name as it is written, "Soft-BIRD (state)" for "soft_bird (state)"."""
    name, space, rest = method.partition(" ")
    return _TITLE_OF.get(name, name) + space + rest


def read_logs(paths: Iterable[str | Path]) -> list[Log]:
    """Read the logs in folders (searched to any depth for metrics.jsonl) and files, each once.

    A file holds lines of metrics, or a JSON list of `{"task", "method", "seed", "xs", "ys"}` as the
    public Dreamer's scores are kept; their `ys` become "test/return". `NAME=PATH` gives the logs
    under a path the method NAME. Otherwise task, method and seed come from the config.yaml beside
    the metrics, and what that lacks from the path, as `_identity` says. A method that observes
    something else than images of 64x64 is one of its own, "bird (state)" or "bird (both, 96x96)".

    Warns, in one line each, of lines dropped, of paths without a log, and of two logs that claim to
    be the same run; LogError where there is no log at all.
    """
    found = _each(map(str, paths), _read_named)
    if not found:
        raise LogError("no logs: name a logdir or a metrics.jsonl")
    logs = {}
    for log in found:
        logs.setdefault(log.path, log)
    _warn_of_twins(logs.values())
    return list(logs.values())


def having(logs: Iterable[Log], key: str | None = None) -> list[Log]:
    """Return the logs that hold a key (without one: returns), and warn of each that does not.

    LogError where none does.
    """
    return _each(logs, lambda log: [log] if log.curve(key) else [])


def _each(items: Iterable, read: Callable[[Any], Iterable[Log]]) -> list[Log]:
    """Return what is read of all items; warn of each that is refused, or raise if all are."""
    logs, problems = [], []
    for item in items:
        try:
            logs += read(item)
        except LogError as error:
            problems.append(str(error))
    fatal = problems.pop() if problems and not logs else None
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    if fatal:
        raise LogError(fatal)
    return logs


def _read_named(word: str) -> list[Log]:
    """Read what `PATH` or `NAME=PATH` names."""
    name, _, path = word.partition("=")
    if name and path and not Path(word).exists():
        return [replace(log, method=name) for log in _read(Path(path))]
    return _read(Path(word))


def _read(path: Path) -> list[Log]:
    """Return the logs in a file, or in a folder and all below; LogError if there are none."""
    path = path.expanduser()
    if not path.exists():
        raise LogError(f"{path}: no such file or folder")
    files = [path]
    if path.is_dir():  # What a run has set aside is none of its logs.
        files = sorted(file for file in path.rglob(FILE) if file.parent.name != "damaged")
    if not files:
        raise LogError(f"{path}: no {FILE} in it or below")
    return _each(files, lambda file: _read_file(file, path.resolve()))


def _read_file(file: Path, root: Path) -> list[Log]:
    try:
        with file.open("rb") as opened:
            scores = opened.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
        resolved = file.resolve()
        return _read_scores(resolved) if scores else [_read_metrics(resolved, root)]
    except (OSError, LogError) as error:
        raise LogError(f"{file}: {getattr(error, 'strerror', None) or error}") from None


def _read_metrics(file: Path, root: Path) -> Log:
    curves, total, dropped = read_lines(file)
    if dropped and dropped < total:
        what = f"dropped {dropped} of {total} lines: not JSON objects with a step"
        warnings.warn(f"{file}: {what}", stacklevel=2)
    if not total:
        raise LogError("is empty: has the run just started?")
    if not curves:
        raise LogError(f"none of its {total} lines is a JSON object with a step and a number")
    config = _read_config(file.with_name("config.yaml")) if file.name == FILE else {}
    saved = config.get("task"), _method(config), config.get("seed")
    guessed = _identity(file, root)
    names = (str(b if a is None else a) for a, b in zip(saved, guessed, strict=True))
    return Log(*names, file, curves, config)


def _read_config(path: Path) -> dict[str, object]:
    if not path.exists():
        return {}
    try:
        return Config.read(path).flatten()
    except ConfigError as error:
        warnings.warn(f"{error}; going by the path instead", stacklevel=2)
        return {}


def _method(config: dict[str, object]) -> str | None:
    """Return the variant and what it observes, unless that is the default; None without one."""
    if "variant" not in config:
        return None
    obs, size = config.get("obs", "pixels"), config.get("env.size", 64)
    others = [str(obs)] if obs != "pixels" else []
    others += [f"{size}x{size}"] if size != 64 and obs != "state" else []
    return f"{config['variant']} ({', '.join(others)})" if others else str(config["variant"])


def _read_scores(file: Path) -> list[Log]:
    try:
        entries = orjson.loads(re.sub(rb"\b(?:NaN|-?Infinity)\b", b"null", file.read_bytes()))
    except orjson.JSONDecodeError as error:
        raise LogError(f"no JSON list of scores: {error}") from None
    logs = []
    for index, entry in enumerate(entries):
        try:
            points = np.array([entry["xs"], entry["ys"]], float)
            steps, values = points[:, (points[0] >= 0) & (points[0] < 2**53)]
            names = [str(entry[name]) for name in ("task", "method", "seed")]
        except (TypeError, ValueError, KeyError, IndexError):  # as the entry is not of this form
            continue
        curve = make_curve(np.floor(steps), values)
        if len(curve.step):
            logs.append(Log(*names, Path(f"{file}#{index}"), {RETURNS[0]: curve}))
    broken = len(entries) - len(logs)
    if not logs:
        raise LogError("no entry has task, method, seed, xs and ys")
    if broken:
        what = f"dropped {broken} of {len(entries)} entries without task, method, seed, xs and ys"
        warnings.warn(f"{file}: {what}", stacklevel=2)
    return logs


def _identity(file: Path, root: Path) -> tuple[str, str, str]:
    """Tell task, method and seed from a path: `task/method/seed`, `method/task/seed`, `task123/x`.

    The name nearest to the file that holds a task of the suite (with or without dmc_), or failing
    that looks like a task (dmc_..., gym_..., atari_...), gives the task. A name that is a number,
    or ends in one behind a separator, gives the seed ("0" without one). The method is what is left
    of the name that holds the task and of those below it; if nothing is, the name above it. Without
    a task, the names from the given folder downwards are the method.
    """
    names = [*file.parent.parts[1:], *([] if file.name == FILE else [file.stem])]
    found = [
        (index, match)
        for pattern in (_OTHER_TASK, _TASK)
        for index, name in enumerate(names)
        if (match := pattern.search(name))
    ]
    if found:
        index, match = found[-1]
        task = f"dmc_{match[1]}" if match.re is _TASK else match[0]
        holder = names[index][: match.start()] + "_" + names[index][match.end() :]
        left = [holder, *names[index + 1 :]]
        above = names[index - 1] if index else UNKNOWN
    else:
        depth = len(root.parts) - 1 if root.is_dir() else len(names)
        task, left, above = UNKNOWN, names[depth:] or names[-1:], names[-1] if names else UNKNOWN
    left = [name.strip("_-. ") for name in left]
    seeds = [match[1] for name in left if (match := _SEED.search(name))]
    methods = [rest for name in left if (rest := _SEED.sub("", name))]
    return task, "/".join(methods) or above, seeds[-1] if seeds else "0"


def _warn_of_twins(logs: Iterable[Log]) -> None:
    seen = {}
    for log in logs:
        first = seen.setdefault((log.task, log.method, log.seed), log)
        if first is not log:
            run = f"{log.method} on {log.task} with seed {log.seed}"
            hint = "counted as two seeds; NAME=PATH gives one another name"
            warnings.warn(f"{first.path} and {log.path}: both are {run}; {hint}", stacklevel=3)
