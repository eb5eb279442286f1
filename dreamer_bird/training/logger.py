"""Logs: metrics.jsonl in Dreamer's keys and units, videos and the terminal."""

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from dreamer_bird.envs.checks import named
from dreamer_bird.training.video import FRAMES_PER_SECOND, encode_gif
from dreamer_bird.training.writers import ENDING, STOPPING, Writer
from dreamer_bird.utils.files import replacing, set_aside, write_errors
from dreamer_bird.utils.signals import Stopped


class Logger:
    """Everything that a run tells; all steps are environment steps.

    A context, in which a terminal shows how far the run is; the end of it closes everything.
    """

    def __init__(
        self,
        logdir: Path,
        steps: int,
        resumed_at: int,
        size: int | None,
        writers: Sequence[Writer] = (),
    ):
        """Open the logs of a run from step `resumed_at` to `steps`; `writers` get the same scalars.

        `size` is the bytes of metrics.jsonl that a checkpoint vouches for, None without one: lines
        after it belong to updates that will be done again.
        """
        self._logdir = logdir
        self._path = logdir / "metrics.jsonl"
        self._metrics = _open_metrics(self._path, size)
        self._given_up: set[str] = set()
        self._writers = writers
        self._console = Console(highlight=False)
        plain = not self._console.is_terminal  # a line an episode, else one that stays in place
        columns = BarColumn(20), TextColumn("{task.description}")
        self._bar = Progress(*columns, console=self._console, disable=plain)
        self._task = self._bar.add_task("starting", total=steps, completed=resumed_at)

    def __enter__(self) -> "Logger":
        self._bar.start()  # below which the cursor is hidden until `close`
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(STOPPING if error and issubclass(error, Stopped) else ENDING)

    def sync(self) -> int:
        """Write all through to the disk, and return the bytes of metrics.jsonl."""
        self._to_writers(lambda writer: writer.flush())
        with write_errors(self._path):
            self._metrics.flush()
            os.fsync(self._metrics.fileno())
            return self._metrics.seek(0, os.SEEK_END)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line of metrics.jsonl, and hand the same to all writers.

        A value that is not finite is written as null and counted in `nonfinite`.
        """
        values = {key: float(value) for key, value in values.items()}
        finite = {key: value for key, value in values.items() if math.isfinite(value)}
        line = {"step": step} | {
            key: _whole(value) if key in finite else None for key, value in values.items()
        }
        if len(finite) < len(values):
            line["nonfinite"] = len(values) - len(finite)
        with write_errors(self._path):
            self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
            self._metrics.flush()
        self.beside(step, finite)

    def attempt(self, what: str, write: Callable[[], None]) -> None:
        """Do what a run can do without; where it fails, warn, and do it no more."""
        if what in self._given_up:
            return
        try:
            write()
        except Exception as error:  # whatever it is
            self._given_up.add(what)
            warnings.warn(f"{what}: {named(error)}; training goes on without it", stacklevel=2)

    def beside(self, step: int, values: Mapping[str, float]) -> None:
        """Hand scalars to the writers alone."""
        self._to_writers(lambda writer: writer.scalars(step, values))

    def video(
        self, step: int, name: str, frames: Callable[[], np.ndarray], save: bool = False
    ) -> None:
        """Write what `frames` returns, a video `[T, H, W, 3]`, as far as that is possible.

        To TensorBoard, and if `save` to `videos/` in the logdir.
        """
        self.attempt(f"video {name}", lambda: self._video(step, name, frames(), save))

    def _video(self, step: int, name: str, frames: np.ndarray, save: bool) -> None:
        gif = encode_gif(frames, FRAMES_PER_SECOND)
        self._to_writers(lambda writer: writer.gif(step, name, gif, frames.shape))
        if save:
            path = self._logdir / "videos" / f"{name}-{step:010d}.gif"
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as file:
                file.write(gif)

    def say(self, text: str) -> None:
        """Print a line, above the progress line where there is one."""
        self._console.print(text, soft_wrap=True, markup=False)

    def progress(self, step: int, text: str) -> None:
        """Show how far the run is, by its step and in words."""
        self._bar.update(self._task, completed=step, description=text)
        if self._bar.disable:
            self.say(text)

    def close(self, patience: float = ENDING) -> None:
        """Write out and close everything, services within so many seconds each."""
        self._bar.stop()
        with suppress(OSError):  # Lines are written out at once: it was told when that failed.
            self._metrics.close()
        self._to_writers(lambda writer: writer.close(patience))

    def _to_writers(self, write: Callable[[Writer], None]) -> None:
        for writer in self._writers:
            self.attempt(writer.name, partial(write, writer))


def _open_metrics(path: Path, size: int | None) -> TextIO:
    if size is None and path.exists() and path.stat().st_size:
        where = set_aside(path)
        warnings.warn(f"no checkpoint goes with {path}; it is kept as {where}", stacklevel=3)
    file = path.open("a")
    length, size = file.seek(0, os.SEEK_END), size or 0
    if length > size:
        file.truncate(size)
    elif length < size:
        warnings.warn(f"{path} lacks lines that the checkpoint knows of", stacklevel=3)
        file.write("\n" if length else "")  # where the last line may have been cut off
    return file


def _whole(value: float) -> float | int:
    # Counters look like counters: 5, not 5.0.
    return int(value) if value == int(value) and abs(value) < 2**53 else value
