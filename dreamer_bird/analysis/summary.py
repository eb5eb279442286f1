"""What `compare` tells, as plain data: per task, then across tasks and seeds.

`compare` prints it as tables or as JSON, `report` shows it in a page. A number that does not exist
(a step without data, a score never reached) is None. Steps are environment steps.
"""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dreamer_bird.analysis import reliability
from dreamer_bird.analysis.baselines import PublishedCurve, published_curves, published_scores
from dreamer_bird.analysis.curves import Curve
from dreamer_bird.analysis.divergence import between_methods
from dreamer_bird.analysis.logs import RETURNS, Log, LogError, warn_of_training
from dreamer_bird.analysis.statistics import (
    area,
    bin_width,
    common_range,
    mean_curve,
    spread,
    steps_to_reach,
    value_at,
)
from dreamer_bird.errors import nearest


class Question(NamedTuple):
    """What is asked of the logs; an empty tuple leaves the choice to the data."""

    at: tuple[int, ...] = ()  # steps
    scores: tuple[float, ...] = ()  # to reach
    against: str | None = None  # the method that the others are compared with
    key: str | None = None  # None for returns
    baselines: bool = True  # show published returns beside those of the logs

    @property
    def of_returns(self) -> bool:
        """Whether the values compared are returns."""
        return self.key in (None, *RETURNS)


class _Row(NamedTuple):
    """A method on a task: its name, the curves of its seeds, and their mean in bins."""

    name: str
    curves: list[Curve]
    mean: Curve
    published: PublishedCurve | None = None


class _Task(NamedTuple):
    name: str
    logs: list[Log]
    width: int  # of the bins
    rows: list[_Row]  # methods of the logs by name, then published curves


def compare_logs(logs: Sequence[Log], question: Question) -> dict:
    """Return the comparison of logs that all hold the key asked for.

    It has the keys `key`, `against`, `tasks` (a list, see `_describe`) and `across` (see `_across`;
    None where the values are no returns). LogError if `against` names no method; a published curve
    stands in for a method without logs.
    """
    names = sorted({log.task for log in logs})
    tasks = [_task([log for log in logs if log.task == name], question) for name in names]
    against = _reference(tasks, question.against)
    told = [_describe(task, question, against) for task in tasks]
    ends = [item["at"][-1] for item in told]
    across = _across(tasks, ends, against) if question.of_returns else None
    return {"key": question.key, "against": against, "tasks": told, "across": across}


def _task(logs: list[Log], question: Question) -> _Task:
    curves: dict[str, list[Curve]] = {}
    for log in logs:
        curves.setdefault(log.method, []).append(log.curve(question.key))
    if question.key is None:
        warn_of_training(logs)
    _warn_of_short(logs, question.key)
    width = bin_width(curve for each in curves.values() for curve in each)
    rows = [_Row(name, each, mean_curve(each, width)) for name, each in sorted(curves.items())]
    if question.baselines and question.of_returns:
        rows += [
            _Row(f"{curve.method} (published)", [], Curve(curve.step, curve.mean), curve)
            for curve in published_curves(logs[0].task)
        ]
    return _Task(logs[0].task, logs, width, rows)


def _warn_of_short(logs: list[Log], key: str | None) -> None:
    ends = {log.path: log.curve(key).step[-1] for log in logs}
    last = max(ends.values())
    short = sorted((end, path) for path, end in ends.items() if 2 * end < last)
    if short:
        end, path = short[0]
        others = f" ({len(short) - 1} more end early)" if len(short) > 1 else ""
        what = f"ends at step {end:,} of {last:,}, and with it what covers all logs of its task"
        hint = f"leave it out{others}, or name steps by --at"
        warnings.warn(f"{path}: {what}; {hint}", stacklevel=4)


def _reference(tasks: Sequence[_Task], against: str | None) -> str | None:
    """Return the method meant: of that name, or with what it observes behind it, or published."""
    rows = {row.name: row for task in tasks for row in task.rows}
    if against is None or against in rows:
        return against
    alike = [name for name in rows if name.startswith(f"{against} (")]
    own = [name for name in alike if not rows[name].published]
    if len(own) > 1:
        raise LogError(f"--against {against}: choose from {', '.join(map(repr, own))}")
    if alike:
        return (own or alike)[0]
    raise LogError(f"--against {against}: {nearest(against, rows)}")


def _describe(task: _Task, question: Question, against: str | None) -> dict:
    """Return all that is told of a task.

    `range`: the steps that all logs cover; `width`: of the bins; `at`: steps; `scores`: to reach,
    `final` among them, that of the reference at the end of the range; `methods`: see `_method`;
    `published`: scores; `differences`: of training metrics, see `divergence.between_methods`.
    """
    start, end = common_range(curve for row in task.rows for curve in row.curves)
    reference = next((row for row in task.rows if row.name == against), None)
    final = _final(reference.mean, end, task.width) if reference else None
    at = question.at or _quarters(end, task.width)
    scores = list(question.scores or (_levels(task) if question.of_returns else []))
    scores += [final] if final is not None and final not in scores else []
    told = {"task": task.name, "range": [start, end], "width": task.width, "at": list(at)}
    told |= {"scores": scores, "final": final, "methods": []}
    for row in task.rows:
        method = _method(row, at, (start, end), task.width)
        method["reach"] = [_reach(row, score, task.width, end, reference) for score in scores]
        told["methods"].append(method)
    shown = question.baselines and question.of_returns
    scores = published_scores(task.name) if shown else []
    told["published"] = [score._asdict() for score in scores]
    told["differences"] = between_methods(task.logs, against)
    return told


