"""Logs of runs: ours and those of neighbours, in folders of any form."""

import os
import re
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dreamer_bird.analysis.baselines import is_baselines
from dreamer_bird.analysis.curves import Curve
from dreamer_bird.analysis.names import UNKNOWN, canonical_task, names_of
from dreamer_bird.analysis.readers import RETURNS, LogError, LoggedRun, is_table, known, read_files
from dreamer_bird.config import RESUMABLE, RULES, Config, show
from dreamer_bird.errors import ConfigError, nearest

FILE = "metrics.jsonl"

_TITLES = ("Dreamer", "BIRD", "Soft-BIRD", "PlaNet", "SLAC", "D4PG", "A3C")
_TITLE_OF = {title.lower().replace("-", "_"): title for title in _TITLES}
# What a run leaves, the first of it that a folder has; `joined`, if several files are one run.
_LEFT = (
    *(FILE, "scores.jsonl", "eval.csv", "joined:*monitor.csv", "progress.csv", "train.csv"),
    *("*.csv", "joined:*.tfevents.*"),
)
_CONFIGS = ("config.yaml", ".hydra/config.yaml")
_NUMBER = re.compile(r"(?<![v\d])\d+")  # but of versions
_TELLING_NOTHING = {"metrics", "scores", "eval", "train", "progress", "monitor", "evaluations"}


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
        if not key and self.return_key not in self.curves:
            named = f"--returns KEY names one: {', '.join(list(self.curves)[:20])}"
            raise LogError(f"{self.path} has no returns under a name that is known; {named}")
        key = key or self.return_key
        if key not in self.curves:
            raise LogError(f"{self.path} has no {key}: {nearest(key, self.curves)}")
        return self.curves[key]

    @property
    def return_key(self) -> str:
        """The key of the returns: of evaluations, or where there are none, of training."""
        return next((key for key in RETURNS if key in self.curves), RETURNS[0])


def is_return(key: str | None) -> bool:
    """Tell whether what a key names, or what is taken without one, is a return."""
    return key in (None, *RETURNS)


def title(method: str) -> str:
    """Return a method's name as it is written, "Soft-BIRD (state)" for "soft_bird (state)"."""
    name, space, rest = method.partition(" ")
    return _TITLE_OF.get(name, name) + space + rest


def read_logs(paths: Iterable[str | Path], returns: Iterable[str] = ()) -> list[Log]:
    """Read the logs in folders (searched to any depth) and files, each once.

    `readers.FORMATS` are read; what is returned has the returns as "test/return" or "train/return",
    and environment steps. Keys in `returns` are returns of evaluations. `NAME=PATH` gives the logs
    under a path the method NAME; paths of the published returns are left out. Otherwise task,
    method and seed come from the file itself, from the config.yaml beside it, and what these lack
    from the path, as `names_of` says. A method that observes something else than images of 64x64
    is one of its own, "bird (state)" or "bird (both, 96x96)".

    Warns, in one line each, of lines dropped, of paths without a log, of two logs that claim to be
    the same run, of methods that look like seeds, and of runs of one method with several settings;
    LogError where there is no log at all.
    """
    returns = tuple(returns)
    words = [str(path) for path in paths if not is_baselines(path)]
    found = _each(words, lambda word: _read_named(word, returns))
    if not found:
        raise LogError("no logs: name a logdir or a metrics.jsonl")
    logs = {}
    for log in found:
        logs.setdefault(log.path, log)
    _warn_of_twins(logs.values())
    _warn_of_numbered(logs.values())
    _warn_of_settings(logs.values())
    return list(logs.values())


def having(logs: Iterable[Log], key: str | None = None) -> list[Log]:
    """Return the logs that hold a key (without one: returns), and warn of each that does not.

    LogError where none does.
    """
    return _each(logs, lambda log: [log] if log.curve(key) else [])


def warn_of_training(logs: Sequence[Log]) -> None:
    """Warn of each log without returns of evaluations, where others of its task have some."""
    evaluated = {log.task for log in logs if log.return_key == RETURNS[0]}
    for log in logs:
        if log.task in evaluated and log.return_key != RETURNS[0]:
            what = f"no {RETURNS[0]}; its {log.return_key} is compared with that of others"
            warnings.warn(f"{log.path}: {what}", stacklevel=3)


def _each(items: Iterable, read: Callable[[Any], Iterable[Log]]) -> list[Log]:
    """Return what is read of all items; warn of each that is refused, or raise one if all are."""
    logs, problems = [], []
    for item in items:
        try:
            logs += read(item)
        except LogError as error:
            problems.append(str(error))
    if problems and not logs:
        more = f" ({len(problems) - 1} more like it)" if len(problems) > 1 else ""
        raise LogError(problems[0] + more)
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return logs


def _read_named(word: str, returns: tuple[str, ...]) -> list[Log]:
    """Read what `PATH` or `NAME=PATH` names."""
    name, _, path = word.partition("=")
    if name and path and not Path(word).exists():
        return [replace(log, method=name) for log in _read(Path(path), returns)]
    return _read(Path(word), returns)


def _read(path: Path, returns: tuple[str, ...]) -> list[Log]:
    """Return the logs in a file, or in a folder and all below; LogError if there are none."""
    path = path.expanduser()
    if not path.exists():
        raise LogError(f"{path}: no such file or folder")
    runs = list(_find(path)) if path.is_dir() else [[path]]
    if not runs:
        raise LogError(f"{path}: no log in it or below; formats known: {known()}")
    return _each(runs, lambda files: _read_run(files, path.resolve(), returns))


