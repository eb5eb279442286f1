"""Published returns on the tasks of the DeepMind Control Suite, from baselines/.

The commands always show them beside the logs of the same tasks; `--no-baselines` leaves them out.
A path that `is_baselines` may also be named, alone for all published tasks, or among logs.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

# Beside the package's modules when installed, else in the root of the checkout.
FOLDER = Path(__file__).parents[1] / "baselines"
if not FOLDER.exists():
    FOLDER = FOLDER.parents[1] / FOLDER.name


class Score(NamedTuple):
    """A published return of a method at one environment step."""

    task: str
    method: str
    step: int
    observation: str  # "pixels" or "state"
    score: float
    source: str
    note: str  # what sets it apart from the runs here; may be empty


class PublishedCurve(NamedTuple):
    """A published curve: mean, standard deviation and number of seeds [N] at steps [N]."""

    task: str
    method: str
    step: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    seeds: np.ndarray
    source: str
    note: str

    def until(self, end: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return step, mean and standard deviation [N] up to a step.

        At that step they are interpolated; N is 0 where the curve starts after it.
        """
        steps = np.append(self.step[self.step < end], min(end, self.step[-1]))
        steps = steps[steps >= self.step[0]]
        mean, std = (np.interp(steps, self.step, values) for values in (self.mean, self.std))
        return steps, mean, std


def published_scores(task: str | None = None) -> list[Score]:
    """Return the published scores on a task, or on all."""
    rows = _table("scores").itertuples(index=False, name=None)
    return [score for score in map(Score._make, rows) if task in (None, score.task)]


def published_curves(task: str | None = None) -> list[PublishedCurve]:
    """Return the published curves on a task, or on all."""
    curves = []
    for (name, method, source, note), rows in _table("curves").groupby(
        ["task", "method", "source", "note"]
    ):
        points = (rows[column].to_numpy() for column in ("step", "mean", "std", "seeds"))
        curves.append(PublishedCurve(name, method, *points, source, note))
    return [curve for curve in curves if task in (None, curve.task)]


def is_baselines(path: str | Path) -> bool:
    """Tell whether a path names the published returns: their folder or one of its files.

    The word baselines does so too where no such folder exists, as beside an installed program.
    """
    path = Path(path)
    if not path.exists():
        return str(path) == FOLDER.name
    return FOLDER in (path.resolve(), path.resolve().parent)


@cache
def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / f"{name}.csv", keep_default_na=False)