def _method(row: _Row, at: Sequence[int], steps: tuple[int, int], width: int) -> dict:
    """Return `method`, `source` (of a published curve), `seeds`, `values` at steps, and `area`.

    `area` is over the steps given. Values and area are dicts of `mean`, `std` and `seeds`.
    """
    curves, published = row.curves, row.published
    if published:
        values = [_published_at(published, step, width) for step in at]
        seeds = published.seeds[0]
        areas = area(row.mean, *steps), math.nan, seeds  # of one curve, of the means
    else:
        values = [spread(value_at(curve, step, width) for curve in curves) for step in at]
        areas, seeds = spread(area(curve, *steps) for curve in curves), len(curves)
    return {
        "method": row.name,
        "source": f"{published.source}; {published.note}" if published else None,
        "seeds": int(seeds),
        "values": [_spread(*value) for value in values],
        "area": _spread(*areas),
    }


def _reach(row: _Row, score: float, width: int, end: int, reference: _Row | None) -> dict:
    """Return the `steps` that the mean curve takes to a `score`, and the `seeds` there by `end`.

    `ratio`: the steps of the reference over those of the method, so above 1 it needs fewer. Where
    a curve begins above the score it took `at_most` those steps, and there is no ratio.
    """
    steps = steps_to_reach(row.mean, score)
    alone = [steps_to_reach(mean_curve([curve], width), score) for curve in row.curves]
    at_most = _begins(row, score)
    told = {"score": score, "steps": _known(steps), "ratio": None, "at_most": at_most}
    told["seeds"] = None if row.published else sum(step <= end for step in alone)
    begins = at_most or (reference and _begins(reference, score))
    if reference and row is not reference and steps > 0 and not begins:
        told["ratio"] = _known(steps_to_reach(reference.mean, score) / steps)
    return told


def _begins(row: _Row, score: float) -> bool:
    """Return whether a method's mean curve begins at or above a score."""
    return bool((row.mean.value[:1] >= score).any())


def _published_at(curve: PublishedCurve, step: int, width: int) -> tuple[float, float, int]:
    """Return the published point in the bin around a step, or the mean between its neighbours."""
    index = np.abs(curve.step - step).argmin()
    if 2 * abs(curve.step[index] - step) <= width:
        return curve.mean[index], curve.std[index], curve.seeds[index]
    if not curve.step[0] <= step <= curve.step[-1]:
        return math.nan, math.nan, 0
    after = np.searchsorted(curve.step, step)
    mean = np.interp(step, curve.step, curve.mean)
    return mean, math.nan, curve.seeds[after - 1 : after + 1].min()


def _final(curve: Curve, end: int, width: int) -> float | None:
    """Return the value of a curve in its last bin up to a step, None if it never rose to it."""
    values = curve.value[2 * curve.step <= 2 * end + width]
    return float(values[-1]) if len(values) and values[-1] > values.min() else None


def _quarters(end: int, width: int) -> tuple[int, ...]:
    """Return the bins nearest to the quarters of the steps up to the end, or the end itself."""
    last = end // width  # beyond it a log may have nothing
    bins = {width * min(round(end * quarter / 4 / width), last) for quarter in (1, 2, 3, 4)}
    return tuple(sorted(bins - {0})) or (end,)


def _levels(task: _Task) -> list[float]:
    """Return the quarters between the least and largest mean of the logs, to two digits."""
    values = np.concatenate([row.mean.value for row in task.rows if row.curves])
    if not len(values) or values.min() == values.max():
        return []
    levels = values.min() + np.ptp(values) * np.array([0.25, 0.5, 0.75])
    return sorted({float(f"{level:.2g}") for level in levels})


def _across(tasks: Sequence[_Task], ends: Sequence[int], against: str | None) -> dict:
    """Return `reliability.summarise` of the runs' returns at the last step told of each task.

    It is of the tasks of the control suite, whose returns alone have a scale in common; `left_out`
    are the names of the others, `lacking` those on which a method has no return there.
    """
    scores: reliability.Scores = {}
    for task, end in zip(tasks, ends, strict=True):
        if not task.name.startswith("dmc_"):
            continue
        scores[task.name] = {}
        for row in filter(lambda row: row.curves, task.rows):
            values = [value_at(curve, end, task.width) for curve in row.curves]
            known = [value for value in values if not math.isnan(value)]
            scores[task.name][row.name] = known
            left = len(values) - len(known)
            if 0 < left < len(values):
                what = f"{left} of {len(values)} runs have no return at step {end:,}"
                warnings.warn(f"{row.name} on {task.name}: {what}: not counted there", stacklevel=3)
    left_out = [task.name for task in tasks if task.name not in scores]
    told = reliability.summarise(scores, against)
    lacking = [name for name in scores if name not in told["tasks"]]
    return told | {"left_out": left_out, "lacking": lacking}


def _spread(mean: float, std: float, seeds: int) -> dict:
    return {"mean": _known(mean), "std": _known(std), "seeds": int(seeds)}


def _known(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
