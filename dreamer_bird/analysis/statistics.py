"""Statistics of curves; steps are environment steps, standard deviations those of a population.

Curves rarely share their steps, so they are compared in bins of one width w: bin k holds the points
in ((k - 1/2) w, (k + 1/2) w] and stands at its centre k w. A seed without a point in a bin does not
count there.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t as student

from dreamer_bird.analysis.curves import Curve
from dreamer_bird.analysis.logs import Log

_GROUPS = ["task", "method", "step"]
BINS = 50  # about as many as the longest curve is cut into
LATE = 0.2  # of the steps, the last ones, over which a final value is a mean


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

    So a straight line keeps its values. Before the first mean and after the last their values hold;
    NaN if the nearest mean is more than half a width away.
    """
    bins = binned(curve, width)
    if not len(bins) or 2 * (bins["step"] - step).abs().min() > width:
        return float("nan")
    return float(np.interp(step, bins["step"], bins["value"]))


def late_from(end: int, width: int) -> int:
    """Return where the steps begin over which a final value is a mean: the last fifth, or a bin."""
    return int(max(0, min((1 - LATE) * end, end - width)))


def late_mean(curve: Curve, end: int, width: int) -> float:
    """Return the mean of a curve's points from `late_from` to the end.

    NaN if its last point is more than a width before the end.
    """
    late = curve.value[(curve.step >= late_from(end, width)) & (curve.step <= end)]
    return float(late.mean()) if curve.step[-1] >= end - width and len(late) else float("nan")


def spread(values: Iterable[float]) -> tuple[float, float, int]:
    """Return mean, standard deviation (NaN of one) and number of one value a seed, but for NaN."""
    values = pd.Series(list(values), dtype=float).dropna()
    return values.mean(), values.std(ddof=0) if len(values) > 1 else float("nan"), len(values)


def bands(logs: Sequence[Log], key: str | None, band: str) -> pd.DataFrame:
    """Return the tidy table of means over seeds, a row for each task, method and bin.

    Columns: task, method, step (centre of the bin), at (mean step of the points in it, where curves
    are drawn), mean, std (of a population), seeds (with a point in the bin), low and high (ends of
    the shaded area); sorted by task, method and step. One seed has neither a deviation nor a shade:
    they are NaN. With band "std" the ends are a standard deviation from the mean, with "ci" those
    of the 95% confidence interval of the mean by Student's t distribution, which few seeds need.
    Without a key the returns are taken. LogError names a log that lacks the key.
    """
    groups = _points(logs, key).groupby(_GROUPS)
    values = groups["value"]
    named = {"at": groups["at"].mean(), "mean": values.mean(), "std": values.std(ddof=0)}
    table = pd.DataFrame({**named, "seeds": values.count()}).reset_index()
    table["std"] = table["std"].where(table["seeds"] > 1)
    free = table["seeds"] - 1
    # A population's deviation over the root of n - 1 is the standard error of the mean.
    reach = table["std"] * (student.ppf(0.975, free) / np.sqrt(free) if band == "ci" else 1)
    return table.assign(low=table["mean"] - reach, high=table["mean"] + reach)


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
