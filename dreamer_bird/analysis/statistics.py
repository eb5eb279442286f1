"""Statistics of curves; steps are environment steps, standard deviations those of a population.

Curves rarely share their steps, so they are compared in bins of one width w: bin k holds the points
in ((k - 1/2) w, (k + 1/2) w] and stands at its centre k w. Nothing is extrapolated: a seed without
a point in a bin does not count there.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from dreamer_bird.analysis.curves import Curve
from dreamer_bird.analysis.logs import Log

_GROUPS = ["task", "method", "step"]
BINS = 50  # about as many as the longest curve is cut into
RESAMPLES = 2000  # of the seeds, for a bootstrap interval


def bin_width(curves: Iterable[Curve]) -> int:
    """Return a width of bins that suits all curves: 1, 2 or 5 times a power of ten.

    It is at least the typical distance between the points of the sparsest curve, so that a bin
    seldom misses a seed, and at least a fiftieth of the longest curve, which evens out noise.
    """
    steps = [curve.step for curve in curves if len(curve.step) > 1]
    distances = [np.median(np.diff(step)) for step in steps]
    least = max([*distances, *(step[-1] / BINS for step in steps)], default=1)
    power = 10 ** int(np.floor(np.log10(max(least, 1))))
    return int(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least))


def binned(curve: Curve, width: int) -> pd.DataFrame:
    """Return the mean step and value in each bin that holds a point, by the bin's centre."""
    centres = width * -((width - 2 * curve.step) // (2 * width))
    return pd.DataFrame(curve._asdict()).groupby(centres).mean()


def value_at(curve: Curve, step: int, width: int) -> float:
    """Return the value at a step, interpolated between the means of bins at their mean steps.

    So a straight line keeps its values. NaN if the nearest mean is more than half a width away.
    """
    bins = binned(curve, width)
    if not len(bins) or 2 * (bins["step"] - step).abs().min() > width:
        return float("nan")
    return float(np.interp(step, bins["step"], bins["value"]))


def spread(values: Iterable[float]) -> tuple[float, float, int]:
    """Return mean, standard deviation and number of one value a seed; NaN does not count."""
    values = pd.Series(list(values), dtype=float).dropna()
    return values.mean(), values.std(ddof=0), len(values)


def bands(logs: Sequence[Log], key: str | None, band: str) -> pd.DataFrame:
    """Return the tidy table of means over seeds, a row for each task, method and bin.

    Columns: task, method, step (centre of the bin), at (mean step of the points in it, where curves
    are drawn), mean, std (of a population: 0 for one seed), seeds (with a point in the bin), low
    and high (ends of the shaded area); sorted by task, method and step. With band "std" the ends
    are a standard deviation from the mean, with "ci" those of the 95% percentile bootstrap interval
    of the mean, for which whole seeds are drawn with replacement. Without a key the returns are
    taken. LogError names a log that lacks the key.
    """
    points = _points(logs, key)
    groups = points.groupby(_GROUPS)
    values = groups["value"]
    named = {"at": groups["at"].mean(), "mean": values.mean(), "std": values.std(ddof=0)}
    table = pd.DataFrame({**named, "seeds": values.count()}).reset_index()
    if band == "std":
        return table.assign(low=table["mean"] - table["std"], high=table["mean"] + table["std"])
    intervals = []
    for (task, method), rows in points.groupby(_GROUPS[:2]):
        seeds = rows.pivot(index="step", columns="log", values="value")
        low, high = _bootstrap(seeds.to_numpy())
        ends = {"step": seeds.index, "low": low, "high": high}
        intervals.append(pd.DataFrame({"task": task, "method": method, **ends}))
    return table.merge(pd.concat(intervals), on=_GROUPS, validate="one_to_one")


def mean_curve(curves: Sequence[Curve], width: int) -> Curve:
    """Return the mean of curves, one a seed, in the bins where every one of them has a point.

    It stands at the mean step of the points, which keeps the crossings of a straight line.
    """
    bins = pd.concat([binned(curve, width) for curve in curves]).groupby(level=0)
    mean = bins.mean()[bins.size() == len(curves)]
    return Curve(mean["step"].round().to_numpy(np.int64), mean["value"].to_numpy())


def common_range(curves: Iterable[Curve]) -> tuple[int, int]:
    """Return the steps between which every curve has points; equal ones where there are none."""
    ends = [(curve.step[0], curve.step[-1]) for curve in curves]
    start, end = max(first for first, _ in ends), min(last for _, last in ends)
    return int(start), int(max(start, end))


def area(curve: Curve, start: int, end: int) -> float:
    """Return the area under a curve from start to end by the trapezoid rule, over (end - start).

    So it is in units of the value: its mean over these steps. NaN unless the curve spans them.
    """
    if start >= end or curve.step[0] > start or curve.step[-1] < end:
        return float("nan")
    inside = (curve.step > start) & (curve.step < end)
    steps = np.concatenate([[start], curve.step[inside], [end]])
    return float(np.trapezoid(np.interp(steps, *curve), steps) / (end - start))


def steps_to_reach(curve: Curve, score: float) -> float:
    """Return the step at which a curve first reaches a score, NaN if it never does.

    Between two points it is linear. Noise reaches scores early: give it a `mean_curve`.
    """
    reached = np.flatnonzero(curve.value >= score)
    if not len(reached):
        return float("nan")
    step, value = (axis[max(reached[0] - 1, 0) : reached[0] + 1] for axis in curve)
    return float(np.interp(score, value, step))


def _points(logs: Sequence[Log], key: str | None) -> pd.DataFrame:
    """Return a row for each log and bin: task, method, log (a number), step, at and value."""
    rows = []
    for task in {log.task: None for log in logs}:
        members = {i: log for i, log in enumerate(logs) if log.task == task}
        width = bin_width(log.curve(key) for log in members.values())
        for number, log in members.items():
            bins = binned(log.curve(key), width).rename(columns={"step": "at"}).rename_axis("step")
            rows.append(bins.reset_index().assign(task=task, method=log.method, log=number))
    return pd.concat(rows)


def _bootstrap(values: np.ndarray) -> np.ndarray:
    """Return the interval [2, bins] of the mean over seeds of values [bins, seeds], NaN if none."""
    seeds = values.shape[1]
    draws = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    drawn = np.ma.masked_invalid(values)[:, draws]
    return np.nanpercentile(drawn.mean(axis=2).filled(np.nan), [2.5, 97.5], axis=1)
