"""How reliable a difference is, across tasks and seeds: the statistics of the library rliable."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

REPETITIONS = 2000  # of the bootstrap
HIGHEST_RETURN = 1000  # of an episode in the DeepMind Control Suite: its returns are divided by it

# Score of each run by task and method, {"dmc_walker_walk": {"bird": [812.0, 903.5]}}.
Scores = Mapping[str, Mapping[str, Sequence[float]]]


class Estimate(NamedTuple):
    """A value and its 95% interval, None where a single run a task allows none."""

    value: float
    low: float | None
    high: float | None


def summarise(scores: Scores, against: str | None = None) -> dict:
    """Return what rliable says of the runs' returns on the tasks that every method ran.

    `tasks`: those tasks; `methods`: for each the interquartile mean `iqm` with `low` and `high`, of
    `runs` a task, and the `most` runs that a task has; `improvement`: the `probability` (`low`,
    `high`) that a run of `method` beats one of `other`, for all pairs or those with `against` as
    the other, of all runs. Returns are / 1000.
    """
    tasks, runs = by_method(scores)
    told = {"tasks": tasks, "methods": [], "improvement": []}
    for method, each in runs.items():
        # rliable needs as many runs on each task, so the first ones count where some have more.
        counts = sorted(map(len, each))
        estimate = interquartile_mean(np.stack([task[: counts[0]] for task in each], 1))
        names = {"method": method, "runs": counts[0], "most": counts[-1]}
        told["methods"].append(names | dict(zip(("iqm", "low", "high"), estimate, strict=True)))
    pairs = list(combinations(runs, 2))
    if against in runs:
        pairs = [(method, against) for method in runs if method != against]
    for method, other in pairs:
        chance, low, high = probability_of_improvement(runs[method], runs[other])
        names = {"method": method, "other": other}
        told["improvement"].append(names | {"probability": chance, "low": low, "high": high})
    return told


def by_method(scores: Scores) -> tuple[list[str], dict[str, list[np.ndarray]]]:
    """Return the tasks that every method ran, and each method's scores / 1000, `[runs]` a task."""
    methods = sorted({method for runs in scores.values() for method in runs})
    tasks = sorted(task for task, runs in scores.items() if all(map(runs.get, methods)))
    if not tasks:
        return [], {}
    return tasks, {
        method: [np.array(scores[task][method], float) / HIGHEST_RETURN for task in tasks]
        for method in methods
    }


def interquartile_mean(scores: np.ndarray) -> Estimate:
    """Return the interquartile mean of scores [runs, tasks]; its interval is stratified by task."""
    from rliable import metrics

    return _estimate([scores], metrics.aggregate_iqm, REPETITIONS)


def probability_of_improvement(
    scores: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> Estimate:
    """Return how likely a run of a method beats one of another, each `[runs]` a task."""
    from rliable import metrics

    def mean(*samples: np.ndarray) -> float:
        sides = samples[: len(scores)], samples[len(scores) :]
        return np.mean([*map(metrics.probability_of_improvement, *sides)])

    # A repetition takes a rank test for each task, a millisecond or so.
    repetitions = max(200, 1000 // len(scores))
    return _estimate([task[:, None] for task in (*scores, *others)], mean, repetitions)


def _estimate(scores: list[np.ndarray], metric: Callable, repetitions: int) -> Estimate:
    from rliable.library import get_interval_estimates

    before = np.random.get_state()
    np.random.seed(0)  # rliable draws from it: the same logs give the same table
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of arch, on how rliable calls it
            points, intervals = get_interval_estimates(
                {"": scores if len(scores) > 1 else scores[0]},
                lambda *samples: np.array([metric(*samples)]),
                reps=repetitions,
            )
    finally:
        np.random.set_state(before)
    value = float(points[""][0])
    if min(map(len, scores)) == 1:  # every resample is the same: an interval would mislead
        return Estimate(value, None, None)
    return Estimate(value, *map(float, intervals[""][:, 0]))
