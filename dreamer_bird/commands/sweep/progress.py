"""How far runs are, as their own logs tell, and what those that are left will take."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from dreamer_bird.commands.sweep.plan import WAITING, Run
from dreamer_bird.envs import OBSERVATIONS
from dreamer_bird.training.checkpoint import newest_first
from dreamer_bird.training.pace import clock
from dreamer_bird.training.resources import disk_bytes, replay_bytes
from dreamer_bird.utils import machine
from dreamer_bird.utils.files import nearest_existing

TAIL = 2**15  # bytes of the log that are read, about the last thirty episodes
RETURNS = ("train/return", "test/return")


class Progress(NamedTuple):
    """How far a run is, None for what its log does not tell."""

    step: int = 0  # environment steps
    fps: float | None = None  # environment steps per second, the median of late
    last_return: float | None = None  # of training or evaluation, whichever came last

    def seconds_left(self, steps: int, fps: float | None = None) -> float | None:
        """Return the time until a step, at the run's speed or else at `fps`."""
        speed = self.fps or fps
        return max(0, steps - self.step) / speed if speed else None


def read_progress(logdir: Path) -> Progress:
    """Return how far the run in a folder is."""
    try:
        with (logdir / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            tail = file.read()
    except OSError:  # there is none yet
        return Progress()
    lines = []
    for text in tail.splitlines():
        with suppress(ValueError):  # where the tail begins, and where one is being written
            lines.append(json.loads(text))
    returns = [line[key] for line in lines for key in RETURNS if line.get(key) is not None]
    speeds = [line["fps"] for line in lines if line.get("fps")]
    return Progress(
        max((line["step"] for line in lines), default=0),
        median(speeds) if speeds else None,
        returns[-1] if returns else None,
    )


def forecast(runs: Sequence[Run], at_once: int | None) -> Iterator[str]:
    """Yield lines on the time, memory and disk that the runs that are waiting will take.

    `at_once` is how many go on side by side, None where a cluster decides that.
    """
    todo = [run for run in runs if run.state == WAITING]
    if todo:
        yield _time(runs, todo, at_once)
        yield _memory(todo, at_once)
        yield _disk(runs, todo)


def _time(runs: Sequence[Run], todo: Sequence[Run], at_once: int | None) -> str:
    known = {run.name: read_progress(run.logdir) for run in runs}
    speeds = [progress.fps for progress in known.values() if progress.fps]
    if not speeds:
        return "time: not known, since no run has a log yet; `bench --part run` measures the speed"
    left = [known[run.name].seconds_left(run.config.steps, median(speeds)) for run in todo]
    text = f"time: {clock(sum(left))} of runs"
    if at_once is not None:
        text += f", {clock(max([*left, sum(left) / at_once]))} with {at_once} at once"
    return f"{text}, at {median(speeds):.1f} steps a second (the median of the logs there are)"


def _memory(todo: Sequence[Run], at_once: int | None) -> str:
    each = max(replay_bytes(run.config, _frame_bytes(run)) for run in todo)
    text = f"memory: {each / 1e9:.2f} GB for the images in a run's replay when it is full"
    if at_once is not None:
        free, _ = machine.free_memory()
        text += f", {each * at_once / 1e9:.2f} GB for {at_once}; {free / 1e9:.1f} GB are free"
    return f"{text} (`doctor` measures what a run takes besides)"


def _disk(runs: Sequence[Run], todo: Sequence[Run]) -> str:
    saved = [path.stat().st_size for run in runs for path in newest_first(_checkpoints(run))]
    most = sum(disk_bytes(run.config, _frame_bytes(run), max(saved, default=0)) for run in todo)
    besides = "logs and videos" if saved else "checkpoints, logs and videos"
    free = shutil.disk_usage(nearest_existing(todo[0].logdir)).free
    return f"disk: {most / 1e9:.2f} GB at most besides {besides}; {free / 1e9:.1f} GB are free"


def _checkpoints(run: Run) -> Path:
    return run.logdir / "checkpoints"


def _frame_bytes(run: Run) -> int:
    """Return the bytes of an image; of a state only the environment knows the size, a small one."""
    return 3 * run.config.env.size**2 * ("image" in OBSERVATIONS[run.config.obs])
