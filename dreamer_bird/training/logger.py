"""Logs: metrics.jsonl in Dreamer's keys and units, TensorBoard, videos and the terminal."""

import json
import math
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

from dreamer_bird.training.video import encode_gif
from dreamer_bird.utils.files import replacing, set_aside, write_errors

FRAMES_PER_SECOND = 25


class Logger:
    """Everything that a run tells; all steps are environment steps.

    A context, in which a terminal shows how far the run is; the end of it closes everything.
    """

    def __init__(self, logdir: Path, steps: int, resumed_at: int, size: int | None):
        """Open the logs.

        Args:
            logdir: of the run.
            steps: at which the run will end.
            resumed_at: step from which the run goes on, 0 for a new one.
            size: bytes of metrics.jsonl that a checkpoint vouches for, None without one: lines
                after it belong to updates that will be done again.
        """
        self._logdir = logdir
        self._path = logdir / "metrics.jsonl"
        self._metrics = _open_metrics(self._path, size)
        self._writer = tf.summary.create_file_writer(str(logdir), max_queue=1000)
        self._terminal = Terminal(steps, resumed_at)

    def __enter__(self) -> "Logger":
        self._terminal.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sync(self) -> int:
        """Write all through to the disk, and return the bytes of metrics.jsonl."""
        self._writer.flush()
        with write_errors(self._path):
            self._metrics.flush()
            os.fsync(self._metrics.fileno())
            return self._metrics.seek(0, os.SEEK_END)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line of metrics.jsonl, and the same to TensorBoard.

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
        self.tensorboard(step, finite)

    def tensorboard(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars to TensorBoard alone."""
        with self._writer.as_default(step):
            for key, value in values.items():
                tf.summary.scalar(key if "/" in key else f"update/{key}", value)

    def video(self, step: int, name: str, frames: np.ndarray, save: bool = False) -> None:
        """Write a video `[T, H, W, 3]` to TensorBoard, and if `save` to `videos/` in the logdir."""
        gif = encode_gif(frames, FRAMES_PER_SECOND)
        summary = Summary()
        image = Summary.Image(
            height=frames.shape[1],
            width=frames.shape[2],
            colorspace=3,
            encoded_image_string=gif,
        )
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="images"))
        summary.value.add(tag=name, image=image, metadata=metadata)
        with self._writer.as_default(step):
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step)
        if save:
            path = self._logdir / "videos" / f"{name}-{step:010d}.gif"
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as file:
                file.write(gif)

    def say(self, text: str) -> None:
        """Print a line, above the progress line where there is one."""
        self._terminal.say(text)

    def progress(self, step: int, text: str) -> None:
        """Show how far the run is, by its step and in words."""
        self._terminal.progress(step, text)

    def close(self) -> None:
        """Write out and close everything."""
        self._terminal.close()
        with suppress(OSError):  # Lines are written out at once: it was told when that failed.
            self._metrics.close()
        self._writer.close()


class Terminal:
    """A progress line that stays in place on a terminal; a plain line an episode elsewhere."""

    def __init__(self, steps: int, resumed_at: int):
        self._console = Console(highlight=False)
        self._bar = None
        if self._console.is_terminal:
            self._bar = Progress(
                BarColumn(20),
                TextColumn("{task.description}"),
                console=self._console,
            )
            self._task = self._bar.add_task("starting", total=steps, completed=resumed_at)

    def start(self) -> None:
        """Show the progress line, below which the cursor is hidden until `close`."""
        if self._bar:
            self._bar.start()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, soft_wrap=True, markup=False)

    def progress(self, step: int, text: str) -> None:
        """Show how far the run is, by its step and in words."""
        if self._bar:
            self._bar.update(self._task, completed=step, description=text)
        else:
            self.say(text)

    def close(self) -> None:
        """Leave the progress line as it is."""
        if self._bar:
            self._bar.stop()


def _open_metrics(path: Path, size: int | None) -> TextIO:
    if size is None and path.exists() and path.stat().st_size:
        where = set_aside(path)
        warnings.warn(f"no checkpoint goes with {path}; it is kept as {where}", stacklevel=3)
    file = path.open("a")
    length = file.seek(0, os.SEEK_END)
    if length > (size or 0):
        file.truncate(size or 0)
    elif length < (size or 0):
        warnings.warn(f"{path} lacks lines that the checkpoint knows of", stacklevel=3)
        file.write("\n" if length else "")  # where the last line may have been cut off
    return file


def _whole(value: float) -> float | int:
    # Counters look like counters: 5, not 5.0.
    return int(value) if value == int(value) and abs(value) < 2**53 else value
