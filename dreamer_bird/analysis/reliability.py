"""How reliable a difference is, across tasks and seeds: the statistics of the library rliable."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

REPETITIONS = 10_000  # of the bootstrap of one task: other seeds change the third digit
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

    `tasks`: those tasks; `methods`: for each the interquartile mean `iqm` with `low` and `high`,
    and its `least` and `most` runs on a task; `improvement`: the `probability` (`low`, `high`) that
    a run of `method` beats one of `other`, for all pairs or those with `against` as the other. All
    runs count. Returns are / 1000.
    """
    tasks, runs = by_method(scores)
    told = {"tasks": tasks, "methods": [], "improvement": []}
    for method, each in runs.items():
        counts = [*map(len, each)]
        names = {"method": method, "least": min(counts), "most": max(counts)}
        told["methods"].append(names | _named("iqm", interquartile_mean(each)))
    pairs = list(combinations(runs, 2))
    if against in runs:
        pairs = [(method, against) for method in runs if method != against]
    for method, other in pairs:
        chance = probability_of_improvement(runs[method], runs[other])
        names = {"method": method, "other": other}
        told["improvement"].append(names | _named("probability", chance))
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


def interquartile_mean(scores: Sequence[np.ndarray]) -> Estimate:
    """Return the mean of the middle half of scores, `[runs]` a task; all tasks weigh alike."""
    from rliable import metrics

    # rliable's metric takes as many runs of each task: each is repeated until they are.
    most = np.lcm.reduce([*map(len, scores)])

    def mean(*tasks: np.ndarray) -> float:
        return metrics.aggregate_iqm([np.repeat(task, most // len(task)) for task in tasks])

    return _estimate(scores, mean)


def probability_of_improvement(
    scores: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> Estimate:
    """Return how likely a run of a method beats one of another, each `[runs]` a task.

    It is rliable's metric, a tie counting half, without the rank test that makes it slow.
    """

    def mean(*samples: np.ndarray) -> float:
        sides = zip(samples[: len(scores)], samples[len(scores) :], strict=True)
        return np.mean([np.sign(ours - theirs.T).mean() / 2 + 0.5 for ours, theirs in sides])

    return _estimate([*scores, *others], mean)


def _estimate(scores: Sequence[np.ndarray], metric: Callable) -> Estimate:
    """Return a metric of scores, `[runs]` each, with an interval by drawing runs of each anew."""
    from rliable.library import get_interval_estimates

    columns = [each[:, None] for each in scores]  # one score of each run, as rliable takes them
    before, tasks = np.random.get_state(), len(scores)
    np.random.seed(0)  # rliable draws from it: the same logs give the same table
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of arch, on how rliable calls it
            points, intervals = get_interval_estimates(
                {"": columns if len(columns) > 1 else columns[0]},
                lambda *samples: np.array([metric(*samples)]),
                reps=max(REPETITIONS // tasks, REPETITIONS // 10),  # each takes longer, too
            )
    finally:
        np.random.set_state(before)
    value = float(points[""][0])
    if min(map(len, scores)) == 1:  # of one run all resamples are the same, and too alike
        return Estimate(value, None, None)
    return Estimate(value, *map(float, intervals[""][:, 0]))


def _named(name: str, estimate: Estimate) -> dict[str, float | None]:
    return dict(zip((name, "low", "high"), estimate, strict=True))
