"""Where the training metrics of two methods, or of two logs, part."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dreamer_bird.analysis.curves import Curve
from dreamer_bird.analysis.logs import Log
from dreamer_bird.analysis.statistics import bin_width, binned

# Losses, divergences, entropies, norms of gradients: what training minimises, or watches.
_METRIC = re.compile(r"(?:.*_)?(?:loss|grad_norm|div|kl|ent|entropy|error)")
_DEVIATIONS = 2  # of the noise of both sides, which a difference must exceed
_SHARE = 0.1  # of the range both sides keep to, which it must exceed as well
_ROUNDING = 1e-5  # of the larger value: what float32 and another machine may do
_STAYS = 0.9  # of the bins from there to the end, in which it must
_BINS = 3  # at the end, at the least


def between_methods(logs: Sequence[Log], against: str | None) -> list[dict]:
    """Compare each method with `against`, or else two methods, or the two logs of one method.

    The logs are of one task. Each of the list has the names `first` and `second`, and `metrics` as
    `differences` returns them.
    """
    sides: dict[str, list[Log]] = {}
    for log in logs:
        sides.setdefault(log.method, []).append(log)
    if len(sides) == 1 and len(logs) == 2:
        sides = {f"{log.method}, seed {log.seed}": [log] for log in logs}
    if against in sides:
        pairs = [(name, against) for name in sides if name != against]
    else:
        pairs = [tuple(sides)] if len(sides) == 2 else []
    found = []
    for first, second in pairs:
        if metrics := differences(sides[first], sides[second]):
            found.append({"first": first, "second": second, "metrics": metrics})
    return found


def differences(first: Sequence[Log], second: Sequence[Log]) -> list[dict]:
    """Compare each training metric that all logs hold, sorted by `key`.

    `first` and `second` are the means over the last quarter of the steps; `step` is the environment
    step at which they part, None where they never part for good. Both sides are binned alike, and
    averaged over their seeds. They part at the first bin from which on 9 of 10 bins (3 at the
    least) differ by more than 2 standard deviations (the root of the sum of both squares) and by
    more than a tenth of the distance between the 10th and 90th percentile of all their bins. The
    standard deviation is that over the seeds, or for a single log that of its noise between bins.
    """
    logs = [*first, *second]
    keys = set.intersection(*(set(log.curves) for log in logs))
    found = []
    for key in sorted(filter(_METRIC.fullmatch, keys)):
        width = bin_width(log.curves[key] for log in logs)
        sides = [_side([log.curves[key] for log in side], width) for side in (first, second)]
        table = pd.concat(sides, axis=1, keys=["first", "second"], join="inner")
        if len(table):
            late = table[table.index >= table.index[-1] - (table.index[-1] - table.index[0]) / 4]
            ends = {side: float(late[side, "mean"].mean()) for side in ("first", "second")}
            found.append({"key": key, **ends, "step": _parting(table)})
    return found


def _side(curves: Sequence[Curve], width: int) -> pd.DataFrame:
    """Return mean and noise by step, in the bins where every curve has a point."""
    values = [binned(curve, width)["value"] for curve in curves]
    table = pd.concat(values, axis=1, join="inner").sort_index()
    mean, noise = table.mean(axis=1), table.std(axis=1)
    if len(curves) == 1:
        # The deviation of independent noise, from the median change between bins: a few jumps do
        # not move it. Half of all normal numbers are within 0.6745 deviations.
        noise = mean.diff().abs().median() / (0.6745 * np.sqrt(2))
    return pd.DataFrame({"mean": mean, "noise": noise})


def _parting(table: pd.DataFrame) -> int | None:
    first, second = table["first"], table["second"]
    means = np.stack([first["mean"], second["mean"]])
    apart = np.abs(means[0] - means[1])
    beyond = apart > _DEVIATIONS * np.hypot(first["noise"], second["noise"]).to_numpy()
    beyond &= apart > _SHARE * np.subtract(*np.percentile(means, (90, 10)))
    beyond &= apart > _ROUNDING * np.abs(means).max(axis=0)
    left = np.arange(len(beyond), 0, -1)
    share = np.cumsum(beyond[::-1])[::-1] / left
    parted = np.flatnonzero(beyond & (share >= _STAYS) & (left >= _BINS))
    return int(table.index[parted[0]]) if len(parted) else None
