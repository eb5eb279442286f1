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
from dreamer_bird.analysis.logs import Log, LogError, is_return, warn_of_training
from dreamer_bird.analysis.statistics import (
    area,
    bin_width,
    common_range,
    late_from,
    late_mean,
    mean_curve,
    spread,
    steps_to_reach,
    value_at,
)
from dreamer_bird.errors import nearest

_SHORT = 0.9  # of the longest log's steps: shorter logs are told


class Question(NamedTuple):
    """What is asked of the logs; an empty tuple leaves the choice to the data."""

    at: tuple[int, ...] = ()  # steps
    scores: tuple[float, ...] = ()  # to reach
    against: str | None = None  # the method that the others are compared with
    key: str | None = None  # None for returns
    baselines: bool = True  # show published returns beside those of the logs

    @property
    def published(self) -> bool:
        """Whether published returns are shown."""
        return self.baselines and is_return(self.key)


class _Row(NamedTuple):
    """A method on a task: the curves of its seeds, their mean in bins, and their final values."""

    name: str
    curves: list[Curve]
    mean: Curve
    finals: list[float]  # one a seed; of a published curve one
    published: PublishedCurve | None = None


class _Task(NamedTuple):
    name: str
    logs: list[Log]
    width: int  # of the bins
    steps: tuple[int, int]  # that all logs cover
    at: tuple[int, ...]  # the steps told of
    end: int  # of the steps that final values are of
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
    across = _across(tasks, against) if is_return(question.key) else None
    return {"key": question.key, "against": against, "tasks": told, "across": across}


def _task(logs: list[Log], question: Question) -> _Task:
    curves: dict[str, list[Curve]] = {}
    for log in logs:
        curves.setdefault(log.method, []).append(log.curve(question.key))
    if question.key is None:
        warn_of_training(logs)
    _warn_of_short(logs, question)
    every = [curve for each in curves.values() for curve in each]
    width, steps = bin_width(every), common_range(every)
    at = question.at or _quarters(steps[1], width)
    end = at[-1] if question.at else steps[1]
    rows = []
    for name, each in sorted(curves.items()):
        finals = [late_mean(curve, end, width) for curve in each]
        rows.append(_Row(name, each, mean_curve(each, width), finals))
    for curve in published_curves(logs[0].task) if question.published else ():
        mean = Curve(curve.step, curve.mean)
        finals = [area(mean, late_from(end, width), end)]
        rows.append(_Row(f"{curve.method} (published)", [], mean, finals, curve))
    return _Task(logs[0].task, logs, width, steps, at, end, rows)


def _warn_of_short(logs: list[Log], question: Question) -> None:
    ends = {log.path: log.curve(question.key).step[-1] for log in logs}
    if question.at and question.at[-1] <= min(ends.values()):
        return
    last = max(ends.values())
    short = sorted((end, path) for path, end in ends.items() if end < _SHORT * last)
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

    `range`: the steps that all logs cover; `width`: of the bins; `at`: steps; `late`: those that
    final values are means over; `scores`: to reach, `final` among them, that of the reference;
    `methods`: see `_method`; `published`: scores; `differences`: of training metrics, see
    `divergence.between_methods`.
    """
    reference = next((row for row in task.rows if row.name == against), None)
    final = _final(reference) if reference else None
    scores = list(question.scores or (_levels(task) if is_return(question.key) else []))
    scores += [final] if final is not None and final not in scores else []
    told = {"task": task.name, "range": [*task.steps], "width": task.width, "at": [*task.at]}
    told |= {"late": [late_from(task.end, task.width), task.end], "scores": scores, "final": final}
    told["methods"] = []
    for row in task.rows:
        method = _method(row, task)
        method["reach"] = [_reach(row, score, task, reference) for score in scores]
        told["methods"].append(method)
    scores = published_scores(task.name) if question.published else []
    told["published"] = [score._asdict() for score in scores]
    told["differences"] = between_methods(task.logs, against)
    return told


def _method(row: _Row, task: _Task) -> dict:
    """Return `method`, `source` (of a published curve), `seeds`, `values` at steps, and two means.

    These are `final`, over the late steps, and `area`, over all that the logs cover. Each is a dict
    of `mean`, `std` and `seeds`.
    """
    curves, published = row.curves, row.published
    if published:
        seeds = int(published.seeds[0])
        values = [_published_at(published, step) for step in task.at]
        means = [(row.finals[0], math.nan, seeds), (area(row.mean, *task.steps), math.nan, seeds)]
    else:
        seeds = len(curves)
        values = [spread(value_at(curve, step, task.width) for curve in curves) for step in task.at]
        means = [spread(row.finals), spread(area(curve, *task.steps) for curve in curves)]
    return {
        "method": row.name,
        "source": f"{published.source}; {published.note}" if published else None,
        "seeds": seeds,
        "values": [_spread(*value) for value in values],
        "final": _spread(*means[0]),
        "area": _spread(*means[1]),
    }


def _reach(row: _Row, score: float, task: _Task, reference: _Row | None) -> dict:
    """Return the `steps` that the mean curve takes to a `score`, and the `seeds` that reach it.

    Seeds count within what all logs cover. `ratio`: the steps of the reference over those of the
    method, so above 1 it needs fewer. Where a curve begins above the score it took `at_most` those
    steps, and there is no ratio.
    """
    steps = steps_to_reach(row.mean, score)
    alone = [steps_to_reach(mean_curve([curve], task.width), score) for curve in row.curves]
    at_most = _begins(row, score)
    told = {"score": score, "steps": _known(steps), "ratio": None, "at_most": at_most}
    told["seeds"] = None if row.published else sum(step <= task.steps[1] for step in alone)
    begins = at_most or (reference and _begins(reference, score))
    if reference and row is not reference and steps > 0 and not begins:
        told["ratio"] = _known(steps_to_reach(reference.mean, score) / steps)
    return told


def _begins(row: _Row, score: float) -> bool:
    """Return whether a method's mean curve begins at or above a score."""
    return bool((row.mean.value[:1] >= score).any())


