"""Shaded areas: how far seeds lie apart, and published curves beside them."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from dreamer_bird.analysis.baselines import PublishedCurve
from dreamer_bird.analysis.logs import Log
from dreamer_bird.analysis.statistics import aggregate, bin_width, binned

RESAMPLES = 2000  # of the seeds, for a bootstrap interval


def bands(logs: Sequence[Log], key: str | None, band: str) -> pd.DataFrame:
    """Return the table of `aggregate` with columns low and high, the ends of the shaded area.

    With band "std" they are a standard deviation from the mean, with "ci" the ends of the 95%
    percentile bootstrap interval of the mean, for which whole seeds are drawn with replacement.
    """
    table = aggregate(logs, key)
    if band == "std":
        return table.assign(low=table["mean"] - table["std"], high=table["mean"] + table["std"])
    intervals = pd.concat(_intervals(logs, key))
    return table.merge(intervals, on=["task", "method", "step"], validate="one_to_one")


def _intervals(logs: Sequence[Log], key: str | None) -> Iterator[pd.DataFrame]:
    for task in {log.task for log in logs}:
        runs = [(log, log.curve(key) if key else log.returns()) for log in logs if log.task == task]
        width = bin_width(curve for _, curve in runs)
        for method in {log.method for log, _ in runs}:
            curves = [binned(curve, width) for log, curve in runs if log.method == method]
            seeds = pd.concat([pd.Series(curve.value, curve.step) for curve in curves], axis=1)
            low, high = _bootstrap(seeds.to_numpy())
            ends = {"step": seeds.index, "low": low, "high": high}
            yield pd.DataFrame({"task": task, "method": method, **ends})


def _bootstrap(values: np.ndarray) -> np.ndarray:
    """Return the interval [2, bins] of the mean over seeds of values [bins, seeds], NaN if none."""
    seeds = values.shape[1]
    draws = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    drawn = np.ma.masked_invalid(values)[:, draws]
    return np.nanpercentile(drawn.mean(axis=2).filled(np.nan), [2.5, 97.5], axis=1)


def until(curve: PublishedCurve, end: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return step, mean and standard deviation [N] of a published curve up to a step.

    At that step they are interpolated; N is 0 where the curve starts after it.
    """
    steps = np.append(curve.step[curve.step < end], min(end, curve.step[-1]))
    steps = steps[steps >= curve.step[0]]
    mean, std = (np.interp(steps, curve.step, values) for values in (curve.mean, curve.std))
    return steps, mean, std
