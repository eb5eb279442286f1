"""The runs of a sweep: which they are, how far they have come, and what is left will take."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

from dreamer_bird.commands.arguments import check_importable, parse_flags
from dreamer_bird.config import Config, load
from dreamer_bird.errors import ConfigError, RunError
from dreamer_bird.training.checkpoint import load_header, newest_first
from dreamer_bird.training.logdir import check_logdir
from dreamer_bird.training.reporter import clock
from dreamer_bird.training.resources import disk_bytes, image_bytes, replay_bytes
from dreamer_bird.training.writers import check_loggers
from dreamer_bird.utils import machine
from dreamer_bird.utils.files import nearest_existing

# What may have become of a run, in the order in which they are counted, with their colours.
STATES = {"done": "green", "running": "", "retrying": "yellow", "waiting": "dim"}
STATES |= {"stopped": "yellow", "failed": "red"}
TAIL = 2**15  # bytes of the log that are read, about the last thirty episodes
RETURNS = ("train/return", "test/return")


@dataclass(eq=False)
class PlannedRun:
    """One run: its settings, the flags with which `run.py` trains it, and how far it is."""

    config: Config
    flags: list[str]
    state: str = "waiting"  # one of `STATES`
    reason: str = ""  # for which it failed, or is tried again
    failures: int = 0
    # What its log has told, None for what it does not.
    step: int = 0  # environment steps
    fps: float | None = None  # environment steps per second, the median of late
    last_return: float | None = None  # of training or evaluation, whichever came last

    @property
    def logdir(self) -> Path:
        """The run's own folder."""
        return Path(self.config.logdir)

    @property
    def name(self) -> str:
        """Task, variant and seed, as the folders are called."""
        return "/".join(self.logdir.parts[-3:])

    @property
    def log(self) -> Path:
        """The file for what the training command prints, beside the run's folder."""
        return self.logdir.with_name(f"{self.logdir.name}.log")

    @property
    def checkpoints(self) -> list[Path]:
        """The files of its checkpoints, newest first."""
        return newest_first(self.logdir / "checkpoints")

    def is_complete(self) -> bool:
        """Return whether the newest readable checkpoint is that of the run's end.

        The number of steps alone does not tell: a run may have stopped among its last updates.
        """
        for path in self.checkpoints:
            with suppress(RunError):
                # What `export --run` wrote, or `import`, is no training that came to its end.
                return load_header(path).get("saved_step", 0) >= self.config.steps
        return False

    def read_log(self) -> None:
        """See how far it is."""
        try:
            with (self.logdir / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
                tail = file.read()
        except OSError:  # there is none yet
            return
        lines = []
        for text in tail.splitlines():
            # One that is cut off, where the tail begins or where it is being written, is none.
            with suppress(ValueError, TypeError):
                lines.append(dict(json.loads(text)))
        returns = [line[key] for line in lines for key in RETURNS if line.get(key) is not None]
        speeds = [line["fps"] for line in lines if line.get("fps")]
        self.step = max((line.get("step", 0) for line in lines), default=0)
        self.fps = median(speeds) if speeds else None
        self.last_return = returns[-1] if returns else None

    def seconds_left(self, fps: float | None = None) -> float | None:
        """Return the time until its end, at its own speed or else at `fps`."""
        speed = self.fps or fps
        return max(0, self.config.steps - self.step) / speed if speed else None


def make_plan(
    tasks: Sequence[str],
    variants: Sequence[str],
    seeds: Iterable[int],
    settings: Sequence[str],
    logdir: Path,
) -> list[PlannedRun]:
    """Return the runs, seed by seed, so that what is done first can be compared.

    `settings` are flags of training. Raises ConfigError for what no run could have, and for a
    folder that holds something else; creates nothing.
    """
    values, presets = parse_flags(settings)
    runs: dict[Path, PlannedRun] = {}
    for seed, task, variant in product(seeds, tasks, variants):
        chosen = {"task": task, "variant": variant, "seed": seed}
        config = load(values | chosen | {"logdir": None}, presets)
        folder = Path(config.logdir).relative_to("logdir")  # as a run chooses it by itself
        chosen["logdir"] = str(logdir / folder)
        words = [str(word) for key, value in chosen.items() for word in (f"--{key}", value)]
        run = PlannedRun(config.replace(logdir=chosen["logdir"]), [*settings, *words])
        if run.logdir in runs:
            raise ConfigError(f"--tasks, --variants, --seeds: {run.name} would be there twice")
        check_logdir(run.config)
        check_loggers(run.config)
        check_importable(run.config)
        runs[run.logdir] = run
        run.read_log()
        if run.is_complete():
            run.state = "done"
    return list(runs.values())


def forecast(runs: Sequence[PlannedRun], at_once: int | None) -> Iterator[str]:
    """Yield lines on the time, memory and disk that the runs that are waiting will take.

    `at_once` is how many go on side by side, None where a cluster decides that.
    """
    todo = [run for run in runs if run.state == "waiting"]
    if not todo:
        return
    if speeds := [run.fps for run in runs if run.fps]:
        speed = median(speeds)
        left = [run.seconds_left(speed) for run in todo]
        text = f"time: {clock(sum(left))} of runs"
        if at_once:
            text += f", {clock(max(*left, sum(left) / at_once))} with {at_once} at once"
        yield f"{text}, at {speed:.1f} steps a second (the median of the logs there are)"
    else:
        yield "time: not known, since no run has a log yet; `bench --part run` measures the speed"

    each = max(replay_bytes(run.config, image_bytes(run.config)) for run in todo)
    text = f"memory: {each / 1e9:.2f} GB for the images in a run's replay when it is full"
    if at_once:
        free, _ = machine.free_memory()
        text += f", {each * at_once / 1e9:.2f} GB for {at_once}; {free / 1e9:.1f} GB are free"
    yield f"{text} (`doctor` measures what a run takes besides)"

    saved = [0]
    for path in (path for run in runs for path in run.checkpoints):
        with suppress(OSError):  # a run that is going on removes some
            saved.append(path.stat().st_size)
    configs, largest = [run.config for run in todo], max(saved)
    most = sum(disk_bytes(config, image_bytes(config), largest) for config in configs)
    besides = "logs and videos" if largest else "checkpoints, logs and videos"
    free = shutil.disk_usage(nearest_existing(todo[0].logdir)).free
    yield f"disk: {most / 1e9:.2f} GB at most besides {besides}; {free / 1e9:.1f} GB are free"