def _published_at(curve: PublishedCurve, step: int) -> tuple[float, float, int]:
    """Return the published point at a step, or the mean on the line between its neighbours."""
    if step in curve.step:
        index = curve.step.searchsorted(step)
        return curve.mean[index], curve.std[index], curve.seeds[index]
    if not curve.step[0] <= step <= curve.step[-1]:
        return math.nan, math.nan, 0
    after = curve.step.searchsorted(step)
    mean = np.interp(step, curve.step, curve.mean)
    return mean, math.nan, curve.seeds[after - 1 : after + 1].min()


def _final(row: _Row) -> float | None:
    """Return the mean of a method's final values, None if it never rose to it."""
    mean, _, _ = spread(row.finals)
    return float(mean) if (mean > row.mean.value[:1]).any() else None


def _quarters(end: int, width: int) -> tuple[int, ...]:
    """Return the bins nearest to the first three quarters of the steps up to the end, or the end.

    What stands at the end itself the final values tell.
    """
    bins = {width * round(end * quarter / 4 / width) for quarter in (1, 2, 3)}
    return tuple(sorted(step for step in bins if 0 < step <= end)) or (end,)


def _levels(task: _Task) -> list[float]:
    """Return the quarters between the least and largest mean of the logs, to two digits."""
    values = np.concatenate([row.mean.value for row in task.rows if row.curves])
    if not len(values) or values.min() == values.max():
        return []
    levels = values.min() + np.ptp(values) * np.array([0.25, 0.5, 0.75])
    return sorted({float(f"{level:.2g}") for level in levels})


def _across(tasks: Sequence[_Task], against: str | None) -> dict:
    """Return `reliability.summarise` of the runs' final returns on each task.

    It is of the tasks of the control suite, whose returns alone have a scale in common; `left_out`
    are the names of the others, `lacking` those on which a method has no final return.
    """
    scores: reliability.Scores = {}
    for task in tasks:
        if not task.name.startswith("dmc_"):
            continue
        scores[task.name] = {}
        for row in filter(lambda row: row.curves, task.rows):
            known = [value for value in row.finals if not math.isnan(value)]
            scores[task.name][row.name] = known
            if 0 < len(known) < len(row.finals):
                what = f"{len(row.finals) - len(known)} of {len(row.finals)} runs have no return"
                where = f"shortly before step {task.end:,}: not counted there"
                warnings.warn(f"{row.name} on {task.name}: {what} {where}", stacklevel=3)
    left_out = [task.name for task in tasks if task.name not in scores]
    told = reliability.summarise(scores, against)
    lacking = [name for name in scores if name not in told["tasks"]]
    return told | {"left_out": left_out, "lacking": lacking}


def _spread(mean: float, std: float, seeds: int) -> dict:
    return {"mean": _known(mean), "std": _known(std), "seeds": int(seeds)}


def _known(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