def _find(root: Path) -> Iterator[list[Path]]:
    """Yield the files of each run below a folder, and the tables of several runs."""
    of_runs = set()  # folders, below which event files hold the same once more
    seen = {root.resolve()}  # no folder twice: a link may lead back
    for name, folders, names in os.walk(root, followlinks=True):
        folder = Path(name)
        real = {each: (folder / each).resolve() for each in sorted(folders)}
        folders[:] = [each for each, at in real.items() if at not in seen]
        seen.update(real.values())
        # What is packed beside the file itself is the same once more.
        names = [each for each in names if not (each.endswith(".gz") and each[:-3] in names)]
        if folder.name == "damaged":  # what a run has set aside is none of its logs
            continue
        for left in _LEFT:
            pattern = left.removeprefix("joined:")
            files = [folder / each for each in sorted(names) if _fits(folder / each, pattern)]
            if not files or (".tfevents." in pattern and of_runs & {*folder.parents}):
                continue
            yield from [files] if left != pattern else ([file] for file in files)
            if pattern != "*.csv":
                of_runs.add(folder)
            break


def _fits(file: Path, pattern: str) -> bool:
    """Tell whether a file, packed or not, is of a pattern; a table must begin like a log."""
    name = file.name.removesuffix(".gz")
    if pattern == "*.csv" and name.endswith(".json"):
        return is_table(file)
    return fnmatchcase(name, pattern) and (not name.endswith(".csv") or is_table(file))


def _read_run(files: list[Path], root: Path, returns: tuple[str, ...]) -> list[Log]:
    file = files[0].resolve()
    try:
        runs = read_files([each.resolve() for each in files], returns)
    except (OSError, EOFError, zlib.error, LogError) as error:
        raise LogError(f"{files[0]}: {getattr(error, 'strerror', None) or error}") from None
    # A name may be of any bytes, which no figure can show.
    *folders, name = (os.fsencode(part).decode(errors="replace") for part in file.parts[1:])
    stem = name.removesuffix(".gz").rpartition(".")[0]
    tells = ".tfevents." not in name and stem.rpartition(".")[2] not in _TELLING_NOTHING
    config = {} if tells else _read_config(file.parent)
    depth = len(root.parts) - 1 if root.is_dir() else len(file.parts)
    names = names_of(folders, depth, stem if tells else "")
    if names["task"] == UNKNOWN and tells and any("seed" in run.names for run in runs):
        names = names_of((*folders, f"task={stem}"), depth)  # a table of a task has its name
    task = config.get("task", config.get("task_name"))  # the second of DrQ-v2
    saved = {"task": task, "method": _method(config), "seed": config.get("seed")}
    saved = names | {name: str(told) for name, told in saved.items() if told is not None}
    return [_log(run, saved | run.names, file, config) for run in runs]


def _log(run: LoggedRun, names: dict[str, str], file: Path, config: dict[str, object]) -> Log:
    task = canonical_task(names["task"])
    curves = run.curves
    if task.startswith("dmc_") and run.repeat > 1:
        curves = {key: Curve(step * run.repeat, value) for key, (step, value) in curves.items()}
    path = Path(f"{file}{run.place}")
    return Log(task, names["method"], names["seed"], path, curves, config)


def _read_config(folder: Path) -> dict[str, object]:
    """Return the settings beside a log, under dotted names; {} where there are none."""
    found = [path for name in _CONFIGS if (path := folder / name).is_file()]
    if not found:
        return {}
    try:
        return Config.read(found[0]).flatten()
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


def _warn_of_twins(logs: Iterable[Log]) -> None:
    alike = defaultdict(list)
    for log in logs:
        alike[log.task, log.method, log.seed].append(log)
    if pairs := [(each[0], log) for each in alike.values() for log in each[1:]]:
        first, log = pairs[0]
        run = f"{log.method} on {log.task} with seed {log.seed}"
        others = f" ({len(pairs) - 1} more like them)" if len(pairs) > 1 else ""
        hint = f"counted as two seeds{others}; NAME=PATH gives one another name"
        warnings.warn(f"{first.path} and {log.path}: both are {run}; {hint}", stacklevel=3)


def _warn_of_numbered(logs: Iterable[Log]) -> None:
    """Warn where each run is a method of its own, and their names differ in numbers alone."""
    alike = defaultdict(list)
    for log in logs:
        alike[log.task, _NUMBER.sub("#", log.method)].append(log)
    for (task, _), each in alike.items():
        methods = [log.method.partition(" (")[0] for log in each]
        if 1 < len(each) == len({*methods}):
            what = f"{len(each)} methods of one run each on {task} ({methods[0]}, {methods[1]}"
            hint = "if these are seeds, NAME=FOLDER gives all in a folder one name"
            warnings.warn(f"{what}{', ...' * (len(each) > 2)}): {hint}", stacklevel=3)


def _warn_of_settings(logs: Iterable[Log]) -> None:
    """Warn of each method whose runs on a task differ in what they learn with, besides the seed."""
    alike = defaultdict(list)
    for log in logs:
        if "variant" in log.config:
            alike[log.task, log.method].append(log.config)
    for (task, method), configs in alike.items():
        for key in sorted(RULES.keys() - RESUMABLE - {"seed"}):
            values = {show(config[key]) for config in configs if key in config}
            if len(values) > 1:
                what = f"runs differ in {key} ({', '.join(sorted(values))})"
                hint = "NAME=PATH makes methods of them"
                warnings.warn(f"{method} on {task}: {what}; {hint}", stacklevel=3)
